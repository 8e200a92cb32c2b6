"""The alarm for scrambled samples, on made-up and on published data."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.problems.integrity import ScrambleCheck, scrambled_ratio

DATA = os.environ.get("TTC_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="TTC_TEST_DATA is not set: no recorded samples to check")


def check_file(name: str) -> ScrambleCheck:
    rows = [json.loads(line) for line in (Path(DATA or "") / "samples" / name).read_text().splitlines()]
    golds = {row["unique_id"]: row["gold_canon"] for row in rows}
    return scrambled_ratio(golds, Counter((r["unique_id"], s["canon"]) for r in rows for s in r["samples"]))


@needs_data
def test_scrambled_file_raises_the_alarm() -> None:
    check = check_file("scrambled_llama31_8b_a4.jsonl")
    assert (check.own_matches, check.other_matches) == (10, 219)
    assert check.ratio == pytest.approx(21.9)
    assert check.lift < 2
    assert check.is_alarm


@needs_data
@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("bon41_llama31_8b_awq.jsonl", 0.351),
        ("bon1_llama31_8b_awq_math500.jsonl", 0.780),
        ("beam_final.jsonl", 0.205),
    ],
)
def test_sound_files_do_not(name: str, ratio: float) -> None:
    check = check_file(name)
    assert check.ratio == pytest.approx(ratio, abs=0.001)
    assert check.lift > 30
    assert check.is_conclusive
    assert not check.is_alarm


def made_up(problems: int, shift: int) -> ScrambleCheck:
    golds = {f"p{i}": str(i) for i in range(problems)}
    return scrambled_ratio(golds, {(f"p{i}", str((i + shift) % problems)): 4 for i in range(problems)})


def test_shifted_samples_raise_the_alarm() -> None:
    check = made_up(50, 1)
    assert (check.own_matches, check.other_matches, check.ratio) == (0, 200, float("inf"))
    assert check.is_alarm


def test_matching_samples_do_not() -> None:
    check = made_up(50, 0)
    assert (check.own_matches, check.other_matches, check.ratio) == (200, 0, 0.0)
    assert check.lift == pytest.approx(50)
    assert not check.is_alarm


def test_few_problems_or_matches_are_not_conclusive() -> None:
    assert not made_up(9, 1).is_alarm
    assert not scrambled_ratio(
        {f"p{i}": str(i) for i in range(50)}, {("p1", "2"): 1, ("p2", "3"): 1}
    ).is_alarm


def test_a_weak_model_is_not_a_scrambled_one() -> None:
    """One sample in ten right, and wrong answers that often equal some other small gold."""
    golds = {f"p{i}": str(i) for i in range(100)}
    samples = [(f"p{i}", str(i if k == 0 else (i * 7 + k * 31) % 300)) for i in range(100) for k in range(10)]
    check = scrambled_ratio(golds, Counter(samples))
    assert check.ratio > 1
    assert check.is_conclusive
    assert not check.is_alarm


def test_empty_answers_and_unknown_problems_do_not_count() -> None:
    check = scrambled_ratio({"p": "1"}, {("p", None): 1, ("p", ""): 1, ("q", "1"): 1, ("p", "1"): 1})
    assert (check.samples, check.own_matches, check.other_matches) == (1, 1, 0)
    assert scrambled_ratio({}, {}).ratio == 0.0
