"""From stored samples to results: grade, group equal answers, estimate, store. Generates nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
from orchestrator.analysis.pool_reading import PoolRecord, ScoreColumn, read_pool
from orchestrator.analysis.results import ResultRow, StrategyResults
from orchestrator.analysis.search_costs import CostRow, cost_rows, search_budgets
from orchestrator.analysis.search_results import search_results
from orchestrator.analysis.selection import ChosenSelector, chosen_selectors, needed_scores
from orchestrator.problems.integrity import ScrambleCheck, scrambled_ratio
from orchestrator.registration import Registered
from orchestrator.spec.search_settings import search_name
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.strategies import ParallelStrategy
from orchestrator.store import (
    Agreement,
    AnswerRecord,
    EstimateRecord,
    PoolSamples,
    ResultRecord,
    Scoring,
    Store,
    SweepPool,
)
from workers.grading import MATH, STRICT
from workers.grading.normalise import canonical
from workers.steps import Aggregation
from workers.types import ScoreStatus

POOLS_AT_ONCE = 50
"""Pools whose samples are read at once: a hundred thousand rows, a hundred megabytes for a moment."""
ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class Conclusions:
    """Results of a sweep."""

    strategies: Sequence[StrategyResults]
    scoring: Sequence[Scoring]
    """What has become of the samples that each scorer was to score."""
    costs: Sequence[CostRow]
    """What each strategy has spent at each budget, and how right it is for that; none without a search."""
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
    chosen = chosen_selectors(spec)
    ids = await store.register_selectors([each.record for each in chosen])
    numbers = {each.selector.name: number for each, number in zip(chosen, ids, strict=True)}
    answers = await store.sweep_answers(registered.sweep_id, grading.primary_id)
    reader = _Reader(store, registered, answers, _columns(registered, chosen))
    records = await reader.read(await store.sample_pools(registered.sweep_id))
    strategies = []
    for strategy in spec.sampled:
        own = [each for each in records if registered.models[each.pool.generator_id] == strategy.policy]
        budgets = [budget for budget in spec.budget_grid if budget <= strategy.samples]
        wanted = Estimation([each.selector for each in chosen], budgets, spec.seed)
        shelf = _Shelf(store, registered.sweep_id, strategy.name, numbers)
        found = _results(strategy, own, await shelf.renew(own, wanted, progress))
        await shelf.publish(found.rows)
        strategies.append(found)
    searches = await store.search_pools(registered.sweep_id) if spec.searched else {}
    for search in spec.searched:  # all that each search found is voted on, at the budget it had
        pools = {
            budget: searches.get(search_name(search.name, budget), []) for budget in sorted(search.budgets)
        }
        solutions = {budget: await reader.read(its) for budget, its in pools.items()}
        found = search_results(search.name, solutions, [each.selector for each in chosen])
        await _Shelf(store, registered.sweep_id, search.name, numbers).publish(found.rows)
        strategies.append(found)
    return Conclusions(
        strategies,
        [_scoring(number, name, records) for number, name in registered.scorers.items()],
        await _costs(store, registered.sweep_id, strategies) if spec.searched else (),
        await _agreement(registered, store),
        scramble_check(records),
    )


async def _costs(store: Store, sweep_id: int, strategies: Sequence[StrategyResults]) -> list[CostRow]:
    sampled = await store.sample_costs(sweep_id, search_budgets(strategies))
    return cost_rows(strategies, await store.search_costs(sweep_id), sampled)


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
    """Reads the samples of pools; the answers to all problems, with their verdicts, are read once."""

    def __init__(
        self,
        store: Store,
        registered: Registered,
        answers: Mapping[int, Sequence[AnswerRecord]],
        columns: Sequence[ScoreColumn],
    ) -> None:
        self._store = store
        self._registered = registered
        self._answers = answers
        self._columns = columns

    async def read(self, pools: Sequence[SweepPool]) -> list[PoolRecord]:
        """All of the pools, those without a sample too: what was never drawn is left out, and counted as such."""
        scorer_ids, extractor_id = list(self._registered.scorers), self._registered.rules.extractor_id
        parts = [pools[start : start + POOLS_AT_ONCE] for start in range(0, len(pools), POOLS_AT_ONCE)]
        records: list[PoolRecord] = []
        async with asyncio.TaskGroup() as group:
            # the store reads the next part while this one is made into arrays
            coming = (
                group.create_task(self._store.pool_samples(part, scorer_ids, extractor_id)) for part in parts
            )
            reading = next(coming, None)
            for part in parts:
                assert reading is not None
                samples = await reading
                reading = next(coming, None)
                records += await asyncio.to_thread(self._arrays, part, samples)
        return records

    def _arrays(self, pools: Sequence[SweepPool], samples: Sequence[PoolSamples]) -> list[PoolRecord]:
        return [
            read_pool(pool, its, self._answers.get(pool.problem_id, ()), self._columns)
            for pool, its in zip(pools, samples, strict=True)
        ]


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
    strategy: ParallelStrategy, records: Sequence[PoolRecord], estimated: Sequence[_Estimated]
) -> StrategyResults:
    levels = results.by_level([record.pool.level for record in records])
    curves = [each.curve for each in estimated]
    majority = next((curve for curve in curves if curve.selector.kind is Kind.MAJORITY), None)
    return StrategyResults(
        strategy=strategy.name,
        samples=strategy.samples,
        rows=results.summarise(curves, levels),
        differences=[] if majority is None else results.differences(curves, majority, levels),
        counts=results.count_outcomes([record.counts for record in records], levels),
        curves={curve.selector.name: curve for curve in curves},
        levels=levels,
        pools={each.curve.selector.name: each.pools for each in estimated},
    )


def _scoring(scorer_id: int, scorer: str, records: Sequence[PoolRecord]) -> Scoring:
    statuses = sum((Counter(record.statuses[scorer_id]) for record in records), Counter[str]())
    return Scoring(
        scorer_id=scorer_id,
        scorer=scorer,
        scored=statuses[ScoreStatus.OK],
        truncated=statuses[ScoreStatus.TRUNCATED],
        too_long=statuses[ScoreStatus.TOO_LONG],
        unparsed=statuses[ScoreStatus.UNPARSED],
        invalid=statuses[ScoreStatus.INVALID],
        errors=statuses[ScoreStatus.ERROR],
    )


async def _agreement(registered: Registered, store: Store) -> Agreement:
    """How often our two graders agree; where verdicts came with the samples there is nothing to compare."""
    graders = registered.rules.grader_ids
    if not graders:
        return Agreement(0, 0)
    return await store.agreement(registered.sweep_id, graders[MATH.name], graders[STRICT.name])


def scramble_check(records: Sequence[PoolRecord]) -> ScrambleCheck:
    """Compare the normalised answers of all pools with all golds; the ids go end to end, so this should never ring."""
    golds = {str(record.pool.problem_id): canonical(record.pool.gold) for record in records}
    samples: Counter[tuple[str, str | None]] = Counter()
    for record in records:
        for answer, count in record.answers.items():
            samples[str(record.pool.problem_id), canonical(answer)] += count
    return scrambled_ratio(golds, samples)
