"""The estimators against published values, exact fractions and enumeration of every subset."""

from __future__ import annotations

import itertools
import json
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.analysis.estimators import (
    ClusterCount,
    PoolCounts,
    accuracy_bounds,
    majority_at_k,
    mean_over_problems,
    mean_tokens,
    pass_at_k,
    student_t_quantile,
)


def pool(right: list[int], wrong: list[int], silent: int = 0, errors: int = 0, **more: object) -> PoolCounts:
    """A pool with clusters of these sizes and `silent` samples without an answer."""
    clusters = [ClusterCount(i, size, i < len(right)) for i, size in enumerate([*right, *wrong])]
    return PoolCounts(
        problem_id=7,
        level="3",
        samples=sum(right) + sum(wrong) + silent + errors,
        correct=sum(right),
        wrong=sum(wrong),
        no_answer=silent,
        truncated=0,
        errors=errors,
        clusters=tuple(clusters),
        **more,  # type: ignore[arg-type]
    )


def vote(ballots: tuple[int, ...], right: int) -> Fraction:
    """Credit of one draw: ballots name clusters (-1: no answer), and those below `right` are correct."""
    counts = {cluster: ballots.count(cluster) for cluster in ballots if cluster >= 0}
    winners = [cluster for cluster, count in counts.items() if count == max(counts.values())]
    return Fraction(sum(cluster < right for cluster in winners), max(1, len(winners)))


def enumerated(right: list[int], wrong: list[int], silent: int, k: int) -> float:
    ballots = [i for i, size in enumerate([*right, *wrong]) for _ in range(size)] + [-1] * silent
    draws = list(itertools.combinations(ballots, k))
    return float(sum(vote(draw, len(right)) for draw in draws) / len(draws))


class TestPassAtK:
    @pytest.mark.parametrize(
        ("n", "c", "k", "expected"),
        [(10, 3, 5, 0.916667), (16, 2, 8, 0.766667), (200, 1, 100, 0.5), (2048, 3, 256, 0.330218)],
    )
    def test_published_values(self, n: int, c: int, k: int, expected: float) -> None:
        assert float(pass_at_k(n, c, k)) == pytest.approx(expected, abs=5e-7)

    def test_exact_fractions(self) -> None:
        folder = os.environ.get("TTC_TEST_DATA")
        if folder is None:
            pytest.skip("TTC_TEST_DATA is not set: no exact vectors")
        lines = (Path(folder) / "vectors" / "pass_at_k_exact.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        # fractions of hundreds of digits are stored as their nearest float only
        expected = [float(Fraction(row["exact"])) if row["exact"] else row["float"] for row in rows]
        found = pass_at_k([row["n"] for row in rows], [row["c"] for row in rows], [row["k"] for row in rows])
        assert len(rows) == 566
        assert np.abs(found - expected).max() < 1e-12

    @given(st.integers(1, 3000), st.data())
    @settings(max_examples=60, deadline=None)
    def test_equals_binomials(self, n: int, data: st.DataObject) -> None:
        c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
        expected = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert float(pass_at_k(n, c, k)) == pytest.approx(float(expected), abs=1e-12)

    def test_broadcasts_and_marks_what_the_pool_cannot_say(self) -> None:
        table = pass_at_k(np.array([4, 8])[:, None], 2, [1, 8])
        assert table[:, 0] == pytest.approx([0.5, 0.25])
        assert math.isnan(table[0, 1])
        assert table[1, 1] == 1.0

    @pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0)])
    def test_refuses_impossible_counts(self, n: int, c: int, k: int) -> None:
        with pytest.raises(ValueError, match="pass@k"):
            pass_at_k(n, c, k)


class TestMajorityAtK:
    @given(
        st.lists(st.integers(1, 4), max_size=2),
        st.lists(st.integers(1, 4), max_size=4),
        st.integers(0, 3),
        st.data(),
    )
    @settings(max_examples=80, deadline=None)
    def test_equals_enumeration(
        self, right: list[int], wrong: list[int], silent: int, data: st.DataObject
    ) -> None:
        n = sum(right) + sum(wrong) + silent
        assume(1 <= n <= 12)
        k = data.draw(st.integers(1, n))
        found = majority_at_k(pool(right, wrong, silent), k, seed=0)
        assert found.mc_error == 0.0
        assert found.value == pytest.approx(enumerated(right, wrong, silent, k), abs=1e-12)

    def test_tie_counts_as_its_expectation(self) -> None:
        assert majority_at_k(pool([1], [1, 1]), 3, seed=0).value == pytest.approx(1 / 3)
        assert majority_at_k(pool([1], [1]), 2, seed=0).value == 0.5

    def test_silence_never_votes(self) -> None:
        assert majority_at_k(pool([1], [], silent=9), 10, seed=0).value == 1.0
        assert majority_at_k(pool([1], [], silent=9), 5, seed=0).value == pytest.approx(0.5)
        assert majority_at_k(pool([], [], silent=4), 2, seed=0).value == 0.0

    def test_errors_are_not_samples(self) -> None:
        failed = pool([3], [2], errors=5)
        assert failed.n == 5
        assert majority_at_k(failed, 3, seed=0) == majority_at_k(pool([3], [2]), 3, seed=0)
        with pytest.raises(ValueError, match="majority@6 of 5"):
            majority_at_k(failed, 6, seed=0)

    def test_one_vote_is_pass_at_1(self) -> None:
        some = pool([5, 2], [9, 4], silent=3)
        assert majority_at_k(some, 1, seed=0).value == pytest.approx(7 / 23)

    def test_a_huge_pool_is_resampled_with_its_error(self) -> None:
        huge = pool([4_000_000], [3_999_000, 5])
        found = majority_at_k(huge, 4_000_000, seed=3)
        assert 0 < found.mc_error < 0.01
        assert found == majority_at_k(huge, 4_000_000, seed=3)
        # the lead in the draw is close to normal: mean 500, sd sqrt(2 million)
        assert abs(found.value - 0.6382) < 5 * found.mc_error

    def test_partition_is_checked(self) -> None:
        with pytest.raises(ValueError, match="do not add up"):
            PoolCounts(1, None, 10, 1, 1, 1, 1, 1)
        with pytest.raises(ValueError, match="in votes"):
            PoolCounts(1, None, 2, 1, 1, 0, 0, 0, clusters=(ClusterCount(1, 2, True),))


class TestMeanOverProblems:
    def test_standard_error_and_interval(self) -> None:
        mean = mean_over_problems([0.1, 0.4, 0.6, 0.7])
        assert mean.value == pytest.approx(0.45)
        assert mean.std_error == pytest.approx(math.sqrt(0.07) / 2)  # sample variance 0.21 / 3
        assert mean.low == pytest.approx(0.45 - 3.182446 * math.sqrt(0.07) / 2, abs=1e-6)
        assert mean.high == pytest.approx(0.45 + 3.182446 * math.sqrt(0.07) / 2, abs=1e-6)

    def test_500_problems_at_one_half_err_by_2_points(self) -> None:
        mean = mean_over_problems([0.0, 1.0] * 250)
        assert mean.std_error == pytest.approx(0.0224, abs=1e-4)

    def test_too_few_problems_have_no_error(self) -> None:
        assert mean_over_problems([]).value is None
        assert mean_over_problems([0.3]).value == 0.3
        assert mean_over_problems([0.3]).std_error is None

    def test_interval_stays_a_fraction(self) -> None:
        mean = mean_over_problems([0.0, 1.0])
        assert (mean.low, mean.high) == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("freedom", "expected"),
        [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (99, 1.9842), (499, 1.9647)],
    )
    def test_student_t_table(self, freedom: int, expected: float) -> None:
        assert student_t_quantile(freedom) == pytest.approx(expected, abs=5e-5)


class TestCounts:
    def test_bounds_enclose_what_errors_hide(self) -> None:
        pools = [pool([4], [4], errors=2), pool([], [5], errors=5), pool([], [])]
        bounds = accuracy_bounds(pools)
        assert bounds == pytest.approx(((0.4 + 0.0) / 2, (0.6 + 0.5) / 2))
        assert accuracy_bounds([pool([], [])]) is None

    def test_mean_tokens_over_known_counts_only(self) -> None:
        pools = [
            pool([2], [2], completion_tokens=300, samples_with_tokens=3),
            pool([1], [], completion_tokens=100, samples_with_tokens=1),
        ]
        assert mean_tokens(pools) == 100.0
        assert mean_tokens([pool([2], [])]) is None
