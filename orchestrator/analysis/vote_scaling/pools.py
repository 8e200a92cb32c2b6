"""Who wins a vote in the end: the difficulty of a problem for the vote and for the filter-vote, and how sure it is.

Counts of answer clusters in, signs and limits out. Pure: must not know how an accuracy grows with the number of
calls, nor where the counts come from.

Chen et al. 2024 (arXiv:2403.02419) draw K answers of a model and elect the most frequent (vote), or let the model
judge each answer first and elect among those that pass (filter-vote; among all where none passes). With endless
calls a problem is answered right if the correct answer is the most frequent one, the mode, and wrong otherwise.

Samples without an answer never vote, as everywhere here (the original lets them vote for a class of their own).
They are samples all the same: the chance Pr[a] of an answer is its share of all samples, so they shrink a
difficulty towards 0 and never change its sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import betainc

from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.counts import ClusterCount
from orchestrator.analysis.estimation.intervals import CONFIDENCE, Mean, mean_over_problems
from orchestrator.analysis.estimation.selectors import Selector


class System(StrEnum):
    """What is done with the answers before the plurality is taken."""

    VOTE = "vote"
    FILTER_VOTE = "filter_vote"


class Family(StrEnum):
    """What endless calls lead to."""

    EASY = "easy"
    """The correct answer."""
    HARD = "hard"
    """Another answer, or none at all."""
    TIED = "tied"
    """The correct answer and others equally often."""


@dataclass(frozen=True, slots=True)
class VotePool:
    """Votes of the samples of one problem; raises ValueError where the counts do not add up."""

    problem_id: int
    n: int
    """Samples, those without an answer included; errors and samples without a verdict are none."""
    clusters: tuple[ClusterCount, ...]
    """Answer clusters; several may be correct."""
    passed: tuple[int, ...] | None = None
    """Of each cluster, the samples that the filter took for correct; None where there is no filter.

    A sample that the filter failed to judge should be left out of the pool, not counted as rejected.
    """

    def __post_init__(self) -> None:
        counts = [cluster.count for cluster in self.clusters]
        if self.n < 1 or min(counts, default=0) < 0 or sum(counts) > self.n:
            raise ValueError(f"problem {self.problem_id}: votes {counts} of {self.n} samples")
        if self.passed is None:
            return
        if len(self.passed) != len(counts) or any(
            not 0 <= passed <= count for passed, count in zip(self.passed, counts, strict=True)
        ):
            raise ValueError(f"problem {self.problem_id}: {list(self.passed)} passed, of votes {counts}")

    @classmethod
    def of_ballots(cls, ballots: Ballots, judge: Selector | None = None) -> VotePool:
        """The votes of a pool; `judge` is a filter-vote by threshold, whose scores say what passes.

        Samples with an answer that the judge could not tell of are left out. Raises ValueError for an empty pool.
        """
        if judge is not None and judge.score is not None:
            ballots = ballots.keep(ballots.is_selectable(judge.score) | ~ballots.has_answer)
        votes = [None if vote == NO_ANSWER else vote for vote in ballots.candidates.tolist()]
        correct = np.flatnonzero(ballots.is_correct).tolist()
        passed = None
        if judge is not None and judge.score is not None and judge.threshold is not None:
            passed = (ballots.scores[judge.score] >= judge.threshold).tolist()
        return cls.of_votes(ballots.problem_id, votes, correct, passed)

    @classmethod
    def of_votes(
        cls,
        problem_id: int,
        votes: Sequence[int | None],
        correct: Collection[int],
        passed: Sequence[bool] | None = None,
    ) -> VotePool:
        """Count samples: `votes` holds the cluster of each (None: no answer), `passed` what the filter said.

        A slice of both is the pool of the first calls.
        """
        counts = Counter(vote for vote in votes if vote is not None)
        kept = Counter(vote for vote, ok in zip(votes, passed or (), strict=passed is not None) if ok)
        clusters = tuple(ClusterCount(cluster, n, cluster in correct) for cluster, n in counts.items())
        return cls(
            problem_id,
            len(votes),
            clusters,
            None if passed is None else tuple(kept[cluster] for cluster in counts),
        )

    @property
    def kept(self) -> int:
        """Samples that passed the filter and vote."""
        return sum(self.verdicts())

    def verdicts(self) -> tuple[int, ...]:
        """Samples of each cluster that passed. Raises ValueError without a filter."""
        if self.passed is None:
            raise ValueError(f"problem {self.problem_id}: no verdicts of a filter")
        return self.passed

    def votes(self) -> Ballot:
        """Votes of all samples."""
        return self._ballot([cluster.count for cluster in self.clusters], self.n)

    def filtered(self) -> Ballot:
        """Votes of the samples that passed the filter, among all samples. Raises ValueError without a filter."""
        return self._ballot(self.verdicts(), self.n)

    def rejected(self) -> Ballot:
        """Votes of the samples that did not pass, among all that did not. Raises ValueError without a filter."""
        rest = [
            cluster.count - passed for cluster, passed in zip(self.clusters, self.verdicts(), strict=True)
        ]
        return self._ballot(rest, self.n - self.kept)

    def after(self, system: System) -> Ballot:
        """Votes that decide with endless calls: of those that passed, if any did; else of all."""
        if system is System.VOTE or not self.kept:
            return self.votes()
        return self._ballot(self.verdicts(), self.kept)

    def _ballot(self, votes: Iterable[int], n: int) -> Ballot:
        pairs = [(count, cluster.is_correct) for count, cluster in zip(votes, self.clusters, strict=True)]
        return Ballot(
            right=tuple(sorted(count for count, is_correct in pairs if is_correct and count)),
            wrong=tuple(sorted(count for count, is_correct in pairs if not is_correct and count)),
            n=n,
        )


@dataclass(frozen=True, slots=True)
class Ballot:
    """Votes of the correct and of the wrong clusters, all above 0, among n samples."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    n: int

    @property
    def best_right(self) -> int:
        """Votes of the strongest correct cluster."""
        return max(self.right, default=0)

    @property
    def best_wrong(self) -> int:
        """Votes of its strongest rival."""
        return max(self.wrong, default=0)

    @property
    def difficulty(self) -> float:
        """max_{a wrong} Pr[a] - Pr[y*], in [-1, 1]."""
        return (self.best_wrong - self.best_right) / self.n

    @property
    def limit(self) -> float:
        """Share of the correct among the most frequent clusters; 0 without any vote."""
        best = max(self.best_right, self.best_wrong)
        winners = self.right.count(best)
        return winners / (winners + self.wrong.count(best)) if best else 0.0

    @property
    def pass_rate(self) -> float:
        """Share of correct samples: all that is wrong, or no answer, is one other answer."""
        return sum(self.right) / self.n

    @property
    def duel_votes(self) -> int:
        """Votes of the correct answer and of its strongest rival."""
        return self.best_right + self.best_wrong

    @property
    def duel_rate(self) -> float:
        """Share of the correct answer among those: above 1/2 iff the difficulty is below 0; 0 without any vote."""
        return self.best_right / self.duel_votes if self.duel_votes else 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the sign of the difficulty would be an unlikely accident (5%, two-sided) if there were none.

        A sign test of the strongest cluster of either camp. That it is the best of several clusters of its own
        camp is paid for (Bonferroni); that it beats all of the other camp is not, since the strongest rival is
        the hardest to beat.
        """
        right, wrong = self.best_right, self.best_wrong
        if right == wrong:
            return False
        camp = self.right if right > wrong else self.wrong
        tail = float(betainc(max(right, wrong), min(right, wrong) + 1, 0.5))
        return len(camp) * tail <= (1 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Difficulty:
    """d_V or d_F of a problem (Chen et al. 2024), as its samples show it."""

    d: float
    """Chance of the strongest wrong answer minus that of the correct one: easy below 0, hard above."""
    family: Family
    limit: float
    """Accuracy with endless calls: 1, 0, or the share of correct ones among the tied answers."""
    is_settled: bool
    """Whether so many samples settle the sign of d, at 95%; see `Ballot.is_settled`."""


@dataclass(frozen=True, slots=True)
class Split:
    """Easy and hard problems of a set, and what is not known of it."""

    problems: int
    easy: int
    hard: int
    tied: int
    unsettled: int
    """Problems whose sign could be an accident of their samples, ties included; 95% for each, not for all."""
    limit: Mean
    """Accuracy with endless calls, mean over problems, with the error of having drawn these problems."""
    limit_low: float
    """The same if all unsettled problems were hard."""
    limit_high: float
    """The same if all of them were easy."""


def difficulty(pool: VotePool, system: System) -> Difficulty:
    """Difficulty of one problem; the filter-vote's where the filter passed nothing is the vote's."""
    ballot = pool.after(system)
    limit = ballot.limit
    family = Family.EASY if limit == 1 else Family.TIED if limit else Family.HARD
    return Difficulty(ballot.difficulty, family, limit, ballot.is_settled)


def split(difficulties: Sequence[Difficulty]) -> Split:
    """Split a set of problems. Raises ValueError on an empty set."""
    if not difficulties:
        raise ValueError("no problems to split")
    families = Counter(each.family for each in difficulties)
    settled = Counter(each.family for each in difficulties if each.is_settled)
    problems = len(difficulties)
    return Split(
        problems=problems,
        easy=families[Family.EASY],
        hard=families[Family.HARD],
        tied=families[Family.TIED],
        unsettled=problems - settled.total(),
        limit=mean_over_problems([each.limit for each in difficulties]),
        limit_low=settled[Family.EASY] / problems,
        limit_high=1 - settled[Family.HARD] / problems,
    )
