"""Accuracy by selector, budget and level, over problems; what became of samples; differences pair by pair.

Pure: estimates of single problems and counts of pools in, rows out. Must not know the store, the sweep, nor how the
rows are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from orchestrator.analysis.estimation import selectors
from orchestrator.analysis.estimation.arrays import FloatArray, IntArray
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.counts import PoolCounts, accuracy_bounds, mean_tokens
from orchestrator.analysis.estimation.estimators import Curve
from orchestrator.analysis.estimation.intervals import mean_over_problems, paired_difference
from orchestrator.analysis.estimation.kept_estimates import ESTIMATOR_VERSION

OVERALL = "all"
NO_LEVEL = "none"

Levels = Mapping[str, Sequence[int]]
"""Indices of the problems of each level, levels in natural order, `OVERALL` last."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """Accuracy of one selector at one budget over the problems of one level; fractions, not percent."""

    level: str
    """`OVERALL` for all problems, `NO_LEVEL` for those without a level."""
    selector: str
    """Name of the selector."""
    budget: int
    """Samples a problem."""
    value: float | None
    """Mean over problems; None if none has enough samples."""
    std_error: float | None
    """Clustered by problem; None below two problems."""
    low: float | None
    high: float | None
    """95% interval (Student t), cut to [0, 1]."""
    mc_error: float
    """Part of the error that is due to resampling; 0.0 where every value is exact."""
    problems: int
    skipped: int
    """Problems left out because they have fewer samples than the budget, or no scores."""


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """How much more accurate one way is than another on the same problems; fractions, not percent."""

    level: str
    selector: str
    budget: int
    other: str
    """Name of the selector it is compared with."""
    other_budget: int
    value: float | None
    """Mean over problems of the difference; None without a problem that both are known for."""
    std_error: float | None
    low: float | None
    high: float | None
    """95% interval (Student t) of the paired difference, cut to [-1, 1]."""
    problems: int


@dataclass(frozen=True, slots=True)
class CountRow:
    """What became of the samples of one level: a partition, so failed, unfinished and wrong never mix."""

    level: str
    problems: int
    samples: int
    correct: int
    wrong: int
    no_answer: int
    truncated: int
    ungraded: int
    errors: int
    mean_tokens: float | None
    accuracy_low: float | None
    """Accuracy if every error and every missing verdict were wrong; mean over problems."""
    accuracy_high: float | None
    """And if every one were right."""


@dataclass(frozen=True, slots=True)
class StrategyResults:
    """Results of one strategy of a sweep."""

    strategy: str
    samples: int
    """That it draws of every problem."""
    rows: Sequence[ResultRow]
    differences: Sequence[DifferenceRow]
    """From majority voting, where that is among the selectors."""
    counts: Sequence[CountRow]
    curves: Mapping[str, Curve]
    """Estimates of single problems by name of the selector, for further comparisons."""
    levels: Levels
    pools: Mapping[str, Sequence[Ballots]]
    """What each selector looked at, in the order of the rows of its curve (of a search: at the largest budget)."""
    is_search: bool = False
    """Every budget has pools of its own: nothing can be drawn from them, and their order means nothing."""

    @property
    def problem_ids(self) -> list[int]:
        """Of the rows of all curves."""
        return [pool.problem_id for pool in next(iter(self.pools.values()), ())]


def by_level(levels: Sequence[str | None]) -> Levels:
    """Problems of each level; where no problem has a level, only all of them."""
    ordered = sorted(set(levels), key=_level_order)
    groups = {
        NO_LEVEL if level is None else level: [i for i, each in enumerate(levels) if each == level]
        for level in ordered
    }
    return {**(groups if ordered != [None] else {}), OVERALL: list(range(len(levels)))}


def summarise(curves: Sequence[Curve], levels: Levels) -> list[ResultRow]:
    """Rows for every level (then all), selector and budget."""
    return [
        _row(level, curve, j, np.asarray(members, dtype=np.int64))
        for level, members in levels.items()
        for curve in curves
        for j in range(len(curve.budgets))
    ]


def differences(curves: Sequence[Curve], baseline: Curve, levels: Levels) -> list[DifferenceRow]:
    """Every other selector minus the baseline at the same budget, for every level (then all)."""
    return [
        difference(level, members, (curve, budget), (baseline, budget))
        for level, members in levels.items()
        for curve in curves
        if curve.selector != baseline.selector
        for budget in curve.budgets
    ]


def first_k(found: StrategyResults) -> list[ResultRow]:
    """What each selector makes of the first k samples of every problem: one draw, as some publish it.

    No estimate of anything: a single draw has far more noise than its interval over problems says of k samples, and
    two budgets share their samples.
    """
    curves = [
        replace(
            curve, values=_first_values(found.pools[name], curve), mc_errors=np.zeros_like(curve.mc_errors)
        )
        for name, curve in found.curves.items()
    ]
    return summarise(curves, found.levels)


def _first_values(pools: Sequence[Ballots], curve: Curve) -> FloatArray:
    is_known = ~np.isnan(curve.values)
    values = np.full(curve.values.shape, np.nan)
    for i, j in zip(*np.nonzero(is_known), strict=True):
        values[i, j] = selectors.first_k(pools[i], curve.selector, curve.budgets[j])
    return values


def difference(
    level: str, members: Sequence[int], first: tuple[Curve, int], second: tuple[Curve, int]
) -> DifferenceRow:
    """One selector at a budget minus another at another, over the problems `members` of both."""
    (curve, budget), (other, other_budget) = first, second
    rows = np.asarray(members, dtype=np.int64)
    mean = paired_difference(curve.at(budget)[rows], other.at(other_budget)[rows])
    return DifferenceRow(
        level=level,
        selector=curve.selector.name,
        budget=budget,
        other=other.selector.name,
        other_budget=other_budget,
        value=mean.value,
        std_error=mean.std_error,
        low=mean.low,
        high=mean.high,
        problems=mean.problems,
    )


def count_outcomes(pools: Sequence[PoolCounts], levels: Levels) -> list[CountRow]:
    """Counts for every level, then for all."""
    return [_count_row(level, [pools[i] for i in members]) for level, members in levels.items()]


def to_json(found: StrategyResults) -> dict[str, Any]:
    """Rows as plain values, ready for any JSON encoder; fractions in full precision."""
    return {
        "estimator_version": ESTIMATOR_VERSION,
        "results": [asdict(row) for row in found.rows],
        "differences": [asdict(row) for row in found.differences],
        "counts": [asdict(row) for row in found.counts],
    }


def _row(level: str, curve: Curve, column: int, members: IntArray) -> ResultRow:
    values, mc_errors = curve.values[members, column], curve.mc_errors[members, column]
    is_known = ~np.isnan(values)
    mean = mean_over_problems(values[is_known])
    return ResultRow(
        level=level,
        selector=curve.selector.name,
        budget=curve.budgets[column],
        value=mean.value,
        std_error=mean.std_error,
        low=mean.low,
        high=mean.high,
        mc_error=float(np.sqrt((mc_errors[is_known] ** 2).sum())) / max(1, mean.problems),
        problems=mean.problems,
        skipped=len(members) - mean.problems,
    )


def _count_row(level: str, pools: Sequence[PoolCounts]) -> CountRow:
    low, high = accuracy_bounds(pools) or (None, None)
    return CountRow(
        level=level,
        problems=len(pools),
        samples=sum(p.samples for p in pools),
        correct=sum(p.correct for p in pools),
        wrong=sum(p.wrong for p in pools),
        no_answer=sum(p.no_answer for p in pools),
        truncated=sum(p.truncated for p in pools),
        ungraded=sum(p.ungraded for p in pools),
        errors=sum(p.errors for p in pools),
        mean_tokens=mean_tokens(pools),
        accuracy_low=low,
        accuracy_high=high,
    )


def _level_order(level: str | None) -> tuple[bool, bool, int, str]:
    text = level or ""
    is_number = text.isdecimal()
    return level is None, not is_number, int(text) if is_number else 0, text
