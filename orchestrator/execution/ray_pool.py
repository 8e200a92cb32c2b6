"""Workers as Ray actors: the one place that knows how Ray starts, streams, fails and stops.

Facts this file is built on (ray 2.60, measured): a method that raises SystemExit or KeyboardInterrupt wedges an async
actor for ever, so nothing but Exception may leave one; exceptions with their own arguments do not survive the trip, so
outcomes travel as data; a concurrency group runs on its own thread and loop, so `health` answers while the main loop
is busy, and may only read plain values; items yielded before an actor dies are all delivered; Ray's own retries are
invisible to the fence, so there are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError

from orchestrator.execution.pool import WorkerGone
from orchestrator.execution.ray_runtime import RayUnavailable, one_line, ray_runtime
from workers.collector import calm_collector
from workers.types import FactBatch, ReplicaSet, Task, WorkerHealth
from workers.worker import Worker, WorkerSettings

UNACKNOWLEDGED_BATCHES = 8
"""Micro-batches a stream may be ahead of the writer: the backpressure of the hop from worker to coordinator."""
TELL_TIMEOUT_S = 5.0
CONTROL = "control"
SAMPLER = "sampler"
"""Resource of a node that says how many workers it takes; a cluster that declares none takes them anywhere."""


class WorkerActor:
    """A Worker behind Ray. Batches are pickled here, by the plain C pickler: Ray's own is several times slower."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._worker = Worker(settings)
        self._entering: asyncio.Task[Worker] | None = None

    async def ready(self) -> int:
        """Open the connections (they belong to the loop of this method's group) and answer with the process id."""
        if self._entering is None:
            calm_collector()
            self._entering = asyncio.ensure_future(self._worker.__aenter__())
        await self._entering
        return os.getpid()

    async def run(self, lot: Sequence[Task]) -> AsyncIterator[bytes]:
        """Stream the facts of a lot as pickled batches."""
        await self.ready()
        try:
            async for batch in self._worker.run(lot):
                yield pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"{type(error).__name__} inside a worker") from None

    async def drain(self) -> None:
        """Send nothing more; in the main group, since what waits belongs to its loop."""
        await self._worker.drain()

    async def set_replicas(self, now: ReplicaSet) -> None:
        """Where engines serve now; in the main group, since what waits for one belongs to its loop."""
        await self._worker.set_replicas(now)

    async def health(self) -> WorkerHealth:
        """State of the endpoints; called in the control group, on another thread."""
        return self._worker.health()


class RayPool:
    """Workers as actors of a Ray cluster, owned by this process: they die with it, and a resumed run starts clean."""

    def __init__(self, settings: WorkerSettings, count: int, *, address: str | None = None) -> None:
        self._settings = settings
        self._count = count
        self._address = address
        self._actors: dict[int, Any] = {}
        self._replicas: dict[tuple[int, str], ReplicaSet] = {}
        self._stack = contextlib.AsyncExitStack()

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers."""
        return range(self._count)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(ray_runtime(self._address))
        slots = await asyncio.to_thread(_sampler_slots)
        if slots is not None and slots < self._count:
            await self._stack.aclose()
            raise RayUnavailable(
                f"the cluster offers {slots} {SAMPLER} slots, and {self._count} workers were asked for",
                remedy="lower --workers, or start nodes with more of the resource",
            )
        for number in self.workers:
            self._actors[number] = self._start_actor({} if slots is None else {SAMPLER: 1})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors.values():
            with contextlib.suppress(RayError):
                ray.kill(actor, no_restart=True)
        self._actors.clear()
        await self._stack.aclose()

    async def wait_ready(self, worker: int) -> None:
        """Return when the actor has opened its connections and knows where engines serve.

        Ray restarts a dead one by itself, with the settings of the first.
        """
        await self.pid(worker)
        for now in [each for (number, _), each in self._replicas.items() if number == worker]:
            await self._tell(worker, now)

    async def pid(self, worker: int) -> int:
        """Process id of a worker, once it is ready."""
        try:
            return int(await self._actors[worker].ready.remote())
        except RayError as error:
            raise WorkerGone(f"worker {worker}: {one_line(error)}") from error

    async def run(self, worker: int, lot: Sequence[Task]) -> AsyncIterator[FactBatch]:
        """Stream the facts of a lot from the actor."""
        method = self._actors[worker].run.options(
            num_returns="streaming", _generator_backpressure_num_objects=UNACKNOWLEDGED_BATCHES
        )
        try:
            stream = method.remote(tuple(lot))
            async for reference in stream:
                yield pickle.loads(await reference)  # noqa: S301 -- written by our own actor, above
        except RayError as error:
            raise WorkerGone(f"worker {worker}: {one_line(error)}") from error

    async def drain(self, worker: int) -> None:
        """Have a worker send nothing more."""
        with contextlib.suppress(RayError):
            await self._actors[worker].drain.remote()

    async def set_replicas(self, worker: int, now: ReplicaSet) -> None:
        """Tell a worker where engines serve now; one that does not listen is told when it is ready again."""
        self._replicas[worker, now.engines] = now
        with contextlib.suppress(WorkerGone):
            await self._tell(worker, now)

    async def _tell(self, worker: int, now: ReplicaSet) -> None:
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await self._actors[worker].set_replicas.remote(now)
        except (TimeoutError, RayError) as error:
            raise WorkerGone(f"worker {worker}: {one_line(error)}") from error

    async def health(self, worker: int, timeout_s: float) -> WorkerHealth:
        """State of a worker, asked on its control thread."""
        try:
            async with asyncio.timeout(timeout_s):
                method = self._actors[worker].health.options(concurrency_group=CONTROL)
                answer: WorkerHealth = await method.remote()
                return answer
        except (TimeoutError, RayError) as error:
            raise WorkerGone(f"worker {worker}: {one_line(error)}") from error

    async def restart(self, worker: int) -> None:
        """Kill the process of an actor; Ray starts it again (a cancelled call would not free a wedged one)."""
        with contextlib.suppress(RayError):
            ray.kill(self._actors[worker], no_restart=False)

    def _start_actor(self, resources: dict[str, float]) -> Any:
        actor = ray.remote(concurrency_groups={CONTROL: 2})(WorkerActor)
        return actor.options(
            num_cpus=0,
            resources=resources,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            scheduling_strategy="SPREAD",
            enable_task_events=False,
        ).remote(self._settings)


def _sampler_slots() -> int | None:
    """Workers that the nodes of the cluster declare room for; None if they declare nothing."""
    slots = ray.cluster_resources().get(SAMPLER)
    return None if slots is None else int(slots)
