"""What a pool of samples says about a budget: unbiased estimates from counts, exact wherever affordable.

Pure: counts in, numbers out. Must not know where the counts come from (no store, no I/O, no clock) nor how
they are shown. Everything is estimated without replacement from one pool of n samples, so that one pool
answers every budget k <= n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.counts import ClusterCount, PoolCounts, accuracy_bounds, mean_tokens
from orchestrator.analysis.intervals import Mean, mean_over_problems, student_t_quantile
from orchestrator.analysis.order_statistics import FloatArray, pass_at_k
from orchestrator.analysis.plurality import Election, pluralities, plurality_of_all, resampled_plurality

__all__ = [
    "ClusterCount",
    "Estimate",
    "FloatArray",
    "Mean",
    "PoolCounts",
    "accuracy_bounds",
    "majority_at_k",
    "mean_over_problems",
    "mean_tokens",
    "pass_at_k",
    "student_t_quantile",
]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in [0, 1]; `mc_error` is the standard error due to resampling, 0.0 where the value is exact."""

    value: float
    mc_error: float = 0.0


def majority_at_k(pool: PoolCounts, k: int, seed: int) -> Estimate:
    """Chance that a plurality vote over k samples, drawn without replacement, elects a correct cluster.

    A tie of m clusters counts 1/m for each correct one among them; samples without an answer do not vote,
    and no vote at all counts 0. Exact (`orchestrator.analysis.plurality`), or by resampling with `seed` (not
    negative) where that would take too long: a pool of 2048 is exact, one of 100,000 may not be. Raises ValueError
    unless 1 <= k <= n.
    """
    if not 1 <= k <= pool.n:
        raise ValueError(f"problem {pool.problem_id}: majority@{k} of {pool.n} samples")
    return _vote_estimates([pool.election()], k, [pool.problem_id], seed)[0]


def _vote_estimates(
    elections: Sequence[Election], k: int, problem_ids: Sequence[int], seed: int
) -> list[Estimate]:
    known = [_known_vote(election, k) for election in elections]
    values = iter(
        pluralities([e for e, value in zip(elections, known, strict=True) if value is None], k).tolist()
    )
    values_of = [next(values) if value is None else value for value in known]
    return [
        _resampled_vote(election, k, problem_id, seed) if math.isnan(value) else Estimate(value)
        for election, value, problem_id in zip(elections, values_of, problem_ids, strict=True)
    ]


def _known_vote(election: Election, k: int) -> float | None:
    """What needs no law: one vote is right or wrong; all vote; nobody can be right, or whoever votes is."""
    right = round(sum(sum(tier.right) for tier in election.tiers))
    wrong = sum(sum(tier.wrong) for tier in election.tiers)
    if k == 1 or not right or not wrong:
        return float(pass_at_k(election.n, right, k))
    return plurality_of_all(election) if k == election.n else None


def _resampled_vote(election: Election, k: int, problem_id: int, seed: int) -> Estimate:
    return Estimate(*resampled_plurality(election, k, np.random.default_rng([seed, problem_id, k])))
