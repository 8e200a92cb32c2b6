"""The store: every state that matters, behind one object. Each method is one transaction.

Methods raise `StoreUnavailable` if trying again may help, and `StoreError` otherwise. Must not know Ray
nor workers' inner life; SQL is in the modules beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from orchestrator.store import (
    catalog,
    commit,
    costs,
    estimates,
    grading,
    labels,
    migrate,
    prefixes,
    queries,
    samples,
    searches,
    trees,
    work,
)
from orchestrator.store.backend import Backend, Transaction, reading, writing
from orchestrator.store.errors import StoreRefused, StoreUnavailable
from orchestrator.store.location import Location, locate
from orchestrator.store.postgres import PostgresBackend
from orchestrator.store.records import (
    Agreement,
    AnswerRecord,
    EstimateRecord,
    GeneratorRecord,
    GoldToVerify,
    GradeRecord,
    LabelledSolution,
    LaneRecord,
    NewTask,
    NodeRecord,
    OpenRun,
    PoolContent,
    PoolSamples,
    PoolWanted,
    ProblemRecord,
    ProcedureRecord,
    Progress,
    QueryResult,
    ResultRecord,
    RolloutDemand,
    SampleCost,
    ScorerRecord,
    Scoring,
    SearchCost,
    SelectorRecord,
    SweepPool,
    SweepRecord,
    TaskSpan,
    UngradedAnswer,
    WriteReceipt,
)
from orchestrator.store.sqlite import SqliteBackend, is_blank
from workers.types import Event, FactBatch, Task


class Store:
    """An open store; `async with Store.open(url)` is not needed twice: open once, close once."""

    def __init__(self, backend: Backend, location: Location) -> None:
        self._backend = backend
        self.shown_url = location.shown
        """Where the store is, without a password."""

    @classmethod
    async def open(cls, url: str, *, create: bool = True, read_only: bool = False) -> Self:
        """Open the store at `url`; a missing SQLite file is created, a database not at head is refused.

        Raises:
            StoreRefused: no such database, or not at head; the message says what to type.
            StoreUnavailable: the server does not answer.
        """
        location = locate(url)
        if location.path is not None:
            await _prepare_file(url, location, create=create and not read_only)
        backend = _backend(location, read_only)
        try:
            await migrate.demand_head(backend.reader, location)
        except StoreUnavailable as error:
            await backend.close()
            raise StoreUnavailable(f"{location.shown} cannot be reached: {error}") from error
        except BaseException:
            await backend.close()
            raise
        return cls(backend, location)

    async def close(self) -> None:
        """Close all connections."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _write(self) -> AbstractAsyncContextManager[Transaction]:
        return writing(self._backend)

    def _read(self) -> AbstractAsyncContextManager[Transaction]:
        return reading(self._backend)

    async def clock(self) -> float:
        """Seconds since 1970-01-01 UTC by the clock of the database."""
        async with self._read() as tx:
            return await tx.now()

    # Names ------------------------------------------------------------------------------------------------

    async def register_sweep(self, name: str, config_json: str, config_hash: str, seed: int) -> SweepRecord:
        """Register a sweep; one with that name keeps its id and takes the new configuration."""
        async with self._write() as tx:
            return await catalog.register_sweep(tx, name, config_json, config_hash, seed)

    async def sweeps(self) -> list[SweepRecord]:
        """All sweeps, newest first."""
        async with self._read() as tx:
            return await catalog.find_sweeps(tx, None)

    async def find_sweep(self, name: str) -> SweepRecord | None:
        """The sweep called `name`."""
        async with self._read() as tx:
            return next(iter(await catalog.find_sweeps(tx, name)), None)

    async def register_problems(self, problems: Sequence[ProblemRecord]) -> list[int]:
        """Ids of problems, in order; unknown ones are added."""
        async with self._write() as tx:
            return await catalog.register_problems(tx, problems)

    async def usable_problems(self, ids: Sequence[int]) -> list[int]:
        """Those problems whose reference answer can be graded against, in the order given."""
        async with self._read() as tx:
            return await catalog.usable_problems(tx, ids)

    async def unverified_problems(self, ids: Sequence[int]) -> list[GoldToVerify]:
        """Those problems whose reference answer nobody has tried to read."""
        async with self._read() as tx:
            return await catalog.unverified_problems(tx, ids)

    async def set_gold_status(self, status: Mapping[int, str]) -> None:
        """Record what is known about reference answers: `ok`, `gold_unparsable` or `unverified`."""
        async with self._write() as tx:
            await catalog.set_gold_status(tx, status)

    async def register_generator(self, generator: GeneratorRecord) -> int:
        """Id of the generator with that fingerprint."""
        async with self._write() as tx:
            return await catalog.register_generator(tx, generator)

    async def find_generator(self, fingerprint: str) -> int | None:
        """Id of the generator with that fingerprint, if there is one."""
        async with self._read() as tx:
            return await catalog.find_generator(tx, fingerprint)

    async def register_scorer(self, scorer: ScorerRecord) -> int:
        """Id of the scorer with that fingerprint."""
        async with self._write() as tx:
            return await catalog.register_scorer(tx, scorer)

    async def register_lanes(
        self,
        sweep_id: int,
        generator_ids: Sequence[int],
        scorer_ids: Sequence[int],
        searches: Sequence[tuple[int, int]] = (),
    ) -> list[LaneRecord]:
        """The lanes of a sweep, those that draw first; it has no others from now on.

        `searches` are generators with the scorers that guide them.
        """
        async with self._write() as tx:
            return await catalog.register_lanes(tx, sweep_id, generator_ids, scorer_ids, searches)

    async def sweep_lanes(self, sweep_id: int) -> list[LaneRecord]:
        """The lanes of a sweep, as registered."""
        async with self._read() as tx:
            return await catalog.sweep_lanes(tx, sweep_id)

    async def register_extractor(self, name: str, version: str) -> int:
        """Id of an extractor."""
        async with self._write() as tx:
            return await catalog.register_version(tx, "extractors", name, version)

    async def register_grader(self, name: str, version: str) -> int:
        """Id of a grader."""
        async with self._write() as tx:
            return await catalog.register_version(tx, "graders", name, version)

    async def choose_grading(self, sweep_id: int, *, extractor_id: int | None, grader_id: int | None) -> None:
        """Which extractor and grader the views use for a sweep; None: the newest registered."""
        async with self._write() as tx:
            await catalog.choose_grading(tx, sweep_id, extractor_id, grader_id)

    async def register_pools(
        self,
        sweep_id: int,
        generator_id: int,
        seed: int,
        strategy: str,
        problem_ids: Sequence[int],
        samples: int,
    ) -> dict[int, int]:
        """Pool of each problem; the strategy now wants `samples` of each. `seed` is the sweep's."""
        async with self._write() as tx:
            return await catalog.register_pools(
                tx, sweep_id, generator_id, seed, strategy, problem_ids, samples
            )

    async def register_procedure(self, procedure: ProcedureRecord) -> int:
        """Id of a way to search."""
        async with self._write() as tx:
            return await searches.register_procedure(tx, procedure)

    async def register_searches(
        self,
        sweep_id: int,
        generator_id: int,
        procedure_id: int,
        seed: int,
        strategy: str,
        problem_ids: Sequence[int],
        budget: int,
    ) -> dict[int, int]:
        """The search (the pool of what it finds) for each problem; the strategy now wants them."""
        async with self._write() as tx:
            return await searches.register_pools(
                tx, sweep_id, generator_id, procedure_id, seed, strategy, problem_ids, budget
            )

    async def add_search_tasks(self, sweep_id: int) -> int:
        """A task for every search of a sweep that has none; how many."""
        async with self._write() as tx:
            return await searches.add_search_tasks(tx, sweep_id)

    async def search_costs(self, sweep_id: int) -> list[SearchCost]:
        """What each search of a sweep has consumed."""
        async with self._read() as tx:
            return await costs.search_costs(tx, sweep_id)

    async def sample_costs(self, sweep_id: int, budgets: Sequence[int]) -> dict[str, SampleCost]:
        """What independent samples have consumed, by strategy."""
        async with self._read() as tx:
            return await costs.sample_costs(tx, sweep_id, budgets)

    async def searches_for(self, sweep_id: int, external_id: str) -> dict[str, tuple[int, str]]:
        """(Search, statement) by strategy with its budget, for a problem of a sweep."""
        async with self._read() as tx:
            return await trees.searches_for(tx, sweep_id, external_id)

    async def tree(self, pool_id: int) -> list[NodeRecord]:
        """The nodes of a search."""
        async with self._read() as tx:
            return await trees.tree(tx, pool_id)

    async def search_pools(self, sweep_id: int) -> dict[str, list[SweepPool]]:
        """The pools of what the searches of a sweep that are done have found, by strategy (with its budget)."""
        async with self._read() as tx:
            return await samples.search_pools(tx, sweep_id)

    async def forget_pools(
        self, sweep_id: int, kept: Collection[tuple[int, str]], *, keeps_prefixes: bool
    ) -> int:
        """The sweep no longer wants pools other than the (pool, strategy) kept; their samples stay. How many."""
        async with self._write() as tx:
            return await catalog.forget_pools(tx, sweep_id, kept, keeps_prefixes=keeps_prefixes)

    # Planning ---------------------------------------------------------------------------------------------

    async def coverage(self, sweep_id: int) -> list[PoolWanted]:
        """The pools of whole solutions of a sweep, and how many samples its strategies want of each."""
        async with self._read() as tx:
            return await queries.coverage(tx, sweep_id)

    async def task_spans(self, sweep_id: int) -> list[TaskSpan]:
        """Spans of all tasks that draw in the pools of whole solutions of a sweep, by pool and start."""
        async with self._read() as tx:
            return await queries.task_spans(tx, sweep_id)

    async def add_tasks(self, tasks: Sequence[NewTask]) -> None:
        """Add tasks; a span that starts where another of its lane does is dropped."""
        async with self._write() as tx:
            await work.add_tasks(tx, tasks)

    async def add_score_tasks(self, sweep_id: int) -> int:
        """Have every scorer of a sweep score what its tasks have drawn; how many tasks that adds."""
        async with self._write() as tx:
            return await work.add_score_tasks(tx, sweep_id)

    async def unlabelled(self, sweep_id: int, demand: RolloutDemand) -> list[int]:
        """Solutions whose prefixes are not completed yet; the first samples of all problems come first."""
        async with self._read() as tx:
            return await prefixes.unlabelled(tx, sweep_id, demand)

    async def rollouts_wanted(self, sweep_id: int, strategy: str) -> int:
        """Completions that a strategy of a sweep wants so far."""
        async with self._read() as tx:
            return await prefixes.rollouts_wanted(tx, sweep_id, strategy)

    async def add_rollouts(self, sweep_id: int, demand: RolloutDemand, trajectory_ids: Sequence[int]) -> int:
        """Have the prefixes of these solutions completed; how many samples that asks for."""
        async with self._write() as tx:
            return await prefixes.add_rollouts(tx, sweep_id, demand, trajectory_ids)

    async def reopen_failed(self, sweep_id: int) -> int:
        """Failed tasks of the sweep, and done ones that hold errors, are pending again; how many."""
        async with self._write() as tx:
            return await work.reopen_failed(tx, sweep_id)

    # Runs and leases --------------------------------------------------------------------------------------

    async def start_run(self, sweep_id: int, host: str, pid: int, details: str = "{}") -> int:
        """Id of a new run; `details` is a JSON object."""
        async with self._write() as tx:
            return await work.start_run(tx, sweep_id, host, pid, details)

    async def open_runs(self, sweep_id: int) -> list[OpenRun]:
        """Runs that have not ended in good order, with the tasks of the sweep that they hold."""
        async with self._read() as tx:
            return await work.open_runs(tx, sweep_id)

    async def heartbeat(self, run_id: int) -> bool:
        """Say that the run lives; whether someone asked to cancel its sweep."""
        async with self._write() as tx:
            return await work.heartbeat(tx, run_id)

    async def end_run(self, run_id: int, outcome: str) -> None:
        """End a run in good order; its sweep takes the outcome as its state."""
        async with self._write() as tx:
            await work.end_run(tx, run_id, outcome)

    async def request_cancel(self, sweep_id: int) -> None:
        """Ask the coordinator of a sweep to stop; it hears it with its next heartbeat."""
        async with self._write() as tx:
            await tx.run("UPDATE sweeps SET cancel_requested = '1' WHERE id = :id", id=sweep_id)

    async def claim(
        self,
        sweep_id: int,
        lane_id: int,
        run_id: int,
        limit: int,
        now: float | None = None,
        *,
        shares_steps: bool = False,
    ) -> list[Task]:
        """Lease up to `limit` tasks of a lane, by id, each with what it owes; those that owe nothing are marked done.

        `now`: the database's clock, unless given. `shares_steps`: of the searches for a problem one runs at a time, and
        is offered what the others have drawn.
        """
        async with self._write() as tx:
            return await work.claim(tx, sweep_id, lane_id, run_id, limit, now, shares_steps=shares_steps)

    async def release(self, run_id: int) -> int:
        """Give back all tasks the run holds; how many."""
        async with self._write() as tx:
            return await work.release(tx, run_id)

    async def requeue(
        self, task_id: int, attempt: int, run_id: int, *, shares_steps: bool = False
    ) -> Task | None:
        """Lease a running task anew; None: the lease was stale; of size 0: it owes nothing, it is done."""
        async with self._write() as tx:
            return await work.requeue(tx, task_id, attempt, run_id, shares_steps=shares_steps)

    async def fail_task(
        self,
        task_id: int,
        attempt: int,
        error_kind: str,
        error_text: str,
        not_before: float | None = None,
    ) -> bool:
        """Fail a task, or put it off until `not_before`; False if the lease was not current."""
        async with self._write() as tx:
            return await work.fail_task(tx, task_id, attempt, error_kind, error_text, not_before)

    # Facts ------------------------------------------------------------------------------------------------

    async def write(
        self, batch: FactBatch, *, run_id: int, extractor_id: int, sequence: int | None = None
    ) -> WriteReceipt:
        """Commit a batch; `sequence`, growing within a run, keeps usage right when it is sent again."""
        async with self._write() as tx:
            return await commit.write(tx, batch, run_id, extractor_id, sequence)

    async def add_events(
        self, sweep_id: int, run_id: int | None, events: Sequence[Event], at: float | None = None
    ) -> None:
        """Add events to the log of a sweep."""
        async with self._write() as tx:
            await commit.add_events(tx, sweep_id, run_id, events, at)

    # Grades and estimates ---------------------------------------------------------------------------------

    async def ungraded(self, grader_id: int, sweep_id: int, limit: int) -> list[UngradedAnswer]:
        """Up to `limit` answers to problems of the sweep that the grader has not seen."""
        async with self._read() as tx:
            return await grading.ungraded(tx, grader_id, sweep_id, limit)

    async def write_grades(self, grader_id: int, grades: Sequence[GradeRecord]) -> None:
        """Store verdicts; a second verdict of the same grader replaces the first."""
        async with self._write() as tx:
            await grading.write_grades(tx, grader_id, grades)

    async def answers_of(self, problem_id: int, grader_id: int) -> list[AnswerRecord]:
        """All distinct answers to a problem, with what the grader says of them."""
        async with self._read() as tx:
            return await grading.answers_of(tx, problem_id, grader_id)

    async def write_clusters(self, grader_id: int, clusters: Mapping[int, int]) -> int:
        """Set the cluster of graded answers (answer id -> answer that stands for it); how many."""
        async with self._write() as tx:
            return await grading.write_clusters(tx, grader_id, clusters)

    async def agreement(self, sweep_id: int, one: int, other: int) -> Agreement:
        """How often two graders agree on the distinct answers of a sweep."""
        async with self._read() as tx:
            return await grading.agreement(tx, sweep_id, one, other)

    async def unclustered_problems(self, grader_id: int, sweep_id: int) -> list[int]:
        """Problems of the sweep with graded answers that are in no cluster yet."""
        async with self._read() as tx:
            return await grading.unclustered_problems(tx, grader_id, sweep_id)

    async def labelled_pools(self, sweep_id: int, source: str) -> list[tuple[int, int]]:
        """(pool, samples wanted) of the solutions that may be labelled; `source` is the strategy that draws them."""
        async with self._read() as tx:
            return await labels.labelled_pools(tx, sweep_id, source)

    async def labelled_solutions(
        self, sweep_id: int, strategy: str, pools: Sequence[tuple[int, int]]
    ) -> list[LabelledSolution]:
        """The solutions in these pools whose steps a strategy labels, complete or not."""
        async with self._read() as tx:
            return await labels.labelled_solutions(tx, sweep_id, strategy, pools)

    async def sample_pools(self, sweep_id: int) -> list[SweepPool]:
        """The pools of whole solutions of a sweep."""
        async with self._read() as tx:
            return await samples.sample_pools(tx, sweep_id)

    async def sweep_answers(self, sweep_id: int, grader_id: int) -> dict[int, list[AnswerRecord]]:
        """All distinct answers to the problems of a sweep, with what a grader says of them, by problem id."""
        async with self._read() as tx:
            return await samples.sweep_answers(tx, sweep_id, grader_id)

    async def pool_samples(
        self, pools: Sequence[SweepPool], scorer_ids: Sequence[int], extractor_id: int
    ) -> list[PoolSamples]:
        """The samples that a sweep wants of pools, one by one, with the answers an extractor found and their scores."""
        async with self._read() as tx:
            return await samples.pool_samples(tx, pools, scorer_ids, extractor_id)

    async def register_selectors(self, selectors: Sequence[SelectorRecord]) -> list[int]:
        """Ids of selectors, in order; unknown ones are added."""
        async with self._write() as tx:
            return await estimates.register_selectors(tx, selectors)

    async def read_estimates(self, sweep_id: int, strategy: str) -> list[EstimateRecord]:
        """All estimates of single problems of a strategy of a sweep."""
        async with self._read() as tx:
            return await estimates.read_estimates(tx, sweep_id, strategy)

    async def write_estimates(self, sweep_id: int, strategy: str, found: Sequence[EstimateRecord]) -> None:
        """Store estimates of single problems; those of the same selector and budget are replaced."""
        async with self._write() as tx:
            await estimates.write_estimates(tx, sweep_id, strategy, found)

    async def write_results(self, sweep_id: int, results: Sequence[ResultRecord]) -> None:
        """Store estimates over problems; those of the same estimator version are replaced."""
        async with self._write() as tx:
            await estimates.write_results(tx, sweep_id, results)

    # People -----------------------------------------------------------------------------------------------

    async def progress(self, sweep_id: int | None = None) -> list[Progress]:
        """How far one sweep is, or all sweeps, newest first."""
        async with self._read() as tx:
            return await queries.progress(tx, sweep_id)

    async def pool_contents(self, fingerprint: str, seed: int) -> dict[str, PoolContent]:
        """What the pools of a generator hold, by content hash of their problem; errors are not content."""
        async with self._read() as tx:
            return await queries.pool_contents(tx, fingerprint, seed)

    async def completions_held(self, fingerprint: str, seed: int) -> PoolContent:
        """What a generator has completed of beginnings of solutions; errors are not content."""
        async with self._read() as tx:
            return await queries.completions_held(tx, fingerprint, seed)

    async def mean_steps(self, fingerprint: str, seed: int) -> float | None:
        """Steps of a whole solution of a generator, over those that are stored; None while there are none."""
        async with self._read() as tx:
            return await queries.mean_steps(tx, fingerprint, seed)

    async def scores_held(self, scorer: str, fingerprint: str, seed: int) -> int:
        """Solutions of a generator that a scorer (by its fingerprint) is not to score again."""
        async with self._read() as tx:
            return await queries.scores_held(tx, scorer, fingerprint, seed)

    async def open_tasks(self, sweep_id: int, lane_ids: Sequence[int]) -> int:
        """Tasks of a sweep in these lanes that are pending or leased."""
        async with self._read() as tx:
            return await queries.open_tasks(tx, sweep_id, lane_ids)

    async def samples_failed(self, sweep_id: int) -> int:
        """Samples of a sweep that are stored as errors."""
        async with self._read() as tx:
            return await queries.samples_failed(tx, sweep_id)

    async def scores_failed(self, sweep_id: int) -> int:
        """Scores of a sweep that are stored as errors or as breaches of the scorer's contract."""
        async with self._read() as tx:
            return await queries.scores_failed(tx, sweep_id)

    async def scoring(self, sweep_id: int) -> list[Scoring]:
        """What has become of the samples that each scorer of a sweep was to score."""
        async with self._read() as tx:
            return await queries.scoring(tx, sweep_id)

    async def tokens_generated(self, sweep_id: int) -> int:
        """Tokens generated so far for a sweep, by all its runs."""
        async with self._read() as tx:
            return await queries.tokens_generated(tx, sweep_id)

    async def query(self, sql: str, *, limit: int = 1000, timeout_s: float = 30.0) -> QueryResult:
        """Run a user's query; the database engine itself refuses writes.

        Raises:
            QueryRefused: it would write, is not valid, or took longer than `timeout_s`.
        """
        return QueryResult(*await self._backend.query(sql, limit, timeout_s))


async def _prepare_file(url: str, location: Location, *, create: bool) -> None:
    path = location.path
    assert path is not None
    is_there = path.exists() and path.stat().st_size > 0
    # A process that was killed while it created the file leaves one without tables.
    if is_there and not (create and await asyncio.to_thread(is_blank, path)):
        return
    if not create:
        raise StoreRefused(f"{path}: no such database; `ttc db upgrade --db {location.shown}` creates it")
    await migrate.migrate(url, "head")


def _backend(location: Location, read_only: bool) -> Backend:
    if location.path is not None:
        return SqliteBackend(location.path, read_only=read_only)
    return PostgresBackend(location.url, read_only=read_only)
