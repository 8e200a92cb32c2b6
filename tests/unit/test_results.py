"""Rows over problems: means, intervals, what is left out, differences, counts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.comparison import Way, compare, parse_way
from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.counts import ClusterCount, PoolCounts
from orchestrator.analysis.estimation.estimators import estimate
from orchestrator.analysis.estimation.kept_estimates import ESTIMATOR_VERSION
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.results import (
    OVERALL,
    ResultRow,
    StrategyResults,
    by_level,
    count_outcomes,
    differences,
    first_k,
    summarise,
    to_json,
)
from orchestrator.errors import UsageError

PASS, MAJORITY, BEST = Selector(Kind.PASS), Selector(Kind.MAJORITY), Selector(Kind.BEST_OF_N, "prm")


def ballots(problem_id: int, level: str | None, right: int, wrong: int, silent: int = 0) -> Ballots:
    """Right samples first, each with a better score than any wrong one."""
    candidates = np.repeat([0, 1, NO_ANSWER], [right, wrong, silent])
    scores = np.linspace(1.0, 0.0, len(candidates))
    return Ballots(problem_id, level, candidates, np.array([True, False]), {"prm": scores})


def counts_of(pool: Ballots) -> PoolCounts:
    right = int(pool.is_right.sum())
    wrong = int(pool.has_answer.sum()) - right
    clusters = (ClusterCount(1, right, True), ClusterCount(2, wrong, False))
    silent = pool.n - right - wrong
    return PoolCounts(pool.problem_id, pool.level, pool.n, right, wrong, silent, 0, 0, clusters=clusters)


def found(
    pools: list[Ballots], budgets: list[int], strategy: str = "parallel", seed: int = 0
) -> StrategyResults:
    curves = estimate(pools, [PASS, MAJORITY, BEST], budgets, seed=seed)
    levels = by_level([pool.level for pool in pools])
    return StrategyResults(
        strategy,
        max(budgets),
        summarise([*curves.values()], levels),
        differences([*curves.values()], curves[MAJORITY], levels),
        count_outcomes([counts_of(pool) for pool in pools], levels),
        {selector.name: curve for selector, curve in curves.items()},
        levels,
        {selector.name: pools for selector in curves},
    )


def find(rows: Any, level: str, selector: str, budget: int) -> ResultRow:
    (row,) = [r for r in rows if (r.level, r.selector, r.budget) == (level, selector, budget)]
    assert isinstance(row, ResultRow)
    return row


POOLS = [
    ballots(1, "1", 3, 1),
    ballots(2, "1", 1, 3),
    ballots(3, "10", 0, 2, silent=2),
    ballots(4, "2", 2, 0),
]


def test_levels_come_in_natural_order_and_all_last() -> None:
    assert list(by_level([pool.level for pool in POOLS])) == ["1", "2", "10", OVERALL]
    assert list(by_level([None, None])) == [OVERALL]
    assert by_level([None, "5"]) == {"5": [1], "none": [0], OVERALL: [0, 1]}


def test_values_are_means_over_problems() -> None:
    rows = found(POOLS, [1, 2]).rows
    assert find(rows, "1", "pass", 1).value == pytest.approx(0.5)
    assert find(rows, OVERALL, "pass", 1).value == pytest.approx((0.75 + 0.25 + 0 + 1) / 4)
    assert find(rows, "1", "pass", 2).value == pytest.approx((1.0 + 0.5) / 2)
    assert find(rows, "1", "majority", 2).value == pytest.approx(0.5)
    assert find(rows, OVERALL, "majority", 1).value == find(rows, OVERALL, "pass", 1).value
    assert all(row.mc_error == 0.0 for row in rows)


def test_small_pools_are_left_out_and_counted() -> None:
    rows = found(POOLS, [4, 8]).rows
    row = find(rows, OVERALL, "pass", 4)
    assert (row.problems, row.skipped) == (3, 1)
    assert row.value == pytest.approx(2 / 3)
    empty = find(rows, OVERALL, "majority", 8)
    assert (empty.value, empty.std_error, empty.low) == (None, None, None)
    assert (empty.problems, empty.skipped) == (0, 4)


def test_resampling_errors_average_over_problems() -> None:
    candidates = np.repeat([0, 1], [200_000, 199_000])
    pools = [Ballots(i, "1", candidates, np.array([True, False])) for i in (1, 2)]
    curves = estimate(pools, [MAJORITY], [200_000], seed=1)
    (row, _) = summarise([*curves.values()], by_level(["1", "1"]))
    errors = curves[MAJORITY].mc_errors[:, 0]
    assert 0 < row.mc_error == pytest.approx(float(np.hypot(*errors)) / 2)


def test_differences_are_paired() -> None:
    rows = found(POOLS, [1, 2]).differences
    (row,) = [r for r in rows if (r.level, r.selector, r.budget) == (OVERALL, "best-of-n:prm", 2)]
    values = {pool.problem_id: estimate([pool], [MAJORITY, BEST], [2], seed=0) for pool in POOLS}
    gaps = [float(each[BEST].values[0, 0] - each[MAJORITY].values[0, 0]) for each in values.values()]
    assert row.value == pytest.approx(np.mean(gaps))
    assert row.std_error == pytest.approx(np.std(gaps, ddof=1) / 2)
    assert (row.other, row.other_budget, row.problems) == ("majority", 2, 4)
    assert not [r for r in rows if r.selector == "majority"]


def test_the_first_k_are_one_draw() -> None:
    rows = first_k(found(POOLS, [1, 2, 4]))
    assert find(rows, OVERALL, "pass", 1).value == 0.75  # the first sample of three of four pools is right
    assert find(rows, "1", "majority", 2).value == pytest.approx((1 + 0.5) / 2)
    assert find(rows, OVERALL, "pass", 4).skipped == 1


def test_counts_are_a_partition() -> None:
    clusters = (ClusterCount(1, 1, True), ClusterCount(2, 1, False))
    mixed = PoolCounts(9, "1", 10, 1, 1, 2, 2, 3, ungraded=1, clusters=clusters)
    mixed = replace(mixed, completion_tokens=50, samples_with_tokens=5)
    pools = [*map(counts_of, POOLS), mixed]
    *_, whole = count_outcomes(pools, by_level([pool.level for pool in pools]))
    parts = (whole.correct, whole.wrong, whole.no_answer, whole.truncated, whole.ungraded, whole.errors)
    assert parts == (7, 7, 4, 2, 1, 3)
    assert sum(parts) == whole.samples == 24
    assert whole.mean_tokens == 10.0
    assert whole.accuracy_low == pytest.approx((0.75 + 0.25 + 0 + 1 + 0.1) / 5)
    assert whole.accuracy_high == pytest.approx((0.75 + 0.25 + 0 + 1 + 0.5) / 5)


def test_nothing_stored_is_not_an_error() -> None:
    empty = found([], [1, 4])
    assert {row.value for row in empty.rows} == {None}
    assert empty.problem_ids == []


def test_json_round_trip() -> None:
    document = to_json(found(POOLS, [1, 8]))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["estimator_version"] == ESTIMATOR_VERSION
    assert document["results"][0].keys() >= {"level", "selector", "budget", "value", "low", "high", "skipped"}
    assert document["differences"][0].keys() >= {"selector", "other", "value", "std_error"}


class TestComparison:
    def test_a_way_is_read_as_written(self) -> None:
        assert parse_way("majority") == Way(None, "majority", None)
        assert parse_way("greedy/pass@1") == Way("greedy", "pass", 1)
        assert parse_way("weighted:prm.last@64") == Way(None, "weighted:prm.last", 64)
        for wrong in ("", "@4", "pass@", "pass@0", "pass@-1", "/pass", "pass@" + "9" * 5000):
            with pytest.raises(UsageError):
                parse_way(wrong)

    def test_budgets_of_one_selector(self) -> None:
        rows = compare([found(POOLS, [1, 2])], parse_way("pass@2"), parse_way("pass@1"))
        assert [row.level for row in rows] == ["1", "2", "10", OVERALL]
        assert rows[-1].value == pytest.approx((0.25 + 0.25 + 0 + 0) / 4)
        assert rows[-1].problems == 4

    def test_strategies_meet_on_the_problems_they_share(self) -> None:
        one, other = found(POOLS, [1, 2], "warm"), found([POOLS[3], POOLS[1]], [1], "cold")
        rows = compare([one, other], parse_way("warm/pass@2"), parse_way("cold/pass@1"))
        assert rows[-1].problems == 2
        assert rows[-1].value == pytest.approx(((0.5 - 0.25) + (1 - 1)) / 2)
        assert {row.level: row.problems for row in rows}["10"] == 0

    @pytest.mark.parametrize(
        ("first", "message"),
        [
            ("cold/pass@9", "more than cold draws"),
            ("cold/best", "is no selector"),
            ("colt/pass", "is no strategy"),
            ("pass", "has 2 strategies"),
        ],
    )
    def test_what_there_is_none_of_is_named(self, first: str, message: str) -> None:
        some = [found(POOLS, [1, 2], "warm"), found(POOLS, [1], "cold")]
        with pytest.raises(UsageError, match=message):
            compare(some, parse_way(first), parse_way("warm/pass"))


def test_published_pool_gives_its_published_accuracy() -> None:
    folder = os.environ.get("TTC_TEST_DATA")
    if folder is None:
        pytest.skip("TTC_TEST_DATA is not set: no sample pools")
    lines = (Path(folder) / "samples" / "bon41_llama31_8b_awq.jsonl").read_text().splitlines()
    pools = [_from_samples(i, json.loads(line)) for i, line in enumerate(lines)]
    curves = estimate(pools, [PASS, MAJORITY], [1, 4, 16, 41], seed=0)
    assert curves[PASS].values.mean(axis=0) == pytest.approx([0.445, 0.648, 0.811, 0.890], abs=6e-4)
    assert curves[MAJORITY].at(41).mean() == pytest.approx(0.63, abs=6e-3)


def _from_samples(problem_id: int, row: dict[str, Any]) -> Ballots:
    votes = [(s["canon"], s["correct"]) if s["answer"] or s["correct"] else None for s in row["samples"]]
    clusters = list(dict.fromkeys(vote for vote in votes if vote is not None))
    candidates = [NO_ANSWER if vote is None else clusters.index(vote) for vote in votes]
    is_correct = np.array([correct for _, correct in clusters], dtype=np.bool_)
    return Ballots(problem_id, str(row["level"]), np.array(candidates), is_correct)
