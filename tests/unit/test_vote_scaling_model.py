"""The two-level model against published values, binomial sums, and its own curve searched point by point."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.vote_scaling.model import (
    Regime,
    TwoLevelModel,
    fit_two_level,
    majority_of_two,
)

UP, DOWN, HILL, VALLEY = Regime.INCREASE, Regime.DECREASE, Regime.RISE_THEN_FALL, Regime.FALL_THEN_RISE
ANCHORS = [  # p1, p2, easy share; F at 1, 3, 5, 9 and in the limit; shape, K*, best odd K (None: endless)
    (0.85, 0.4, 0.4, (0.5800, 0.5869, 0.5798, 0.5577), 0.4, HILL, 2.679, 3),
    (0.85, 0.4, 0.5, (0.6250, 0.6456, 0.6454, 0.6305), 0.5, HILL, 3.961, 3),
    (0.85, 0.4, 0.6, (0.6700, 0.7043, 0.7110, 0.7032), 0.6, HILL, 5.243, 5),
    (0.65, 0.4, 0.4, (0.5000, 0.4985, 0.4964, 0.4913), 0.4, DOWN, 0.000, 1),
    (0.65, 0.4, 0.5, (0.5250, 0.5351, 0.5411, 0.5474), 0.5, HILL, 15.161, 15),
    (0.65, 0.4, 0.6, (0.5500, 0.5717, 0.5859, 0.6036), 0.6, HILL, 30.322, 31),
    (0.65, 0.1, 0.4, (0.3200, 0.3041, 0.3111, 0.3318), 0.4, VALLEY, None, None),
    (0.85, 0.1, 0.4, (0.4000, 0.3925, 0.3945, 0.3983), 0.4, VALLEY, None, 1),  # begins and ends at 0.4
    (0.85, 0.1, 0.6, (0.5500, 0.5747, 0.5875, 0.5970), 0.6, UP, None, None),
]
SHAPES = {(1,): UP, (-1,): DOWN, (1, -1): HILL, (-1, 1): VALLEY}


def draws(count: int, seed: int) -> list[TwoLevelModel]:
    rng = np.random.default_rng(seed)
    columns = rng.uniform(0.02, 0.98, count), rng.uniform(0.52, 0.98, count), rng.uniform(0.02, 0.48, count)
    return [TwoLevelModel(float(a), float(p1), float(p2)) for a, p1, p2 in zip(*columns, strict=True)]


def turn(model: TwoLevelModel) -> float:
    """m where the gain of two more votes changes its sign, whatever p1 + p2; not taken from the module."""
    a, p1, p2 = model.easy_share, model.easy_rate, model.hard_rate
    odds = a * (2 * p1 - 1) / ((1 - a) * (1 - 2 * p2))
    return math.log(odds) / math.log(p2 * (1 - p2) / (p1 * (1 - p1)))


@pytest.mark.parametrize(("p1", "p2", "share", "values", "limit", "shape", "k_star", "best"), ANCHORS)
def test_published_values(
    p1: float,
    p2: float,
    share: float,
    values: tuple[float, ...],
    limit: float,
    shape: Regime,
    k_star: float | None,
    best: int | None,
) -> None:
    model = TwoLevelModel(share, p1, p2)
    assert model.accuracy([1, 3, 5, 9]) == pytest.approx(values, abs=5.1e-5)
    assert model.limit == pytest.approx(limit, abs=1e-12)
    assert model.regime is shape
    assert model.best_odd_k == best
    assert model.k_star == (None if k_star is None else pytest.approx(k_star, abs=5e-4))


def test_the_valleys_are_lowest_at_three_votes() -> None:
    for model in (TwoLevelModel(0.4, 0.65, 0.1), TwoLevelModel(0.4, 0.85, 0.1)):
        curve = model.accuracy(np.arange(1, 200, 2))
        assert int(np.argmin(curve)) == 1


@pytest.mark.parametrize("p", [0.0, 0.1, 0.4, 0.5, 0.65, 0.85, 1.0])
def test_a_majority_is_the_sum_of_its_binomial_terms(p: float) -> None:
    for k in range(1, 26):
        terms = [math.comb(k, v) * p**v * (1 - p) ** (k - v) for v in range(k + 1)]
        expected = math.fsum(terms[k // 2 + 1 :]) + (terms[k // 2] / 2 if k % 2 == 0 else 0)
        assert float(majority_of_two(p, k)) == pytest.approx(expected, abs=1e-13)


@given(st.floats(0, 1), st.integers(1, 60))
def test_one_vote_more_than_an_odd_number_changes_nothing(p: float, m: int) -> None:
    assert majority_of_two(p, 2 * m) == majority_of_two(p, 2 * m - 1)


@given(st.floats(0, 1), st.integers(1, 60))
def test_the_gain_of_two_more_votes(p: float, m: int) -> None:
    gain = majority_of_two(p, 2 * m + 1) - majority_of_two(p, 2 * m - 1)
    assert float(gain) == pytest.approx(math.comb(2 * m - 1, m) * (p * (1 - p)) ** m * (2 * p - 1), abs=1e-13)


def test_the_best_odd_number_of_votes_is_the_highest_point_of_the_curve() -> None:
    models = [m for m in draws(6000, 1) if m.easy_rate + m.hard_rate > 1 and turn(m) > 0]
    tested = [model for model in models if turn(model) < 60]
    assert len(tested) >= 1500
    odd = np.arange(1, 201, 2)
    for model in tested:
        best = model.best_odd_k
        assert best is not None
        assert best == max(1, 2 * math.ceil(turn(model)) - 1)
        assert float(model.accuracy(best)) >= model.accuracy(odd).max() - 1e-13
        assert model.k_star is not None
        assert abs(best - model.k_star) <= 1 + 1e-9 or best == 1  # nearest odd number


def test_the_regime_is_the_shape_of_the_curve() -> None:
    """Signs of the differences of the curve that rounding leaves, over 300 odd numbers of votes."""
    tested = [model for model in draws(6000, 2) if abs(turn(model)) < 20]
    assert len(tested) >= 3000
    odd = np.arange(1, 601, 2)
    for model in tested:
        steps = np.diff(model.accuracy(odd))
        signs = np.sign(steps[np.abs(steps) > 1e-14]).astype(int)
        assert model.regime is SHAPES[tuple(sign for sign, _ in itertools.groupby(signs))], model


def test_the_threshold_decides_whether_more_votes_help_first() -> None:
    """The condition as corrected: a > 1 - 1/t, and not a < 1 - 1/t, is where accuracy rises first."""
    for model in draws(3000, 3):
        rises = model.easy_share > 1 - 1 / model.threshold
        is_balanced_high = model.easy_rate + model.hard_rate > 1
        expected = {(True, True): HILL, (True, False): DOWN, (False, True): UP, (False, False): VALLEY}
        assert model.regime is expected[is_balanced_high, rises]
        assert (model.accuracy(3) > model.accuracy(1)) == rises


@pytest.mark.parametrize(
    ("model", "shape", "best"),
    [
        (TwoLevelModel(1.0, 0.7, 0.3), UP, None),
        (TwoLevelModel(0.0, 0.7, 0.3), DOWN, 1),
        (TwoLevelModel(0.6, 0.7, 0.3), UP, None),  # p1 + p2 = 1: all gains have one sign
        (TwoLevelModel(0.4, 0.7, 0.3), DOWN, 1),
        (TwoLevelModel(0.5, 0.7, 0.3), Regime.CONSTANT, 1),
        (TwoLevelModel(0.3, 1.0, 0.0), Regime.CONSTANT, 1),
        (TwoLevelModel(0.3, 1.0, 0.2), DOWN, 1),
        (TwoLevelModel(0.3, 0.8, 0.0), UP, None),
        (TwoLevelModel(0.3, 0.5, 0.2), DOWN, 1),
        (TwoLevelModel(0.3, 0.8, 0.5), UP, None),
        (TwoLevelModel(0.3, 0.5, 0.5), Regime.CONSTANT, 1),
    ],
)
def test_models_at_the_edge(model: TwoLevelModel, shape: Regime, best: int | None) -> None:
    assert model.regime is shape
    assert model.best_odd_k == best
    assert model.k_star is None
    assert model.limit == pytest.approx(float(model.accuracy(10**9 + 1)), abs=1e-9)


@pytest.mark.parametrize("values", [(1.1, 0.8, 0.2), (0.5, 0.4, 0.2), (0.5, 0.8, 0.6), (math.nan, 0.8, 0.2)])
def test_what_is_no_model_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not a two-level model"):
        TwoLevelModel(*values)


def test_no_votes_elect_nothing() -> None:
    with pytest.raises(ValueError, match="at least one vote"):
        majority_of_two(0.6, [1, 0])


@pytest.mark.parametrize(("share", "p1", "p2"), [(0.4, 0.85, 0.4), (0.5, 0.65, 0.35), (0.6, 0.75, 0.4)])
def test_a_fit_finds_the_model_that_made_the_rates(share: float, p1: float, p2: float) -> None:
    rng = np.random.default_rng(5)
    problems, samples = 20_000, 400
    truth = np.where(rng.random(problems) < share, p1, p2)
    found = fit_two_level(rng.binomial(samples, truth) / samples)
    assert (found.easy_share, found.easy_rate, found.hard_rate) == pytest.approx((share, p1, p2), abs=0.01)
    wanted = TwoLevelModel(share, p1, p2)
    ks = np.arange(1, 101)
    assert found.accuracy(ks) == pytest.approx(wanted.accuracy(ks), abs=0.015)
    if wanted.regime is HILL:
        assert found.k_star == pytest.approx(wanted.k_star, abs=1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_one_vote_is_right_as_often_as_the_problems_on_average(rates: list[float]) -> None:
    model = fit_two_level(rates)
    assert float(model.accuracy(1)) == pytest.approx(float(np.mean(rates)), abs=1e-12)


def test_a_rate_of_one_half_counts_half_to_either_side() -> None:
    model = fit_two_level([0.9, 0.5])
    assert model.easy_share == 0.75
    assert model.easy_rate == pytest.approx((0.9 + 0.25) / 1.5)
    assert model.hard_rate == 0.5
    assert fit_two_level([0.2, 0.3]) == TwoLevelModel(0.0, 0.5, 0.25)


@pytest.mark.parametrize("rates", [[], [0.2, 1.2], [math.nan]])
def test_rates_that_are_none_are_refused(rates: list[float]) -> None:
    with pytest.raises(ValueError, match="rates"):
        fit_two_level(rates)
