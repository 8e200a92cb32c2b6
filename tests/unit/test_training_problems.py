"""Problems to label come from the training side of the split, as a sweep reads them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from training import problems
from workers.embedded import arithmetic


def test_they_are_of_all_levels_and_none_is_held_out() -> None:
    made = list(problems.records(seed=7, per_level=40))
    assert Counter(record["level"] for record in made) == dict.fromkeys(arithmetic.LEVELS, 40)
    assert len({record["id"] for record in made}) == len(made) == len({record["problem"] for record in made})
    held_out = {p.statement for level in arithmetic.LEVELS for p in arithmetic.generate(7, level, 400)}
    assert not held_out & {record["problem"] for record in made}
    assert not {p.statement for p in arithmetic.shipped_problems()} & {record["problem"] for record in made}
    assert list(problems.records(seed=7, per_level=40)) == made
    assert list(problems.records(seed=8, per_level=40)) != made


def test_they_are_written_as_json_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["problems", "--per-level", "2", "--seed", "3"])
    problems.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == list(problems.records(3, 2))
    assert set(lines[0]) == {"id", "problem", "answer", "level"}
