"""Accuracy after K calls against published values, enumeration of all draws, and resampling."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.estimation.counts import ClusterCount
from orchestrator.analysis.estimation.plurality import plurality_with_replacement
from orchestrator.analysis.vote_scaling.curves import (
    CERTAIN,
    _miss_bound,
    accuracies,
    candidates,
    log_spaced,
    resampled_accuracies,
)
from orchestrator.analysis.vote_scaling.model import majority_of_two
from orchestrator.analysis.vote_scaling.pools import Ballot, System, VotePool, difficulty

KS = (1, 2, 3, 4, 5, 8, 16, 32)
ANCHORS = [  # votes of 100 samples, the first correct; accuracy of the vote at each of KS
    ((40, 30, 30), (0.4, 0.4, 0.424, 0.4384, 0.44704, 0.47849, 0.541095, 0.624586)),
    ((34, 56, 10), (0.34, 0.34, 0.306272, 0.307034, 0.283939, 0.249173, 0.173102, 0.091674)),
    ((30, 40, 30), (0.3, 0.3, 0.288, 0.2808, 0.27648, 0.260755, 0.229452, 0.187707)),
]


def pool(
    counts: tuple[int, ...], right: int = 1, silent: int = 0, passed: tuple[int, ...] | None = None
) -> VotePool:
    """The first `right` clusters are correct."""
    clusters = tuple(ClusterCount(i, count, i < right) for i, count in enumerate(counts))
    return VotePool(1, sum(counts) + silent, clusters, passed)


def curve(made: VotePool, system: System, ks: tuple[int, ...]) -> list[float]:
    return [float(value) for value in accuracies([made], system, ks)[0]]


def by_enumeration(made: VotePool, system: System, draws: int) -> float:
    """All sequences of draws of a colour: cluster and verdict, or nothing."""
    passed = made.passed if system is System.FILTER_VOTE and made.passed else (0,) * len(made.clusters)
    colours: list[tuple[int, bool, int]] = []
    for i, cluster in enumerate(made.clusters):
        colours += [(i, True, passed[i]), (i, False, cluster.count - passed[i])]
    colours.append((-1, False, made.n - sum(cluster.count for cluster in made.clusters)))
    total = 0.0
    for drawn in itertools.product([colour for colour in colours if colour[2]], repeat=draws):
        chance = math.prod(weight for _, _, weight in drawn) / made.n**draws
        voters = [i for i, ok, _ in drawn if ok] or [i for i, _, _ in drawn if i >= 0]
        votes = Counter(voters)
        best = max(votes.values(), default=0)
        winners = [i for i, count in votes.items() if count == best]
        if winners:
            total += chance * sum(made.clusters[i].is_correct for i in winners) / len(winners)
    return total


@st.composite
def small_pools(draw: st.DrawFn) -> VotePool:
    counts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    passed = tuple(draw(st.integers(0, count)) for count in counts)
    silent = draw(st.integers(0 if sum(counts) else 1, 3))
    return pool(tuple(counts), draw(st.integers(0, 2)), silent, passed)


@pytest.mark.parametrize(("counts", "expected"), ANCHORS)
def test_published_values_of_three_answers(counts: tuple[int, ...], expected: tuple[float, ...]) -> None:
    assert curve(pool(counts), System.VOTE, KS) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(small_pools(), st.integers(1, 4))
def test_the_vote_equals_the_enumeration_of_all_draws(made: VotePool, k: int) -> None:
    assert curve(made, System.VOTE, (k,)) == pytest.approx([by_enumeration(made, System.VOTE, k)], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(small_pools(), st.integers(2, 9))
def test_the_filter_vote_equals_the_enumeration_of_all_draws(made: VotePool, k: int) -> None:
    expected = by_enumeration(made, System.FILTER_VOTE, k // 2)
    assert curve(made, System.FILTER_VOTE, (k,)) == pytest.approx([expected], abs=1e-12)


def test_two_answers_follow_the_two_level_model_to_a_thousand_calls() -> None:
    ks = tuple(log_spaced(1, 1000, 25))
    assert curve(pool((21, 20)), System.VOTE, ks) == pytest.approx(majority_of_two(21 / 41, ks), abs=1e-10)


def test_the_filter_vote_pays_two_calls_a_candidate() -> None:
    assert [candidates(System.FILTER_VOTE, k) for k in (1, 2, 3, 4, 5, 10)] == [0, 1, 1, 2, 2, 5]
    assert candidates(System.VOTE, 7) == 7
    made = pool((34, 56, 10), passed=(20, 30, 1))
    values = curve(made, System.FILTER_VOTE, (2, 3, 4, 5))
    assert values[0] == values[1] != values[2] == values[3]
    assert values[0] == pytest.approx(0.34)  # one candidate is elected whatever the judge says


def test_one_call_of_a_filter_vote_elects_nothing() -> None:
    assert curve(pool((5,), passed=(5,)), System.FILTER_VOTE, (1,)) == [0.0]
    rng = np.random.default_rng(0)
    assert resampled_accuracies([pool((5,), passed=(5,))], System.FILTER_VOTE, [1], 10, rng).tolist() == [
        [0.0]
    ]


@pytest.mark.parametrize("passed", [(0, 0, 0), (34, 56, 10)])
def test_a_filter_that_passes_nothing_or_everything_is_no_filter(passed: tuple[int, ...]) -> None:
    made = pool((34, 56, 10), silent=20, passed=passed)
    ks = (2, 3, 8, 32, 101, 1000)
    halves = tuple(k // 2 for k in ks)
    assert curve(made, System.FILTER_VOTE, ks) == pytest.approx(curve(made, System.VOTE, halves), abs=1e-12)


def test_endless_calls_reach_the_limit() -> None:
    made = pool((20, 20, 30, 30), right=1, silent=10, passed=(15, 15, 2, 3))
    assert curve(made, System.FILTER_VOTE, (20_000,)) == pytest.approx([0.5], abs=1e-6)
    assert difficulty(made, System.FILTER_VOTE).limit == 0.5
    assert curve(made, System.VOTE, (20_000,)) == pytest.approx(
        [difficulty(made, System.VOTE).limit], abs=1e-6
    )


@pytest.mark.parametrize(
    ("right", "wrong"), [((35,), (15, 10)), ((12,), (38, 3)), ((30, 12), (11,)), ((9, 7), (40,))]
)
def test_the_limit_is_taken_only_where_it_is_missed_by_nothing(
    right: tuple[int, ...], wrong: tuple[int, ...]
) -> None:
    ballot = Ballot(right, wrong, 80)
    shares = [count / 80 for count in right], [count / 80 for count in wrong]
    bounds = {draws: _miss_bound(ballot, draws) for draws in (1, 5, 20, 80, 200, 400, 600)}
    assert bounds[600] < CERTAIN
    for draws, bound in bounds.items():
        exact = plurality_with_replacement(*shares, draws)
        assert exact is not None
        assert abs(exact - ballot.limit) <= bound + 1e-12


def test_a_limit_that_is_still_missed_now_and_then_is_not_taken() -> None:
    for draws in (150, 300, 450):
        assert CERTAIN < _miss_bound(Ballot((50,), (25,), 80), draws) < 1e-3
        exact = plurality_with_replacement([50 / 80], [25 / 80], draws)
        assert curve(pool((50, 25), silent=5), System.VOTE, (draws,)) == [exact]


def test_a_tie_is_never_taken_for_its_limit() -> None:
    assert _miss_bound(Ballot((30,), (30,), 60), 10**6) >= 1


def test_what_is_too_large_for_tables_is_resampled() -> None:
    made, k = pool((501, 500)), 2_000_001
    (found,) = curve(made, System.VOTE, (k,))
    expected = float(majority_of_two(501 / 1001, k))
    assert 0.85 < expected < 0.95
    assert found == pytest.approx(expected, abs=0.03)
    assert found == curve(made, System.VOTE, (k,))[0]  # the seed decides


def test_resampling_agrees_with_the_exact_values() -> None:
    pools = [
        pool((34, 56, 10), silent=9, passed=(9, 4, 1)),
        pool((6, 5, 5), right=2, passed=(0, 0, 0)),
        pool((3,), passed=(2,)),
    ]
    ks, trials = (2, 5, 10, 21), 20_000
    for system in System:
        exact = accuracies(pools, system, ks)
        drawn = resampled_accuracies(pools, system, ks, trials, np.random.default_rng(7))
        assert drawn == pytest.approx(exact, abs=5 * 0.5 / math.sqrt(trials))


def test_no_votes_and_no_clusters_elect_nothing() -> None:
    made = pool((), silent=4, passed=())
    for system in System:
        assert curve(made, system, (2, 50)) == [0.0, 0.0]
    rng = np.random.default_rng(0)
    assert resampled_accuracies([made], System.VOTE, [2, 5], 10, rng).tolist() == [[0.0, 0.0]]


def test_rows_are_pools_and_columns_are_calls() -> None:
    assert accuracies([], System.VOTE, [1, 2]).shape == (0, 2)
    found = accuracies([pool((1, 1)), pool((2, 0))], System.VOTE, [1, 2, 3])
    assert found == pytest.approx(np.array([[0.5] * 3, [1.0] * 3]))


def test_at_least_one_call() -> None:
    with pytest.raises(ValueError, match="0 calls"):
        accuracies([pool((1,))], System.VOTE, [0])


def test_verdicts_are_needed_for_the_filter_vote() -> None:
    with pytest.raises(ValueError, match="no verdicts"):
        accuracies([pool((1, 1))], System.FILTER_VOTE, [4])
    with pytest.raises(ValueError, match="no verdicts"):
        resampled_accuracies([pool((1, 1))], System.FILTER_VOTE, [4], 10, np.random.default_rng(0))


def test_numbers_of_calls_are_spaced_in_the_logarithm() -> None:
    assert log_spaced(1, 16, 5) == [1, 2, 4, 8, 16]
    assert log_spaced(2, 1000, 20)[:8] == [2, 3, 4, 5, 7, 10, 14, 20]
    assert log_spaced(3, 3, 2) == [3]
    for low, high, points in ((0, 5, 3), (5, 4, 3), (1, 5, 1)):
        with pytest.raises(ValueError, match="points from"):
            log_spaced(low, high, points)
