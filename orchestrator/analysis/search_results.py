"""Results of strategies that search: every budget has pools of its own, and all that a search found is voted on.

There is nothing to draw from: a search of budget N is one draw, and what smaller budgets find is another search. So a
value here is the selector's credit for the whole pool, and the interval over problems holds the noise of searching.

Pure: pools in, rows out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis import results
from orchestrator.analysis.estimation import selectors as selecting
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import Curve
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.pool_reading import PoolRecord
from orchestrator.analysis.results import StrategyResults


def search_results(
    strategy: str, found: Mapping[int, Sequence[PoolRecord]], selectors: Sequence[Selector]
) -> StrategyResults:
    """Rows for all selectors, over what the searches of each budget found."""
    budgets = tuple(sorted(found))
    problems = sorted({record.pool.problem_id for records in found.values() for record in records})
    levels_of = {
        record.pool.problem_id: record.pool.level for records in found.values() for record in records
    }
    levels = results.by_level([levels_of[problem] for problem in problems])
    curves = [_curve(selector, budgets, problems, found) for selector in selectors]
    majority = next((curve for curve in curves if curve.selector.kind is Kind.MAJORITY), None)
    largest = {record.pool.problem_id: record for budget in budgets for record in found[budget]}
    return StrategyResults(
        strategy=strategy,
        samples=budgets[-1],
        rows=results.summarise(curves, levels),
        differences=[] if majority is None else results.differences(curves, majority, levels),
        counts=results.count_outcomes([largest[problem].counts for problem in problems], levels),
        curves={curve.selector.name: curve for curve in curves},
        levels=levels,
        is_search=True,
        pools={
            curve.selector.name: [_view(largest[problem], curve.selector) for problem in problems]
            for curve in curves
        },
    )


def _curve(
    selector: Selector,
    budgets: tuple[int, ...],
    problems: Sequence[int],
    found: Mapping[int, Sequence[PoolRecord]],
) -> Curve:
    values = np.full((len(problems), len(budgets)), np.nan)
    rows = {problem: row for row, problem in enumerate(problems)}
    for column, budget in enumerate(budgets):
        for record in found[budget]:
            values[rows[record.pool.problem_id], column] = _credit(_view(record, selector), selector)
    return Curve(selector, budgets, values, np.zeros_like(values), np.ones(values.shape, np.bool_))


def _view(record: PoolRecord, selector: Selector) -> Ballots:
    """What a selector may look at; chains are of independent samples, so the solutions of a search are one chain."""
    return record.view(selector.score, None)


def _credit(pool: Ballots, selector: Selector) -> float:
    """Credit for all that was found; nothing found elects nothing."""
    return float(selecting.first_k(pool, selector, pool.n)) if pool.n else 0.0
