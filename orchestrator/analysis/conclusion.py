"""From stored samples to results: grade, group equal answers, estimate, store. Generates nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from orchestrator.analysis import results
from orchestrator.analysis.estimators import ClusterCount, PoolCounts
from orchestrator.analysis.grading_service import GradingService
from orchestrator.analysis.results import CountRow, ResultRow
from orchestrator.problems.integrity import ScrambleCheck, scrambled_ratio
from orchestrator.registration import Registered
from orchestrator.spec.sections import SweepSpec
from orchestrator.store import Agreement, AnswerCount, ResultRecord, SelectorRecord, Store
from orchestrator.store import PoolCounts as StoredCounts
from workers.grading import MATH, STRICT, Verdict
from workers.grading.normalise import canonical
from workers.types import Outcome

UNFINISHED = frozenset({Outcome.TRUNCATED, Outcome.OVERFLOW, Outcome.TIMED_OUT})
GRADED = {
    Verdict.CORRECT: True,
    Verdict.WRONG: False,
    # An answer that is no mathematics is not the gold: a wrong answer like any other, and it votes for itself.
    Verdict.UNPARSABLE: False,
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Results of one strategy of a sweep."""

    strategy: str
    rows: Sequence[ResultRow]
    counts: Sequence[CountRow]


@dataclass(frozen=True, slots=True)
class Conclusions:
    """Results of a sweep."""

    strategies: Sequence[Conclusion]
    agreement: Agreement
    """Of the mathematical grader, whose verdicts count, with the strict one."""
    scramble: ScrambleCheck
    """Whether samples look as if they answered other problems than those they are filed under."""


async def conclude(
    spec: SweepSpec, registered: Registered, store: Store, grading: GradingService
) -> Conclusions:
    """Grade, cluster, estimate; the estimates are stored in `results` and returned, strategy by strategy."""
    await grading.grade()
    await grading.cluster()
    pools = await store.answer_counts(registered.sweep_id, grading.primary_id)
    conclusions = []
    ids = await store.register_selectors(
        [SelectorRecord(kind, kind, None, None) for kind in (results.PASS, results.MAJORITY)]
    )
    selector_ids = dict(zip((results.PASS, results.MAJORITY), ids, strict=True))
    for strategy in spec.sampled:
        counted = [
            pool_counts(pool) for pool in pools if registered.models[pool.generator_id] == strategy.policy
        ]
        rows = results.summarise(counted, spec.budget_grid, spec.seed)
        records = [_record(strategy.name, selector_ids[row.selector], row) for row in rows if row.problems]
        await store.write_results(registered.sweep_id, records)
        conclusions.append(Conclusion(strategy.name, rows, results.count_outcomes(counted)))
    agreement = await _agreement(registered, store)
    return Conclusions(conclusions, agreement, scramble_check(pools))


async def _agreement(registered: Registered, store: Store) -> Agreement:
    """How often our two graders agree; where verdicts came with the samples there is nothing to compare."""
    graders = registered.rules.grader_ids
    if not graders:
        return Agreement(0, 0)
    return await store.agreement(registered.sweep_id, graders[MATH.name], graders[STRICT.name])


def pool_counts(pool: StoredCounts) -> PoolCounts:
    """What the estimators need of a pool, from what the store counted."""
    kinds: Counter[str] = Counter()
    votes: Counter[tuple[int, bool]] = Counter()
    for answer in pool.answers:
        kinds[_kind(answer)] += answer.samples
        verdict = _is_correct(answer)
        if verdict is not None and answer.answer_id is not None:
            cluster = answer.cluster_id if answer.cluster_id is not None else answer.answer_id
            votes[cluster, verdict] += answer.samples
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


def scramble_check(pools: Sequence[StoredCounts]) -> ScrambleCheck:
    """Compare the normalised answers of all pools with all golds; the ids go end to end, so this should never ring."""
    golds = {str(pool.problem_id): canonical(pool.gold) for pool in pools}
    samples = (
        sample
        for pool in pools
        for answer in pool.answers
        if answer.text is not None
        for sample in repeat((str(pool.problem_id), canonical(answer.text)), answer.samples)
    )
    return scrambled_ratio(golds, samples)


def _is_correct(answer: AnswerCount) -> bool | None:
    return None if answer.verdict is None else GRADED.get(Verdict(answer.verdict))


def _kind(answer: AnswerCount) -> str:
    """Which of the counts a group of samples belongs to (invariant I7: they never mix); the views count alike."""
    if answer.outcome == Outcome.ERROR:
        return "errors"
    if answer.answer_id is not None:
        return {True: "correct", False: "wrong", None: "ungraded"}[_is_correct(answer)]
    return "truncated" if answer.outcome in UNFINISHED else "no_answer"


def _record(strategy: str, selector_id: int, row: ResultRow) -> ResultRecord:
    return ResultRecord(
        strategy=strategy,
        selector_id=selector_id,
        budget=row.budget,
        level="" if row.level == results.OVERALL else row.level,
        metric="accuracy",
        estimator_version=str(results.ESTIMATOR_VERSION),
        value=row.value,
        std_error=row.std_error,
        low=row.low,
        high=row.high,
        mc_error=row.mc_error,
        problems=row.problems,
    )
