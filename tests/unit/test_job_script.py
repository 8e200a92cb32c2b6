"""The script that starts ttc on a head, as a shell runs it: what it looks for is found, or its lack is said."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = str(files("orchestrator.jobs") / "job.sh")
ROOT = str(Path(__file__).parents[2])
NO_PATH = "/nowhere"


def run(
    python: str, fallback: str, variable: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What Ray does; without an interpreter on the PATH that has ttc."""
    kept = {"PATH": "/usr/bin:/bin", "HOME": NO_PATH, "PYTHONPATH": ROOT}
    return subprocess.run(
        ["sh", SCRIPT, python, fallback, variable, *arguments], env={**kept, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def python_that_shows(folder: Path) -> str:
    """An "interpreter" that has ttc, and shows how it was called and what a job of Ray is told."""
    path = folder / "bin" / "python"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '#!/bin/sh\n[ $# -gt 2 ] || exit 0\nshift 2\nprintf "%s\\n" "$@" "$TTC_DATABASE_URL" "$TTC_STOP_WINDOW_S"\n'
    )
    path.chmod(0o755)
    return str(path)


def test_ttc_runs_with_the_arguments_as_they_are() -> None:
    said = run(sys.executable, "", "", "plan", "no such file; echo $HOME")
    assert said.returncode == 2
    assert "error: no such file; echo $HOME: does not exist" in said.stderr
    assert f"ttc runs with {sys.executable}" in said.stdout


@pytest.mark.parametrize("where", ["python", "TTC_PYTHON", "fallback", "cluster.yaml", "PATH"])
def test_the_interpreter_is_found(where: str, tmp_path: Path) -> None:
    python = python_that_shows(tmp_path)
    environment = {}
    if where == "TTC_PYTHON":
        environment["TTC_PYTHON"] = python
    elif where == "PATH":
        (tmp_path / "bin" / "python3").symlink_to(python)
        environment["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    elif where == "cluster.yaml":
        home = tmp_path / "home" / "ttc" / ".venv" / "bin"
        home.mkdir(parents=True)
        (home / "python").symlink_to(python)
        environment["HOME"] = str(tmp_path / "home")
    said = run(
        python if where == "python" else "",
        python if where == "fallback" else "",
        "",
        "status",
        **environment,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[1] == "status"


def test_a_tilde_is_the_home_of_the_head(tmp_path: Path) -> None:
    python_that_shows(tmp_path)
    said = run("~/bin/python", "", "", "status", HOME=str(tmp_path))
    assert said.returncode == 0, said.stderr
    said = run("", "", "", "status", TTC_PYTHON="~/bin/python", HOME=str(tmp_path))
    assert said.returncode == 0, said.stderr


def test_an_interpreter_without_ttc_is_said_at_once() -> None:
    for python in ("/nowhere/python", "/bin/false"):
        said = run(python, sys.executable, "", "status")
        assert said.returncode == 2
        assert f"error: {python} on the head" in said.stderr
        assert "    -> " in said.stderr


def test_a_head_without_ttc_is_said_at_once() -> None:
    said = run("", "/nowhere/python", "", "status", PYTHONPATH="", PATH="/usr/sbin:/usr/bin:/bin")
    if said.returncode == 0:
        pytest.skip("python3 of this machine has ttc")
    assert said.returncode == 2
    assert "no interpreter on the head" in said.stderr
    assert "--python" in said.stderr


@pytest.mark.parametrize(
    "url", ["sqlite:////data/ttc.db", "/data/ttc.db", "postgresql://u:p@h/d", "postgresql:///d"]
)
def test_the_database_comes_from_a_variable_of_the_head(url: str, tmp_path: Path) -> None:
    said = run(python_that_shows(tmp_path), "", "THEIRS", "status", THEIRS=url)
    assert said.stdout.splitlines()[1:] == ["status", url, "3"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "THEIRS is not set"),
        ("sqlite:///ttc.db", "THEIRS names a SQLite file by a relative path"),
        ("ttc.db", "THEIRS names a SQLite file by a relative path"),
    ],
)
def test_a_database_that_is_none_is_refused(url: str, reason: str, tmp_path: Path) -> None:
    said = run(python_that_shows(tmp_path), "", "THEIRS", "status", THEIRS=url)
    assert said.returncode == 2
    assert reason in said.stderr
    assert "    -> " in said.stderr


def test_a_job_knows_how_long_it_has_when_it_is_to_stop(tmp_path: Path) -> None:
    said = run(python_that_shows(tmp_path), "", "", "status", RAY_JOB_STOP_WAIT_TIME_S="45")
    assert said.stdout.splitlines()[-1] == "45"
