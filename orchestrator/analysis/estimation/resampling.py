"""Expected credit of draws from one pool where no closed form exists: all subsets if they are few, else random orders.

Pure: the seed is an argument. One set of random orders of a pool serves every selector, scorer and budget, so that
what they are compared by is the same draws; it depends on the seed and the problem only, so that another budget or
selector changes no number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from orchestrator.analysis.estimation.arrays import FloatArray, IntArray
from orchestrator.analysis.estimation.tallies import Tally

MOST_SUBSETS = 5_000
"""Subsets of a pool that are enumerated."""
CELLS = 524_288
"""Samples x subsets, or samples x random orders, that are handled at once: 4 MB an array."""
ROWS = 256
"""Random orders that are made at once: a place of all of them fills a cache line many times over."""
FEWEST_TRIALS, MOST_TRIALS = 256, 4_096
TRIALS_OF_ALL_PROBLEMS = 131_072


@dataclass(frozen=True, slots=True)
class Expectation:
    """Expected credit; `mc_error` is the standard error of resampling, 0.0 where it is exact."""

    value: float
    mc_error: float
    is_exact: bool


def trials_for(problems: int) -> int:
    """Random orders a problem: 256 for 500 problems, more for fewer.

    The Monte Carlo error of a mean over problems is then at most 1 / (2 sqrt(131,072)) = 0.14 points, where the
    sampling error over 500 problems is 2.2 at an accuracy of one half.
    """
    return min(MOST_TRIALS, max(FEWEST_TRIALS, TRIALS_OF_ALL_PROBLEMS // max(1, problems)))


def expectations(
    tallies: Sequence[Tally], budgets: Sequence[int], *, seed: Sequence[int], trials: int
) -> list[list[Expectation | None]]:
    """Expected credit of each tally at each budget (samples); None where that is not a number of units of the pool.

    `seed` is not negative. Exact where a tally knows it or the subsets are few, else the mean over random orders.
    """
    found = [{k: _exact(tally, k) for k in budgets if _units(tally, k)} for tally in tallies]
    for unit in sorted({tally.unit for tally in tallies}):
        chosen = [i for i, tally in enumerate(tallies) if tally.unit == unit]
        missing = [sorted(k for k, value in found[i].items() if value is None) for i in chosen]
        resampled = _resampled([tallies[i] for i in chosen], missing, seed, trials)
        for i, values in zip(chosen, resampled, strict=True):
            found[i].update(values)
    return [[values.get(k) for k in budgets] for values in found]


def random_orders(items: int, rows: int, seed: Sequence[int], kept: int) -> Iterator[IntArray]:
    """The first `kept` of random orders of so many items, in blocks of rows; fewer kept are the same ones, cut.

    Fisher and Yates' shuffle, one place of all rows of a block at a time, so that it stops at the last place kept.
    """
    block = min(ROWS, max(1, CELLS // max(1, items)))
    for number, start in enumerate(range(0, rows, block)):
        yield _shuffled(items, min(block, rows - start), np.random.default_rng([*seed, number]), kept)


def _shuffled(items: int, rows: int, rng: np.random.Generator, kept: int) -> IntArray:
    narrow = np.int16 if items <= np.iinfo(np.int16).max else np.int32
    order = np.repeat(np.arange(items, dtype=narrow)[:, None], rows, axis=1)
    flat = order.reshape(-1)
    # what place i is swapped with: a uniform one of i, ..., items - 1; float64 is fine enough for millions of items
    places = np.arange(kept)[:, None]
    partners = places + (rng.random((kept, rows)) * (items - places)).astype(np.int64)
    partners = partners * rows + np.arange(rows)
    for place, partner in zip(order[:kept], partners, strict=True):
        chosen = flat[partner]
        flat[partner] = place
        place[:] = chosen
    return order[:kept].T.astype(np.int64, order="C")


def _units(tally: Tally, k: int) -> int:
    """How many units k samples are; 0 if they are none, or more than the pool has."""
    units, rest = divmod(k, tally.unit)
    return units if not rest and units <= tally.units else 0


def _exact(tally: Tally, k: int) -> Expectation | None:
    drawn = _units(tally, k)
    value = tally.known(drawn)
    if value is None and _is_enumerable(tally.units, drawn):
        settled = tally.settled()
        if settled:
            value = math.fsum(_enumerated(each, drawn) for each in settled) / len(settled)
    return None if value is None else Expectation(value, 0.0, is_exact=True)


def _is_enumerable(units: int, drawn: int) -> bool:
    subsets = math.comb(units, drawn) if min(drawn, units - drawn) <= MOST_SUBSETS.bit_length() else math.inf
    return subsets <= MOST_SUBSETS and subsets * drawn <= CELLS


def _enumerated(tally: Tally, drawn: int) -> float:
    """Mean over all subsets; the tally has no chance in it, so no random number is used."""
    subsets = np.array(list(combinations(range(tally.units), drawn)), dtype=np.int64)
    return float(tally.credit(subsets, [drawn], np.random.default_rng(0)).mean())


def _resampled(
    tallies: Sequence[Tally], missing: Sequence[Sequence[int]], seed: Sequence[int], trials: int
) -> list[dict[int, Expectation]]:
    """Means over the same random orders for all of these tallies, which have the same units."""
    kept = max((_units(tally, ks[-1]) for tally, ks in zip(tallies, missing, strict=True) if ks), default=0)
    if not kept:
        return [{} for _ in tallies]
    unit = tallies[0].unit
    orders = random_orders(tallies[0].units, trials, [*seed, unit], kept)
    tie_rngs = [np.random.default_rng([*seed, unit, 0, 1]) for _ in tallies]
    tables = [np.empty((len(ks), trials)) for ks in missing]
    start = 0
    for order in orders:
        stop = start + len(order)
        for tally, ks, rng, table in zip(tallies, missing, tie_rngs, tables, strict=True):
            if ks:
                table[:, start:stop] = tally.credit(order, [k // unit for k in ks], rng)
        start = stop
    return [dict(zip(ks, map(_mean, table), strict=True)) for ks, table in zip(missing, tables, strict=True)]


def _mean(credit: FloatArray) -> Expectation:
    """Mean, and sqrt(variance / trials + 1 / trials^2): what no trial has shown may still happen once in as many."""
    trials = len(credit)
    mc_error = math.sqrt(float(credit.var(ddof=1)) / trials + 1.0 / trials**2)
    return Expectation(float(credit.mean()), mc_error, is_exact=False)
