"""Exact accuracy of a plurality vote over k samples, from the sizes of the answer clusters alone.

Pure arithmetic: must not know pools, problems or outcomes. Ties count as their expectation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ComplexArray = npt.NDArray[np.complex128]

NEGLIGIBLE = 1e-16
"""Probabilities below this are dropped from the law of a count."""
TOLERANCE = 1e-14
"""Smallest contribution that is computed; all that is dropped together stays below 1e-12."""
TABLE_LIMIT = 4_000_000
"""Entries of the tables of the exact computation (64 MB); beyond it, resample."""
BLOCK = 16
"""Winning vote counts that are handled together, hence with the same rivals."""
RESAMPLING_TRIALS = 4_000
RESAMPLING_CELLS = 4_000_000


def plurality_without_replacement(right: Sequence[int], wrong: Sequence[int], n: int, k: int) -> float | None:
    """Chance that a plurality of k < n samples, drawn without replacement, is correct; None if too large.

    `right` and `wrong` are the sizes (> 0) of the correct and wrong clusters; what is missing to n does not
    vote. A tie of m clusters counts 1/m for each correct one, no vote at all counts 0. Absolute error below
    1e-12. See `_Election` for the method.
    """
    election = _Election(right, wrong, n, _Binomial(k, k / n))
    return election.value() if election.entries <= TABLE_LIMIT else None


def plurality_with_replacement(right: Sequence[float], wrong: Sequence[float], k: int) -> float | None:
    """Chance that a plurality of k independent votes is correct; `right` and `wrong` are probabilities > 0.

    What is missing to 1 does not vote. The limit of the above for an infinite pool, and the curve of Chen et
    al. 2024 (arXiv:2403.02419), who resample with replacement.
    """
    election = _Election(right, wrong, 1.0, _Poisson(k))
    return election.value() if election.entries <= TABLE_LIMIT else None


def resampled_plurality(
    right: Sequence[int], wrong: Sequence[int], n: int, k: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean over random draws of k of n samples without replacement, and its Monte Carlo standard error."""
    votes = [*right, *wrong]
    colours = [*votes, n - sum(votes)]
    batch = max(1, RESAMPLING_CELLS // len(colours))
    gains = np.empty(RESAMPLING_TRIALS)
    for start in range(0, RESAMPLING_TRIALS, batch):
        size = min(batch, RESAMPLING_TRIALS - start)
        draws = rng.multivariate_hypergeometric(colours, k, size=size, method="marginals")[:, :-1]
        best = draws.max(axis=1, keepdims=True)
        tied = (draws == best) & (best > 0)
        gains[start : start + size] = tied[:, : len(right)].sum(axis=1) / np.maximum(tied.sum(axis=1), 1)
    return float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(RESAMPLING_TRIALS)


def plurality_of_all(right: Sequence[int], wrong: Sequence[int]) -> float:
    """Share of the correct clusters among those with the most votes."""
    best = max((*right, *wrong))
    winners = list(right).count(best)
    return winners / (winners + list(wrong).count(best))


class _Votes(Protocol):
    """How many votes a cluster gets, before the counts are conditioned on their sum k."""

    @property
    def k(self) -> int: ...

    def law(self, size: float) -> _Law: ...

    def transform(self, size: float, roots: ComplexArray) -> ComplexArray: ...


@dataclass(frozen=True, slots=True)
class _Law:
    """Probabilities of the counts low, low + 1, ..., high; what lies outside is negligible."""

    low: int
    weights: FloatArray

    @property
    def high(self) -> int:
        return self.low + len(self.weights) - 1

    def places(self, counts: IntArray) -> IntArray:
        """Number of terms below each count."""
        return np.minimum(np.maximum(counts - self.low, 0), len(self.weights))

    def at(self, counts: IntArray) -> FloatArray:
        """P(count)."""
        inside = (counts >= self.low) & (counts <= self.high)
        return np.where(inside, self.weights[np.where(inside, counts - self.low, 0)], 0.0)

    def below(self, counts: IntArray) -> FloatArray:
        """P(less than count)."""
        return np.asarray(np.concatenate(([0.0], np.cumsum(self.weights)))[self.places(counts)])


@dataclass(frozen=True, slots=True)
class _Binomial:
    """Without replacement: each of the `size` samples of a cluster is drawn with probability `share`."""

    k: int
    share: float

    def law(self, size: float) -> _Law:
        whole = round(size)
        mean, spread = whole * self.share, math.sqrt(whole * self.share * (1 - self.share))
        low, mode, high = _window(mean, spread, whole)
        v = np.arange(low, high)
        return _from_ratios(low, mode, (whole - v) / (v + 1.0) * (self.share / (1.0 - self.share)))

    def transform(self, size: float, roots: ComplexArray) -> ComplexArray:
        return np.asarray((1.0 - self.share + self.share * roots) ** round(size))


@dataclass(frozen=True, slots=True)
class _Poisson:
    """With replacement: a cluster of probability `size` gets k * size votes on average."""

    k: int

    def law(self, size: float) -> _Law:
        mean = self.k * size
        low, mode, high = _window(mean, math.sqrt(mean), None)
        return _from_ratios(low, mode, mean / np.arange(low + 1.0, high + 1.0))

    def transform(self, size: float, roots: ComplexArray) -> ComplexArray:
        return np.asarray(np.exp(self.k * size * (roots - 1.0)))


def _window(mean: float, spread: float, ceiling: int | None) -> tuple[int, int, int]:
    """Lowest count, mode (about) and highest count; beyond them both laws are far below `NEGLIGIBLE`."""
    mode, reach = int(mean), math.ceil(25 + 9 * spread)
    high = mode + reach if ceiling is None else min(mode + reach, ceiling)
    return max(0, mode - reach), mode, high


def _from_ratios(low: int, mode: int, ratios: FloatArray) -> _Law:
    """Law from the ratios of successive terms, multiplied outwards from the mode: keeps full precision."""
    split = mode - low
    down, up = np.cumprod(1.0 / ratios[:split][::-1])[::-1], np.cumprod(ratios[split:])
    weights = np.concatenate((down, [1.0], up))
    weights /= weights.sum()
    kept = np.flatnonzero(weights > NEGLIGIBLE)
    return _Law(low + int(kept[0]), weights[kept[0] : kept[-1] + 1])


class _Election:
    """A vote among clusters of given sizes (numbers of samples, or probabilities).

    The counts of the clusters in a draw without replacement are independent binomials (Poisson counts for a
    draw with replacement) conditioned on their sum being k. So, for a correct cluster with x votes, every
    other cluster i contributes the series A_i + y B_i: its terms below x votes, and its term at x marked by
    y. The integral of the product over y in [0, 1] gives a tie of m clusters the weight 1/m, because y^(m-1)
    integrates to 1/m (Gauss-Legendre is exact here); the coefficient of k is read off by a discrete Fourier
    transform; and the sum over x is the answer. Clusters that cannot reach x votes merge into one factor,
    clusters of equal size share one series: hence few factors, however many clusters.
    """

    def __init__(self, right: Sequence[float], wrong: Sequence[float], total: float, votes: _Votes) -> None:
        copies = Counter([*right, *wrong])
        self.right, self.total, self.votes, self.k = Counter(right), total, votes, votes.k
        self.laws = _contenders(sorted(copies, reverse=True), votes)
        sizes = sorted(copies, reverse=True)[: len(self.laws)]
        self.sizes, self.copies = np.array(sizes), np.array([copies[size] for size in sizes])
        self.floor = max(1, self.laws[0].low)
        whole = votes.law(total)
        self.chance_of_k = float(whole.at(np.array([self.k]))[0])
        self.tolerance = TOLERANCE * self.chance_of_k
        self.period = (max(whole.high - self.k, self.k - whole.low, 0) + 1) | 1  # odd, too wide to alias
        self.frequencies = np.arange(self.period // 2 + 1)
        self.roots = np.exp(2j * np.pi / self.period * np.arange(self.period))
        self.tables: dict[int, ComplexArray] = {}

    @property
    def entries(self) -> int:
        """Size of the tables that `value` would fill."""
        return sum(len(law.weights) for law in self.laws) * len(self.frequencies)

    def value(self) -> float:
        """Sum over the correct clusters; clusters of one size have one chance."""
        wins = math.fsum(
            self.right[size] * self._chance(i) for i, size in enumerate(self.sizes) if size in self.right
        )
        return min(1.0, max(0.0, wins / self.chance_of_k))

    def _chance(self, index: int) -> float:
        """Chance that a given cluster of this size wins (or shares a tie) and that the counts add up to k."""
        own = self.laws[index]
        x = np.arange(max(self.floor, own.low), min(own.high, self.k) + 1)
        rivals = self.copies.copy()
        rivals[index] -= 1
        at = np.array([law.at(x) for law in self.laws])
        below = np.array([law.below(x) for law in self.laws])
        bound = at[index] * np.prod((below + at) ** rivals[:, None], axis=0)
        kept = bound > self.tolerance
        x, at, below = x[kept], at[:, kept], below[:, kept]
        return math.fsum(self._block(index, rivals, x[s], at[:, s], below[:, s]) for s in _blocks(x))

    def _block(self, index: int, rivals: IntArray, x: IntArray, at: FloatArray, below: FloatArray) -> float:
        """Part of the chance that is due to the winning counts `x`."""
        own = at[index]
        reach = (1.0 - below[:, 0]) * own.max() > self.tolerance
        active = np.flatnonzero(reach & (rivals > 0))
        rest = self.total - self.sizes[index] - float(rivals[active] @ self.sizes[active])
        degree = self._tie_degree(int(rivals[active].sum()), int(x[0]), float((rivals @ at).max()))
        series = own[:, None] * self._phases(x) * self._rivals_below(x, active, rivals, at, degree)
        spectrum = series.sum(axis=0) * self.votes.transform(max(0.0, rest), self.roots[self.frequencies])
        spectrum *= self._phases(np.array([self.k]))[0].conj()
        return float(spectrum[0].real + 2.0 * spectrum[1:].real.sum()) / self.period

    def _rivals_below(
        self, x: IntArray, active: IntArray, rivals: IntArray, at: FloatArray, degree: int
    ) -> ComplexArray:
        """Integral over y of the product of the rivals' series: one value for each x and frequency."""
        y, weights = _quadrature(degree)
        phases = self._phases(x)
        product = np.empty((len(y), *phases.shape), dtype=np.complex128)
        product[:] = weights[:, None, None]
        for i in active:
            series = self._below(i, x) + y[:, None, None] * (at[i][:, None] * phases)
            product *= _power(series, int(rivals[i]))
        return np.asarray(product.sum(axis=0))

    def _below(self, index: int, x: IntArray) -> ComplexArray:
        """Transform of a law cut below x votes."""
        law = self.laws[index]
        if index not in self.tables:
            terms = self._phases(np.arange(law.low, law.high + 1)) * law.weights[:, None]
            self.tables[index] = np.concatenate((np.zeros_like(terms[:1]), np.cumsum(terms, axis=0)))
        return self.tables[index][law.places(x)]

    def _phases(self, counts: IntArray) -> ComplexArray:
        return np.asarray(self.roots[np.outer(counts, self.frequencies) % self.period])

    def _tie_degree(self, rivals: int, lowest: int, expected: float) -> int:
        """Most rivals that can tie with a winner of `lowest` votes: each needs as many votes.

        Larger ties are dropped where even their bound expected^m / m! is negligible.
        """
        most, chance = min(rivals, self.k // lowest - 1), 1.0
        for ties in range(1, most + 1):
            chance *= expected / ties
            if chance < self.tolerance and ties > expected:
                return ties - 1
        return max(0, most)


def _contenders(sizes: Sequence[float], votes: _Votes) -> list[_Law]:
    """Laws of the clusters that may win: all that can reach the fewest votes of the largest."""
    laws = [votes.law(sizes[0])]
    for size in sizes[1:]:
        law = votes.law(size)
        if law.high < laws[0].low:
            break
        laws.append(law)
    return laws


def _blocks(x: IntArray) -> Iterator[slice]:
    """Cut ascending counts where the possible ties, and the rivals, have changed much: 1, 2-3, 4-7, ..."""
    start = 0
    while start < len(x):
        stop = start + min(BLOCK, int(x[start]))
        yield slice(start, stop)
        start = stop


@cache
def _quadrature(degree: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights that integrate polynomials of this degree over [0, 1] exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (nodes + 1.0) / 2.0, weights / 2.0


def _power(base: ComplexArray, exponent: int) -> ComplexArray:
    """Integer power (>= 1) by squaring; numpy's own goes through logarithms."""
    result: ComplexArray | None = None
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        base = base * base if exponent else base
    return base if result is None else result
