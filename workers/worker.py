"""A worker: takes lots of tasks, draws and scores samples, and streams the facts back in micro-batches.

It runs in-process in tests and with `--local`, and inside a Ray actor otherwise; it does not know which. It holds no
database credentials and decides nothing about what is drawn or scored: every key and seed comes with the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from workers.client import ClientOfEndpoint
from workers.concurrency import leaves
from workers.delivery import Deliveries, Delivery, micro_batches
from workers.drawing import draw_samples
from workers.errors import WorkerError
from workers.generation import ModelClient
from workers.rewards import RewardClient
from workers.scoring import score_samples
from workers.searching import run_search
from workers.types import (
    DRAINED,
    FactBatch,
    GeneratorSettings,
    ReplicaSet,
    SampleTask,
    ScorerSettings,
    ScoreTask,
    Task,
    TaskEnd,
    WorkerHealth,
)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All a worker needs to know before its first task."""

    generators: tuple[GeneratorSettings, ...]
    scorers: tuple[ScorerSettings, ...] = ()
    batch_samples: int = 256
    """A micro-batch leaves when it says something of this many samples ..."""
    batch_delay_s: float = 0.05
    """... or this long after its first delivery."""


class Worker:
    """Draws and scores samples for lots of tasks; `async with` owns its connections.

    Requests in flight are bounded by the endpoint's limiter, and what waits for a slot is bounded by the lots the
    scheduler hands out, so memory stays flat however long the sweep is (invariant I6).
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._generators = {each.generator_id: each for each in settings.generators}
        self._scorers = {each.scorer_id: each for each in settings.scorers}
        self._clients = {each.endpoint: ModelClient(each.endpoint) for each in settings.generators}
        self._reward_clients = {each.endpoint: RewardClient(each.endpoint) for each in settings.scorers}
        self._stack = AsyncExitStack()
        self._queued_samples = 0
        self._versions: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        for client in self._all_clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def run(self, lot: Sequence[Task]) -> AsyncIterator[FactBatch]:
        """Yield the facts of `lot` as they come; every task's `TaskEnd` travels with or after its last fact."""
        queue: Deliveries = asyncio.Queue()
        settings = self._settings
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_tasks(lot, queue))
            async for batch in micro_batches(
                queue, size=settings.batch_samples, delay_s=settings.batch_delay_s
            ):
                yield batch

    async def drain(self) -> None:
        """Send nothing more: requests in flight are finished and delivered, tasks cut short end as `DRAINED`."""
        for client in self._all_clients:
            client.drain()

    async def set_replicas(self, now: ReplicaSet) -> None:
        """Send requests for these engines where they serve now; news that was overtaken is dropped."""
        if now.version <= self._versions.get(now.engines, 0):
            return
        self._versions[now.engines] = now.version
        for client in self._all_clients:
            if client.engines == now.engines:
                client.set_replicas(now.urls)

    def health(self) -> WorkerHealth:
        """State of the endpoints as seen from here; reads plain values only, so any thread may call it."""
        clients = self._all_clients
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
            loads=tuple(load for client in clients if (load := client.load()) is not None),
        )

    @property
    def _all_clients(self) -> tuple[ClientOfEndpoint, ...]:
        return (*self._clients.values(), *self._reward_clients.values())

    async def _run_tasks(self, lot: Sequence[Task], queue: Deliveries) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for task in lot:
                    group.create_task(self._run_task(task, queue))
        finally:
            queue.put_nowait(None)

    async def _run_task(self, task: Task, queue: Deliveries) -> None:
        self._queued_samples += task.size
        try:
            is_whole = await self._perform(task, queue)
        except* WorkerError as failures:
            first = next(leaves(failures))
            end = TaskEnd(task.task_id, task.attempt, getattr(first, "kind", "error"), str(first))
        else:
            end = TaskEnd(task.task_id, task.attempt, None if is_whole else DRAINED)
        finally:
            self._queued_samples -= task.size
        queue.put_nowait(Delivery(end=end))

    async def _perform(self, task: Task, queue: Deliveries) -> bool:
        """Deliver all the task owes; False if the worker drains and something is left."""
        if isinstance(task, SampleTask):
            generator = self._generators[task.generator_id]
            return await draw_samples(task, generator, self._clients[generator.endpoint], queue)
        scorer = self._scorers[task.scorer_id]
        judge = self._reward_clients[scorer.endpoint]
        if isinstance(task, ScoreTask):
            return await score_samples(task, scorer, judge, queue)
        generator = self._generators[task.generator_id]
        return await run_search(task, generator, self._clients[generator.endpoint], scorer, judge, queue)
