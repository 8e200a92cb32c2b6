"""What became of the samples of a pool: a partition, so that failed, unfinished and wrong never mix.

Pure: must not know where the counts come from (no store, no I/O, no clock) nor how they are shown. A sample is
a draw of the model whose verdict is known: endpoint errors and missing verdicts are counted, never guessed;
truncated, refused, empty and timed-out samples and samples without an answer are samples that are not correct
and never vote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ClusterCount:
    """Votes of one answer cluster in a pool; all its answers share one verdict."""

    cluster_id: int
    count: int
    is_correct: bool


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Everything the estimators need of one pool: a partition of its samples, and its votes.

    Raises ValueError where the counts do not add up, since every figure after that would be quietly wrong.
    """

    problem_id: int
    level: str | None
    samples: int
    """Stored samples, errors included."""
    correct: int
    wrong: int
    no_answer: int
    """Finished, but without an answer: none in the text, no text, or refused by a filter."""
    truncated: int
    """Not finished: cut at `max_tokens` or by the context length, or out of time."""
    errors: int
    """The endpoint failed: says nothing about the model."""
    ungraded: int = 0
    """Answered, but no verdict (grader failed or has not run): says nothing about the model yet."""
    clusters: tuple[ClusterCount, ...] = ()
    """Votes: one for each correct or wrong sample."""
    completion_tokens: int = 0
    samples_with_tokens: int = 0
    """Samples whose token count is known; the denominator of mean tokens."""

    def __post_init__(self) -> None:
        parts = (
            self.correct,
            self.wrong,
            self.no_answer,
            self.truncated,
            self.errors,
            self.ungraded,
        )
        if min(parts) < 0 or sum(parts) != self.samples:
            raise ValueError(
                f"problem {self.problem_id}: outcomes {parts} do not add up to {self.samples} samples"
            )
        votes = _sum_counts(self.clusters, True), _sum_counts(self.clusters, False)
        if votes != (self.correct, self.wrong):
            samples = self.correct, self.wrong
            raise ValueError(f"problem {self.problem_id}: (correct, wrong) is {samples}, in votes {votes}")

    @property
    def unknown(self) -> int:
        """Stored samples that say nothing about the model."""
        return self.errors + self.ungraded

    @property
    def n(self) -> int:
        """Samples of the model with a known verdict: the n of every estimator."""
        return self.samples - self.unknown


def accuracy_bounds(pools: Iterable[PoolCounts]) -> tuple[float, float] | None:
    """Accuracy (mean over problems) if all samples of unknown verdict were wrong, and if all were right.

    None without any stored sample.
    """
    counts = np.array([(p.samples, p.correct, p.unknown) for p in pools if p.samples], dtype=np.float64)
    if not counts.size:
        return None
    samples, correct, unknown = counts.T
    return float((correct / samples).mean()), float(((correct + unknown) / samples).mean())


def mean_tokens(pools: Iterable[PoolCounts]) -> float | None:
    """Completion tokens a sample, over the samples whose count is known; None without any."""
    known = [(p.completion_tokens, p.samples_with_tokens) for p in pools]
    samples = sum(count for _, count in known)
    return sum(tokens for tokens, _ in known) / samples if samples else None


def _sizes(clusters: Iterable[ClusterCount], is_correct: bool) -> list[int]:
    return [c.count for c in clusters if c.is_correct == is_correct and c.count]


def _sum_counts(clusters: Iterable[ClusterCount], is_correct: bool) -> int:
    return sum(_sizes(clusters, is_correct))
