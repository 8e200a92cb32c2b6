"""From stored samples to results: grade, group equal answers, estimate, store. Generates nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from orchestrator.analysis import results
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import Curve
from orchestrator.analysis.estimation.kept_estimates import (
    ESTIMATOR_VERSION,
    Estimation,
    Kept,
    Key,
    Progress,
    renew,
)
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.grading_service import GradingService
from orchestrator.analysis.pool_reading import PoolRecord, ScoreColumn, pool_counts, pool_record
from orchestrator.analysis.results import ResultRow, StrategyResults
from orchestrator.analysis.selection import ChosenSelector, chosen_selectors, needed_scores
from orchestrator.problems.integrity import ScrambleCheck, scrambled_ratio
from orchestrator.registration import Registered
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.strategies import ParallelStrategy
from orchestrator.store import Agreement, EstimateRecord, ResultRecord, Scoring, Store
from orchestrator.store import PoolCounts as StoredCounts
from workers.grading import MATH, STRICT
from workers.grading.normalise import canonical
from workers.steps import Aggregation

POOLS_AT_ONCE = 50
"""Pools whose samples are read at once: a hundred thousand rows, a hundred megabytes for a moment."""
ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class Conclusions:
    """Results of a sweep."""

    strategies: Sequence[StrategyResults]
    scoring: Sequence[Scoring]
    """What has become of the samples that each scorer was to score."""
    agreement: Agreement
    """Of the mathematical grader, whose verdicts count, with the strict one."""
    scramble: ScrambleCheck
    """Whether samples look as if they answered other problems than those they are filed under."""


async def conclude(
    spec: SweepSpec, registered: Registered, store: Store, grading: GradingService, progress: Progress
) -> Conclusions:
    """Grade, cluster, estimate; estimates and results are stored and returned, strategy by strategy."""
    await grading.grade()
    await grading.cluster()
    stored = await store.answer_counts(registered.sweep_id, grading.primary_id)
    chosen = chosen_selectors(spec)
    ids = await store.register_selectors([each.record for each in chosen])
    numbers = {each.selector.name: number for each, number in zip(chosen, ids, strict=True)}
    reader = _Reader(store, registered, _columns(registered, chosen))
    conclusions = []
    for strategy in spec.sampled:
        pools = [each for each in stored if registered.models[each.generator_id] == strategy.policy]
        budgets = [budget for budget in spec.budget_grid if budget <= strategy.samples]
        wanted = Estimation([each.selector for each in chosen], budgets, spec.seed)
        shelf = _Shelf(store, registered.sweep_id, strategy.name, numbers)
        estimated = await shelf.renew(await reader.records(pools), wanted, progress)
        found = _results(strategy, pools, estimated)
        await shelf.publish(found.rows)
        conclusions.append(found)
    return Conclusions(
        conclusions,
        await store.scoring(registered.sweep_id),
        await _agreement(registered, store),
        scramble_check(stored),
    )


def _columns(registered: Registered, chosen: Sequence[ChosenSelector]) -> list[ScoreColumn]:
    ids = {name: number for number, name in registered.scorers.items()}
    return [
        ScoreColumn(each.key, ids[each.scorer], each.aggregation or Aggregation.LAST)
        for each in needed_scores(chosen)
    ]


@dataclass(frozen=True, slots=True)
class _Estimated:
    """A curve, and the samples it looked at."""

    curve: Curve
    pools: Sequence[Ballots]


class _Reader:
    """Samples of pools, one by one; strategies of the same model share them."""

    def __init__(self, store: Store, registered: Registered, columns: Sequence[ScoreColumn]) -> None:
        self._store = store
        self._extractor_id = registered.rules.extractor_id
        self._columns = columns
        self._scorer_ids = list(dict.fromkeys(column.scorer_id for column in columns))
        self._held: dict[int, PoolRecord] = {}

    async def records(self, pools: Sequence[StoredCounts]) -> list[PoolRecord]:
        """The samples of pools, in order."""
        missing = [each for each in pools if each.pool_id not in self._held]
        for start in range(0, len(missing), POOLS_AT_ONCE):
            some = missing[start : start + POOLS_AT_ONCE]
            ids = [each.pool_id for each in some]
            samples = await self._store.pool_samples(ids, self._scorer_ids, self._extractor_id)
            for pool, its in zip(some, samples, strict=True):
                self._held[pool.pool_id] = pool_record(pool, its, self._columns)
        return [self._held[each.pool_id] for each in pools]


class _Shelf:
    """Where the estimates of a strategy are kept."""

    def __init__(self, store: Store, sweep_id: int, strategy: str, numbers: Mapping[str, int]) -> None:
        self._store = store
        self._sweep_id = sweep_id
        self._strategy = strategy
        self._numbers = numbers

    async def renew(
        self, records: Sequence[PoolRecord], wanted: Estimation, progress: Progress
    ) -> list[_Estimated]:
        """Curves of all selectors; what is stored and still holds is taken from there, the rest is stored."""
        kept = await self._kept()
        found: dict[Selector, _Estimated] = {}
        for (score, chain), selectors in _by_view(wanted.selectors, records):
            pools = [record.view(score, chain) for record in records]
            renewal = await asyncio.to_thread(
                renew, pools, Estimation(selectors, wanted.budgets, wanted.seed), kept, progress
            )
            await self._keep(renewal.made)
            found |= {selector: _Estimated(curve, pools) for selector, curve in renewal.curves.items()}
        return [found[selector] for selector in wanted.selectors]

    async def publish(self, rows: Sequence[ResultRow]) -> None:
        """Store what is said over problems."""
        await self._store.write_results(self._sweep_id, [self._result(row) for row in rows if row.problems])

    async def _kept(self) -> dict[Key, Kept]:
        names = {number: name for name, number in self._numbers.items()}
        return {
            (names[each.selector_id], each.budget, each.problem_id): Kept(
                each.value, each.mc_error, each.signature
            )
            for each in await self._store.read_estimates(self._sweep_id, self._strategy)
            if each.selector_id in names
        }

    async def _keep(self, made: Mapping[Key, Kept]) -> None:
        await self._store.write_estimates(
            self._sweep_id,
            self._strategy,
            [
                EstimateRecord(
                    self._numbers[name], budget, problem, each.value, each.mc_error, each.signature
                )
                for (name, budget, problem), each in made.items()
            ],
        )

    def _result(self, row: ResultRow) -> ResultRecord:
        return ResultRecord(
            strategy=self._strategy,
            selector_id=self._numbers[row.selector],
            budget=row.budget,
            level="" if row.level == results.OVERALL else row.level,
            metric=ACCURACY,
            estimator_version=str(ESTIMATOR_VERSION),
            value=row.value,
            std_error=row.std_error,
            low=row.low,
            high=row.high,
            mc_error=row.mc_error,
            problems=row.problems,
        )


def _by_view(
    selectors: Iterable[Selector], records: Sequence[PoolRecord]
) -> list[tuple[tuple[str | None, int | None], list[Selector]]]:
    """Selectors by what they may look at: those that see the same samples are estimated from the same draws."""
    groups: dict[tuple[str | None, int | None], list[Selector]] = {}
    for selector in selectors:
        score = selector.score
        if score is not None and all(record.is_complete(score) for record in records):
            score = None
        groups.setdefault((score, selector.chain), []).append(selector)
    return list(groups.items())


def _results(
    strategy: ParallelStrategy, pools: Sequence[StoredCounts], estimated: Sequence[_Estimated]
) -> StrategyResults:
    levels = results.by_level([pool.level for pool in pools])
    curves = [each.curve for each in estimated]
    majority = next((curve for curve in curves if curve.selector.kind is Kind.MAJORITY), None)
    return StrategyResults(
        strategy=strategy.name,
        samples=strategy.samples,
        rows=results.summarise(curves, levels),
        differences=[] if majority is None else results.differences(curves, majority, levels),
        counts=results.count_outcomes([pool_counts(pool) for pool in pools], levels),
        curves={curve.selector.name: curve for curve in curves},
        levels=levels,
        pools={each.curve.selector.name: each.pools for each in estimated},
    )


async def _agreement(registered: Registered, store: Store) -> Agreement:
    """How often our two graders agree; where verdicts came with the samples there is nothing to compare."""
    graders = registered.rules.grader_ids
    if not graders:
        return Agreement(0, 0)
    return await store.agreement(registered.sweep_id, graders[MATH.name], graders[STRICT.name])


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
