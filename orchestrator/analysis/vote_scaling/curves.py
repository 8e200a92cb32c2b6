"""Accuracy of the vote and the filter-vote after K calls of a language model, exactly, from counted pools.

Draws are with replacement, as in Chen et al. 2024 (arXiv:2403.02419), so that a pool of n samples gives a curve
far beyond K = n: the curve of a model whose answers have exactly the pool's frequencies. Pure: must not know of
fits or models of a curve.

Calls: one call is one candidate of the vote. The filter-vote spends two, one to generate and one to judge: K calls
make floor(K/2) candidates. With K = 1 it has none, elects nothing and scores 0. Where no candidate passes, it
elects among all of them. (The authors' simulation elects the first candidate of the alphabet there; that needs the
texts of the answers, which pools do not hold, and is not reproduced.) Ties count as their expectation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from orchestrator.analysis.estimation.arrays import FloatArray, IntArray
from orchestrator.analysis.estimation.plurality import RESAMPLING_TRIALS, plurality_with_replacement
from orchestrator.analysis.vote_scaling.pools import Ballot, System, VotePool

CALLS_PER_CANDIDATE = {System.VOTE: 1, System.FILTER_VOTE: 2}
CERTAIN = 1e-13
"""Where the mode is missed less often than this, the limit is the accuracy."""
RESAMPLING_CELLS = 4_000_000
"""Counts drawn at a time: 32 MB."""

_Cache = dict[tuple[Ballot, int], float]


def candidates(system: System, calls: int) -> int:
    """Candidates that `calls` >= 1 pay for."""
    if calls < 1:
        raise ValueError(f"{calls} calls; at least one is needed")
    return calls // CALLS_PER_CANDIDATE[system]


def accuracies(pools: Sequence[VotePool], system: System, ks: Sequence[int], seed: int = 0) -> FloatArray:
    """Chance of electing a correct answer: a row a pool, a column for each number of calls.

    Absolute error below 1e-12, except where a pool has so many different counts, or K is so large, that the exact
    tables would be too large: those values are resampled with `seed`. Raises ValueError on K < 1, and on pools
    without verdicts for the filter-vote.
    """
    draws = [candidates(system, k) for k in ks]
    rng, cache = np.random.default_rng(seed), _Cache()
    rows = [[_accuracy(pool, system, count, rng, cache) for count in draws] for pool in pools]
    return np.array(rows, dtype=np.float64).reshape(len(pools), len(ks))


def resampled_accuracies(
    pools: Sequence[VotePool], system: System, ks: Sequence[int], trials: int, rng: np.random.Generator
) -> FloatArray:
    """The same as the mean of `trials` random draws, as the authors estimate it; shape (pools, ks)."""
    draws = [candidates(system, k) for k in ks]
    rows = [[_resampled(pool, system, count, trials, rng) for count in draws] for pool in pools]
    return np.array(rows, dtype=np.float64).reshape(len(pools), len(ks))


def log_spaced(low: int, high: int, points: int) -> list[int]:
    """At most `points` whole numbers from `low` >= 1 to `high`, both included, evenly spaced in the logarithm."""
    if not 1 <= low <= high or points < 2:
        raise ValueError(f"{points} points from {low} to {high}")
    return sorted({round(float(k)) for k in np.geomspace(low, high, points)})


def _accuracy(pool: VotePool, system: System, draws: int, rng: np.random.Generator, cache: _Cache) -> float:
    if system is System.VOTE:
        return _elected(pool.votes(), draws, rng, cache)
    by_passed = _elected(pool.filtered(), draws, rng, cache)
    none_passes = (1 - pool.kept / pool.n) ** draws
    if none_passes < CERTAIN:
        return by_passed
    return min(1.0, by_passed + none_passes * _elected(pool.rejected(), draws, rng, cache))


def _elected(ballot: Ballot, draws: int, rng: np.random.Generator, cache: _Cache) -> float:
    """Chance that the plurality of independent draws is correct; what is missing to n does not vote."""
    if not ballot.right or not draws:
        return 0.0
    if not ballot.wrong:  # any vote is elected, any vote is correct
        return 1 - (1 - sum(ballot.right) / ballot.n) ** draws
    if _miss_bound(ballot, draws) < CERTAIN:
        return ballot.limit
    key = ballot, draws
    if key not in cache:
        right, wrong = ([count / ballot.n for count in camp] for camp in (ballot.right, ballot.wrong))
        exact = plurality_with_replacement(right, wrong, draws)
        cache[key] = _drawn(ballot, draws, rng) if exact is None else exact
    return cache[key]


def _miss_bound(ballot: Ballot, draws: int) -> float:
    """Bound on the chance that the limit, if it is 0 or 1, is not yet the result; 1 where the limit is a tie.

    Cluster a catches up with cluster b of more votes with a chance of at most (1 - (sqrt b - sqrt a)^2)^draws:
    Chernoff's bound on the difference of two counts of a multinomial law.
    """
    best = max(ballot.best_right, ballot.best_wrong)
    losers = ballot.wrong if ballot.best_right == best else ballot.right
    leads = [math.sqrt(best / ballot.n) - math.sqrt(loser / ballot.n) for loser in losers]
    return math.fsum((1 - lead * lead) ** draws for lead in leads)


def _drawn(ballot: Ballot, draws: int, rng: np.random.Generator) -> float:
    pool = [*ballot.right, *ballot.wrong]
    counts = _draw([*pool, ballot.n - sum(pool)], draws, RESAMPLING_TRIALS, rng)
    gains = [_gains(drawn[:, :-1], len(ballot.right)).sum() for drawn in counts]
    return float(sum(gains)) / RESAMPLING_TRIALS


def _resampled(pool: VotePool, system: System, draws: int, trials: int, rng: np.random.Generator) -> float:
    order = np.argsort([not cluster.is_correct for cluster in pool.clusters], kind="stable")
    votes = np.array([cluster.count for cluster in pool.clusters], dtype=np.int64)[order]
    passed = np.array(pool.verdicts(), dtype=np.int64)[order] if system is System.FILTER_VOTE else 0 * votes
    right = sum(cluster.is_correct for cluster in pool.clusters)
    silent = pool.n - int(votes.sum())
    total = 0.0
    for drawn in _draw([*passed, *(votes - passed), silent], draws, trials, rng):
        kept, rejected = drawn[:, : len(votes)], drawn[:, len(votes) : -1]
        voting = kept + np.where(kept.any(axis=1, keepdims=True), 0, rejected)
        total += float(_gains(voting, right).sum())
    return total / trials


def _draw(colours: Sequence[int], draws: int, trials: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Counts of each colour in `draws` draws, `trials` times: rows, in batches that fit memory."""
    shares = np.array(colours, dtype=np.float64) / sum(colours)
    batch = max(1, RESAMPLING_CELLS // len(colours))
    for start in range(0, trials, batch):
        yield rng.multinomial(draws, shares, size=min(batch, trials - start))


def _gains(votes: IntArray, right: int) -> FloatArray:
    """Share of correct clusters, which come first, among the winners of each row."""
    if not votes.shape[1]:
        return np.zeros(len(votes))
    tied = (votes == votes.max(axis=1, keepdims=True)) & (votes > 0)
    return np.asarray(tied[:, :right].sum(axis=1) / np.maximum(tied.sum(axis=1), 1))
