"""How sure a mean over problems is: standard errors clustered by problem, intervals, paired differences.

Pure arithmetic on one value a problem; must not know what the values estimate. Samples of one problem are never
taken for independent evidence, since only their problem's value comes here. What resampling adds to a value is
independent from problem to problem, so these errors contain it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over problems with its sampling error; None where the number of problems does not define it."""

    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    problems: int


def mean_over_problems(values: npt.ArrayLike) -> Mean:
    """Mean, standard error clustered by problem and 95% interval of Student's t, cut to [0, 1].

    The error is sample sd / sqrt(problems): one value a problem (Miller 2024, arXiv:2411.00640, section 2.2).
    Where all values are equal the interval has no width: that is what the sample shows, not a proof.
    """
    return _mean(np.asarray(values, dtype=np.float64), 0.0, 1.0)


def paired_difference(first: npt.ArrayLike, second: npt.ArrayLike) -> Mean:
    """Mean over problems of first - second, its standard error and 95% interval, cut to [-1, 1].

    Entry i of both is about problem i, NaN where unknown; it rests on the problems where both are known (Miller
    2024, arXiv:2411.00640, section 4). What is hard for both drops out, so it is sharper than the difference
    of two intervals. Raises ValueError where the problems are not the same.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"no pairs: {one.shape} and {other.shape} values")
    differences = one - other
    return _mean(differences[~np.isnan(differences)], -1.0, 1.0)


@cache
def student_t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with `freedom` >= 1 degrees of freedom: 12.706, 4.303, ... 1.960."""
    from scipy.special import stdtrit  # 0.2 s to import, which commands without intervals need not wait for

    return float(stdtrit(freedom, (1.0 + confidence) / 2.0))


def _mean(values: npt.NDArray[np.float64], lowest: float, highest: float) -> Mean:
    count = values.size
    if count == 0:
        return Mean(None, None, None, None, 0)
    value = float(values.mean())
    if count == 1:
        return Mean(value, None, None, None, 1)
    std_error = float(values.std(ddof=1)) / math.sqrt(count)
    half = student_t_quantile(count - 1) * std_error
    return Mean(value, std_error, max(lowest, value - half), min(highest, value + half), count)
