"""Fitted curves: they find what made the data, against SciPy's L-BFGS-B, and keep to their family and bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize

from orchestrator.analysis.estimation.arrays import FloatArray
from orchestrator.analysis.vote_scaling.curves import accuracies, log_spaced
from orchestrator.analysis.vote_scaling.fit import CLIP, LEAST_RATE, TRAINING_KS, fit_curves
from orchestrator.analysis.vote_scaling.pools import System, VotePool, difficulty

KS = np.array(TRAINING_KS, dtype=np.float64)
DENSE = log_spaced(2, 1000, 40)


def z(coefficients: FloatArray, ks: FloatArray) -> FloatArray:
    c1, c2, c3 = coefficients
    return np.asarray(c1 * ks + c2 * np.sqrt(ks) + c3)


def squared_error(coefficients: FloatArray, targets: FloatArray, is_easy: bool) -> tuple[float, FloatArray]:
    """The authors' loss, written from its definition, with its gradient."""
    exponent = z(coefficients, KS)
    decay = np.exp(-np.clip(exponent, -CLIP, CLIP))
    residuals = (1 - decay if is_easy else decay) - targets
    slope = 2 * residuals * decay * (np.abs(exponent) < CLIP) * (1 if is_easy else -1)
    return float(residuals @ residuals), slope @ np.column_stack((KS, np.sqrt(KS), np.ones_like(KS)))


def by_lbfgsb(targets: FloatArray, is_easy: bool) -> float:
    bounds = [(LEAST_RATE, None), (LEAST_RATE, None), (None, None)]
    arguments = (targets, is_easy)
    found = minimize(squared_error, np.ones(3), arguments, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(found.fun)


def simulated_pools(problems: int, samples: int, seed: int) -> list[VotePool]:
    rng = np.random.default_rng(seed)
    pools = []
    for i, shares in enumerate(rng.dirichlet(np.full(6, 0.7), size=problems)):
        right = int(rng.choice(6, p=shares))
        pools.append(VotePool.of_votes(i, rng.choice(6, size=samples, p=shares).tolist(), {right}))
    return pools


@pytest.mark.parametrize("truth", [(0.02, 0.1, 0.3), (1e-6, 0.4, -0.2), (0.3, 1e-6, 0.5), (0.001, 0.03, 1.0)])
@pytest.mark.parametrize("limit", [1.0, 0.5, 0.0])
def test_a_fit_finds_the_curve_that_made_the_points(truth: tuple[float, float, float], limit: float) -> None:
    def made(ks: FloatArray) -> FloatArray:
        decay = np.clip(np.exp(-z(np.array(truth), ks)), 0, 1)
        return (1 - decay) * limit if limit else decay

    fit = fit_curves(TRAINING_KS, [made(KS)], [limit])
    assert fit.squared_errors[0] < 1e-12
    assert fit.each(DENSE)[0] == pytest.approx(made(np.array(DENSE, dtype=np.float64)), abs=1e-4)


def test_squared_errors_are_those_of_the_curve() -> None:
    targets = np.array([[0.2, 0.5, 0.4, 0.6, 0.8, 0.7], [0.5, 0.3, 0.35, 0.2, 0.1, 0.0]])
    fit = fit_curves(TRAINING_KS, targets, [1.0, 0.0])
    for row, is_easy in enumerate((True, False)):
        loss, _ = squared_error(fit.coefficients[row], targets[row], is_easy)
        assert fit.squared_errors[row] == pytest.approx(loss, abs=1e-12)


def test_no_fit_is_worse_than_l_bfgs_b() -> None:
    """On real shapes, fitted with the family that is right and with the other; and on points without any shape."""
    pools = simulated_pools(12, 20, seed=1)
    shapes = accuracies(pools, System.VOTE, TRAINING_KS)
    targets = np.concatenate((shapes, shapes, np.random.default_rng(2).random((12, len(KS)))))
    limits = [difficulty(pool, System.VOTE).limit for pool in pools]
    is_easy = np.array(
        [*(limit > 0 for limit in limits), *(limit == 0 for limit in limits), *[True, False] * 6]
    )
    fit = fit_curves(TRAINING_KS, targets, is_easy.astype(float))
    for row, found in enumerate(fit.squared_errors):
        assert found <= by_lbfgsb(targets[row], bool(is_easy[row])) + 1e-7


@pytest.mark.parametrize(
    "targets", [(0.95, 0.14, 0.1, 0.12, 0.21, 0.55), (0.98, 0.95, 0.5, 0.15, 0.15, 0.14)]
)
def test_points_that_need_short_steps_or_many(targets: tuple[float, ...]) -> None:
    fit = fit_curves(TRAINING_KS, [targets], [0.0])
    assert fit.squared_errors[0] <= by_lbfgsb(np.array(targets), is_easy=False) + 1e-7


def test_points_that_go_against_their_family_get_their_mean() -> None:
    fit = fit_curves(TRAINING_KS, [KS / 200, 1 - KS / 200], [0.0, 1.0])
    assert fit.each([2, 100]) == pytest.approx(
        np.repeat([[np.mean(KS / 200)], [1 - np.mean(KS / 200)]], 2, 1), abs=1e-3
    )


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float64, (3, len(KS)), elements=st.floats(0, 1)),
    st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 1.0]), min_size=3, max_size=3),
)
def test_curves_keep_to_their_bounds_and_their_family(targets: FloatArray, limits: list[float]) -> None:
    fit = fit_curves(TRAINING_KS, targets, limits)
    assert np.all(fit.coefficients[:, :2] >= LEAST_RATE)
    curves = fit.each(DENSE)
    for curve, limit in zip(curves, limits, strict=True):
        assert np.all((curve >= 0) & (curve <= (limit or 1)))
        assert np.all(np.diff(curve) * (1 if limit else -1) >= 0)


def test_a_tie_approaches_its_share() -> None:
    pool = VotePool.of_votes(1, [*[0] * 9, *[1] * 9, *[2] * 9, 3], {0})
    limit = difficulty(pool, System.VOTE).limit
    assert limit == pytest.approx(1 / 3)
    measured = accuracies([pool], System.VOTE, TRAINING_KS)
    fit = fit_curves(TRAINING_KS, measured, [limit])
    assert fit.each([2, 50, 100_000]) == pytest.approx(np.array([[*measured[0, [0, 4]], 1 / 3]]), abs=3e-3)


def test_the_mean_is_over_problems() -> None:
    fit = fit_curves(TRAINING_KS, [[1] * 6, [0] * 6], [1.0, 0.0])
    assert fit.mean([2, 100]) == pytest.approx([0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize("ks", [(1,), (2, 5), (300, 600, 1000), (2, 10, 10_000)])
def test_other_training_points(ks: tuple[int, ...]) -> None:
    truth = 1 - np.exp(-0.002 * np.array(ks) - 0.4)
    fit = fit_curves(ks, [truth, 1 - truth], [1.0, 0.0])
    assert fit.each(ks) == pytest.approx(np.array([truth, 1 - truth]), abs=1e-3)


def test_no_problems_give_no_curves() -> None:
    assert fit_curves(TRAINING_KS, np.empty((0, 6)), []).each([2, 3]).shape == (0, 2)


@pytest.mark.parametrize(
    ("ks", "targets", "limits"),
    [
        ((), [[]], [1.0]),
        ((0, 2), [[0.1, 0.2]], [1.0]),
        ((1, 2), [[0.1, 0.2]], [1.0, 0.0]),
        ((1, 2), [[0.1, 1.2]], [1.0]),
        ((1, 2), [[0.1, float("nan")]], [1.0]),
        ((1, 2), [[0.1, 0.2]], [-0.5]),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    ks: tuple[int, ...], targets: list[list[float]], limits: list[float]
) -> None:
    with pytest.raises(ValueError, match="accuracies"):
        fit_curves(ks, targets, limits)
