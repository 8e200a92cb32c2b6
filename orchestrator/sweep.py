"""A whole sweep from a checked specification to results: the composition root, where everything meets once.

    register   specification + problems -> rows: sweep, problems, generators, scorers, pools
    draw       what is missing -> tasks -> facts, through pool, coordinator and writer; what follows from them too
    conclude   facts -> verdicts, clusters, results

Each of the three may be interrupted and done again; each finds in the store what the last one left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.analysis.conclusion import Conclusions, conclude
from orchestrator.analysis.grading_service import GradingService
from orchestrator.execution import planner
from orchestrator.execution.coordinator import (
    CAP_REACHED,
    GRACE_S,
    INTERRUPTED,
    Coordinator,
    RunContext,
    root_cause,
)
from orchestrator.execution.endpoints import ServedModels, engine_groups, serve_models
from orchestrator.execution.engines.fleet import Fleet
from orchestrator.execution.engines.pool import EnginePool, LocalEngines
from orchestrator.execution.growth import Growth
from orchestrator.execution.journal import Journal
from orchestrator.execution.local_ray import prepare_local_ray
from orchestrator.execution.metrics.families import RunIdentity
from orchestrator.execution.metrics.observation import Board, Observation, lane_models
from orchestrator.execution.metrics.server import MetricsSettings
from orchestrator.execution.pool import LocalPool, WorkerPool
from orchestrator.execution.progress import Reporter, Tally
from orchestrator.execution.scheduler import Scheduler, SchedulerSettings
from orchestrator.registration import COMPLETE, Registered
from orchestrator.spec.sections import SweepSpec
from orchestrator.store import LaneRecord, NewTask, Scoring, Store, TaskState, Writer
from workers.collector import calm_collector
from workers.grading import GraderPool
from workers.worker import WorkerSettings

logger = logging.getLogger(__name__)

NOTHING_TO_DO = "nothing to do"
SETTLING_S = 2.0
"""What a run needs to leave in order once no request is in flight: stop its workers, give back its leases."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line may decide about a run; nothing of it changes any result."""

    workers: int | None = None
    is_local: bool = False
    ray_address: str | None = None
    is_previewed: bool = True
    is_json: bool = False
    only_scores: bool = False
    """Score what is stored, and draw nothing."""
    stop_window_s: float | None = None
    """Seconds between SIGTERM and SIGKILL, where whoever runs it has that little patience (Ray, Slurm, Kubernetes)."""
    metrics: MetricsSettings | None = None
    """Where Prometheus finds the numbers of the run; None: nowhere."""
    log_file: Path | None = None
    """What happens is appended here, as JSON lines; None: nowhere."""

    @property
    def grace_s(self) -> float:
        """How long requests in flight may finish after a signal."""
        if self.stop_window_s is None:
            return GRACE_S
        return min(GRACE_S, max(0.0, self.stop_window_s - SETTLING_S))


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended."""

    reason: str
    """complete, nothing to do, cancelled, interrupted or token cap reached."""
    samples_wanted: int
    samples_stored: int
    samples_drawn: int
    """Drawn by this run."""
    failed_samples: int
    """Stored as errors; the next run draws them again."""
    failed_tasks: int
    """Tasks that gave up, with samples that were not drawn or scored; the next run tries them again."""
    scores_made: int
    """Scores stored by this run."""
    failed_scores: int
    """Stored as errors or as breaches of the scorer's contract; the next run asks for them again."""
    scoring: Sequence[Scoring]
    """What has become of the samples that each scorer was to score."""
    elapsed_s: float
    conclusions: Conclusions | None
    """None where there was nothing to do (the results are those of the last run), or no time."""


async def run_sweep(
    spec: SweepSpec,
    registered: Registered,
    store: Store,
    options: RunOptions,
    reporter: Reporter,
    board: Board | None = None,
) -> RunReport:
    """Draw and score what a registered sweep is missing, grade it and compute its results."""
    if not options.is_local and options.ray_address is None:
        prepare_local_ray()
    sweep_id = registered.sweep_id
    wanted = sum(registered.wanted.values())
    logger.info("%d samples wanted", wanted, extra={"event": "registered", "samples_wanted": wanted})
    await store.reopen_failed(sweep_id)
    await _end_dead_runs(store, sweep_id)
    growth = Growth(
        store,
        sweep_id,
        () if options.only_scores else registered.rollouts,
        has_scorers=bool(registered.scorers),
    )
    await growth.grow()
    lanes = await _lanes_with_work(store, registered, options)
    if registered.is_settled and not lanes and not await _has_ungraded(store, registered):
        return await _report(store, sweep_id, NOTHING_TO_DO, None, None)
    async with _life(store, sweep_id, options) as life, GraderPool() as graders:
        grading = GradingService(store, graders, sweep_id, registered.rules, reporter.note)
        tally, reason = None, COMPLETE
        if lanes and await _is_spent(spec, store, sweep_id):
            reason = CAP_REACHED
        elif lanes:
            groups = engine_groups(spec, registered, lanes)
            journal = Journal(reporter, store, sweep_id, life.run_id)
            fleet = Fleet(_engine_pool(options), groups, reporter.note, journal.record)
            workers = worker_count(spec, options)
            async with serve_models(spec, registered, lanes, fleet, workers, reporter) as served:
                await _add_tasks(store, registered, served)
                run = _Run(spec, registered, store, options, reporter, board)
                tally, reason = await run.draw(lanes, served, grading, growth, life.run_id)
        conclusions = None
        if reason != INTERRUPTED or options.stop_window_s is None:  # else there is no time for results
            conclusions = await conclude(
                spec, registered, store, grading, partial(reporter.advance, "problems estimated")
            )
        life.outcome = reason
    return await _report(store, sweep_id, reason if lanes else NOTHING_TO_DO, tally, conclusions)


@dataclass(slots=True)
class _Life:
    """One run: its row in the store, and what that row will say of its end."""

    run_id: int
    outcome: str = "failed"


@asynccontextmanager
async def _life(store: Store, sweep_id: int, options: RunOptions) -> AsyncIterator[_Life]:
    """A row in `runs`; however the run ends, its leases end with it."""
    life = _Life(await store.start_run(sweep_id, socket.gethostname(), os.getpid(), _details(options)))
    logger.info("run %d begins", life.run_id, extra={"event": "started", "run_id": life.run_id})
    try:
        yield life
    except asyncio.CancelledError:
        life.outcome = "interrupted"
        raise
    finally:
        await store.release(life.run_id)
        await store.end_run(life.run_id, life.outcome)
        logger.info(
            "run %d ends: %s", life.run_id, life.outcome,
            extra={"event": "ended", "run_id": life.run_id, "outcome": life.outcome},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Run:
    """What one life of a coordinator is made of."""

    spec: SweepSpec
    registered: Registered
    store: Store
    options: RunOptions
    reporter: Reporter
    board: Board | None

    async def draw(
        self,
        lanes: Sequence[LaneRecord],
        served: ServedModels,
        grading: GradingService,
        growth: Growth,
        run_id: int,
    ) -> tuple[Tally, str]:
        """Draw and score until nothing is missing: what that came to, and why it stopped."""
        calm_collector()
        sweep_id = self.registered.sweep_id
        tally = await self._tally()
        context = RunContext(
            sweep_id=sweep_id,
            run_id=run_id,
            lanes=lanes,
            generators=served.generators,
            token_cap=self.spec.limits.tokens,
            tokens_before=await self.store.tokens_generated(sweep_id),
            shares_steps=self.spec.limits.share_steps,
            is_previewed=self.options.is_previewed,
        )
        extractor_id = self.registered.rules.extractor_id
        async with (
            Writer(self.store, run_id=run_id, extractor_id=extractor_id) as writer,
            self._pool(served) as pool,
        ):
            settings = SchedulerSettings({lane.id: served.lane_settings(lane) for lane in lanes})
            scheduler = Scheduler(settings)
            coordinator = Coordinator(
                context, self.store, writer, pool, grading, growth, scheduler, tally, self.reporter
            )
            models = lane_models(self.spec, self.registered, lanes)
            observation = Observation(self._identity(run_id), models, tally, scheduler, writer)
            interrupt = partial(coordinator.interrupt, grace_s=self.options.grace_s)
            with _signals(interrupt), observation.on(self.board):
                keeping = served.fleet.run(pool, lambda: tally.health)
                return tally, await _beside(keeping, coordinator.run())

    def _identity(self, run_id: int) -> RunIdentity:
        workers = worker_count(self.spec, self.options)
        return RunIdentity(self.spec.name, run_id, version("ttc"), time.time(), workers)

    async def _tally(self) -> Tally:
        """The counts this run begins with."""
        registered = self.registered
        (before,) = await self.store.progress(registered.sweep_id)
        scored = await self.store.scoring(registered.sweep_id)
        serving = {lane.scorer_id for lane in registered.lanes if lane.kind == "score"}
        return Tally(
            samples_wanted=before.samples_wanted,
            samples_before=before.samples_stored,
            scores_wanted=len(serving) * sum(registered.wanted.values()),
            scores_before=sum(each.settled for each in scored if each.scorer_id in serving),
        )

    def _pool(self, served: ServedModels) -> WorkerPool:
        settings = WorkerSettings(tuple(served.generators.values()), tuple(served.scorers.values()))
        count = worker_count(self.spec, self.options)
        if self.options.is_local:
            return LocalPool(settings, count)
        from orchestrator.execution.ray_pool import (
            RayPool,
        )  # importing Ray takes seconds, and --local does without

        return RayPool(settings, count, address=self.options.ray_address)


def _engine_pool(options: RunOptions) -> EnginePool:
    if options.is_local:
        return LocalEngines()
    from orchestrator.execution.engines.ray_engines import RayEngines  # as above

    return RayEngines(address=options.ray_address)


async def _beside(keeping: Coroutine[Any, Any, None], work: Coroutine[Any, Any, str]) -> str:
    """What `work` comes to, with `keeping` beside it for as long; the error of either ends both."""
    try:
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(keeping)
            found = await work
            keeper.cancel()
    except BaseExceptionGroup as errors:
        raise root_cause(errors) from None
    return found


async def _report(
    store: Store, sweep_id: int, reason: str, tally: Tally | None, conclusions: Conclusions | None
) -> RunReport:
    (progress,) = await store.progress(sweep_id)
    return RunReport(
        reason=reason,
        samples_wanted=progress.samples_wanted,
        samples_stored=progress.samples_stored,
        samples_drawn=tally.run_samples if tally else 0,
        failed_samples=await store.samples_failed(sweep_id),
        failed_tasks=progress.tasks_failed,
        scores_made=tally.run_scores if tally else 0,
        failed_scores=await store.scores_failed(sweep_id),
        scoring=await store.scoring(sweep_id),
        elapsed_s=tally.snapshot(0).elapsed_s if tally else 0.0,
        conclusions=conclusions,
    )


async def _is_spent(spec: SweepSpec, store: Store, sweep_id: int) -> bool:
    """Have the runs so far generated all the tokens that the sweep may cost?"""
    cap = spec.limits.tokens
    return cap is not None and await store.tokens_generated(sweep_id) >= cap


async def _has_ungraded(store: Store, registered: Registered) -> bool:
    """Is there an answer without a verdict of a grader (after an upgrade of its rules, say)?"""
    for grader_id in registered.rules.grader_ids.values():
        if await store.ungraded(grader_id, registered.sweep_id, 1):
            return True
    return False


def worker_count(spec: SweepSpec, options: RunOptions) -> int:
    """Workers of a run: the command line's number, else the sweep file's."""
    return options.workers or spec.limits.workers


async def _lanes_with_work(store: Store, registered: Registered, options: RunOptions) -> list[LaneRecord]:
    """The lanes that have, or may come to have, something to do; models of the others need not be served."""
    drawing = set() if options.only_scores else await _generators_with_work(store, registered)
    if not options.only_scores:
        await store.add_search_tasks(registered.sweep_id)
    wanted = [lane for lane in registered.lanes if lane.kind == "score" or not options.only_scores]
    searches = [lane.id for lane in wanted if lane.kind == "search"]
    brings_more = bool(drawing) or await store.open_tasks(registered.sweep_id, searches) > 0
    return [
        lane
        for lane in wanted
        if (lane.kind == "sample" and lane.generator_id in drawing)
        or (lane.kind == "score" and brings_more)
        or await store.open_tasks(registered.sweep_id, [lane.id])
    ]


async def _generators_with_work(store: Store, registered: Registered) -> set[int]:
    """Generators that have to draw, and those that complete what is drawn."""
    covered = await _covered(store, registered.sweep_id)
    drawing: set[int] = set()
    strategies: set[str] = set()
    for demand in registered.demands:
        spans = covered.get(demand.pool_id, ())
        if planner.missing_spans(demand.samples, [span for span, _ in spans]) or any(
            state != TaskState.DONE for span, state in spans if span.start < demand.samples
        ):
            drawing.add(demand.generator_id)
            strategies.add(demand.strategy)
    return drawing | {each.generator_id for each in registered.rollouts if each.source in strategies}


async def _add_tasks(store: Store, registered: Registered, served: ServedModels) -> None:
    """Turn what no task covers into new tasks."""
    covered = await _covered(store, registered.sweep_id)
    spans = {pool_id: [span for span, _ in each] for pool_id, each in covered.items()}
    for generator_id in {each.generator_id for each in registered.demands} & {*served.generators}:
        pools = {each.pool_id for each in registered.demands if each.generator_id == generator_id}
        wanted = {pool: count for pool, count in registered.wanted.items() if pool in pools}
        planned = planner.plan(wanted, spans, served.task_samples(generator_id))
        lane_id = registered.lane_of(generator_id)
        await store.add_tasks(
            [NewTask(lane_id, task.pool_id, task.span.start, task.span.count) for task in planned]
        )


Covered = Mapping[int, Sequence[tuple[planner.Span, TaskState]]]


async def _covered(store: Store, sweep_id: int) -> Covered:
    """Ranges of the existing tasks of a sweep's pools, by pool id."""
    covered: dict[int, list[tuple[planner.Span, TaskState]]] = {}
    for span in await store.task_spans(sweep_id):
        piece = planner.Span(span.sample_start, span.sample_count)
        covered.setdefault(span.pool_id, []).append((piece, TaskState(span.state)))
    return covered


async def _end_dead_runs(store: Store, sweep_id: int) -> None:
    """Take over at once from a run of this machine whose process is gone, without waiting for its lease to end."""
    for run in await store.open_runs(sweep_id):
        if run.host == socket.gethostname() and not _is_alive(run.pid, run.details):
            await store.end_run(run.run_id, "died")


def _is_alive(pid: int, details: str) -> bool:
    """Is it the same process, and not another that was given its number?"""
    return bool(json.loads(details).get("process_started") == _process_started(pid))


def _process_started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if there is none (or no /proc: then pids decide)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _details(options: RunOptions) -> str:
    """What to remember of a run, as JSON: versions and where it ran, no environment, no secrets."""
    return json.dumps(
        {
            "ttc": version("ttc"),
            "ray": None if options.is_local else version("ray"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "is_local": options.is_local,
            "process_started": _process_started(os.getpid()),
        }
    )


@contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order. Set after Ray has started, which puts in handlers of its own."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
