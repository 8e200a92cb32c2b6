"""Whatever a user gets wrong: one screen that names the place and the remedy, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.problems.datasets import load_problems
from orchestrator.spec.file import load_sweep
from tests.bad_inputs import ALL, GOOD_PROBLEMS, GOOD_SWEEP, SECRET, SWEEP, BadInput


def run(path: Path) -> None:
    """What every command does with a sweep file before anything else."""
    sweep = load_sweep(path)
    load_problems(sweep.problems, path.parent, environ={})


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_error_names_place_and_remedy(case: BadInput, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    before = snapshot(tmp_path)

    with pytest.raises(UsageError) as caught:
        run(path)

    text = str(caught.value)
    assert not [want for want in case.wants if want not in text], text
    assert "    -> " in text
    assert len(text.splitlines()) <= 20
    assert max(len(line) for line in text.splitlines()) <= 400
    assert SECRET not in text
    assert "Traceback" not in text
    assert "pydantic" not in text
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None
    assert snapshot(tmp_path) == before


def test_the_table_starts_from_something_valid(tmp_path: Path) -> None:
    path = BadInput("good", ()).write(tmp_path)
    assert (path.name, path.read_text()) == (SWEEP, GOOD_SWEEP)
    assert (tmp_path / "p.jsonl").read_bytes() == GOOD_PROBLEMS
    run(path)


def test_names_are_unique() -> None:
    assert len({case.name for case in ALL}) == len(ALL) >= 25
