"""Laws of the votes of a cluster against exact fractions, and their transforms against the laws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from orchestrator.analysis.estimation.count_laws import Binomial, Poisson, VoteLaw

LAWS = [(Binomial(512, 0.25), 2048.0), (Binomial(3, 3 / 40), 17.0), (Poisson(90), 0.4), (Poisson(5), 0.01)]


@pytest.mark.parametrize(("size", "k", "n"), [(700, 300, 2000), (5, 1, 2048), (2048, 2, 2048), (40, 39, 40)])
def test_binomial_terms_are_exact(size: int, k: int, n: int) -> None:
    law = Binomial(k, k / n).counts(size)
    share = Fraction(k / n)
    for v in range(law.low, law.high + 1, max(1, (law.high - law.low) // 20)):
        expected = math.comb(size, v) * share**v * (1 - share) ** (size - v)
        assert law.at(np.array([v]))[0] == pytest.approx(float(expected), rel=1e-11)


def test_poisson_terms_are_exact() -> None:
    law = Poisson(90).counts(0.4)
    for v in (law.low, 20, 36, 60, law.high):
        expected = math.exp(-36 + v * math.log(36) - math.lgamma(v + 1))
        assert law.at(np.array([v]))[0] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("votes", "size"), LAWS)
def test_nothing_worth_mentioning_is_outside(votes: VoteLaw, size: float) -> None:
    law = votes.counts(size)
    assert law.weights.sum() == pytest.approx(1.0, abs=1e-14)
    outside = np.array([law.low - 1, law.high + 1, law.high + 1000])
    assert law.at(outside).tolist() == [0.0, 0.0, 0.0]
    assert law.below(outside) == pytest.approx([0.0, 1.0, 1.0], abs=1e-14)


@pytest.mark.parametrize(("votes", "size"), LAWS)
def test_below_adds_up_what_is_below(votes: VoteLaw, size: float) -> None:
    law = votes.counts(size)
    counts = np.arange(law.low, law.high + 2)
    assert np.diff(law.below(counts)) == pytest.approx(law.weights, abs=1e-15)


@pytest.mark.parametrize(("votes", "size"), LAWS)
def test_transforms_are_those_of_the_law(votes: VoteLaw, size: float) -> None:
    law = votes.counts(size)
    angles = np.linspace(0, np.pi, 9)
    roots = np.exp(1j * angles)
    summed = (law.weights * roots[:, None] ** np.arange(law.low, law.high + 1)).sum(axis=1)
    transform = votes.transform(np.array([size]), roots)
    assert np.abs(transform - summed).max() < 1e-12
    assert votes.magnitude(np.array([size]), np.cos(angles)) == pytest.approx(np.abs(transform), abs=1e-12)
    assert votes.silence(size) == pytest.approx(float(law.at(np.array([0]))[0]), abs=1e-15)
