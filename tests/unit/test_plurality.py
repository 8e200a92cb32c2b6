"""Exact plurality accuracy against published values, integer arithmetic, enumeration and resampling."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc

from orchestrator.analysis.estimation.plurality import (
    Election,
    Tier,
    pluralities,
    plurality_of_all,
    plurality_with_replacement,
    plurality_without_replacement,
    resampled_plurality,
)

BUDGETS = (1, 2, 3, 4, 5, 8, 16, 32)
ANCHORS = [  # probabilities, the first one correct; accuracy at each of BUDGETS
    ((0.40, 0.30, 0.30), (0.4, 0.4, 0.424, 0.4384, 0.44704, 0.47849, 0.541095, 0.624586)),
    ((0.34, 0.56, 0.10), (0.34, 0.34, 0.306272, 0.307034, 0.283939, 0.249173, 0.173102, 0.091674)),
    ((0.30, 0.40, 0.30), (0.3, 0.3, 0.288, 0.2808, 0.27648, 0.260755, 0.229452, 0.187707)),
]
EASY_AND_HARD = [  # p of easy problems, p of hard ones, share of easy ones; accuracy at K = 1, 3, 5, 9
    (0.85, 0.4, 0.4, (0.5800, 0.5869, 0.5798, 0.5577)),
    (0.85, 0.4, 0.5, (0.6250, 0.6456, 0.6454, 0.6305)),
    (0.85, 0.4, 0.6, (0.6700, 0.7043, 0.7110, 0.7032)),
    (0.65, 0.4, 0.4, (0.5000, 0.4985, 0.4964, 0.4913)),
    (0.65, 0.4, 0.5, (0.5250, 0.5351, 0.5411, 0.5474)),
    (0.65, 0.4, 0.6, (0.5500, 0.5717, 0.5859, 0.6036)),
    (0.65, 0.1, 0.4, (0.3200, 0.3041, 0.3111, 0.3318)),
    (0.85, 0.1, 0.4, (0.4000, 0.3925, 0.3945, 0.3983)),
    (0.85, 0.1, 0.6, (0.5500, 0.5747, 0.5875, 0.5970)),
]


def exact(value: float | None) -> float:
    assert value is not None
    return value


def two_answers(p: float, k: int) -> float:
    return exact(plurality_with_replacement([p], [1 - p], k))


def by_integers(sizes: tuple[int, int, int], k: int) -> float:
    """Three clusters, all samples vote, the first cluster is correct: sum over all counts, in integers."""
    total = Fraction(0)
    for a, b in itertools.product(range(min(k, sizes[0]) + 1), range(min(k, sizes[1]) + 1)):
        c = k - a - b
        if 0 <= c <= sizes[2] and a == max(a, b, c):
            ways = math.comb(sizes[0], a) * math.comb(sizes[1], b) * math.comb(sizes[2], c)
            total += Fraction(ways, (a, b, c).count(a))
    return float(total / math.comb(sum(sizes), k))


def by_enumeration(election: Election, k: int) -> float:
    """Mean over all subsets of k of the pool."""
    voters = [
        (tier, is_right, cluster)
        for tier, each in enumerate(election.tiers)
        for is_right, sizes in ((True, each.right), (False, each.wrong))
        for cluster, size in enumerate(sizes)
        for _ in range(round(size))
    ]
    voters += [(len(election.tiers), False, -1)] * (round(election.n) - len(voters))
    draws = list(itertools.combinations(voters, k))
    return float(sum(_credit(draw, len(election.tiers)) for draw in draws) / len(draws))


def _credit(draw: tuple[tuple[int, bool, int], ...], silent: int) -> Fraction:
    first = min(tier for tier, _, _ in draw)
    votes = [voter for voter in draw if voter[0] == first]
    if first == silent:
        return Fraction(0)
    most = max(votes.count(voter) for voter in votes)
    winners = {voter for voter in votes if votes.count(voter) == most}
    return Fraction(sum(is_right for _, is_right, _ in winners), len(winners))


class TestPublishedValues:
    @pytest.mark.parametrize(("shares", "expected"), ANCHORS)
    def test_with_replacement(self, shares: tuple[float, ...], expected: tuple[float, ...]) -> None:
        found = [exact(plurality_with_replacement(shares[:1], shares[1:], k)) for k in BUDGETS]
        assert found == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize(("shares", "expected"), ANCHORS)
    def test_a_large_pool_approaches_them(
        self, shares: tuple[float, ...], expected: tuple[float, ...]
    ) -> None:
        n = 1_000_000
        right, *wrong = (round(share * n) for share in shares)
        found = [exact(plurality_without_replacement([right], wrong, n, k)) for k in BUDGETS[1:]]
        assert found == pytest.approx(expected[1:], abs=1e-4)

    @pytest.mark.parametrize(("easy", "hard", "share", "expected"), EASY_AND_HARD)
    def test_a_mix_of_easy_and_hard_problems(
        self, easy: float, hard: float, share: float, expected: tuple[float, ...]
    ) -> None:
        found = [share * two_answers(easy, k) + (1 - share) * two_answers(hard, k) for k in (1, 3, 5, 9)]
        assert found == pytest.approx(expected, abs=5.1e-5)

    def test_the_mix_tends_to_the_share_of_easy_problems(self) -> None:
        assert two_answers(0.65, 2001) == pytest.approx(1.0, abs=1e-9)
        assert two_answers(0.4, 2001) == pytest.approx(0.0, abs=1e-9)


class TestTwoAnswers:
    @pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.65, 0.85])
    def test_odd_votes_are_an_incomplete_beta_function(self, p: float) -> None:
        for k in (1, 3, 5, 9, 31, 301):
            half = (k + 1) / 2
            assert two_answers(p, k) == pytest.approx(float(betainc(half, half, p)), abs=1e-12)

    @pytest.mark.parametrize("p", [0.1, 0.4, 0.65])
    def test_an_even_vote_adds_nothing(self, p: float) -> None:
        for m in (1, 2, 5, 40):
            assert two_answers(p, 2 * m) == pytest.approx(two_answers(p, 2 * m - 1), abs=1e-12)

    @pytest.mark.parametrize("p", [0.1, 0.4, 0.65])
    def test_what_two_more_votes_add(self, p: float) -> None:
        for m in (1, 2, 5, 40):
            gain = math.comb(2 * m - 1, m) * (p * (1 - p)) ** m * (2 * p - 1)
            assert two_answers(p, 2 * m + 1) - two_answers(p, 2 * m - 1) == pytest.approx(gain, abs=1e-12)


class TestWithoutReplacement:
    @pytest.mark.parametrize(
        ("sizes", "k"),
        [
            ((700, 720, 628), 64),
            ((90, 80, 86), 128),
            ((100, 120, 36), 255),
            ((3, 200, 53), 17),
            ((60, 61, 7), 127),
        ],
    )
    def test_equals_integer_arithmetic(self, sizes: tuple[int, int, int], k: int) -> None:
        found = exact(plurality_without_replacement(sizes[:1], sizes[1:], sum(sizes), k))
        assert found == pytest.approx(by_integers(sizes, k), abs=1e-12)

    def test_shares_of_all_clusters_make_one(self) -> None:
        """Every vote has a winner: the chances of the clusters add up to one, also among hundreds of them."""
        sizes = [40, 38, 38, 21, *[5] * 20, *[2] * 60, *[1] * 150]
        n = sum(sizes)
        for k in (2, 16, 101, 400):
            total = math.fsum(
                sizes.count(size) * exact(plurality_without_replacement([size], _without(sizes, size), n, k))
                for size in set(sizes)
            )
            assert total == pytest.approx(1.0, abs=1e-11)

    def test_correct_clusters_add_up(self) -> None:
        n, k = 60, 9
        both = exact(plurality_without_replacement([12, 7], [15, 9, 9], n, k))
        first = exact(plurality_without_replacement([12], [7, 15, 9, 9], n, k))
        second = exact(plurality_without_replacement([7], [12, 15, 9, 9], n, k))
        assert both == pytest.approx(first + second, abs=1e-12)

    def test_a_huge_pool_is_left_to_resampling(self) -> None:
        assert plurality_without_replacement([4_000_000], [3_999_000], 8_000_000, 4_000_000) is None


class TestElectionsInTiers:
    @given(
        st.lists(st.tuples(*[st.lists(st.integers(1, 3), max_size=2)] * 2), min_size=1, max_size=2),
        st.integers(0, 2),
        st.data(),
    )
    @settings(max_examples=60, deadline=None)
    def test_equals_enumeration(
        self, tiers: list[tuple[list[int], list[int]]], silent: int, data: st.DataObject
    ) -> None:
        n = sum(sum(right) + sum(wrong) for right, wrong in tiers) + silent
        if not 2 <= n <= 12:
            return
        election = Election(n, tuple(Tier(right, wrong) for right, wrong in tiers))
        k = data.draw(st.integers(1, n - 1))
        assert pluralities([election], k)[0] == pytest.approx(by_enumeration(election, k), abs=1e-12)

    def test_nobody_in_the_first_tier_leaves_it_to_the_second(self) -> None:
        election = Election(10, (Tier([1], []), Tier([2], [3])))
        # one that passes: 2 in 10; else 36 pairs of nine: right alone 1 + 8, and half of the 6 ties with a wrong one
        assert pluralities([election], 2)[0] == pytest.approx(0.2 + 0.8 * (1 + 8 + 3) / 36, abs=1e-12)

    def test_resampling_agrees_within_its_error(self) -> None:
        election = Election(120, (Tier([3], [2, 1]), Tier([30, 4], [28, 25, 6, 6, 1])))
        value, error = resampled_plurality(election, 20, np.random.default_rng(5))
        assert 0 < error < 0.01
        assert abs(value - pluralities([election], 20)[0]) < 4 * error
        assert (value, error) == resampled_plurality(election, 20, np.random.default_rng(5))

    def test_all_votes_counted(self) -> None:
        assert plurality_of_all(Election(16, (Tier([3, 5], [5, 2]),))) == 0.5
        assert plurality_of_all(Election(8, (Tier([3], [5]),))) == 0.0
        assert plurality_of_all(Election(9, (Tier([], []), Tier([5], [3])))) == 1.0
        assert plurality_of_all(Election(4, (Tier([], []),))) == 0.0


class TestManyElectionsTogether:
    """Pools of unlike sizes and shapes share one draw, and get what each gets alone."""

    @pytest.mark.parametrize("k", [1, 2, 7, 60, 129, 300])
    def test_together_as_alone(self, k: int) -> None:
        rng = np.random.default_rng(k)
        elections = []
        for n in rng.integers(k + 1, 700, size=40):
            shares = rng.dirichlet(np.full(rng.integers(1, 30), 0.4))
            sizes = rng.multinomial(n * 9 // 10, shares)
            cut = int(rng.integers(0, 3))
            right, wrong = sizes[:cut][sizes[:cut] > 0], sizes[cut:][sizes[cut:] > 0]
            elections.append(Election(int(n), (Tier(right.tolist(), wrong.tolist()),)))
        together = pluralities(elections, k)
        alone = [pluralities([election], k)[0] for election in elections]
        assert np.abs(together - alone).max() < 1e-12

    def test_none(self) -> None:
        assert pluralities([], 4).tolist() == []

    def test_a_pool_too_small_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a draw of 4 from a pool of 4"):
            pluralities([Election(9, (Tier([3], [5]),)), Election(4, (Tier([1], [2]),))], 4)

    def test_a_thousand_answers_that_differ_all_tie(self) -> None:
        election = Election(1500, (Tier([1] * 300, [1] * 1100),))
        someone_votes = 1 - math.comb(100, 40) / math.comb(1500, 40)
        assert pluralities([election], 40)[0] == pytest.approx(300 / 1400 * someone_votes, abs=1e-12)
        assert pluralities([election], 1499)[0] == pytest.approx(300 / 1400, abs=1e-10)

    def test_too_many_that_may_tie_are_left_to_resampling(self) -> None:
        assert math.isnan(pluralities([Election(10_000, (Tier([1], [1] * 9_999),))], 5_000)[0])

    def test_the_huge_ones_alone_are_left_to_resampling(self) -> None:
        huge = Election(8_000_000, (Tier([4_000_000], [3_999_000]),))
        small = Election(8_000_000, (Tier([2], []),))
        values = pluralities([huge, small], 4_000_000)
        assert math.isnan(values[0])
        assert values[1] == pytest.approx(0.75, abs=1e-6)


def _without(sizes: list[int], size: int) -> list[int]:
    rest = sizes.copy()
    rest.remove(size)
    return rest
