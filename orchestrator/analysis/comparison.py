"""One way to spend and select against another, problem by problem: any two selectors, strategies or budgets.

Pure: estimates in, rows out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.analysis.estimation.estimators import Curve
from orchestrator.analysis.results import DifferenceRow, StrategyResults, difference
from orchestrator.errors import UsageError
from orchestrator.nearest import suggestion
from workers.identity import MAX_SAMPLES_PER_POOL

WAY = "[STRATEGY/]SELECTOR[@BUDGET]"


@dataclass(frozen=True, slots=True)
class Way:
    """A selector, with what a strategy drew for a budget; what is not said is found out."""

    strategy: str | None
    selector: str
    budget: int | None


def parse_way(text: str) -> Way:
    """A way as a user writes it: `weighted:prm.last@64`, `greedy/pass@1`. Raises UsageError for what is none."""
    strategy, slash, rest = text.rpartition("/")
    selector, at, budget = rest.partition("@")
    is_wrong_budget = bool(at) and not (budget.isdecimal() and 0 < int(budget[:10]) < MAX_SAMPLES_PER_POOL)
    if not selector or is_wrong_budget or (slash and not strategy):
        raise UsageError.of(
            f"is not {WAY}", field="way", value=repr(text), remedy="write majority@16 or weighted:prm.last@64"
        )
    return Way(strategy or None, selector, int(budget) if at else None)


def compare(conclusions: Sequence[StrategyResults], first: Way, second: Way) -> list[DifferenceRow]:
    """First minus second for every level (then all), over the problems that both are known for.

    A budget that only one of them names is that of both; named by neither, it is the largest that both have.
    Raises UsageError for a strategy, selector or budget that there is none of.
    """
    one, other = (strategy_of(conclusions, way.strategy) for way in (first, second))
    curve, rival = _curve(one, first.selector), _curve(other, second.selector)
    budgets = _budgets((curve, one), (rival, other), first, second)
    shared = sorted({*one.problem_ids} & {*other.problem_ids})
    aligned, against = _aligned(curve, one, shared), _aligned(rival, other, shared)
    places = {problem: place for place, problem in enumerate(shared)}
    return [
        difference(
            level,
            [places[one.problem_ids[i]] for i in members if one.problem_ids[i] in places],
            (aligned, budgets[0]),
            (against, budgets[1]),
        )
        for level, members in one.levels.items()
    ]


def strategy_of(conclusions: Sequence[StrategyResults], name: str | None) -> StrategyResults:
    """Results of a strategy; without a name, of the only one. Raises UsageError where there is no such one."""
    names = [each.strategy for each in conclusions]
    if name is None and len(names) == 1:
        return conclusions[0]
    if name is None:
        remedy = (
            f"name one of {', '.join(names)}" if names else "it draws no solutions that could be compared"
        )
        raise UsageError(f"the sweep has {len(names)} strategies that draw solutions", remedy=remedy)
    if name not in names:
        raise _unknown("strategy", name, names)
    return conclusions[names.index(name)]


def _curve(conclusion: StrategyResults, selector: str) -> Curve:
    if selector not in conclusion.curves:
        raise _unknown("selector", selector, conclusion.curves)
    return conclusion.curves[selector]


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    return UsageError.of(
        f"is no {kind} of the sweep",
        field=kind,
        value=name,
        remedy=suggestion(name, [*known], "write one of"),
    )


def _budgets(
    one: tuple[Curve, StrategyResults], other: tuple[Curve, StrategyResults], first: Way, second: Way
) -> tuple[int, int]:
    common = sorted({*one[0].budgets} & {*other[0].budgets})
    largest = common[-1] if common else 1
    chosen = first.budget or second.budget or largest, second.budget or first.budget or largest
    for budget, (curve, its) in zip(chosen, (one, other), strict=True):
        if budget not in curve.budgets:
            raise UsageError.of(
                f"is more than {its.strategy} draws", field="budget", value=str(budget),
                remedy=f"write one up to {its.samples}",
            )  # fmt: skip
    return chosen


def _aligned(curve: Curve, conclusion: StrategyResults, problems: Sequence[int]) -> Curve:
    """The curve over these problems, in their order."""
    places = {problem: place for place, problem in enumerate(conclusion.problem_ids)}
    rows = np.array([places[problem] for problem in problems], dtype=np.int64)
    return replace(
        curve, values=curve.values[rows], mc_errors=curve.mc_errors[rows], is_exact=curve.is_exact[rows]
    )
