"""What a pool of samples says about a budget: unbiased estimates from counts, exact wherever affordable.

Pure: counts in, numbers out. Must not know where the counts come from (no store, no I/O, no clock) nor how
they are shown. Everything is estimated without replacement from one pool of n samples, so that one pool
answers every budget k <= n. A sample is a draw of the model whose verdict is known: endpoint errors and
missing verdicts are counted, never guessed; truncated, refused, empty and timed-out samples and samples
without an answer are samples that are not correct and never vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.plurality import (
    plurality_of_all,
    plurality_without_replacement,
    resampled_plurality,
)

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """Votes of one answer cluster in a pool; all its answers share one verdict."""

    cluster_id: int
    count: int
    is_correct: bool


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Everything the estimators need of one pool: a partition of its samples, and its votes.

    Raises ValueError where the counts do not add up, since every figure after that would be quietly wrong.
    """

    problem_id: int
    level: str | None
    samples: int
    """Stored samples, errors included."""
    correct: int
    wrong: int
    no_answer: int
    """Finished, but without an answer: none in the text, no text, or refused by a filter."""
    truncated: int
    """Not finished: cut at `max_tokens` or by the context length, or out of time."""
    errors: int
    """The endpoint failed: says nothing about the model."""
    ungraded: int = 0
    """Answered, but no verdict (grader failed or has not run): says nothing about the model yet."""
    clusters: tuple[ClusterCount, ...] = ()
    """Votes: one for each correct or wrong sample."""
    completion_tokens: int = 0
    samples_with_tokens: int = 0
    """Samples whose token count is known; the denominator of mean tokens."""

    def __post_init__(self) -> None:
        parts = (
            self.correct,
            self.wrong,
            self.no_answer,
            self.truncated,
            self.errors,
            self.ungraded,
        )
        if min(parts) < 0 or sum(parts) != self.samples:
            raise ValueError(
                f"problem {self.problem_id}: outcomes {parts} do not add up to {self.samples} samples"
            )
        votes = _sum_counts(self.clusters, True), _sum_counts(self.clusters, False)
        if votes != (self.correct, self.wrong):
            samples = self.correct, self.wrong
            raise ValueError(f"problem {self.problem_id}: (correct, wrong) is {samples}, in votes {votes}")

    @property
    def unknown(self) -> int:
        """Stored samples that say nothing about the model."""
        return self.errors + self.ungraded

    @property
    def n(self) -> int:
        """Samples of the model with a known verdict: the n of every estimator."""
        return self.samples - self.unknown


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in [0, 1]; `mc_error` is the standard error due to resampling, 0.0 where the value is exact."""

    value: float
    mc_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over problems with its sampling error; None where the number of problems does not define it."""

    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    problems: int


def pass_at_k(n: npt.ArrayLike, c: npt.ArrayLike, k: npt.ArrayLike) -> FloatArray:
    """Chance that k of n samples, drawn without replacement, hold one of the c correct; NaN where k > n.

    1 - C(n-c, k) / C(n, k), unbiased (Chen et al. 2021, arXiv:2107.03374, eq. 1). The ratio is symmetric in
    c and k, hence a product of min(c, k) factors prod_j (n - max(c, k) - j) / (n - j): no factorial, no
    logarithm. Arguments broadcast. Raises ValueError unless 0 <= c <= n and k >= 1.
    """
    n, c, k = (a.astype(np.float64) for a in np.broadcast_arrays(n, c, k))
    if np.any(c < 0) or np.any(c > n) or np.any(k < 1):
        raise ValueError("pass@k needs 0 <= c <= n and k >= 1")
    few, many = np.minimum(c, k)[..., None], np.maximum(c, k)[..., None]
    miss = np.ones(n.shape)
    block = 256  # bounds memory: pools of a million samples must not make a table of problems x samples
    for start in range(0, int(few.max(initial=0)), block):
        j = np.arange(start, start + block)
        inside = j < np.minimum(few, n[..., None])
        factors = np.maximum(n[..., None] - many - j, 0.0) / np.where(inside, n[..., None] - j, 1.0)
        miss *= np.where(inside, factors, 1.0).prod(axis=-1)
    return np.asarray(np.where(k > n, np.nan, 1.0 - miss))


def majority_at_k(pool: PoolCounts, k: int, seed: int) -> Estimate:
    """Chance that a plurality vote over k samples, drawn without replacement, elects a correct cluster.

    A tie of m clusters counts 1/m for each correct one among them; samples without an answer do not vote,
    and no vote at all counts 0. Exact (`orchestrator.analysis.plurality`), or by resampling with `seed` (not
    negative) where that would take too long: a pool of 2048 is exact, one of 100,000 may not be.
    Raises ValueError unless 1 <= k <= n.
    """
    if not 1 <= k <= pool.n:
        raise ValueError(f"problem {pool.problem_id}: majority@{k} of {pool.n} samples")
    right, wrong = _sizes(pool.clusters, True), _sizes(pool.clusters, False)
    if not right:
        return Estimate(0.0)
    if k == 1 or not wrong:  # any vote is elected, any vote is correct
        return Estimate(float(pass_at_k(pool.n, pool.correct, k)))
    if k == pool.n:
        return Estimate(plurality_of_all(right, wrong))
    exact = plurality_without_replacement(right, wrong, pool.n, k)
    if exact is not None:
        return Estimate(exact)
    rng = np.random.default_rng([seed, pool.problem_id, k])
    return Estimate(*resampled_plurality(right, wrong, pool.n, k, rng))


def mean_over_problems(values: npt.ArrayLike) -> Mean:
    """Mean, standard error clustered by problem and 95% interval of Student's t, cut to [0, 1].

    The error is sample sd / sqrt(problems): one value a problem, so that samples of one problem are never
    taken for independent evidence (Miller 2024, arXiv:2411.00640, section 2.2). Where all values are equal
    the interval has no width: that is what the sample shows, not a proof.
    """
    array = np.asarray(values, dtype=np.float64)
    count = array.size
    if count == 0:
        return Mean(None, None, None, None, 0)
    value = float(array.mean())
    if count == 1:
        return Mean(value, None, None, None, 1)
    std_error = float(array.std(ddof=1)) / math.sqrt(count)
    half = student_t_quantile(count - 1) * std_error
    return Mean(value, std_error, max(0.0, value - half), min(1.0, value + half), count)


@cache
def student_t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with `freedom` >= 1 degrees of freedom: 12.706, 4.303, ... 1.960.

    Bisection on the finite trigonometric series of the distribution (Abramowitz and Stegun 26.7.3, 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _student_t_mass(middle, freedom) > confidence else (middle, high)
    return math.tan(low) * math.sqrt(freedom)


def accuracy_bounds(pools: Iterable[PoolCounts]) -> tuple[float, float] | None:
    """Accuracy (mean over problems) if all samples of unknown verdict were wrong, and if all were right.

    None without any stored sample.
    """
    counts = np.array([(p.samples, p.correct, p.unknown) for p in pools if p.samples], dtype=np.float64)
    if not counts.size:
        return None
    samples, correct, unknown = counts.T
    return float((correct / samples).mean()), float(((correct + unknown) / samples).mean())


def mean_tokens(pools: Iterable[PoolCounts]) -> float | None:
    """Completion tokens a sample, over the samples whose count is known; None without any."""
    known = [(p.completion_tokens, p.samples_with_tokens) for p in pools]
    samples = sum(count for _, count in known)
    return sum(tokens for tokens, _ in known) / samples if samples else None


def _sizes(clusters: Iterable[ClusterCount], is_correct: bool) -> list[int]:
    return [c.count for c in clusters if c.is_correct == is_correct and c.count]


def _sum_counts(clusters: Iterable[ClusterCount], is_correct: bool) -> int:
    return sum(_sizes(clusters, is_correct))


def _student_t_mass(angle: float, freedom: int) -> float:
    """P(|T| < tan(angle) sqrt(freedom))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    steps = np.arange(
        1 + odd, freedom - 1, 2, dtype=np.float64
    )  # coefficient of each term over the one before
    terms = np.cumprod(np.concatenate(([cosine if odd else 1.0], steps / (steps + 1) * cosine**2)))
    if not odd:
        return sine * float(terms.sum())
    return (angle + (sine * float(terms.sum()) if freedom > 1 else 0.0)) * 2 / math.pi
