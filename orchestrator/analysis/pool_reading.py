"""From what the store holds of a pool to what the estimators need of it: counts, and samples one by one.

Both count alike: errors and samples without a verdict say nothing about the model, and the four outcomes never mix
(invariant I7). It must not know what is estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from orchestrator.analysis.estimation.arrays import BoolArray, FloatArray, IntArray
from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.counts import ClusterCount, PoolCounts
from orchestrator.store import AnswerCount, PoolSamples
from orchestrator.store import PoolCounts as StoredCounts
from workers.grading import Verdict
from workers.steps import Aggregation
from workers.types import Outcome

UNFINISHED = frozenset({Outcome.TRUNCATED, Outcome.OVERFLOW, Outcome.TIMED_OUT})
GRADED = {
    Verdict.CORRECT: True,
    Verdict.WRONG: False,
    # An answer that is no mathematics is not the gold: a wrong answer like any other, and it votes for itself.
    Verdict.UNPARSABLE: False,
}
_DROPPED = NO_ANSWER - 1
"""Stands for a sample that says nothing about the model."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """Where a score of the estimators comes from."""

    key: str
    scorer_id: int
    aggregation: Aggregation
    """How the values of a sample become one; of a single value, any gives it."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """The samples of a pool whose verdict is known, where they stood in it, and which scorers have seen them."""

    ballots: Ballots
    indices: IntArray
    """(n,): sample index, ascending."""
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


def pool_counts(pool: StoredCounts) -> PoolCounts:
    """What became of the samples of a pool, and its votes."""
    kinds: Counter[str] = Counter()
    votes: Counter[tuple[int, bool]] = Counter()
    for answer in pool.answers:
        kinds[_kind(answer)] += answer.samples
        ballot = _ballot(answer)
        if ballot is not None:
            votes[ballot] += answer.samples
    return PoolCounts(
        problem_id=pool.problem_id,
        level=pool.level,
        samples=pool.samples,
        correct=kinds["correct"],
        wrong=kinds["wrong"],
        no_answer=kinds["no_answer"],
        truncated=kinds["truncated"],
        errors=kinds["errors"],
        ungraded=kinds["ungraded"],
        clusters=tuple(ClusterCount(cluster, count, correct) for (cluster, correct), count in votes.items()),
        completion_tokens=sum(each.completion_tokens for each in pool.answers),
        samples_with_tokens=sum(each.samples for each in pool.answers if each.completion_tokens),
    )


def pool_record(pool: StoredCounts, samples: PoolSamples, columns: Sequence[ScoreColumn]) -> PoolRecord:
    """The samples of a pool as arrays; `samples` may hold more than `pool` counts, never less."""
    ballots = sorted({found for answer in pool.answers if (found := _ballot(answer)) is not None})
    numbers = {ballot: number for number, ballot in enumerate(ballots)}
    cluster_of = {
        answer.answer_id: _DROPPED if (found := _ballot(answer)) is None else numbers[found]
        for answer in pool.answers
        if answer.answer_id is not None
    }
    indices, outcomes, answers = _columns(samples.samples[: pool.samples])
    candidates = np.array(
        [
            (_DROPPED if outcome == Outcome.ERROR else NO_ANSWER)
            if answer is None
            else cluster_of.get(answer, _DROPPED)
            for outcome, answer in zip(outcomes, answers, strict=True)
        ],
        dtype=np.int64,
    )
    kept = candidates != _DROPPED
    places = np.array(indices, dtype=np.int64)[kept]
    is_finished = np.array([outcome == Outcome.COMPLETE for outcome in outcomes], dtype=np.bool_)[kept]
    scores: dict[str, FloatArray] = {}
    is_judged: dict[str, BoolArray] = {}
    for scorer_id in dict.fromkeys(column.scorer_id for column in columns):
        own = [column for column in columns if column.scorer_id == scorer_id]
        its_scores, is_seen = _scores(samples.scores[scorer_id], own, places)
        scores |= its_scores
        is_judged |= dict.fromkeys(its_scores, _judged(is_seen, is_finished))
    is_correct = np.array([correct for _, correct in ballots], dtype=np.bool_)
    return PoolRecord(
        Ballots(pool.problem_id, pool.level, candidates[kept], is_correct, scores), places, is_judged
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


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[Sequence[Any], ...]:
    return tuple(zip(*rows, strict=True)) if rows else ((), (), ())


def _scores(
    rows: Sequence[tuple[int, str]], columns: Sequence[ScoreColumn], places: IntArray
) -> tuple[dict[str, FloatArray], BoolArray]:
    """Scores of one scorer for the samples at `places` (ascending), NaN where there is none; and whom it has seen."""
    lists: list[list[float]] = orjson.loads(f"[{','.join(text for _, text in rows)}]")
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    values = np.fromiter(chain.from_iterable(lists), np.float64, int(lengths.sum()))
    scored = np.fromiter((index for index, _ in rows), np.int64, len(rows))
    at = np.searchsorted(places, scored)
    at[at == len(places)] = 0
    is_here = places[at] == scored if len(places) else np.zeros(len(scored), dtype=np.bool_)
    is_seen = np.zeros(len(places), dtype=np.bool_)
    is_seen[at[is_here]] = True
    has_value = lengths > 0
    found = {}
    for column in columns:
        found[column.key] = np.full(len(places), np.nan)
        scores = aggregated(values, lengths[has_value], column.aggregation)
        found[column.key][at[is_here & has_value]] = scores[is_here[has_value]]
    return found, is_seen


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


def _ballot(answer: AnswerCount) -> tuple[int, bool] | None:
    """What samples with this answer vote for: a cluster, and its verdict; None where they do not vote."""
    if answer.answer_id is None or answer.verdict is None:
        return None
    is_correct = GRADED.get(Verdict(answer.verdict))
    if is_correct is None:
        return None
    return answer.cluster_id if answer.cluster_id is not None else answer.answer_id, is_correct


def _kind(answer: AnswerCount) -> str:
    """Which of the counts a group of samples belongs to; the views count alike."""
    if answer.outcome == Outcome.ERROR:
        return "errors"
    if answer.answer_id is not None:
        ballot = _ballot(answer)
        return "ungraded" if ballot is None else "correct" if ballot[1] else "wrong"
    return "truncated" if answer.outcome in UNFINISHED else "no_answer"
