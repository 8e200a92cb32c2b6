"""The async shell round the scheduler: performs its commands against store, writer and pool, and reports back.

One run is one life of a coordinator. It holds nothing that matters: killed at any point, the tasks it had leased are
claimed again by the next run, minus the samples that were already durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any, TypeVar

from orchestrator.analysis.grading_service import GradingService
from orchestrator.errors import SweepFailed, TtcError
from orchestrator.execution.growth import Growth
from orchestrator.execution.journal import Journal
from orchestrator.execution.pool import WorkerGone, WorkerPool
from orchestrator.execution.progress import Reporter, Tally
from orchestrator.execution.scheduler import (
    Claim,
    Claimed,
    Command,
    Dispatch,
    Drain,
    Event,
    Finish,
    GiveUp,
    LookAgain,
    Requeue,
    Requeued,
    Scheduler,
    Stored,
    WorkerLost,
    WorkerUp,
)
from orchestrator.execution.watchdog import Watchdog
from orchestrator.store import LaneRecord, Store, Writer
from orchestrator.store.patience import patiently
from workers.concurrency import leaves
from workers.types import DRAINED, STOPPED, FactBatch, GeneratorSettings, SampleTask, Task

Result = TypeVar("Result")

CAP_REACHED = "token cap reached"
INTERRUPTED = "interrupted"
GRACE_S = 30.0
"""How long requests in flight may finish after an interruption."""
HEARTBEAT_S = 5.0
FIRST_LOOK_S = 1.0
WATCHDOG_S = 5.0
LAST_STREAMS_S = 10.0
REPORT_S = 0.5
FOREIGN_LEASE_POLL_S = 2.0
GROWTH_PAUSE_S = 1.0
GROWTH_SHARE = 4.0
"""Looking for what follows rests this many times as long as it took: it must not slow down what it follows."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a coordinator works on."""

    sweep_id: int
    run_id: int
    lanes: Sequence[LaneRecord]
    """The lanes it serves, those that draw first."""
    generators: Mapping[int, GeneratorSettings]
    token_cap: int | None = None
    """Stop when this run and the earlier ones have generated this many tokens."""
    tokens_before: int = 0
    shares_steps: bool = False
    """Searches for one problem take the steps of each other."""
    is_previewed: bool = True
    """Wait for the first completion, and show it, before anything else is drawn."""


@dataclass(slots=True)
class _Life:
    """One life of a worker: the scheduler knows lives, so late news of a dead one cannot be mistaken for its heir's."""

    life_id: int
    number: int
    is_lost: bool = False
    streams: set[asyncio.Task[None]] = field(default_factory=set)


class Coordinator:
    """Runs a sweep until nothing is missing, or until it is told to stop."""

    def __init__(
        self,
        context: RunContext,
        store: Store,
        writer: Writer,
        pool: WorkerPool,
        grading: GradingService,
        growth: Growth,
        scheduler: Scheduler,
        tally: Tally,
        reporter: Reporter,
    ) -> None:
        self._context = context
        self._store = store
        self._writer = writer
        self._pool = pool
        self._grading = grading
        self._growth = growth
        self._scheduler = scheduler
        self._tally = tally
        self._wanted_before = tally.samples_wanted - growth.samples_added
        self._reporter = reporter
        self._journal = Journal(reporter, store, context.sweep_id, context.run_id)
        self._watchdog = Watchdog(pool, tally, self._journal)
        self._lives: dict[int, _Life] = {}
        self._next_life = 0
        self._is_interrupted = False
        self._is_draining = False
        self._finished: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._is_staffed = asyncio.Event()
        self._has_news = asyncio.Event()
        self._preview_lane = _preview_lane(context)
        self._is_shown = asyncio.Event()
        if self._preview_lane is None:
            self._is_shown.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def run(self) -> str:
        """Drive the sweep; return why it ended ("complete", "cancelled", "interrupted", "token cap reached").

        Raises SweepFailed when the endpoints will never serve this sweep (key, model, parameters).
        """
        try:
            async with self._group:
                for work in (
                    self._heartbeat(),
                    self._watch(),
                    self._report(),
                    self._grow(),
                    self._grading.run(),
                ):
                    self._spawn(work)
                for number in self._pool.workers:
                    self._spawn(self._revive(number))
                self._post(LookAgain())
                reason = await self._finished
                for task in self._tasks:  # all of them: one that waits for a dead server would never end
                    task.cancel()
        except BaseExceptionGroup as group:
            raise root_cause(group) from None
        finally:
            await self._watchdog.last_words([life.number for life in self._lives.values()])
        return reason

    def interrupt(self, reason: str = INTERRUPTED, grace_s: float = GRACE_S) -> None:
        """Stop in order: nothing new is sent, requests in flight may finish; asked a second time, stop at once."""
        if self._is_interrupted:
            self._end(reason)
            return
        self._is_interrupted = True
        self._journal.note(
            f"{reason}: requests in flight may finish ({grace_s:.0f} s at most); again stops at once", reason
        )
        self._drain(reason)
        asyncio.get_running_loop().call_later(grace_s, self._end, reason)

    def _drain(self, reason: str) -> None:
        """Dispatch nothing more, and have the workers send nothing more of what they were given."""
        if self._is_draining:
            return
        self._is_draining = True
        self._is_shown.set()
        self._post(Drain(reason))
        for life in self._lives.values():
            self._spawn(self._pool.drain(life.number))

    def _end(self, reason: str) -> None:
        if not self._finished.done():
            self._finished.set_result(reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        return await patiently(call, self._journal.note)

    # --- scheduler: events in, commands out ---------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        for command in self._scheduler.handle(event):
            self._perform(command)

    def _perform(self, command: Command) -> None:
        match command:
            case Claim(lane, limit):
                self._spawn(self._claim(lane, limit))
            case Dispatch(worker, tasks):
                life = self._lives[worker]
                stream = self._spawn(self._stream(life, tasks))
                life.streams.add(stream)
                stream.add_done_callback(life.streams.discard)
            case Requeue(task):
                self._spawn(self._requeue(task))
            case GiveUp(task, attempts):
                self._spawn(self._give_up(task, attempts))
            case Finish(reason):
                self._spawn(self._finish(reason))

    async def _claim(self, lane: int, limit: int) -> None:
        """Lease tasks of a lane. The first claim of all takes one task, and ends when its first sample was shown."""
        if lane == self._preview_lane and not self._is_shown.is_set():
            limit = 1
        else:
            await self._is_shown.wait()
        context = self._context
        tasks = await self._patiently(
            lambda: self._store.claim(
                context.sweep_id, lane, context.run_id, limit, shares_steps=context.shares_steps
            )
        )
        self._journal.log(f"{len(tasks)} tasks of lane {lane}", "claimed", lane=lane, tasks=len(tasks))
        if not self._is_shown.is_set():
            tasks = [await self._preview(task) for task in tasks if isinstance(task, SampleTask)]
            if not tasks:
                self._is_shown.set()  # there is nothing to show
        self._post(Claimed(lane, tuple(tasks), asked=limit))

    async def _preview(self, task: SampleTask) -> SampleTask:
        """Draw the first request of a task and show it before anything else is sent; what is left of the task."""
        await self._is_staffed.wait()
        life = next(iter(self._lives.values()), None)
        if life is None:
            return task  # lost again meanwhile: the scheduler sees to it
        (start, count), *others = task.spans
        size = min(count, self._context.generators[task.generator_id].samples_per_request)
        try:
            async for batch in self._pool.run(life.number, (replace(task, spans=((start, size),)),)):
                # The task has not ended with its first request, unless it never will.
                ends = tuple(end for end in batch.ends if end.error_kind not in (None, DRAINED))
                held = replace(batch, ends=ends)
                await self._writer.put(held)
                self._stored(life, held, {task.task_id: task.lane_id})
                self._show(task, batch)
        except WorkerGone as error:
            self._spawn(self._lose(life, str(error)))
            return task
        left = ((start + size, count - size),) if count > size else ()
        return replace(task, spans=(*left, *others))

    def _show(self, task: SampleTask, batch: FactBatch) -> None:
        if batch.trajectories and not self._is_shown.is_set():
            self._is_shown.set()
            template = self._context.generators[task.generator_id].template
            prompt = template.replace("{problem}", task.statement) + task.prefix
            self._reporter.first_sample(prompt, min(batch.trajectories, key=lambda each: each.sample_index))

    async def _requeue(self, task: Task) -> None:
        context = self._context
        leased = await self._patiently(
            lambda: self._store.requeue(
                task.task_id, task.attempt, context.run_id, shares_steps=context.shares_steps
            )
        )
        self._post(Requeued(task.task_id, leased if leased and leased.size else None))

    async def _give_up(self, task: Task, attempts: int) -> None:
        text = f"{attempts} workers died while they ran this task"
        await self._patiently(lambda: self._store.fail_task(task.task_id, task.attempt, "worker_lost", text))
        self._journal.note(f"task {task.task_id} failed: {text}", "task_failed", task_id=task.task_id)

    async def _finish(self, reason: str) -> None:
        """Really finished, unless more follows from what was stored, or another run holds tasks of these lanes."""
        if reason != "complete":
            self._end(reason)
        elif await self._patiently(self._growth.grow):
            self._post(LookAgain())
        elif await self._is_unfinished():
            await self._wait_for_others()
            self._post(LookAgain())
        else:
            self._end(reason)

    async def _is_unfinished(self) -> bool:
        """Is any task that this run serves pending or leased (to another run, or given back by one)?"""
        context = self._context
        lanes = [lane.id for lane in context.lanes]
        return await self._patiently(lambda: self._store.open_tasks(context.sweep_id, lanes)) > 0

    async def _wait_for_others(self) -> None:
        """Another run holds tasks of this sweep: wait for it, or for its lease to end."""
        for run in await self._patiently(lambda: self._store.open_runs(self._context.sweep_id)):
            if run.tasks and run.run_id == self._context.run_id:
                # Claimed, but the acknowledgement was lost with a connection: nobody knows of them.
                await self._patiently(lambda: self._store.release(self._context.run_id))
            elif run.tasks:
                self._journal.note(
                    f"waiting for {run.tasks} tasks held by run {run.run_id} on {run.host}, "
                    f"last heard of {run.silent_s:.0f} s ago"
                )
        await asyncio.sleep(FOREIGN_LEASE_POLL_S)

    async def _grow(self) -> None:
        """Follow up what is stored while the run goes on, so that scorers and completers need not wait for its end."""
        while not self._growth.is_idle:
            await self._has_news.wait()
            self._has_news.clear()
            started_s = time.monotonic()
            if await self._patiently(self._growth.grow):
                self._post(LookAgain())
            self._tally.samples_wanted = self._wanted_before + self._growth.samples_added
            await asyncio.sleep(max(GROWTH_PAUSE_S, GROWTH_SHARE * (time.monotonic() - started_s)))

    # --- facts --------------------------------------------------------------------------------------------------------

    async def _stream(self, life: _Life, lot: Sequence[Task]) -> None:
        """Pass the facts of a lot to the writer; awaiting its acknowledgement is the backpressure on the worker."""
        lanes = {task.task_id: task.lane_id for task in lot}
        try:
            async for batch in self._pool.run(life.number, lot):
                await self._writer.put(_durable(batch))
                self._stored(life, batch, lanes)
        except WorkerGone as error:
            await self._lose(life, str(error))

    def _stored(self, life: _Life, batch: FactBatch, lanes: Mapping[int, int]) -> None:
        self._tally.add(batch, lanes)
        if batch.trajectories:
            self._grading.wake()
            self._has_news.set()
        for end in batch.ends:
            if end.error_kind not in (None, DRAINED, STOPPED):
                raise SweepFailed(f"{end.error_kind}: {end.error_text}")
        samples = Counter(trajectory.task_id for trajectory in batch.trajectories)
        samples.update(score.task_id for score in batch.scores)
        self._post(Stored(life.life_id, tuple(samples.items()), tuple(end.task_id for end in batch.ends)))
        cap = self._context.token_cap
        if cap is not None and self._context.tokens_before + self._tally.completion_tokens >= cap:
            self._drain(CAP_REACHED)

    # --- workers' lives -----------------------------------------------------------------------------------------------

    async def _revive(self, number: int, *, was_lost: bool = False) -> None:
        """Wait until a worker is ready, then let the scheduler know it as a new life."""
        while True:
            try:
                await self._pool.wait_ready(number)
            except WorkerGone as error:
                self._journal.note(f"{error}; waiting for it to restart")
                await asyncio.sleep(1.0)
            else:
                break
        life = _Life(self._next_life, number)
        self._next_life += 1
        self._lives[life.life_id] = life
        if was_lost:
            self._journal.tell(f"worker {number} works again", "worker_restarted", f"worker {number}")
        self._post(WorkerUp(life.life_id))
        self._is_staffed.set()

    async def _lose(self, life: _Life, why: str) -> None:
        """A worker is gone. Its tasks are requeued only after what it had delivered is durable."""
        if life.is_lost:
            return
        life.is_lost = True
        self._journal.tell(f"{why}; its tasks go to other workers", "worker_lost", f"worker {life.number}")
        others = life.streams - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=LAST_STREAMS_S)
        for stream in life.streams - {asyncio.current_task()}:  # what was dispatched to it meanwhile
            stream.cancel()
        self._lives.pop(life.life_id, None)
        self._watchdog.forget(life.number)
        self._post(WorkerLost(life.life_id))
        self._spawn(self._revive(life.number, was_lost=True))

    async def _watch(self) -> None:
        """Ask every worker how it is; restart one that stays silent."""
        for pause_s in chain([FIRST_LOOK_S], repeat(WATCHDOG_S)):
            await asyncio.sleep(pause_s)
            async with asyncio.TaskGroup() as group:
                for life in list(self._lives.values()):
                    group.create_task(self._check(life))
            await self._journal.flush()

    async def _check(self, life: _Life) -> None:
        why = await self._watchdog.check(life.number)
        if why is not None and not life.is_lost:
            await self._pool.restart(life.number)
            await self._lose(life, why)

    # --- clocks -------------------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Keep the lease, and learn of a cancellation."""
        while True:
            if await self._patiently(lambda: self._store.heartbeat(self._context.run_id)):
                self.interrupt("cancelled")
                return
            await asyncio.sleep(HEARTBEAT_S)

    async def _report(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                self._reporter.update(self._tally.snapshot(self._scheduler.in_flight_samples))
                await asyncio.sleep(REPORT_S)
        self._reporter.update(self._tally.snapshot(self._scheduler.in_flight_samples))
        self._reporter.close()


def _preview_lane(context: RunContext) -> int | None:
    """The lane whose first sample is shown before anything else is sent; None: no preview."""
    drawing = [lane.id for lane in context.lanes if lane.kind == "sample"]
    return drawing[0] if drawing and context.is_previewed else None


def _durable(batch: FactBatch) -> FactBatch:
    """What of a batch the store should know: a task cut short by a drain has not ended, it is released with its run."""
    if all(end.error_kind != DRAINED for end in batch.ends):
        return batch
    return replace(batch, ends=tuple(end for end in batch.ends if end.error_kind != DRAINED))


def root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell the user: the first of ours in the group, else simply the first."""
    errors = list(leaves(group))
    return next((each for each in errors if isinstance(each, TtcError)), errors[0])
