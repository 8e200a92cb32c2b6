"""Difficulty, limits and their certainty: signs by hand, the sign test against sums and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.counts import ClusterCount
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.vote_scaling.pools import (
    Ballot,
    Family,
    System,
    VotePool,
    difficulty,
    split,
)

EASY, HARD, TIED = Family.EASY, Family.HARD, Family.TIED


def pool(
    right: list[int], wrong: list[int], silent: int = 0, passed: list[int] | None = None, problem_id: int = 1
) -> VotePool:
    """`passed` in the order of the clusters, right ones first."""
    counts = [*((count, True) for count in right), *((count, False) for count in wrong)]
    clusters = tuple(ClusterCount(i, count, is_correct) for i, (count, is_correct) in enumerate(counts))
    n = sum(right) + sum(wrong) + silent
    return VotePool(problem_id, n, clusters, None if passed is None else tuple(passed))


@pytest.mark.parametrize(
    ("made", "d", "family", "limit"),
    [
        (pool([40], [30, 30]), -0.1, EASY, 1.0),
        (pool([34], [56, 10]), 0.22, HARD, 0.0),
        (pool([30], [40, 30]), 0.1, HARD, 0.0),
        (pool([30], [30, 30]), 0.0, TIED, 1 / 3),
        (pool([30, 30], [30]), 0.0, TIED, 2 / 3),
        (pool([30, 20], [25]), -5 / 75, EASY, 1.0),
        (pool([20, 20], [30]), 10 / 70, HARD, 0.0),  # two forms of the right answer do not vote together
        (pool([], [3]), 1.0, HARD, 0.0),
        (pool([3], []), -1.0, EASY, 1.0),
        (pool([0], [0], silent=5), 0.0, HARD, 0.0),  # nobody votes: endless calls elect nothing
    ],
)
def test_difficulty_of_the_vote(made: VotePool, d: float, family: Family, limit: float) -> None:
    found = difficulty(made, System.VOTE)
    assert found.d == pytest.approx(d)
    assert found.family is family
    assert found.limit == pytest.approx(limit)


def test_samples_without_an_answer_shrink_a_difficulty_and_keep_its_sign() -> None:
    assert difficulty(pool([34], [56, 10], silent=100), System.VOTE).d == pytest.approx(0.11)


def test_difficulty_of_the_filter_vote_is_that_of_what_passed() -> None:
    made = pool([30], [60, 10], passed=[12, 6, 2])
    found = difficulty(made, System.FILTER_VOTE)
    assert found.d == pytest.approx((6 - 12) / 20)
    assert found.family is EASY
    assert difficulty(made, System.VOTE).family is HARD


def test_where_nothing_passes_the_filter_vote_is_the_vote() -> None:
    made = pool([30], [60, 10], silent=7, passed=[0, 0, 0])
    assert difficulty(made, System.FILTER_VOTE) == difficulty(made, System.VOTE)


def test_samples_are_counted_in_order_so_that_a_slice_is_the_first_calls() -> None:
    votes = [7, None, 7, 3, 9, 3, 7, None]
    passed = [True, True, False, True, False, False, True, False]
    whole = VotePool.of_votes(5, votes, {3, 9}, passed)
    assert whole.n == 8
    assert {c.cluster_id: (c.count, c.is_correct) for c in whole.clusters} == {
        7: (3, False),
        3: (2, True),
        9: (1, True),
    }
    assert dict(zip([c.cluster_id for c in whole.clusters], whole.passed or (), strict=True)) == {
        7: 2,
        3: 1,
        9: 0,
    }
    assert whole.kept == 3  # what passed without an answer does not vote
    first = VotePool.of_votes(5, votes[:3], {3, 9})
    assert (first.n, first.votes(), first.passed) == (3, Ballot((), (2,), 3), None)
    with pytest.raises(ValueError, match="zip"):
        VotePool.of_votes(5, votes, {3}, passed[:3])


def test_ballots_become_votes_and_what_the_judge_could_not_tell_is_left_out() -> None:
    votes, verdicts = np.array([0, 0, 1, NO_ANSWER, 1, 0]), np.array([1.0, 0.0, 1.0, np.nan, np.nan, 1.0])
    ballots = Ballots(4, "1", votes, np.array([False, True]), {"judge": verdicts})
    assert VotePool.of_ballots(ballots) == VotePool(
        4, 6, (ClusterCount(0, 3, False), ClusterCount(1, 2, True))
    )
    judge = Selector(Kind.FILTER_VOTE, "judge", threshold=0.5)
    clusters = (ClusterCount(0, 3, False), ClusterCount(1, 1, True))
    assert VotePool.of_ballots(ballots, judge) == VotePool(4, 5, clusters, (2, 1))


@pytest.mark.parametrize(
    ("n", "counts", "passed"),
    [
        (0, (), None),
        (3, (2, 2), None),
        (3, (-1, 2), None),
        (3, (2, 1), (1,)),
        (3, (2, 1), (3, 0)),
        (3, (2, 1), (-1, 0)),
    ],
)
def test_counts_that_do_not_add_up_are_refused(
    n: int, counts: tuple[int, ...], passed: tuple[int, ...] | None
) -> None:
    clusters = tuple(ClusterCount(i, count, i == 0) for i, count in enumerate(counts))
    with pytest.raises(ValueError, match="problem 9"):
        VotePool(9, n, clusters, passed)


def test_a_filter_parts_the_votes() -> None:
    made = pool([30], [60, 10], silent=20, passed=[12, 0, 10])
    assert made.votes() == Ballot((30,), (10, 60), 120)
    assert made.filtered() == Ballot((12,), (10,), 120)
    assert made.rejected() == Ballot((18,), (60,), 98)  # what is silent did not pass
    assert made.after(System.FILTER_VOTE) == Ballot((12,), (10,), 22)


def test_a_filter_vote_needs_verdicts() -> None:
    with pytest.raises(ValueError, match="no verdicts"):
        difficulty(pool([1], [1]), System.FILTER_VOTE)


def test_rates_of_two_answers() -> None:
    ballot = pool([30, 10], [20, 15, 5], silent=20).votes()
    assert ballot.pass_rate == pytest.approx(0.4)
    assert ballot.duel_rate == pytest.approx(0.6)
    assert pool([], [], silent=3).votes().duel_rate == 0


@pytest.mark.parametrize(
    ("right", "wrong", "camp"),
    [
        ([14], [4], 1),
        ([13], [5], 1),
        ([4], [14], 1),
        ([4], [14, 5], 2),
        ([4], [15, 14], 2),
        ([14, 13], [4], 2),
    ],
)
def test_a_sign_is_settled_by_a_sign_test(right: list[int], wrong: list[int], camp: int) -> None:
    high, low = sorted((max(right), max(wrong)), reverse=True)
    tail = sum(math.comb(high + low, v) for v in range(high, high + low + 1)) / 2 ** (high + low)
    assert pool(right, wrong).votes().is_settled == (camp * tail <= 0.025)


def test_few_or_equal_votes_settle_nothing() -> None:
    assert not pool([50], [50]).votes().is_settled
    assert not pool([5], []).votes().is_settled
    assert pool([6], []).votes().is_settled
    assert not pool([], [], silent=100).votes().is_settled


@pytest.mark.parametrize(
    "shares",
    [
        (0.5, 0.5),
        (0.35, 0.35, 0.3),
        (0.3, 0.34, 0.36),
        (0.26, 0.25, 0.25, 0.24),
        (0.1, *[0.1] * 9),
        (0.52, 0.48),
    ],
)
def test_a_wrong_sign_is_rarely_settled(shares: tuple[float, ...]) -> None:
    """The first answer is correct; where it ties, either sign is wrong."""
    rng = np.random.default_rng(3)
    trials, truth = 3000, np.sign(round(max(shares[1:]) - shares[0], 12))
    mistakes = 0
    for counts in rng.multinomial(60, shares, size=trials).tolist():
        ballot = pool(counts[:1], counts[1:]).votes()
        mistakes += ballot.is_settled and np.sign(ballot.difficulty) != truth
    assert mistakes / trials <= 0.05


def test_a_clear_sign_is_usually_settled() -> None:
    rng = np.random.default_rng(4)
    found = [
        pool(counts[:1], counts[1:]).votes() for counts in rng.multinomial(100, (0.6, 0.2, 0.2), 500).tolist()
    ]
    assert sum(ballot.is_settled and ballot.difficulty < 0 for ballot in found) > 450


def test_a_split_counts_what_is_not_settled() -> None:
    pools = [pool([60], [10]), pool([6], [5]), pool([5], [60]), pool([5], [6]), pool([5], [5])]
    found = split([difficulty(each, System.VOTE) for each in pools])
    assert (found.problems, found.easy, found.hard, found.tied, found.unsettled) == (5, 2, 2, 1, 3)
    assert found.limit.value == pytest.approx(0.5)
    assert (found.limit_low, found.limit_high) == pytest.approx((0.2, 0.8))
    with pytest.raises(ValueError, match="no problems"):
        split([])
