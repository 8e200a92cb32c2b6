"""How good scores are: area under the curve, Brier score, calibration, on arrays; weights count repeated items.

Pure NumPy, no torch: the trainer's hold-out and the card's tables use the same definitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOOD_ABOVE = 0.5  # a step is good if more than half of the rollouts from it were right
BINS = 10

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores in [low, high) (the last bin includes 1): their share of all, their mean, and the mean of what came."""

    low: float
    high: float
    share: float
    score: float
    observed: float


def auc(scores: ArrayLike, is_good: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Give the chance that a good item scores above a bad one, ties counting half; NaN without one of either.

    The area under the ROC curve (Hanley and McNeil 1982), with weighted items.
    """
    values, good, weight = _arrays(scores, is_good, weights)
    is_good_item = good > 0
    _, places = np.unique(values, return_inverse=True)
    good_at = np.bincount(places, weight * is_good_item)
    bad_at = np.bincount(places, weight * ~is_good_item, minlength=len(good_at))
    pairs = good_at.sum() * bad_at.sum()
    below = np.cumsum(bad_at) - bad_at
    return float((good_at * (below + bad_at / 2)).sum() / pairs) if pairs else float("nan")


def accuracy(scores: ArrayLike, is_good: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Give the share of items that a score above 0.5 tells right."""
    values, good, weight = _arrays(scores, is_good, weights)
    return float(np.average((values > GOOD_ABOVE) == (good > 0), weights=weight))


def brier(scores: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Give the mean squared difference between probabilities and targets (Brier 1950)."""
    values, wanted, weight = _arrays(scores, targets, weights)
    return float(np.average((values - wanted) ** 2, weights=weight))


def reliability(scores: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> list[Bin]:
    """Cut probabilities into ten bins of equal width; empty bins are left out."""
    values, wanted, weight = _arrays(scores, targets, weights)
    places = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    bins = []
    for place in np.unique(places).tolist():
        inside = places == place
        bins.append(
            Bin(
                low=place / BINS,
                high=(place + 1) / BINS,
                share=float(weight[inside].sum() / weight.sum()),
                score=float(np.average(values[inside], weights=weight[inside])),
                observed=float(np.average(wanted[inside], weights=weight[inside])),
            )
        )
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """Give the expected calibration error: the mean gap between score and outcome (Naeini et al. 2015)."""
    return sum(each.share * abs(each.score - each.observed) for each in bins)


def _arrays(
    scores: ArrayLike, targets: ArrayLike, weights: ArrayLike | None
) -> tuple[Doubles, Doubles, Doubles]:
    values, wanted = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    return values, wanted, np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
