"""What is handed to a cluster: which database a job uses, and that no password leaves this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import UsageError
from orchestrator.execution.ray_runtime import RayUnavailable
from orchestrator.jobs.submission import JobDatabase, JobWords, choose_database, submit_file
from orchestrator.spec.file import sweep_from
from tests.chaos.processes import free_port

ADDRESS = "http://127.0.0.1:8265"
PASSWORD = "geheim"
SWEEP: dict[str, Any] = {
    "name": "handed",
    "problems": {"preset": "arithmetic", "per_level": 1},
    "models": {"policy": {"embedded": "arithmetic"}},
    "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 2}],
}


def chosen(
    db: str | None = None,
    variable: str | None = None,
    *,
    environ: str | None = None,
    store: str | None = None,
) -> JobDatabase:
    words = JobWords(ADDRESS, db, variable)
    spec = sweep_from({**SWEEP, **({} if store is None else {"store": store})})
    return choose_database(words, spec, {} if environ is None else {"TTC_DATABASE_URL": environ})


def test_the_command_line_goes_before_the_environment_and_that_before_the_file() -> None:
    first, second, third = (f"postgresql://u@h/{name}" for name in ("a", "b", "c"))
    assert chosen(first, environ=second, store=third) == JobDatabase(("--db", first))
    assert chosen(variable="THEIRS", environ=second, store=third) == JobDatabase(variable="THEIRS")
    assert chosen(environ=second, store=third) == JobDatabase(("--db", second))
    assert (
        chosen(store=third) == JobDatabase()
    )  # as everywhere, the variable of the head would override the file
    assert chosen() == JobDatabase(variable="TTC_DATABASE_URL")


def test_a_file_of_the_head_is_named_as_a_url() -> None:
    assert chosen("/data/ttc.db") == JobDatabase(("--db", "sqlite:////data/ttc.db"))
    assert chosen("sqlite:////data/ttc.db") == JobDatabase(("--db", "sqlite:////data/ttc.db"))


@pytest.mark.parametrize("url", [f"postgresql://u:{PASSWORD}@h/d", f"postgresql://u@h/d?password={PASSWORD}"])
@pytest.mark.parametrize("place", ["db", "environ", "store"])
def test_a_password_is_refused_wherever_it_stands_and_not_shown(place: str, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(**{place: url})  # type: ignore[arg-type]
    text = str(caught.value)
    assert PASSWORD not in text
    assert "password" in text
    assert "--db-env" in text


def test_a_password_in_the_file_is_refused_even_if_the_file_does_not_count() -> None:
    with pytest.raises(UsageError, match="password"):
        chosen(variable="THEIRS", store=f"postgresql://u:{PASSWORD}@h/d")


@pytest.mark.parametrize("url", ["ttc.db", "./ttc.db", "sqlite:///ttc.db"])
@pytest.mark.parametrize("place", ["db", "environ", "store"])
def test_a_relative_file_is_refused(place: str, url: str) -> None:
    with pytest.raises(UsageError, match=r"relative path(.|\n)*sqlite:////"):
        chosen(**{place: url})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"db": "mysql://u@h/d"}, "is not the URL of a SQLite or PostgreSQL database"),
        ({"variable": "postgresql://u@h/d"}, "wants the name of a variable"),
        ({"db": "/data/ttc.db", "variable": "THEIRS"}, "excludes --db"),
    ],
)
def test_what_means_nothing_is_refused(words: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(**words)  # type: ignore[arg-type]


def write(folder: Path, **changed: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changed}))
    return path


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "auto", "ray://h:10001"])
def test_an_address_that_takes_no_jobs_is_refused(address: str, tmp_path: Path) -> None:
    words = JobWords(address, "/data/ttc.db")
    with pytest.raises(UsageError, match=r"(?s)--address.*http://HEAD:8265"):
        submit_file(write(tmp_path), words, is_json=False)


def test_a_dashboard_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    words = JobWords(f"http://127.0.0.1:{free_port()}", "/data/ttc.db")
    with pytest.raises(RayUnavailable, match=r"(?s)nothing listens.*ray start --head"):
        submit_file(write(tmp_path), words, is_json=False)


def test_wrong_problems_are_said_here_and_not_by_the_job(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"problem": "1 + 1?"}\n')
    path = write(tmp_path, problems={"path": "p.jsonl"})
    with pytest.raises(UsageError, match="answer"):
        submit_file(path, JobWords(ADDRESS, "/data/ttc.db"), is_json=False)


def test_an_own_strategy_that_cannot_be_had_is_said_here(tmp_path: Path) -> None:
    own = {
        "name": "own",
        "kind": "custom",
        "function": "no_such_module:f",
        "policy": "policy",
        "scorer": "prm",
    }
    path = write(
        tmp_path,
        scorers={"prm": {"kind": "prm", "embedded": "arithmetic-prm-soft"}},
        strategies=[*SWEEP["strategies"], {**own, "budgets": [4]}],
    )
    with pytest.raises(UsageError, match="no_such_module"):
        submit_file(path, JobWords(ADDRESS, "/data/ttc.db"), is_json=False)
