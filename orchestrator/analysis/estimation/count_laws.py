"""How many votes an answer cluster gets in a draw, before the counts are conditioned on their sum.

Pure arithmetic: must not know what an election is. Each law is held over a window outside of which it is
negligible, with its terms in full relative precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.analysis.estimation.arrays import ComplexArray, FloatArray, IntArray

NEGLIGIBLE = 1e-16
"""Probabilities below this are dropped from the law of a count."""


@dataclass(frozen=True, slots=True)
class CountLaw:
    """Probabilities of the counts low, low + 1, ..., high; what lies outside is negligible."""

    low: int
    padded: FloatArray
    """The probabilities, with a zero on each side."""
    cumulated: FloatArray
    """Sum of the first 0, 1, 2, ... of them."""

    @property
    def high(self) -> int:
        """Highest count."""
        return self.low + len(self.cumulated) - 2

    @property
    def weights(self) -> FloatArray:
        """P(low), ..., P(high)."""
        return self.padded[1:-1]

    def at(self, counts: IntArray) -> FloatArray:
        """P(count)."""
        return self.padded.take(counts - (self.low - 1), mode="clip")

    def below(self, counts: IntArray) -> FloatArray:
        """P(less than count)."""
        return self.cumulated.take(counts - self.low, mode="clip")


class VoteLaw(Protocol):
    """How a draw of k samples hands out votes: independently to each cluster, given that k come together."""

    @property
    def k(self) -> int:
        """Votes that are drawn."""
        ...

    def counts(self, size: float) -> CountLaw:
        """Law of the votes of a cluster of this size."""
        ...

    def transform(self, sizes: FloatArray, roots: ComplexArray) -> ComplexArray:
        """Its generating function, without a window; the arguments broadcast."""
        ...

    def magnitude(self, sizes: FloatArray, cosines: FloatArray) -> FloatArray:
        """Absolute value of that on the unit circle, from the cosine of the angle."""
        ...

    def silence(self, size: float) -> float:
        """P(0 votes)."""
        ...


@dataclass(frozen=True, slots=True)
class Binomial:
    """Without replacement: each of the `size` samples of a cluster is drawn with probability `share`."""

    k: int
    share: float

    def counts(self, size: float) -> CountLaw:
        """Law of the votes of a cluster."""
        whole = round(size)
        mean, spread = whole * self.share, math.sqrt(whole * self.share * (1 - self.share))
        low, mode, high = _window(mean, spread, whole)
        v = np.arange(low, high)
        return _from_ratios(low, mode, (whole - v) / (v + 1.0) * (self.share / (1.0 - self.share)))

    def transform(self, sizes: FloatArray, roots: ComplexArray) -> ComplexArray:
        """Generating function of that."""
        return np.asarray(np.exp(sizes * np.log(1.0 - self.share + self.share * roots)))

    def magnitude(self, sizes: FloatArray, cosines: FloatArray) -> FloatArray:
        """Its absolute value on the unit circle."""
        return np.asarray((1.0 - 2.0 * self.share * (1.0 - self.share) * (1.0 - cosines)) ** (sizes / 2.0))

    def silence(self, size: float) -> float:
        """P(0 votes)."""
        return math.exp(size * math.log1p(-self.share))


@dataclass(frozen=True, slots=True)
class Poisson:
    """With replacement: a cluster of probability `size` gets k * size votes on average."""

    k: int

    def counts(self, size: float) -> CountLaw:
        """Law of the votes of a cluster."""
        mean = self.k * size
        low, mode, high = _window(mean, math.sqrt(mean), None)
        return _from_ratios(low, mode, mean / np.arange(low + 1.0, high + 1.0))

    def transform(self, sizes: FloatArray, roots: ComplexArray) -> ComplexArray:
        """Generating function of that."""
        return np.asarray(np.exp(self.k * sizes * (roots - 1.0)))

    def magnitude(self, sizes: FloatArray, cosines: FloatArray) -> FloatArray:
        """Its absolute value on the unit circle."""
        return np.asarray(np.exp(-self.k * sizes * (1.0 - cosines)))

    def silence(self, size: float) -> float:
        """P(0 votes)."""
        return math.exp(-self.k * size)


def _window(mean: float, spread: float, ceiling: int | None) -> tuple[int, int, int]:
    """Lowest count, mode (about) and highest count; beyond them both laws are far below `NEGLIGIBLE`."""
    mode, reach = int(mean), math.ceil(25 + 9 * spread)
    high = mode + reach if ceiling is None else min(mode + reach, ceiling)
    return max(0, mode - reach), mode, high


def _from_ratios(low: int, mode: int, ratios: FloatArray) -> CountLaw:
    """Law from the ratios of successive terms, multiplied outwards from the mode: keeps full precision."""
    split = mode - low
    down, up = np.cumprod(1.0 / ratios[:split][::-1])[::-1], np.cumprod(ratios[split:])
    weights = np.concatenate((down, [1.0], up))
    weights /= weights.sum()
    kept = np.flatnonzero(weights > NEGLIGIBLE)
    padded = np.zeros(kept[-1] - kept[0] + 3)
    padded[1:-1] = weights[kept[0] : kept[-1] + 1]
    return CountLaw(low + int(kept[0]), padded, np.cumsum(padded[:-1]))
