"""A worker: takes lots of tasks, draws their samples and streams the facts back in micro-batches.

It runs in-process in tests and with `--local`, and inside a Ray actor otherwise; it does not know which. It holds no
database credentials and decides nothing about what is drawn: every key and seed comes with the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from workers.answers import extract
from workers.errors import Draining, WorkerError
from workers.generation import Draw, ModelClient, Sample
from workers.steps import step_ends
from workers.types import (
    DRAINED,
    FactBatch,
    GeneratorSettings,
    SampleTask,
    TaskEnd,
    Trajectory,
    Usage,
    WorkerHealth,
)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All a worker needs to know before its first task."""

    generators: tuple[GeneratorSettings, ...]
    batch_samples: int = 256
    """A micro-batch leaves when it holds this many samples ..."""
    batch_delay_s: float = 0.05
    """... or this long after its first one."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    """The facts of one finished request, on their way into a micro-batch."""

    trajectories: tuple[Trajectory, ...] = ()
    usage: Usage | None = None
    end: TaskEnd | None = None


class Worker:
    """Draws samples for lots of tasks; `async with` owns its connections.

    Requests in flight are bounded by the endpoint's limiter, and what waits for a slot is bounded by the lots the
    scheduler hands out, so memory stays flat however long the sweep is (invariant I6).
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._generators = {each.generator_id: each for each in settings.generators}
        self._clients = {each.endpoint: ModelClient(each.endpoint) for each in settings.generators}
        self._stack = AsyncExitStack()
        self._queued_samples = 0

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        for client in self._clients.values():
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def run(self, lot: Sequence[SampleTask]) -> AsyncIterator[FactBatch]:
        """Yield the facts of `lot` as they come; every task's `TaskEnd` travels with or after its last fact."""
        queue: asyncio.Queue[_Delivery | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_tasks(lot, queue))
            async for batch in _micro_batches(queue, self._settings):
                yield batch

    async def drain(self) -> None:
        """Send nothing more: requests in flight are finished and delivered, tasks cut short end as `DRAINED`."""
        for client in self._clients.values():
            client.drain()

    def health(self) -> WorkerHealth:
        """State of the endpoints as seen from here; reads plain values only, so any thread may call it."""
        clients = tuple(self._clients.values())
        failures: dict[str, int] = {}
        for client in clients:
            for kind, count in client.failures.items():
                failures[kind] = failures.get(kind, 0) + count
        replicas = tuple(replica for client in clients for replica in client.health())
        return WorkerHealth(
            replicas=replicas,
            in_flight=sum(replica.in_flight for replica in replicas),
            queued_samples=self._queued_samples,
            paused_reason=next((client.paused_reason for client in clients if client.paused_reason), None),
            events=tuple(event for client in clients for event in client.drain_events()),
            failures=failures,
        )

    async def _run_tasks(self, lot: Sequence[SampleTask], queue: asyncio.Queue[_Delivery | None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for task in lot:
                    group.create_task(self._run_task(task, queue))
        finally:
            queue.put_nowait(None)

    async def _run_task(self, task: SampleTask, queue: asyncio.Queue[_Delivery | None]) -> None:
        generator = self._generators[task.generator_id]
        self._queued_samples += task.size
        try:
            async with asyncio.TaskGroup() as group:
                draws = [
                    group.create_task(self._draw(task, generator, start, count, queue))
                    for start, count in _requests(task.spans, generator.samples_per_request)
                ]
        except* WorkerError as failures:
            first = next(_leaves(failures))
            end = TaskEnd(task.task_id, task.attempt, getattr(first, "kind", "error"), str(first))
        else:
            is_whole = all(each.result() for each in draws)
            end = TaskEnd(task.task_id, task.attempt, None if is_whole else DRAINED)
        finally:
            self._queued_samples -= task.size
        queue.put_nowait(_Delivery(end=end))

    async def _draw(
        self,
        task: SampleTask,
        generator: GeneratorSettings,
        start: int,
        count: int,
        queue: asyncio.Queue[_Delivery | None],
    ) -> bool:
        """Deliver some samples of a task; False if they were not drawn because the worker drains."""
        try:
            draw = await self._clients[generator.endpoint].draw(
                generator, task.statement, seed=task.seed_base + start, count=count, affinity=task.problem_id
            )
        except Draining:
            return False
        queue.put_nowait(
            _Delivery(
                trajectories=tuple(
                    _trajectory(task, start + offset, sample, draw)
                    for offset, sample in enumerate(draw.samples)
                ),
                usage=_usage(task, draw),
            )
        )
        return True


def _requests(spans: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Cut the missing spans of a task into requests of at most `size` samples."""
    for start, count in spans:
        for offset in range(0, count, size):
            yield start + offset, min(size, count - offset)


def _trajectory(task: SampleTask, index: int, sample: Sample, draw: Draw) -> Trajectory:
    extraction = extract(sample.text, sample.outcome)
    return Trajectory(
        task_id=task.task_id,
        pool_id=task.pool_id,
        problem_id=task.problem_id,
        sample_index=index,
        seed=task.seed_base + index,
        outcome=sample.outcome,
        text=sample.text,
        step_ends=step_ends(sample.text),
        answer=extraction.text if extraction else None,
        answer_method=extraction.method if extraction else None,
        answer_start=extraction.start if extraction else None,
        finish_reason=sample.finish_reason,
        completion_tokens=sample.completion_tokens,
        logprob_sum=sample.logprob_sum,
        latency_s=draw.latency_s,
        retries=draw.retries,
        replica=draw.replica,
        error=sample.error,
    )


def _usage(task: SampleTask, draw: Draw) -> Usage:
    return Usage(
        task_id=task.task_id,
        attempt=task.attempt,
        requests=1,
        prompt_tokens=draw.prompt_tokens,
        cached_tokens=draw.cached_tokens,
        completion_tokens=draw.completion_tokens,
        retries=draw.retries,
        wasted_requests=draw.wasted_requests,
        seconds=draw.latency_s,
    )


async def _micro_batches(
    queue: asyncio.Queue[_Delivery | None], settings: WorkerSettings
) -> AsyncIterator[FactBatch]:
    """Group deliveries until `batch_samples` or `batch_delay_s`; the first one leaves at once, to be looked at."""
    is_first = True
    is_open = True
    while is_open:
        delivery = await queue.get()
        if delivery is None:
            return
        held = [delivery]
        samples = len(delivery.trajectories)
        if not is_first:
            deadline = asyncio.get_running_loop().time() + settings.batch_delay_s
            while samples < settings.batch_samples:
                try:
                    async with asyncio.timeout_at(deadline):
                        following = await queue.get()
                except TimeoutError:
                    break
                if following is None:
                    is_open = False
                    break
                held.append(following)
                samples += len(following.trajectories)
        is_first = False
        yield _batch(held)


def _batch(deliveries: Sequence[_Delivery]) -> FactBatch:
    return FactBatch(
        trajectories=tuple(each for delivery in deliveries for each in delivery.trajectories),
        usage=_merged_usage([delivery.usage for delivery in deliveries if delivery.usage]),
        ends=tuple(delivery.end for delivery in deliveries if delivery.end),
    )


def _merged_usage(parts: Sequence[Usage]) -> tuple[Usage, ...]:
    """One usage record a task attempt: the store adds them up anyway, and fewer rows are cheaper."""
    totals: dict[tuple[int, int], Usage] = {}
    for part in parts:
        key = (part.task_id, part.attempt)
        totals[key] = _add(totals[key], part) if key in totals else part
    return tuple(totals.values())


def _add(left: Usage, right: Usage) -> Usage:
    return Usage(
        task_id=left.task_id,
        attempt=left.attempt,
        requests=left.requests + right.requests,
        prompt_tokens=left.prompt_tokens + right.prompt_tokens,
        cached_tokens=left.cached_tokens + right.cached_tokens,
        completion_tokens=left.completion_tokens + right.completion_tokens,
        retries=left.retries + right.retries,
        wasted_requests=left.wasted_requests + right.wasted_requests,
        seconds=left.seconds + right.seconds,
    )


def _leaves(group: BaseExceptionGroup[WorkerError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
