"""Rows and tables: what they contain, and that no number is ever cut."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from os import environ
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.analysis.estimators import ClusterCount, PoolCounts
from orchestrator.analysis.results import (
    ESTIMATOR_VERSION,
    MAJORITY,
    OVERALL,
    PASS,
    CountRow,
    ResultRow,
    count_outcomes,
    render,
    summarise,
    to_json,
)


def pool(problem_id: int, level: str | None, right: int, wrong: int, silent: int = 0) -> PoolCounts:
    clusters = (ClusterCount(1, right, True), ClusterCount(2, wrong, False))
    n = right + wrong + silent
    return PoolCounts(problem_id, level, n, right, wrong, silent, 0, 0, clusters=clusters)


def find(rows: list[ResultRow], level: str, selector: str, budget: int) -> ResultRow:
    (row,) = [r for r in rows if (r.level, r.selector, r.budget) == (level, selector, budget)]
    return row


def printed(rows: list[ResultRow], counts: list[CountRow], width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    for table in render(rows, counts, width):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


POOLS = [pool(1, "1", 3, 1), pool(2, "1", 1, 3), pool(3, "10", 0, 2, silent=2), pool(4, "2", 2, 0)]


def test_levels_come_in_natural_order_and_all_last() -> None:
    rows = summarise(POOLS, [1], seed=0)
    assert list(dict.fromkeys(row.level for row in rows)) == ["1", "2", "10", OVERALL]


def test_values_are_means_over_problems() -> None:
    rows = summarise(POOLS, [1, 2], seed=0)
    assert find(rows, "1", PASS, 1).value == pytest.approx(0.5)
    assert find(rows, OVERALL, PASS, 1).value == pytest.approx((0.75 + 0.25 + 0 + 1) / 4)
    assert find(rows, "1", PASS, 2).value == pytest.approx((1.0 + 0.5) / 2)
    assert find(rows, "1", MAJORITY, 4 - 2).value == pytest.approx(0.5)
    assert find(rows, OVERALL, MAJORITY, 1).value == find(rows, OVERALL, PASS, 1).value
    assert all(row.mc_error == 0.0 for row in rows)


def test_small_pools_are_left_out_and_counted() -> None:
    rows = summarise(POOLS, [4, 8], seed=0)
    row = find(rows, OVERALL, PASS, 4)
    assert (row.problems, row.skipped) == (3, 1)
    assert row.value == pytest.approx(2 / 3)
    empty = find(rows, OVERALL, MAJORITY, 8)
    assert (empty.value, empty.std_error, empty.low, empty.problems, empty.skipped) == (
        None,
        None,
        None,
        0,
        4,
    )
    assert "@4*" in printed(rows, count_outcomes(POOLS))


def test_resampled_votes_report_their_error() -> None:
    pools = [pool(1, "1", 4_000_000, 3_999_000), pool(2, "1", 4_000_000, 3_999_000)]
    rows = summarise(pools, [4_000_000], seed=1)
    row = find(rows, OVERALL, MAJORITY, 4_000_000)
    assert row.value is not None
    one = (row.value * (1 - row.value) / 4_000) ** 0.5
    assert row.mc_error == pytest.approx(one / 2**0.5, rel=0.01)
    assert "Monte Carlo" in printed(rows, count_outcomes(pools))
    assert rows == summarise(pools, [4_000_000], seed=1)


def test_errors_shrink_the_pool() -> None:
    failed = replace(pool(1, None, 2, 2), samples=10, errors=6)
    rows = summarise([failed], [4, 5], seed=0)
    assert [row.value for row in rows if row.selector == PASS] == [1.0, None]


def test_counts_are_a_partition() -> None:
    clusters = (ClusterCount(1, 1, True), ClusterCount(2, 1, False))
    mixed = PoolCounts(9, "1", 10, 1, 1, 2, 2, 3, ungraded=1, clusters=clusters)
    mixed = replace(mixed, completion_tokens=50, samples_with_tokens=5)
    *_, whole = count_outcomes([*POOLS, mixed])
    parts = (
        whole.correct,
        whole.wrong,
        whole.no_answer,
        whole.truncated,
        whole.ungraded,
        whole.errors,
    )
    assert parts == (7, 7, 4, 2, 1, 3)
    assert sum(parts) == whole.samples == 24
    assert whole.mean_tokens == 10.0
    assert whole.accuracy_low == pytest.approx((0.75 + 0.25 + 0 + 1 + 0.1) / 5)
    assert whole.accuracy_high == pytest.approx((0.75 + 0.25 + 0 + 1 + 0.5) / 5)


def test_problems_without_levels_make_one_row() -> None:
    counts = count_outcomes([pool(1, None, 1, 1), pool(2, None, 1, 1)])
    assert [row.level for row in counts] == [OVERALL]
    mixed = count_outcomes([pool(1, None, 1, 1), pool(2, "5", 1, 1)])
    assert [row.level for row in mixed] == ["5", "none", OVERALL]


def test_nothing_stored_is_not_an_error() -> None:
    rows, counts = summarise([], [1, 4], seed=0), count_outcomes([])
    assert {row.value for row in rows} == {None}
    assert OVERALL in printed(rows, counts)


def test_json_round_trip() -> None:
    document = to_json(summarise(POOLS, [1, 8], seed=0), count_outcomes(POOLS))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["estimator_version"] == ESTIMATOR_VERSION
    assert document["results"][0].keys() >= {"level", "selector", "budget", "value", "low", "high", "skipped"}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_table_fits_and_cuts_nothing(width: int) -> None:
    pools = [pool(i, str(i % 5 + 1), 900 + 7 * i, 1148 - 7 * i) for i in range(40)]
    text = printed(summarise(pools, [2**i for i in range(12)], seed=0), count_outcomes(pools)[-1:], width)
    accuracy = text.split("Samples by level")[0]
    assert "…" not in accuracy
    assert max(map(len, accuracy.splitlines())) <= width
    assert "@1 " in accuracy
    assert accuracy.count("@2048") == 2


def test_millions_of_samples_fit_100_columns() -> None:
    counts = (1_024_000_000, 912_345_600, 912_312_300, 112_312_300, 112_345_600, 91_234_500, 92_345_600)
    huge = [CountRow(level, 500, *counts, 1234.5, 0.3, 0.5) for level in ("1", OVERALL)]
    text = printed(summarise(POOLS, [1], seed=0), huge)
    assert "…" not in text
    assert "1,024.0M" in text
    assert "pass@1 would be 30.0 and 50.0" in " ".join(text.split())


def test_published_pool_gives_its_published_accuracy() -> None:
    folder = environ.get("TTC_TEST_DATA")
    if folder is None:
        pytest.skip("TTC_TEST_DATA is not set: no sample pools")
    lines = (Path(folder) / "samples" / "bon41_llama31_8b_awq.jsonl").read_text().splitlines()
    rows = summarise(
        [_from_samples(i, json.loads(line)) for i, line in enumerate(lines)], [1, 4, 16, 41], seed=0
    )
    curve = [find(rows, OVERALL, PASS, k).value for k in (1, 4, 16, 41)]
    assert curve == pytest.approx([0.445, 0.648, 0.811, 0.890], abs=6e-4)
    assert find(rows, OVERALL, MAJORITY, 41).value == pytest.approx(0.63, abs=6e-3)


def _from_samples(problem_id: int, row: dict[str, object]) -> PoolCounts:
    samples = row["samples"]
    assert isinstance(samples, list)
    votes = Counter((s["canon"], s["correct"]) for s in samples if s["answer"] or s["correct"])
    clusters = tuple(ClusterCount(i, count, key[1]) for i, (key, count) in enumerate(votes.items()))
    right = sum(c.count for c in clusters if c.is_correct)
    wrong = sum(c.count for c in clusters if not c.is_correct)
    silent = len(samples) - right - wrong
    return PoolCounts(
        problem_id, str(row["level"]), len(samples), right, wrong, silent, 0, 0, clusters=clusters
    )
