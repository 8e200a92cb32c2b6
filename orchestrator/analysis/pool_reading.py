"""From what the store holds of a pool to what the estimators need of it: counts, and samples one by one.

Both count alike: errors and samples without a verdict say nothing about the model, and the four outcomes never mix
(invariant I7). It must not know what is estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from orchestrator.analysis.estimation.arrays import BoolArray, FloatArray, IntArray
from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.counts import ClusterCount, PoolCounts
from orchestrator.store import AnswerRecord, PoolSamples, ScoreTexts, SweepPool
from workers.grading import Verdict
from workers.steps import Aggregation
from workers.types import REDONE, Outcome

UNFINISHED = frozenset({Outcome.TRUNCATED, Outcome.OVERFLOW, Outcome.TIMED_OUT})
GRADED = {
    Verdict.CORRECT: True,
    Verdict.WRONG: False,
    # An answer that is no mathematics is not the gold: a wrong answer like any other, and it votes for itself.
    Verdict.UNPARSABLE: False,
}
_DROPPED = NO_ANSWER - 1
"""Stands for a sample that says nothing about the model."""

Vote = tuple[int, bool]
"""Cluster, and whether it is correct: a cluster whose answers have different verdicts is split."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """Where a score of the estimators comes from."""

    key: str
    scorer_id: int
    aggregation: Aggregation
    """How the values of a sample become one; of a single value, any gives it."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """All that is known of the samples of a pool."""

    pool: SweepPool
    counts: PoolCounts
    answers: Mapping[str, int]
    """Samples by answer, as it was extracted."""
    statuses: Mapping[int, Mapping[str, int]]
    """By scorer id: scores by status."""
    ballots: Ballots
    """The samples whose verdict is known."""
    indices: IntArray
    """(n,): where they stood in the pool, ascending."""
    is_judged: Mapping[str, BoolArray]
    """Key of a score -> (n,): samples that speak for its selectors. A sample that the scorer has not seen, or failed
    at, says nothing; and of those that are not scored at all (unfinished ones) only a share is kept, that of the
    others that are: else a pool that is half scored would be full of failures."""

    def view(self, score: str | None, chain: int | None) -> Ballots:
        """What selectors that go by a score, over chains of a length, may look at.

        Chain c is made of the samples c * chain to (c + 1) * chain - 1; only whole ones are kept.
        """
        kept = np.ones(self.ballots.n, dtype=np.bool_) if score is None else self.is_judged[score]
        if chain is not None:
            _, place, sizes = np.unique(self.indices // chain, return_inverse=True, return_counts=True)
            counts = np.bincount(place, weights=kept, minlength=len(sizes))
            kept = kept & (counts[place] == chain)
        return self.ballots if kept.all() else self.ballots.keep(kept)

    def is_complete(self, score: str) -> bool:
        """Whether a scorer has seen all samples."""
        return bool(self.is_judged[score].all())


def read_pool(
    pool: SweepPool, samples: PoolSamples, answers: Sequence[AnswerRecord], columns: Sequence[ScoreColumn]
) -> PoolRecord:
    """The samples of a pool as counts and as arrays; `answers` are those to its problem, with their verdicts.

    What another run has stored since the answers were read has an answer that is not among them: it is ungraded.
    """
    votes = {each.answer_id: _vote(each) for each in answers}
    outcomes, said_ids = _words(samples.samples.outcomes), _numbers(samples.samples.answers)
    groups: Counter[tuple[str, int | None]] = Counter(zip(outcomes, said_ids, strict=True))
    # In the order of their first appearance: a number of the store would differ from run to run, and sums with it.
    clusters = list(
        dict.fromkeys(vote for _, answer in groups if (vote := votes.get(answer or 0)) is not None)
    )
    numbers: dict[Vote | None, int] = {cluster: number for number, cluster in enumerate(clusters)}
    place_of = {
        (outcome, answer): numbers.get(votes.get(answer), _DROPPED)
        if answer is not None
        else (_DROPPED if outcome == Outcome.ERROR else NO_ANSWER)
        for outcome, answer in groups
    }
    places = map(place_of.__getitem__, zip(outcomes, said_ids, strict=True))
    candidates = np.fromiter(places, dtype=np.int64, count=len(outcomes))
    kept = candidates != _DROPPED
    indices = np.array(_numbers(samples.samples.indices), dtype=np.int64)[kept]
    is_finished = np.array([outcome == Outcome.COMPLETE for outcome in outcomes], dtype=np.bool_)[kept]
    scores: dict[str, FloatArray] = {}
    is_judged: dict[str, BoolArray] = {}
    for scorer_id in dict.fromkeys(column.scorer_id for column in columns):
        own = [column for column in columns if column.scorer_id == scorer_id]
        its_scores, is_seen = _scores(samples.scores[scorer_id], own, indices)
        scores |= its_scores
        is_judged |= dict.fromkeys(its_scores, _judged(is_seen, is_finished))
    is_correct = np.array([correct for _, correct in clusters], dtype=np.bool_)
    texts = {each.answer_id: each.text for each in answers}
    said: Counter[str] = Counter()
    for (_, answer), count in groups.items():
        if answer in texts:
            said[texts[answer]] += count
    return PoolRecord(
        pool=pool,
        counts=_counts(pool, samples, groups, votes),
        answers=said,
        statuses={scorer: Counter(_words(given.statuses)) for scorer, given in samples.scores.items()},
        ballots=Ballots(pool.problem_id, pool.level, candidates[kept], is_correct, scores),
        indices=indices,
        is_judged=is_judged,
    )


def aggregated(values: FloatArray, lengths: IntArray, how: Aggregation) -> FloatArray:
    """One score for each run of `lengths` (> 0) values: `workers.steps.aggregate` for many at once."""
    if not len(lengths):
        return np.empty(0)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    match how:
        case Aggregation.LAST:
            return np.asarray(values[ends - 1])
        case Aggregation.MIN:
            return np.asarray(np.minimum.reduceat(values, starts))
        case Aggregation.MAX:
            return np.asarray(np.maximum.reduceat(values, starts))
        case Aggregation.PROD:
            return np.asarray(np.multiply.reduceat(values, starts))
        case Aggregation.MEAN:
            return np.asarray(np.add.reduceat(values, starts) / lengths)


def _counts(
    pool: SweepPool,
    samples: PoolSamples,
    groups: Mapping[tuple[str, int | None], int],
    votes: Mapping[int, Vote | None],
) -> PoolCounts:
    """What became of the samples, and the votes."""
    kinds: Counter[str] = Counter()
    clusters: Counter[Vote] = Counter()
    for (outcome, answer), count in groups.items():
        vote = None if answer is None else votes.get(answer)
        kinds[_kind(outcome, answer, vote)] += count
        if vote is not None:
            clusters[vote] += count
    tokens = [each for each in _numbers(samples.samples.tokens) if each is not None]
    return PoolCounts(
        problem_id=pool.problem_id,
        level=pool.level,
        samples=sum(groups.values()),
        correct=kinds["correct"],
        wrong=kinds["wrong"],
        no_answer=kinds["no_answer"],
        truncated=kinds["truncated"],
        errors=kinds["errors"],
        ungraded=kinds["ungraded"],
        clusters=tuple(ClusterCount(cluster, count, right) for (cluster, right), count in clusters.items()),
        completion_tokens=sum(tokens),
        samples_with_tokens=len(tokens),
    )


def _vote(answer: AnswerRecord) -> Vote | None:
    """What samples with this answer vote for; None where they have no verdict."""
    is_correct = None if answer.verdict is None else GRADED.get(Verdict(answer.verdict))
    if is_correct is None:
        return None
    return answer.cluster_id if answer.cluster_id is not None else answer.answer_id, is_correct


def _kind(outcome: str, answer: int | None, vote: Vote | None) -> str:
    """Which of the counts a group of samples belongs to; the views count alike."""
    if outcome == Outcome.ERROR:
        return "errors"
    if answer is not None:
        return "ungraded" if vote is None else "correct" if vote[1] else "wrong"
    return "truncated" if outcome in UNFINISHED else "no_answer"


def _scores(
    texts: ScoreTexts, columns: Sequence[ScoreColumn], indices: IntArray
) -> tuple[dict[str, FloatArray], BoolArray]:
    """Scores of one scorer for the samples at `indices`, NaN where there is none; and whom it has seen."""
    scored = np.array(_numbers(texts.indices), dtype=np.int64)
    lengths, values = _flat(texts.values)
    is_final = np.array([status not in REDONE for status in _words(texts.statuses)], dtype=np.bool_)
    if not is_final.all():  # what has failed has no values
        scored, lengths = scored[is_final], lengths[is_final]
    at = np.searchsorted(indices, scored)
    at[at == len(indices)] = 0
    is_here = indices[at] == scored if len(indices) else np.zeros(len(scored), dtype=np.bool_)
    is_seen = np.zeros(len(indices), dtype=np.bool_)
    is_seen[at[is_here]] = True
    has_value = lengths > 0
    found = {}
    for column in columns:
        found[column.key] = np.full(len(indices), np.nan)
        scores = aggregated(values, lengths[has_value], column.aggregation)
        found[column.key][at[is_here & has_value]] = scores[is_here[has_value]]
    return found, is_seen


def _words(gathered: str) -> list[str]:
    return gathered.split(",") if gathered else []


def _numbers(gathered: str) -> list[Any]:
    """Whole numbers, or None."""
    numbers: list[Any] = orjson.loads(f"[{gathered}]")
    return numbers


def _flat(arrays: str) -> tuple[IntArray, FloatArray]:
    """Lengths of JSON arrays of numbers that stand one after the other, and all their numbers.

    One flat list: a list for each of a million samples would take longer than all the rest.
    """
    text = np.frombuffer(arrays.encode(), dtype=np.uint8)
    ends = np.flatnonzero(text == ord("]"))
    starts = np.flatnonzero(text == ord("["))
    commas = np.flatnonzero(text == ord(","))
    within = np.searchsorted(commas, ends) - np.searchsorted(commas, starts)
    lengths = np.where(ends - starts == 1, 0, within + 1)
    filled = arrays.replace("[],", "").replace(",[]", "") if np.any(lengths == 0) else arrays
    numbers = "" if filled == "[]" else filled.replace("[", "").replace("]", "")
    return lengths, np.array(orjson.loads(f"[{numbers}]"), dtype=np.float64)


def _judged(is_seen: BoolArray, is_finished: BoolArray) -> BoolArray:
    """Samples that speak for a scorer: those that it has seen, and the same share of those that it never sees."""
    is_known = is_seen | ~is_finished
    finished = np.count_nonzero(is_finished)
    seen = np.count_nonzero(is_seen & is_finished)
    if seen == finished:
        return np.asarray(is_known)
    unfinished = np.flatnonzero(~is_finished & ~is_seen)
    kept = round(len(unfinished) * seen / finished)
    is_known[unfinished[kept:]] = False
    return np.asarray(is_known)
