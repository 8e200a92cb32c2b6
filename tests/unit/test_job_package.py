"""What travels with a sweep: exactly what it names, at places where its own paths still lead there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import UsageError
from orchestrator.jobs.package import Package, bare_package, is_sent, package_of
from orchestrator.spec.file import load_sweep

SEARCH = {"name": "own", "kind": "custom", "policy": "policy", "scorer": "prm", "budgets": [4]}


def write(folder: Path, problems: dict[str, Any], functions: tuple[str, ...] = ()) -> Path:
    """A sweep file with these problems, and a strategy of one's own for each function."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": "travels",
        "problems": problems,
        "models": {"policy": {"embedded": "arithmetic"}},
        "scorers": {"prm": {"kind": "prm", "embedded": "arithmetic-prm-soft"}},
        "strategies": [
            {"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 4},
            *({**SEARCH, "name": f"own{i}", "function": each} for i, each in enumerate(functions)),
        ],
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def packed(path: Path, **options: Any) -> Package:
    return package_of(load_sweep(path), path, **options)


def targets(package: Package) -> set[str]:
    return {each.shown for each in package.files}


@pytest.mark.parametrize(
    "named", ["p.jsonl", "./data/p.jsonl", "../p.jsonl", "../../x/../data/p.jsonl", "x/../../p.jsonl"]
)
def test_the_paths_of_the_sweep_lead_to_its_files(named: str, tmp_path: Path) -> None:
    path = write(tmp_path / "here" / "a" / "b", {"path": named})
    (path.parent / named).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / named).write_text("these\n")
    package = packed(path)
    package.write(tmp_path / "there")
    assert package.sweep is not None
    arrived = tmp_path / "there" / package.sweep
    assert arrived.read_bytes() == path.read_bytes()
    assert (arrived.parent / named).read_text() == "these\n"
    assert len(package.files) == 3
    assert not any("here" in target for target in targets(package))  # no folder of this machine is named


def test_nothing_else_travels(tmp_path: Path) -> None:
    path = write(tmp_path, {"path": "p.jsonl"})
    for name in ("p.jsonl", ".env", "ttc.db", "ttc.db-wal", "notes.txt", "id_rsa"):
        (tmp_path / name).write_text("x")
    for folder in (".git", ".venv", "data"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.jsonl").write_text("x")
    package = packed(path)
    assert targets(package) == {"job.sh", "sweep/sweep.yaml", "sweep/p.jsonl"}
    package.write(tmp_path / "there")
    there = tmp_path / "there"
    assert {str(each.relative_to(there)) for each in there.rglob("*") if each.is_file()} == targets(package)


@pytest.mark.parametrize("problems", [{"preset": "arithmetic"}, {"path": "/data/of/the/cluster.jsonl"}])
def test_what_the_cluster_has_does_not_travel(problems: dict[str, Any], tmp_path: Path) -> None:
    assert targets(packed(write(tmp_path, problems))) == {"job.sh", "sweep/sweep.yaml"}
    assert not is_sent(problems.get("path"))


def test_a_job_without_a_file_needs_the_script_alone() -> None:
    assert targets(bare_package()) == {"job.sh"}


def test_strategies_of_ones_own_travel_where_they_are_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    (library / "travelling_package" / "deep").mkdir(parents=True)
    (library / "travelling_package" / ".cache").mkdir()
    (library / "travelling_module.py").write_text("")
    for name in ("__init__.py", "deep/inner.py", ".cache/old.py", "secret.env", "weights.db"):
        (library / "travelling_package" / name).write_text("")
    monkeypatch.syspath_prepend(str(library))
    functions = ("travelling_module:f", "travelling_package.deep.inner:g", "travelling_module:h")
    package = packed(write(tmp_path, {"preset": "arithmetic"}, functions))
    assert targets(package) - {"job.sh", "sweep/sweep.yaml"} == {
        "travelling_module.py", "travelling_package/__init__.py", "travelling_package/deep/inner.py",
    }  # fmt: skip
    assert len(package.files) == 5


@pytest.mark.parametrize("function", ["workers.strategies.beam:beam", "json:loads", "numpy:array", "entry"])
def test_what_is_installed_does_not_travel(function: str, tmp_path: Path) -> None:
    package = packed(write(tmp_path, {"preset": "arithmetic"}, (function,)))
    assert targets(package) == {"job.sh", "sweep/sweep.yaml"}


def test_too_much_is_refused_with_the_largest_file_and_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, {"path": "p.jsonl"})
    with (tmp_path / "p.jsonl").open("wb") as file:
        file.truncate(100_000_000)  # sparse
    with pytest.raises(UsageError) as caught:
        packed(path)
    text = str(caught.value)
    assert "p.jsonl" in text
    assert "100.0 MB" in text
    assert "absolute path" in text
    assert packed(path, max_bytes=100_100_000).size_bytes > 100_000_000


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jsonl: is no file"):
        packed(write(tmp_path, {"path": "nowhere.jsonl"}))
