"""Credits of many draws at once: what `selectors.credit` says of prefixes of many rows of samples, vectorised.

Pure arithmetic on arrays; must not know where the rows come from: random orders of a pool, or all of its subsets. A
row names samples in the order in which they are drawn, and its first k are a draw of k. Budgets ascend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import BoolArray, FloatArray, IntArray
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.order_statistics import pass_at_k
from orchestrator.analysis.estimation.selectors import WEIGHT_TOLERANCE, kept_of

MOST_RESOLUTIONS = 64
"""Ways to break the ties within chains that are enumerated."""


class Tally(Protocol):
    """A selector at work on a pool: `units` of `unit` samples each are what is drawn."""

    @property
    def units(self) -> int:
        """How many the pool has."""
        ...

    @property
    def unit(self) -> int:
        """Samples of each."""
        ...

    def known(self, drawn: int) -> float | None:
        """Expected credit of so many units, where that needs no draw."""
        ...

    def settled(self) -> Sequence[Tally]:
        """Tallies without chance in them whose mean is this one; none if they are too many."""
        ...

    def credit(self, order: IntArray, budgets: Sequence[int], rng: np.random.Generator) -> FloatArray:
        """Credit of the first k units of each row: (budgets, rows); `rng` breaks what ties remain."""
        ...


@dataclass(frozen=True, slots=True)
class WeightedTally:
    """Weighted best-of-n over samples, or over the winners of chains."""

    clusters: IntArray
    """(units,): cluster of each unit; `len(is_correct)` where it has none."""
    weights: FloatArray
    """(units,): 0 where it has no cluster."""
    is_correct: BoolArray
    """(clusters,)."""
    unit: int = 1

    @property
    def units(self) -> int:
        """Samples, or chains."""
        return len(self.clusters)

    def known(self, drawn: int) -> float | None:
        """One draw is right or wrong; and all clusters may be, or none."""
        is_right = np.append(self.is_correct, False)[self.clusters]
        if drawn == 1 or not is_right.any():
            return float(is_right.mean())
        candidates = int(np.count_nonzero(self.clusters < len(self.is_correct)))
        if np.count_nonzero(is_right) == candidates:
            return float(pass_at_k(self.units, candidates, drawn))
        return None

    def settled(self) -> Sequence[Tally]:
        """Nothing is left to chance."""
        return (self,)

    def credit(self, order: IntArray, budgets: Sequence[int], rng: np.random.Generator) -> FloatArray:
        """Credit of the first k units of each row: (budgets, rows)."""
        return weighted_credits(self.clusters.take(order), self.weights.take(order), self.is_correct, budgets)


@dataclass(frozen=True, slots=True)
class ChainTally:
    """Hierarchical: weighted over chains whose winners may be ties."""

    options: tuple[int, ...]
    """(chains,): how many answers may win each chain; at least 1, which may be none."""
    clusters: IntArray
    """(all options,): as in `WeightedTally`, chain after chain."""
    weights: FloatArray
    is_correct: BoolArray
    unit: int

    @property
    def units(self) -> int:
        """Samples, or chains."""
        return len(self.options)

    def known(self, drawn: int) -> float | None:
        """One chain is right as often as its winners are."""
        is_right = np.append(self.is_correct, False)[self.clusters]
        if drawn > 1 and is_right.any():
            return None
        return float((is_right / np.repeat(self._counts, self._counts)).sum()) / self.units

    def settled(self) -> Sequence[Tally]:
        """One tally for each way to break the ties within the chains, all equally likely."""
        tied = np.flatnonzero(self._counts > 1)
        if math.prod(self.options) > MOST_RESOLUTIONS:
            return ()
        ways = product(*(range(self.options[chain]) for chain in tied))
        picks = np.tile(self._starts, (math.prod(self.options), 1))
        picks[:, tied] += np.array(list(ways), dtype=np.int64)
        return tuple(
            WeightedTally(self.clusters[p], self.weights[p], self.is_correct, self.unit) for p in picks
        )

    def credit(self, order: IntArray, budgets: Sequence[int], rng: np.random.Generator) -> FloatArray:
        """Credit of the first k units of each row: (budgets, rows)."""
        picks = self._starts + rng.integers(0, self._counts, size=(len(order), self.units))
        picks = np.take_along_axis(picks, order, axis=1)
        return weighted_credits(self.clusters.take(picks), self.weights.take(picks), self.is_correct, budgets)

    @property
    def _counts(self) -> IntArray:
        return np.array(self.options, dtype=np.int64)

    @property
    def _starts(self) -> IntArray:
        return np.asarray(np.cumsum(self._counts) - self._counts)


@dataclass(frozen=True, slots=True)
class ShareTally:
    """Filter-vote among the best share of what is drawn."""

    clusters: IntArray
    ranks: npt.NDArray[np.int32]
    """(units,): 0 for the highest score, equal scores alike; `UNRANKED` without a score or an answer."""
    is_correct: BoolArray
    share: float
    unit: int = 1

    @property
    def units(self) -> int:
        """Samples, or chains."""
        return len(self.clusters)

    def known(self, drawn: int) -> float | None:
        """As for a plain vote: whoever has an answer may be chosen."""
        return WeightedTally(self.clusters, np.empty(0), self.is_correct).known(drawn)

    def settled(self) -> Sequence[Tally]:
        """Nothing is left to chance."""
        return (self,)

    def credit(self, order: IntArray, budgets: Sequence[int], rng: np.random.Generator) -> FloatArray:
        """Credit of the first k units of each row: (budgets, rows)."""
        return share_credits(
            self.clusters.take(order), self.ranks.take(order), self.is_correct, self.share, budgets
        )


UNRANKED = np.int32(np.iinfo(np.int32).max)


def weighted_tally(pool: Ballots, score: str) -> WeightedTally:
    """Weighted best-of-n over the samples of a pool."""
    clusters, is_correct = _clusters(pool, pool.is_selectable(score))
    weights = np.where(clusters < len(is_correct), pool.scores[score], 0.0).astype(np.float64)
    return WeightedTally(clusters, weights, is_correct)


def share_tally(pool: Ballots, score: str, share: float) -> ShareTally:
    """Filter-vote by share over the samples of a pool."""
    clusters, is_correct = _clusters(pool, pool.has_answer)
    is_ranked = pool.is_selectable(score)
    ranks = np.full(pool.n, UNRANKED)
    ranks[is_ranked] = np.unique(-pool.scores[score][is_ranked], return_inverse=True)[1]
    return ShareTally(clusters, ranks, is_correct, share)


def chain_tally(pool: Ballots, score: str, chain: int) -> ChainTally:
    """Hierarchical selection over the chains of a pool. Raises ValueError where the last chain is not whole."""
    if pool.n % chain:
        raise ValueError(f"problem {pool.problem_id}: {pool.n} samples are no whole chains of {chain}")
    flat = weighted_tally(pool, score)
    chains, width = pool.n // chain, len(flat.is_correct)
    place = flat.clusters + (width + 1) * np.repeat(np.arange(chains), chain)
    shape = chains, width + 1
    best = np.full(shape, -1.0)
    np.maximum.at(best.reshape(-1), place, flat.weights)
    sums = np.bincount(place, flat.weights, minlength=best.size).reshape(shape)
    is_tied = _heaviest(sums[:, :-1], best[:, :-1] >= 0)
    is_option = np.column_stack((is_tied, ~is_tied.any(axis=1)))
    _, clusters = np.nonzero(is_option)
    weights = np.where(clusters < width, best[is_option], 0.0)
    return ChainTally(tuple(is_option.sum(axis=1).tolist()), clusters, weights, flat.is_correct, chain)


def weighted_credits(
    clusters: IntArray, weights: FloatArray, is_correct: BoolArray, budgets: Sequence[int]
) -> FloatArray:
    """Weighted best-of-n of each prefix of (rows, samples): (budgets, rows)."""
    shape = len(clusters), len(is_correct) + 1
    place = clusters + shape[1] * np.arange(shape[0])[:, None]
    has_zeros = bool(np.any((weights == 0) & (clusters < len(is_correct))))
    sums, seen = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    credit = np.empty((len(budgets), shape[0]))
    for j, part in enumerate(_segments(budgets)):
        sums += np.bincount(place[:, part].ravel(), weights[:, part].ravel(), sums.size).reshape(shape)
        if has_zeros:  # else a cluster is there if it weighs anything
            seen += np.bincount(place[:, part].ravel(), minlength=sums.size).reshape(shape)
        is_there = (seen if has_zeros else sums)[:, :-1] > 0
        credit[j] = _shares(_heaviest(sums[:, :-1], is_there), is_correct)
    return credit


def share_credits(
    clusters: IntArray,
    ranks: npt.NDArray[np.int32],
    is_correct: BoolArray,
    share: float,
    budgets: Sequence[int],
) -> FloatArray:
    """Filter-vote by share of each prefix of (rows, samples): (budgets, rows)."""
    shape = len(clusters), len(is_correct) + 1
    place = clusters + shape[1] * np.arange(shape[0])[:, None]
    credit = np.empty((len(budgets), shape[0]))
    for j, k in enumerate(budgets):
        passes = _passes(ranks[:, :k], share)
        votes = np.bincount(place[:, :k][passes], minlength=shape[0] * shape[1]).reshape(shape)[:, :-1]
        credit[j] = _shares(_heaviest(votes, votes > 0), is_correct)
    return credit


def _passes(ranks: npt.NDArray[np.int32], share: float) -> BoolArray:
    """Who passes in each row; where nobody is ranked, everybody."""
    ranked = np.count_nonzero(ranks != UNRANKED, axis=1)
    last = _smallest(ranks, kept_of(ranked, share) - 1)
    return np.asarray((ranks <= last) & ((ranks != UNRANKED) | (ranked[:, None] == 0)))


def _smallest(ranks: npt.NDArray[np.int32], positions: IntArray) -> npt.NDArray[np.int32]:
    """The value at a position of each row, were the row sorted: (rows, 1)."""
    distinct = np.unique(positions)
    # a partition is several times faster than a sort, but not for many positions
    ordered = np.partition(ranks, distinct, axis=1) if len(distinct) <= 4 else np.sort(ranks, axis=1)
    return np.take_along_axis(ordered, positions[:, None], axis=1)


def _heaviest(sums: npt.NDArray[Any], is_there: BoolArray) -> BoolArray:
    """Which clusters tie for the largest sum in each row."""
    best = sums.max(axis=1, keepdims=True, initial=0)
    return np.asarray(is_there & (sums >= best * (1 - WEIGHT_TOLERANCE)))


def _shares(is_tied: BoolArray, is_correct: BoolArray) -> FloatArray:
    """Share of the correct ones among the tied clusters of each row, 0 without any."""
    counts = is_tied.astype(np.float32) @ np.column_stack((is_correct, np.ones_like(is_correct))).astype(
        np.float32
    )
    return np.asarray(counts[:, 0].astype(np.float64) / np.maximum(counts[:, 1], 1))


def _clusters(pool: Ballots, is_candidate: BoolArray) -> tuple[IntArray, BoolArray]:
    """Clusters of the candidates numbered anew without gaps, everybody else after the last; and their verdicts."""
    used, clusters = np.unique(pool.candidates[is_candidate], return_inverse=True)
    renumbered = np.full(pool.n, len(used))
    renumbered[is_candidate] = clusters
    return renumbered, pool.is_correct[used]


def _segments(budgets: Sequence[int]) -> Iterator[slice]:
    """What each budget adds to the one before."""
    start = 0
    for budget in budgets:
        yield slice(start, budget)
        start = budget
