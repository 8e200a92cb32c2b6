"""What a pool of samples says about a budget: unbiased estimates for every selector, exact wherever affordable.

Pure: counts and arrays in, numbers out. Must not know where they come from (no store, no I/O, no clock) nor how they
are shown. Everything is estimated without replacement from one pool of n samples, so that one pool answers every budget
k <= n. What each selector is stands in `selectors`; here is which method estimates it:

- pass, best-of-n: by rank, in closed form (`order_statistics`);
- majority, and filter-vote by threshold: exact elections (`plurality`), or resampled where the pool is huge;
- weighted, hierarchical, filter-vote by share: random orders of the pool, unless its subsets are few (`resampling`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.estimation.arrays import BoolArray, FloatArray
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.order_statistics import (
    chance_that_best_has_rank,
    credit_by_rank,
    pass_at_k,
)
from orchestrator.analysis.estimation.plurality import (
    Election,
    pluralities,
    plurality_of_all,
    resampled_plurality,
)
from orchestrator.analysis.estimation.resampling import expectations, trials_for
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.estimation.tallies import Tally, chain_tally, share_tally, weighted_tally


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy of one selector on each problem at each budget: arrays of (problems, budgets)."""

    selector: Selector
    budgets: tuple[int, ...]
    values: FloatArray
    """Expected accuracy of a draw of the budget; NaN where the pool cannot say: it is smaller than the budget, has not
    the score, or the budget is no number of chains."""
    mc_errors: FloatArray
    """Standard error due to resampling: 0.0 where the value is exact."""
    is_exact: BoolArray

    def at(self, budget: int) -> FloatArray:
        """(problems,): the values of one budget, for a mean or a paired difference over problems."""
        return np.asarray(self.values[:, self.budgets.index(budget)])


def estimate(
    pools: Sequence[Ballots],
    selectors: Iterable[Selector],
    budgets: Iterable[int],
    *,
    seed: int,
    trials: int | None = None,
) -> dict[Selector, Curve]:
    """Accuracy of every selector on every problem at every budget, in the order of the pools.

    Unbiased, without replacement. `seed` (not negative) and `trials`, the number of random orders of a pool (by default
    `resampling.trials_for` so many problems), matter only where `is_exact` is false; there, a value depends on them and
    its own pool, and on no other selector or budget, nor on what the other pools hold. Raises ValueError where a budget
    is below 1, or where a pool is no whole number of chains of a hierarchical selector.
    """
    wanted, grid = tuple(dict.fromkeys(selectors)), tuple(sorted(set(budgets)))
    if any(k < 1 for k in grid) or (trials is not None and trials < 2):
        raise ValueError(f"a budget is at least 1, and trials at least 2: {grid}, {trials}")
    curves = {selector: _blank(selector, len(pools), grid) for selector in wanted}
    for selector in wanted:
        if selector.kind is Kind.PASS:
            _fill_pass(curves[selector], pools)
        elif selector.kind is Kind.BEST_OF_N:
            _fill_best_of_n(curves[selector], pools)
    _fill_votes([curves[selector] for selector in wanted if _is_vote(selector)], pools, seed)
    resampled = [curves[selector] for selector in wanted if is_resampled(selector)]
    _fill_resampled(resampled, pools, seed, trials or trials_for(len(pools)))
    return curves


def _blank(selector: Selector, problems: int, budgets: tuple[int, ...]) -> Curve:
    shape = problems, len(budgets)
    return Curve(selector, budgets, np.full(shape, np.nan), np.zeros(shape), np.ones(shape, dtype=np.bool_))


def _is_vote(selector: Selector) -> bool:
    return selector.kind is Kind.MAJORITY or selector.threshold is not None


def is_resampled(selector: Selector) -> bool:
    """Whether its estimates come from random orders of a pool, unless the subsets are few."""
    return selector.kind in (Kind.WEIGHTED, Kind.HIERARCHICAL) or selector.share is not None


def _can_say(pool: Ballots, selector: Selector) -> bool:
    return pool.n > 0 and (selector.score is None or selector.score in pool.scores)


def _fill_pass(curve: Curve, pools: Sequence[Ballots]) -> None:
    n, c = (
        np.array(each, dtype=np.int64) for each in ([p.n for p in pools], [p.is_right.sum() for p in pools])
    )
    curve.values[:] = pass_at_k(n[:, None], c[:, None], np.array(curve.budgets, dtype=np.int64))


def _fill_best_of_n(curve: Curve, pools: Sequence[Ballots]) -> None:
    score = curve.selector.score or ""
    able = [i for i, pool in enumerate(pools) if _can_say(pool, curve.selector)]
    for n in {pools[i].n for i in able}:
        members = [i for i in able if pools[i].n == n]
        credit = np.array([_credit_by_rank(pools[i], score) for i in members])
        # a budget beyond the pool makes its row of chances NaN, hence its values
        curve.values[members] = np.clip(credit @ chance_that_best_has_rank(n, curve.budgets).T, 0.0, 1.0)


def _credit_by_rank(pool: Ballots, score: str) -> FloatArray:
    chosen = pool.is_selectable(score)
    return credit_by_rank(pool.scores[score][chosen], pool.is_right[chosen], pool.n)


def _fill_votes(curves: Sequence[Curve], pools: Sequence[Ballots], seed: int) -> None:
    """All elections of a budget together, whatever their selector: they share their tables."""
    places = [
        (curve, i, _election(pool, curve.selector))
        for curve in curves
        for i, pool in enumerate(pools)
        if _can_say(pool, curve.selector)
    ]
    for j, k in enumerate(curves[0].budgets if curves else ()):
        some = [place for place in places if place[2].n >= k]
        ids = [pools[i].problem_id for _, i, _ in some]
        found = _vote_estimates([election for _, _, election in some], k, ids, seed)
        for (curve, i, _), (value, mc_error) in zip(some, found, strict=True):
            curve.values[i, j], curve.mc_errors[i, j] = value, mc_error
            curve.is_exact[i, j] = mc_error == 0.0


def _election(pool: Ballots, selector: Selector) -> Election:
    if selector.score is None:
        return Election(pool.n, (pool.tier(pool.has_answer),))
    passes = np.asarray(pool.scores[selector.score] >= (selector.threshold or 0.0))
    return Election(pool.n, (pool.tier(passes), pool.tier(~passes)))


def _vote_estimates(
    elections: Sequence[Election], k: int, problem_ids: Sequence[int], seed: int
) -> list[tuple[float, float]]:
    """Values, and their standard errors due to resampling: 0.0 where a value is exact."""
    known = [_known_vote(election, k) for election in elections]
    values = iter(
        pluralities([e for e, value in zip(elections, known, strict=True) if value is None], k).tolist()
    )
    values_of = [next(values) if value is None else value for value in known]
    return [
        _resampled_vote(election, k, problem_id, seed) if math.isnan(value) else (value, 0.0)
        for election, value, problem_id in zip(elections, values_of, problem_ids, strict=True)
    ]


def _known_vote(election: Election, k: int) -> float | None:
    """What needs no law: one vote is right or wrong; all vote; nobody can be right, or whoever votes is."""
    right = round(sum(sum(tier.right) for tier in election.tiers))
    wrong = sum(sum(tier.wrong) for tier in election.tiers)
    if k == 1 or not right or not wrong:
        return float(pass_at_k(election.n, right, k))
    return plurality_of_all(election) if k == election.n else None


def _resampled_vote(election: Election, k: int, problem_id: int, seed: int) -> tuple[float, float]:
    return resampled_plurality(election, k, np.random.default_rng([seed, problem_id, k]))


def _fill_resampled(curves: Sequence[Curve], pools: Sequence[Ballots], seed: int, trials: int) -> None:
    for i, pool in enumerate(pools):
        able = [curve for curve in curves if _can_say(pool, curve.selector)]
        tallies = [_tally(pool, curve.selector) for curve in able]
        budgets = able[0].budgets if able else ()
        found = expectations(tallies, budgets, seed=(seed, pool.problem_id), trials=trials)
        for curve, values in zip(able, found, strict=True):
            for j, one in enumerate(values):
                if one is not None:
                    curve.values[i, j], curve.mc_errors[i, j] = one.value, one.mc_error
                    curve.is_exact[i, j] = one.is_exact


def _tally(pool: Ballots, selector: Selector) -> Tally:
    score = selector.score or ""
    if selector.share is not None:
        return share_tally(pool, score, selector.share)
    if selector.chain is not None:
        return chain_tally(pool, score, selector.chain)
    return weighted_tally(pool, score)
