"""A curve of accuracy over calls from few calls: one small family a problem, fitted; their mean predicts.

Chen et al. 2024 (arXiv:2403.02419), their published code: easy problems follow g(K) = 1 - exp(-z), hard ones
g(K) = exp(-z), with z = c1 K + c2 sqrt(K) + c3 and c1, c2 >= 1e-6. Pure: must not know pools or systems; which
problems are easy is an argument, since telling that from the full pool or from the few calls makes two predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import FloatArray

TRAINING_KS = (2, 5, 10, 20, 50, 100)
"""Numbers of calls at which the authors fit."""
LEAST_RATE = 1e-6
CLIP = 70.0
"""Largest |z|: exp stays finite (they clip the hard family only, where theirs would overflow)."""
ITERATIONS = 100
"""Steps of every problem: enough for all the curves and all the random targets that were tried."""
REACH = 10.0
"""A step changes z by no more at any training point."""
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e12
RAISE, LOWER = 4.0, 1 / 3
FLATTEST = 1e-3
"""Least level of the flat start."""
BOUNDS = np.array([LEAST_RATE, LEAST_RATE, -np.inf])


@dataclass(frozen=True, slots=True)
class FittedCurves:
    """One curve a problem: arrays of the same length."""

    coefficients: FloatArray
    """Shape (problems, 3): c1, c2, c3."""
    scales: FloatArray
    """Accuracy with endless calls of the easy family (below 1: a tie); 0 for the hard family."""
    squared_errors: FloatArray
    """Sum over the training points, of accuracies divided by the scale."""

    def each(self, ks: Sequence[int]) -> FloatArray:
        """Accuracy of every problem at every number of calls: shape (problems, ks), within [0, 1].

        The family leaves [0, 1] where c3 < 0 and K is small; an accuracy does not.
        """
        is_easy = self.scales[:, None] > 0
        decay = _decay(self.coefficients, _basis(ks))[0]
        curve = np.where(is_easy, 1 - decay, decay)
        return np.asarray(np.clip(curve, 0, 1) * np.where(is_easy, self.scales[:, None], 1))

    def mean(self, ks: Sequence[int]) -> FloatArray:
        """Predicted accuracy: mean over problems at every number of calls."""
        return np.asarray(self.each(ks).mean(axis=0))


def fit_curves(ks: Sequence[int], accuracies: npt.ArrayLike, limits: npt.ArrayLike) -> FittedCurves:
    """Fit accuracies of shape (problems, ks); `limits`, one a problem, choose the families.

    A problem of limit 0 is hard. Any other is easy, and its accuracies are divided by its limit, so that a tie
    approaches its share (the authors multiply by the number m of tied answers). Least squares within the bounds,
    by Levenberg-Marquardt steps on all problems at once: the minimum that the authors' L-BFGS-B finds problem by
    problem, or a lower one, many times quicker. Raises ValueError on shapes that differ, on no training point or
    K < 1, and on values outside [0, 1].
    """
    targets, scales = np.asarray(accuracies, dtype=np.float64), np.asarray(limits, dtype=np.float64)
    if not ks or min(ks) < 1 or targets.shape != (len(scales), len(ks)):
        raise ValueError(f"accuracies of shape {targets.shape} for {len(scales)} problems at K = {list(ks)}")
    if not all(np.all((array >= 0) & (array <= 1)) for array in (targets, scales)):
        raise ValueError("accuracies and limits in [0, 1]")
    # Both families are one: the decay exp(-z) is fitted to the error of an easy problem, or the accuracy of a hard.
    is_easy = scales[:, None] > 0
    decays = np.where(is_easy, 1 - targets / np.where(is_easy, scales[:, None], 1), targets)
    coefficients, errors = _least_squares(_basis(ks), decays)
    return FittedCurves(coefficients, scales, errors)


def _basis(ks: Sequence[int]) -> FloatArray:
    k = np.asarray(ks, dtype=np.float64)
    return np.stack((k, np.sqrt(k), np.ones_like(k)), axis=1)


def _decay(coefficients: FloatArray, basis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """exp(-z) and its derivative by z: shape (problems, ks)."""
    z = coefficients @ basis.T
    decay = np.exp(-np.clip(z, -CLIP, CLIP))
    return decay, np.where(np.abs(z) < CLIP, -decay, 0.0)


def _least_squares(basis: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients, and sums of squared errors, of decays that fit the targets: the better end of two starts."""
    points, errors = zip(*(_descend(start, basis, targets) for start in _starts(targets)), strict=True)
    best = np.argmin(errors, axis=0)
    rows = np.arange(len(targets))
    return np.array(points)[best, rows], np.array(errors)[best, rows]


def _starts(targets: FloatArray) -> Iterator[FloatArray]:
    """The authors' (1, 1, 1), and the flat curve through the mean.

    Far from z = 0 exp is flat, and no step leads back; where the targets go against the family, the flat curve is
    the best there is.
    """
    yield np.ones((len(targets), 3))
    level = -np.log(np.maximum(targets.mean(axis=1), FLATTEST))
    yield np.column_stack((np.full((len(targets), 2), LEAST_RATE), level))


def _descend(point: FloatArray, basis: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Levenberg-Marquardt from one start: a step that lowers the errors is taken and the next one damped less."""
    damping = np.full(len(targets), DAMPING)
    decay, slope = _decay(point, basis)
    errors = ((decay - targets) ** 2).sum(axis=1)
    for _ in range(ITERATIONS):
        trial = np.maximum(point + _step(point, decay - targets, slope, basis, damping), BOUNDS)
        trial_decay, trial_slope = _decay(trial, basis)
        trial_errors = ((trial_decay - targets) ** 2).sum(axis=1)
        is_better = trial_errors < errors
        rows = is_better[:, None]
        point, errors = np.where(rows, trial, point), np.where(is_better, trial_errors, errors)
        decay, slope = np.where(rows, trial_decay, decay), np.where(rows, trial_slope, slope)
        damping = np.clip(damping * np.where(is_better, LOWER, RAISE), LEAST_DAMPING, MOST_DAMPING)
    return point, errors


def _step(
    point: FloatArray, residuals: FloatArray, slope: FloatArray, basis: FloatArray, damping: FloatArray
) -> FloatArray:
    """Damped Gauss-Newton step of every problem; coefficients that push against their bound stay."""
    jacobian = slope[:, :, None] * basis
    gradient = np.einsum("nk,nkp->np", residuals, jacobian)
    is_free = (point > BOUNDS) | (gradient < 0)
    curvature = np.einsum("nkp,nkq->npq", jacobian, jacobian) * (is_free[:, :, None] & is_free[:, None, :])
    diagonal = np.einsum("npp->np", curvature)
    ridge = np.where(is_free, damping[:, None] * diagonal + 1e-30, 1.0)
    matrix = curvature + ridge[:, :, None] * np.eye(3)
    step = -np.linalg.solve(matrix, (gradient * is_free)[:, :, None])[:, :, 0]
    reach = np.abs(step @ basis.T).max(axis=1)
    return np.asarray(step * np.minimum(1, REACH / np.maximum(reach, REACH))[:, None])
