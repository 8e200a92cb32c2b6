"""Where workers live. `WorkerPool` is the port the coordinator drives; `LocalPool` runs workers in this process.

A pool only carries: it starts and restarts workers, hands them lots and passes their batches up. It neither retries
nor decides; a worker that is gone is an exception to the coordinator and an event to the scheduler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from orchestrator.errors import TtcError
from workers.types import FactBatch, ReplicaSet, Task, WorkerHealth
from workers.worker import Worker, WorkerSettings


class WorkerGone(TtcError):
    """A worker died, or does not answer."""


class WorkerPool(Protocol):
    """Workers that can be given lots. `async with` starts and stops all of them."""

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers, alive or not."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def wait_ready(self, worker: int) -> None:
        """Return when the worker can take lots; raises WorkerGone when it died again meanwhile."""

    def run(self, worker: int, lot: Sequence[Task]) -> AsyncIterator[FactBatch]:
        """Stream the facts of a lot; raises WorkerGone when the worker is lost on the way."""

    async def drain(self, worker: int) -> None:
        """Have a worker send nothing more; what it has in flight is still delivered. A lost worker is no error."""

    async def set_replicas(self, worker: int, now: ReplicaSet) -> None:
        """Tell a worker where engines serve now; one that is restarted is told again. A lost worker is no error."""

    async def health(self, worker: int, timeout_s: float) -> WorkerHealth:
        """State of a worker; raises WorkerGone when it does not answer in time."""

    async def restart(self, worker: int) -> None:
        """Kill a worker that does not answer, and start another in its place."""


class LocalPool:
    """Workers as objects of this process and its event loop: no Ray, the same code."""

    def __init__(self, settings: WorkerSettings, count: int) -> None:
        self._settings = settings
        self._workers: dict[int, Worker] = {}
        self._count = count
        self._replicas: dict[tuple[int, str], ReplicaSet] = {}
        self._stack = AsyncExitStack()

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers."""
        return range(self._count)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        for number in self.workers:
            self._workers[number] = await self._stack.enter_async_context(Worker(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def wait_ready(self, worker: int) -> None:
        """Ready as soon as the pool is entered."""
        if worker not in self._workers:
            raise WorkerGone

    async def run(self, worker: int, lot: Sequence[Task]) -> AsyncIterator[FactBatch]:
        """Stream the facts of a lot."""
        alive = self._workers[worker]
        try:
            async for batch in alive.run(lot):
                yield batch
        except Exception as error:
            if self._workers[worker] is alive:
                raise
            raise WorkerGone(f"worker {worker} was replaced") from error

    async def drain(self, worker: int) -> None:
        """Have a worker send nothing more."""
        await self._workers[worker].drain()

    async def set_replicas(self, worker: int, now: ReplicaSet) -> None:
        """Tell a worker where engines serve now."""
        self._replicas[worker, now.engines] = now
        await self._workers[worker].set_replicas(now)

    async def health(self, worker: int, timeout_s: float) -> WorkerHealth:
        """State of a worker of this process: always answers."""
        return self._workers[worker].health()

    async def restart(self, worker: int) -> None:
        """Replace a worker; the streams of the old one end with its connections."""
        old = self._workers[worker]
        new = await self._stack.enter_async_context(Worker(self._settings))
        for now in [each for (number, _), each in self._replicas.items() if number == worker]:
            await new.set_replicas(now)
        self._workers[worker] = new
        await old.__aexit__(None, None, None)
        await asyncio.sleep(0)
