"""Exact plurality accuracy against published values, integer arithmetic, enumeration and resampling."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from orchestrator.analysis.plurality import (
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


def exact(value: float | None) -> float:
    assert value is not None
    return value


def by_integers(sizes: tuple[int, int, int], k: int) -> float:
    """Three clusters, all samples vote, the first cluster is correct: sum over all counts, in integers."""
    total = Fraction(0)
    for a, b in itertools.product(range(min(k, sizes[0]) + 1), range(min(k, sizes[1]) + 1)):
        c = k - a - b
        if 0 <= c <= sizes[2] and a == max(a, b, c):
            ways = math.comb(sizes[0], a) * math.comb(sizes[1], b) * math.comb(sizes[2], c)
            total += Fraction(ways, (a, b, c).count(a))
    return float(total / math.comb(sum(sizes), k))


@pytest.mark.parametrize(("shares", "expected"), ANCHORS)
def test_published_values_with_replacement(shares: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = [exact(plurality_with_replacement(shares[:1], shares[1:], k)) for k in BUDGETS]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("shares", "expected"), ANCHORS)
def test_a_large_pool_approaches_them(shares: tuple[float, ...], expected: tuple[float, ...]) -> None:
    n = 1_000_000
    right, *wrong = (round(share * n) for share in shares)
    found = [exact(plurality_without_replacement([right], wrong, n, k)) for k in BUDGETS[1:]]
    assert found == pytest.approx(expected[1:], abs=1e-4)


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
def test_equals_integer_arithmetic(sizes: tuple[int, int, int], k: int) -> None:
    found = exact(plurality_without_replacement(sizes[:1], sizes[1:], sum(sizes), k))
    assert found == pytest.approx(by_integers(sizes, k), abs=1e-12)


def test_two_answers_with_replacement_equal_the_binomial_tail() -> None:
    p, k = 0.55, 301
    tail = math.fsum(math.comb(k, v) * p**v * (1 - p) ** (k - v) for v in range(k // 2 + 1, k + 1))
    assert plurality_with_replacement([p], [1 - p], k) == pytest.approx(tail, abs=1e-10)


def test_shares_of_all_clusters_make_one() -> None:
    """Every vote has a winner: the chances of the clusters add up to one, also among hundreds of them."""
    sizes = [40, 38, 38, 21, *[5] * 20, *[2] * 60, *[1] * 150]
    n = sum(sizes)
    for k in (2, 16, 101, 400):
        total = math.fsum(
            sizes.count(size) * exact(plurality_without_replacement([size], _without(sizes, size), n, k))
            for size in set(sizes)
        )
        assert total == pytest.approx(1.0, abs=1e-11)


def test_correct_clusters_add_up() -> None:
    n, k = 60, 9
    both = exact(plurality_without_replacement([12, 7], [15, 9, 9], n, k))
    first = exact(plurality_without_replacement([12], [7, 15, 9, 9], n, k))
    second = exact(plurality_without_replacement([7], [12, 15, 9, 9], n, k))
    assert both == pytest.approx(first + second, abs=1e-12)


def test_resampling_agrees_within_its_error() -> None:
    right, wrong, n, k = [30, 4], [28, 25, 6, 6, 1], 120, 20
    value, error = resampled_plurality(right, wrong, n, k, np.random.default_rng(5))
    assert 0 < error < 0.01
    assert abs(value - exact(plurality_without_replacement(right, wrong, n, k))) < 4 * error
    assert (value, error) == resampled_plurality(right, wrong, n, k, np.random.default_rng(5))


def test_a_huge_pool_is_left_to_resampling() -> None:
    assert plurality_without_replacement([4_000_000], [3_999_000], 8_000_000, 4_000_000) is None


def test_all_votes_counted() -> None:
    assert plurality_of_all([3, 5], [5, 2]) == 0.5
    assert plurality_of_all([3], [5]) == 0.0


def _without(sizes: list[int], size: int) -> list[int]:
    rest = sizes.copy()
    rest.remove(size)
    return rest
