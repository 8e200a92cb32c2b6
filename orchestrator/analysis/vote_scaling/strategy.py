"""Vote scaling of a strategy of a sweep: its pools, the first calls of each problem, and the filter, if there is one.

Pure: results in, rows out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.results import StrategyResults
from orchestrator.analysis.vote_scaling.pools import VotePool
from orchestrator.analysis.vote_scaling.scaling import DEFAULT_KS, VoteScaling, scale_votes
from orchestrator.errors import UsageError
from orchestrator.nearest import suggestion


def scale_strategy(found: StrategyResults, judge: str | None, calls: int, ks: Sequence[int]) -> VoteScaling:
    """Vote scaling, with the filter-vote where the sweep has one; predictions from the first `calls` of each problem.

    Problems without a sample are left out. Raises UsageError for a filter that is none, and where no problem is left.
    """
    selector = _judge(found, judge)
    pools = found.pools[selector.name] if selector else next(iter(found.pools.values()), ())
    whole, first = [], []
    for pool in pools:
        votes = VotePool.of_ballots(pool, selector) if _has_votes(pool, selector) else None
        few = _first(pool, calls)
        if votes is not None and _has_votes(few, selector):
            whole.append(votes)
            first.append(VotePool.of_ballots(few, selector))
    if not whole:
        raise UsageError("there is no problem with samples to vote on", remedy="run the sweep first")
    return scale_votes(whole, first, ks=ks or DEFAULT_KS)


def _judge(found: StrategyResults, name: str | None) -> Selector | None:
    filters = {
        each: curve.selector
        for each, curve in found.curves.items()
        if curve.selector.kind is Kind.FILTER_VOTE and curve.selector.threshold is not None
    }
    if name is None:
        return next(iter(filters.values()), None)
    if name not in filters:
        remedy = (
            suggestion(name, filters, "write one of") if filters else "add a filter-vote to the selectors"
        )
        raise UsageError.of(
            "is no filter-vote with a threshold of the sweep", field="--filter", value=name, remedy=remedy
        )
    return filters[name]


def _has_votes(pool: Ballots, judge: Selector | None) -> bool:
    """Whether anything is left of a pool without the samples that the filter could not judge."""
    if judge is None or judge.score is None:
        return pool.n > 0
    return judge.score in pool.scores and bool((pool.is_selectable(judge.score) | ~pool.has_answer).any())


def _first(pool: Ballots, calls: int) -> Ballots:
    return pool.keep(np.arange(pool.n) < calls)
