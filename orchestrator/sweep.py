"""A whole sweep from a checked specification to results: the composition root, where everything meets once.

    register   specification + problems -> rows: sweep, problems, generators, pools
    draw       what is missing -> tasks -> facts, through pool, coordinator and writer
    conclude   facts -> verdicts, clusters, results

Each of the three may be interrupted and done again; each finds in the store what the last one left.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from orchestrator.analysis.conclusion import Conclusions, conclude
from orchestrator.analysis.grading_service import GradingService
from orchestrator.execution import planner
from orchestrator.execution.coordinator import CAP_REACHED, Coordinator, RunContext
from orchestrator.execution.endpoints import Served, serve_models
from orchestrator.execution.pool import LocalPool, WorkerPool
from orchestrator.execution.progress import Reporter, Tally
from orchestrator.execution.scheduler import SchedulerSettings
from orchestrator.registration import COMPLETE, Demand, Registered
from orchestrator.spec.sections import SweepSpec
from orchestrator.store import NewTask, Store, TaskState, Writer
from workers.collector import calm_collector
from workers.grading import GraderPool
from workers.types import GeneratorSettings
from workers.worker import WorkerSettings

SAMPLE_TASK = "sample"
NOTHING_TO_DO = "nothing to do"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line may decide about a run; nothing of it changes any result."""

    workers: int | None = None
    is_local: bool = False
    ray_address: str | None = None
    is_previewed: bool = True
    is_json: bool = False


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
    """Tasks that gave up, with samples that were not drawn; the next run tries them again."""
    elapsed_s: float
    conclusions: Conclusions | None
    """None where there was nothing to do: the results are those of the last run."""


async def run_sweep(
    spec: SweepSpec, registered: Registered, store: Store, options: RunOptions, reporter: Reporter
) -> RunReport:
    """Draw what a registered sweep is missing, grade it and compute its results."""
    sweep_id = registered.sweep_id
    await store.reopen_failed(sweep_id)
    await _end_dead_runs(store, sweep_id)
    has_work = await _has_work(store, registered)
    if registered.is_settled and not has_work and not await _has_ungraded(store, registered):
        return await _report(store, sweep_id, NOTHING_TO_DO, None, None)
    async with _life(store, sweep_id, options) as life, GraderPool() as graders:
        grading = GradingService(store, graders, sweep_id, registered.rules.grader_ids, reporter.note)
        tally, reason = None, COMPLETE
        if has_work and await _is_spent(spec, store, sweep_id):
            reason = CAP_REACHED
        elif has_work:
            async with serve_models(spec, registered, worker_count(spec, options), reporter) as served:
                await _add_tasks(store, registered, served)
                tally, reason = await _draw(spec, registered, served, store, grading, life, options, reporter)
        conclusions = await conclude(spec, registered, store, grading)
        life.outcome = reason
    return await _report(store, sweep_id, reason if has_work else NOTHING_TO_DO, tally, conclusions)


@dataclass(slots=True)
class _Life:
    """One run: its row in the store, and what that row will say of its end."""

    run_id: int
    outcome: str = "failed"


@asynccontextmanager
async def _life(store: Store, sweep_id: int, options: RunOptions) -> AsyncIterator[_Life]:
    """A row in `runs`; however the run ends, its leases end with it."""
    life = _Life(await store.start_run(sweep_id, socket.gethostname(), os.getpid(), _details(options)))
    try:
        yield life
    except asyncio.CancelledError:
        life.outcome = "interrupted"
        raise
    finally:
        await store.release(life.run_id)
        await store.end_run(life.run_id, life.outcome)


async def _draw(
    spec: SweepSpec,
    registered: Registered,
    served: Mapping[int, Served],
    store: Store,
    grading: GradingService,
    life: _Life,
    options: RunOptions,
    reporter: Reporter,
) -> tuple[Tally, str]:
    """One life of a coordinator: what it drew, and why it stopped."""
    calm_collector()
    (before,) = await store.progress(registered.sweep_id)
    tally = Tally(before.samples_wanted, before.samples_stored)
    generators = {number: each.settings for number, each in served.items()}
    context = RunContext(
        sweep_id=registered.sweep_id,
        run_id=life.run_id,
        generators=generators,
        token_cap=spec.limits.tokens,
        tokens_before=await store.tokens_generated(registered.sweep_id),
        is_previewed=options.is_previewed,
    )
    settings = SchedulerSettings(worker_samples=_samples_in_flight(generators.values()))
    async with (
        Writer(store, run_id=life.run_id, extractor_id=registered.rules.extractor_id) as writer,
        _pool(spec, options, tuple(generators.values())) as pool,
    ):
        coordinator = Coordinator(context, store, writer, pool, grading, settings, tally, reporter)
        with _signals(coordinator):
            return tally, await coordinator.run()


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


def _pool(spec: SweepSpec, options: RunOptions, generators: tuple[GeneratorSettings, ...]) -> WorkerPool:
    settings = WorkerSettings(generators)
    count = worker_count(spec, options)
    if options.is_local:
        return LocalPool(settings, count)
    from orchestrator.execution.ray_pool import (
        RayPool,  # importing Ray takes seconds, and --local does without
    )

    return RayPool(settings, count, address=options.ray_address)


def worker_count(spec: SweepSpec, options: RunOptions) -> int:
    """Workers of a run: the command line's number, else the sweep file's."""
    return options.workers or spec.limits.workers


async def _has_work(store: Store, registered: Registered) -> bool:
    """Is any wanted sample not covered by a task, or any task not done?"""
    covered = await _covered(store, registered.sweep_id)
    if any(state != TaskState.DONE for _, state in _flat(covered, registered.demands)):
        return True
    spans = {pool_id: [span for span, _ in each] for pool_id, each in covered.items()}
    return any(
        planner.missing_spans(each.samples, spans.get(each.pool_id, ())) for each in registered.demands
    )


async def _add_tasks(store: Store, registered: Registered, served: Mapping[int, Served]) -> None:
    """Turn what no task covers into new tasks."""
    covered = await _covered(store, registered.sweep_id)
    spans = {pool_id: [span for span, _ in each] for pool_id, each in covered.items()}
    for generator_id, each in served.items():
        wanted = {one.pool_id: one.samples for one in registered.demands if one.generator_id == generator_id}
        size = each.task_samples or planner.task_samples(each.settings.samples_per_request)
        planned = planner.plan(wanted, spans, size)
        await store.add_tasks(
            [NewTask(SAMPLE_TASK, task.pool_id, task.span.start, task.span.count) for task in planned]
        )


Covered = Mapping[int, Sequence[tuple[planner.Span, TaskState]]]


async def _covered(store: Store, sweep_id: int) -> Covered:
    """Ranges of the existing tasks of a sweep's pools, by pool id."""
    covered: dict[int, list[tuple[planner.Span, TaskState]]] = {}
    for span in await store.task_spans(sweep_id):
        piece = planner.Span(span.sample_start, span.sample_count)
        covered.setdefault(span.pool_id, []).append((piece, TaskState(span.state)))
    return covered


def _flat(covered: Covered, demands: Sequence[Demand]) -> Iterator[tuple[planner.Span, TaskState]]:
    """Existing tasks that hold samples the sweep wants."""
    for demand in demands:
        yield from (each for each in covered.get(demand.pool_id, ()) if each[0].start < demand.samples)


def _samples_in_flight(generators: Iterable[GeneratorSettings]) -> int:
    """Samples a worker can have in flight, over all generators."""
    return sum(each.endpoint.concurrency * each.samples_per_request for each in generators)


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
def _signals(coordinator: Coordinator) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order. Set after Ray has started, which puts in handlers of its own."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, coordinator.interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
