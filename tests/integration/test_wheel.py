"""The wheel is whole: installed away from the checkout it runs `ttc`, migrations and models included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = {
    "name": "wheel",
    "problems": {"preset": "arithmetic", "per_level": 1},
    "models": {"policy": {"embedded": "arithmetic", "sampling": {"max_tokens": 40}}},
    "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 2}],
}


@pytest.fixture(scope="module")
def installed_ttc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ttc` of a venv that holds the wheel, and finds the dependencies (but not the checkout) of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    arguments = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True)
    (wheel,) = folder.glob("ttc-*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    # A path in a .pth file is searched for packages, but its own .pth files (the editable install) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv/bin/ttc"


def test_the_installed_wheel_runs_a_sweep_anywhere(installed_ttc: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(json.dumps(SWEEP))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TTC_DATABASE_URL")
    }

    def ttc(*arguments: str) -> str:
        done = subprocess.run(
            [installed_ttc, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [installed_ttc.parent / "python", "-c", "import orchestrator; print(orchestrator.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in where.stdout
    assert json.loads(ttc("run", "sweep.yaml", "--local", "--json"))["samples_stored"] == 10
    assert "at head" in ttc("db", "check")
    assert ttc("--version") == f"ttc {version('ttc')}\n"
    assert json.loads(ttc("sql", "--json", "select count(*) as n from trajectories")) == [{"n": 10}]
