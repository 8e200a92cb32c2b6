"""What a selector is: how one answer is chosen among samples, by definition.

Pure. The definitions here are for one concrete list of drawn samples, exact and slow: what they say is what the
estimators must estimate, and every estimator is tested against them by enumeration.

What holds for all selectors: equal answers form a cluster, and clusters are what is chosen; a tie counts as its
expectation, uniform over the tied; a sample without an answer never votes and is never chosen; where nothing can be
chosen, nothing is, and that is not correct.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import IntArray
from orchestrator.analysis.estimation.ballots import Ballots

WEIGHT_TOLERANCE = 1e-12
"""Sums of scores that differ by less, relative to the larger one, tie: adding floats says no more."""


class Kind(StrEnum):
    """How an answer is selected."""

    PASS = "pass"  # noqa: S105
    """A perfect verifier picks: correct if any sample is (pass@k, coverage)."""
    MAJORITY = "majority"
    """The most frequent answer (Wang et al. 2022, arXiv:2203.11171; Vote of Chen et al. 2024, 2403.02419)."""
    BEST_OF_N = "best-of-n"
    """The answer of the sample with the highest score (BoN of Wu et al. 2024, 2408.00724; Math-Shepherd, 2312.08935);
    of samples that tie, each with the same chance."""
    WEIGHTED = "weighted"
    """The answer whose samples' scores add up highest (best-of-N weighted of Snell et al. 2024, 2408.03314, section 5;
    weighted voting of Wu et al.; SC + RM of Math-Shepherd). Samples without a score weigh nothing, and a cluster of
    such samples only is not chosen; where all weights are 0, the clusters with a score tie."""
    FILTER_VOTE = "filter-vote"
    """The most frequent answer among the samples that pass; among all where none passes (Chen et al. 2024)."""
    HIERARCHICAL = "hierarchical"
    """Weighted within each chain of revisions, then weighted over the chains' winners, each with the score of its best
    sample (Snell et al. 2024, 2408.03314, section 6)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A way to choose one answer. Raises ValueError where its parts do not fit its kind."""

    kind: Kind
    score: str | None = None
    """Which of the scores of a pool it goes by; none for pass and majority."""
    threshold: float | None = None
    """Filter-vote: a sample passes with this score or more (a verdict is a score of 0 or 1)."""
    share: float | None = None
    """Filter-vote: of the drawn samples with an answer and a score, this share passes, the best ones, rounded down but
    at least one; and whoever has the score of the last of them, so that no order decides."""
    chain: int | None = None
    """Hierarchical: length of a chain; samples 0 to chain - 1 of a pool are the first one."""

    def __post_init__(self) -> None:
        parts = tuple(part is not None for part in (self.score, self.threshold, self.share, self.chain))
        if parts not in _PARTS[self.kind]:
            raise ValueError(f"{self.kind} does not go with {self}")
        is_reachable = self.threshold is None or 0.0 <= self.threshold <= 1.0
        if not is_reachable or not (self.share is None or 0.0 < self.share <= 1.0):
            raise ValueError(f"a threshold is in [0, 1] and a share in (0, 1]: {self}")
        if self.chain is not None and self.chain < 1:
            raise ValueError(f"a chain has at least one sample: {self}")

    @property
    def name(self) -> str:
        """Its name in tables, files and the store: another one for every other selector; a shell takes it as it is."""
        parts = {
            "": self.score,
            "from-": self.threshold,
            "top-": self.share,
            "chain-": self.chain,
        }
        details = [f"{mark}{value}" for mark, value in parts.items() if value is not None]
        return ":".join([self.kind, *details])


_PARTS: Mapping[Kind, tuple[tuple[bool, bool, bool, bool], ...]] = {
    Kind.PASS: ((False, False, False, False),),
    Kind.MAJORITY: ((False, False, False, False),),
    Kind.BEST_OF_N: ((True, False, False, False),),
    Kind.WEIGHTED: ((True, False, False, False),),
    Kind.FILTER_VOTE: ((True, True, False, False), (True, False, True, False)),
    Kind.HIERARCHICAL: ((True, False, False, True),),
}

Law = Mapping[int, Fraction]
"""Chance of each answer cluster to be chosen; adds up to 1, or is empty where nothing can be chosen."""


def credit(pool: Ballots, drawn: Sequence[int], selector: Selector) -> Fraction:
    """Chance that what the selector chooses among these samples is correct."""
    law = selection(pool, drawn, selector)
    return sum((chance for cluster, chance in law.items() if pool.is_correct[cluster]), Fraction(0))


def first_k(pool: Ballots, selector: Selector, k: int) -> Fraction:
    """Credit of the first k samples in order: one draw, as some publish it, and no unbiased estimate of anything.

    Raises ValueError unless 1 <= k <= n.
    """
    if not 1 <= k <= pool.n:
        raise ValueError(f"problem {pool.problem_id}: the first {k} of {pool.n} samples")
    return credit(pool, range(k), selector)


def selection(pool: Ballots, drawn: Sequence[int], selector: Selector) -> Law:
    """What the selector chooses among the drawn samples (distinct indices), as a law over answer clusters.

    A hierarchical one takes time exponential in the number of chains with a tie.
    """
    if selector.score is not None and selector.score not in pool.scores:
        raise ValueError(f"problem {pool.problem_id} has no scores {selector.score}")
    answered = [i for i in drawn if pool.candidates[i] >= 0]
    match selector.kind:
        case Kind.PASS:
            return _uniform(cluster for cluster in _clusters(pool, answered) if pool.is_correct[cluster])
        case Kind.MAJORITY:
            return _most_frequent(pool, answered)
        case Kind.FILTER_VOTE:
            return _most_frequent(pool, _passing(pool, answered, selector) or answered)
    scores = pool.scores[selector.score or ""]
    scored = [i for i in answered if not math.isnan(scores[i])]
    if selector.kind is Kind.BEST_OF_N:
        best = max((scores[i] for i in scored), default=0)
        return _per_sample(pool, [i for i in scored if scores[i] == best])
    if selector.kind is Kind.WEIGHTED:
        return _heaviest((int(pool.candidates[i]), float(scores[i])) for i in scored)
    return _hierarchical(pool, scored, scores, selector.chain or 1)


def _most_frequent(pool: Ballots, voters: Sequence[int]) -> Law:
    votes = Counter(int(pool.candidates[i]) for i in voters)
    return _uniform(cluster for cluster, count in votes.items() if count == max(votes.values()))


def _passing(pool: Ballots, answered: Sequence[int], selector: Selector) -> list[int]:
    """Samples that pass the filter; those without a score do not."""
    scores = pool.scores[selector.score or ""]
    scored = [i for i in answered if not math.isnan(scores[i])]
    if selector.share is None:
        return [i for i in scored if scores[i] >= selector.threshold]
    if not scored:
        return []
    kept = int(kept_of(len(scored), selector.share))
    last = sorted((scores[i] for i in scored), reverse=True)[kept - 1]
    return [i for i in scored if scores[i] >= last]


def kept_of(scored: npt.ArrayLike, share: float) -> IntArray:
    """How many a share of so many is: rounded down, at least one; 0.29 of 100 is 29, whatever floats say."""
    whole = np.floor(np.asarray(scored) * share + 1e-9)
    return np.maximum(whole, 1).astype(np.int64)


def _hierarchical(pool: Ballots, scored: Sequence[int], scores: Any, chain: int) -> Law:
    chains: dict[int, list[int]] = defaultdict(list)
    for i in scored:
        chains[i // chain].append(i)
    law: dict[int, Fraction] = defaultdict(Fraction)
    outcomes = [_chain_winners(pool, members, scores) for members in chains.values()]
    for winners in product(*outcomes):
        chance = math.prod((weight for _, _, weight in winners), start=Fraction(1))
        for cluster, share in _heaviest((cluster, score) for cluster, score, _ in winners).items():
            law[cluster] += chance * share
    return law


def _chain_winners(pool: Ballots, members: Sequence[int], scores: Any) -> list[tuple[int, float, Fraction]]:
    """Answers that may win a chain: cluster, score of its best sample, chance."""
    law = _heaviest((int(pool.candidates[i]), float(scores[i])) for i in members)
    best = {c: max(float(scores[i]) for i in members if pool.candidates[i] == c) for c in law}
    return [(cluster, best[cluster], chance) for cluster, chance in law.items()]


def _heaviest(weights: Iterable[tuple[int, float]]) -> Law:
    """Clusters with the largest sum of weights; where all weights are 0, all of them."""
    each: dict[int, list[float]] = defaultdict(list)
    for cluster, weight in weights:
        each[cluster].append(weight)
    sums = {cluster: math.fsum(some) for cluster, some in each.items()}
    best = max(sums.values(), default=0.0)
    return _uniform(cluster for cluster, total in sums.items() if total >= best * (1 - WEIGHT_TOLERANCE))


def _per_sample(pool: Ballots, tied: Sequence[int]) -> Law:
    """Each of the tied samples with the same chance, hence an answer by how many give it."""
    counts = Counter(int(pool.candidates[i]) for i in tied)
    return {cluster: Fraction(count, len(tied)) for cluster, count in counts.items()}


def _clusters(pool: Ballots, answered: Sequence[int]) -> set[int]:
    return {int(pool.candidates[i]) for i in answered}


def _uniform(clusters: Iterable[int]) -> Law:
    tied = list(clusters)
    return {cluster: Fraction(1, len(tied)) for cluster in tied}
