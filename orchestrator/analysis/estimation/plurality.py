"""Exact accuracy of a plurality vote over k samples, from the sizes of the answer clusters alone.

Pure arithmetic: must not know pools, problems or outcomes. Ties count as their expectation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.estimation.arrays import FloatArray, IntArray
from orchestrator.analysis.estimation.count_laws import Binomial, Poisson
from orchestrator.analysis.estimation.elections import TOLERANCE, Candidate, Draw, chances

RESAMPLING_TRIALS = 4_000
RESAMPLING_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Tier:
    """Sizes (> 0) of the answer clusters that vote together."""

    right: Sequence[float]
    wrong: Sequence[float]

    @property
    def size(self) -> float:
        """Of all clusters together."""
        return sum(self.right) + sum(self.wrong)


@dataclass(frozen=True, slots=True)
class Election:
    """A pool of `n` samples that vote in tiers: the first tier of which anybody is drawn decides.

    One tier is a plain vote. Two are a vote among the samples that pass a filter or, where none that is drawn
    passes, among the others (Filter-Vote, Chen et al. 2024, arXiv:2403.02419). Who is in no tier does not vote.
    """

    n: float
    tiers: tuple[Tier, ...]


def plurality_without_replacement(right: Sequence[int], wrong: Sequence[int], n: int, k: int) -> float | None:
    """Chance that a plurality of k < n samples, drawn without replacement, is correct; None if too large.

    `right` and `wrong` are the sizes (> 0) of the correct and wrong clusters; what is missing to n does not
    vote. A tie of m clusters counts 1/m for each correct one, no vote at all counts 0. For the error see
    `pluralities`, which is several times cheaper for many elections together.
    """
    value = float(pluralities([Election(n, (Tier(right, wrong),))], k)[0])
    return None if math.isnan(value) else value


def plurality_with_replacement(right: Sequence[float], wrong: Sequence[float], k: int) -> float | None:
    """Chance that a plurality of k independent votes is correct; `right` and `wrong` are probabilities > 0.

    What is missing to 1 does not vote. The limit of the above for an infinite pool, and the curve of Chen et
    al. 2024 (arXiv:2403.02419), who resample with replacement.
    """
    value = float(_accuracies(Draw([1.0], Poisson(k)), [Election(1.0, (Tier(right, wrong),))])[0])
    return None if math.isnan(value) else value


def pluralities(elections: Sequence[Election], k: int) -> FloatArray:
    """Chance that k samples, drawn from each pool without replacement, elect a correct cluster; NaN if too large.

    Ties count as their expectation, no vote at all counts 0. Absolute error below 1e-12; below 1e-10 where hundreds
    of clusters tie. Raises ValueError unless 1 <= k < n everywhere.
    """
    values = np.empty(len(elections))
    for n, members in _similar([election.n for election in elections], k):
        draw = Draw({elections[i].n for i in members}, Binomial(k, k / n))
        values[members] = _accuracies(draw, [elections[i] for i in members])
    return values


def plurality_of_all(election: Election) -> float:
    """Share of the correct clusters among those with the most votes, in the first tier that has any."""
    for tier in election.tiers:
        if tier.size:
            best = max((*tier.right, *tier.wrong))
            winners = list(tier.right).count(best)
            return winners / (winners + list(tier.wrong).count(best))
    return 0.0


def resampled_plurality(election: Election, k: int, rng: np.random.Generator) -> tuple[float, float]:
    """Mean of `pluralities` over random draws, and its Monte Carlo standard error."""
    sizes = [round(size) for tier in election.tiers for size in (*tier.right, *tier.wrong)]
    colours = [*sizes, round(election.n) - sum(sizes)]
    batch = max(1, RESAMPLING_CELLS // len(colours))
    gains = np.empty(RESAMPLING_TRIALS)
    for start in range(0, RESAMPLING_TRIALS, batch):
        size = min(batch, RESAMPLING_TRIALS - start)
        draws = rng.multivariate_hypergeometric(colours, k, size=size, method="marginals")
        gains[start : start + size] = _gains(draws, election.tiers)
    return float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(RESAMPLING_TRIALS)


def _similar(totals: Sequence[float], k: int) -> Iterator[tuple[float, list[int]]]:
    """Pools that may share a draw: at the share of the largest, k is within two deviations for all of them."""
    order = sorted(range(len(totals)), key=lambda i: -totals[i])
    while order:
        n = totals[order[0]]
        if not 1 <= k < totals[order[-1]]:
            raise ValueError(f"a draw of {k} from a pool of {totals[order[-1]]:.0f}")
        least = n - 2.0 * n * math.sqrt((1.0 - k / n) / k)
        members = [i for i in order if totals[i] >= least]
        yield n, members
        order = order[len(members) :]


def _accuracies(draw: Draw, elections: Sequence[Election]) -> FloatArray:
    """Sum over the correct clusters of all tiers; clusters of one size have one chance."""
    accuracies, members, weights = np.zeros(len(elections)), [], []
    candidates: list[Candidate] = []
    for i, election in enumerate(elections):
        entries = [
            entry for tier, absent in _tiers(election) for entry in _entries(draw, election, tier, absent)
        ]
        if not all(draw.is_affordable(candidate.sizes) for candidate, _ in entries):
            accuracies[i] = math.nan
            continue
        candidates += [candidate for candidate, _ in entries]
        weights += [copies for _, copies in entries]
        members += [i] * len(entries)
    np.add.at(accuracies, members, np.array(weights) * chances(draw, candidates))
    return np.minimum(accuracies, 1.0)


def _tiers(election: Election) -> Iterator[tuple[Tier, float]]:
    """Each tier, with the number of samples that decide before it."""
    absent = 0.0
    for tier in election.tiers:
        yield tier, absent
        absent += tier.size


def _entries(draw: Draw, election: Election, tier: Tier, absent: float) -> Iterator[tuple[Candidate, int]]:
    """Correct clusters that may win in a tier, and how many there are of their size."""
    if draw.scale(election.n, absent) < TOLERANCE:
        return
    votes = Counter([*tier.right, *tier.wrong])
    sizes = sorted(votes, reverse=True)
    each, copies = np.array(sizes, dtype=np.float64), np.array([votes[size] for size in sizes])
    for size, correct in Counter(tier.right).items():
        yield Candidate(sizes.index(size), each, copies, election.n, absent), correct


def _gains(draws: IntArray, tiers: Sequence[Tier]) -> FloatArray:
    """Credit of each draw; columns are the clusters of the tiers in order."""
    gains, is_open, start = np.zeros(len(draws)), np.ones(len(draws), dtype=np.bool_), 0
    for tier in tiers:
        stop = start + len(tier.right) + len(tier.wrong)
        votes = draws[:, start:stop]
        best = votes.max(axis=1, keepdims=True, initial=0)
        tied = (votes == best) & (best > 0) & is_open[:, None]
        gains += tied[:, : len(tier.right)].sum(axis=1) / np.maximum(tied.sum(axis=1), 1)
        is_open &= best[:, 0] == 0
        start = stop
    return gains
