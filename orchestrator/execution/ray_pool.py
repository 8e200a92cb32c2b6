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
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError

from orchestrator.errors import TtcError
from orchestrator.execution.pool import WorkerGone
from workers.collector import calm_collector
from workers.types import FactBatch, Task, WorkerHealth
from workers.worker import Worker, WorkerSettings

UNACKNOWLEDGED_BATCHES = 8
"""Micro-batches a stream may be ahead of the writer: the backpressure of the hop from worker to coordinator."""
OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Our objects are small and short-lived; Ray's default would take 30% of memory."""
KNOCK_TIMEOUT_S = 5.0
CONTROL = "control"
_START_REMEDY = "start it with `ray start --head`, correct --address, or use --local to run without Ray"
SAMPLER = "sampler"
"""Resource of a node that says how many workers it takes; a cluster that declares none takes them anywhere."""


class RayUnavailable(TtcError):
    """Ray could not be started or reached."""


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
        self._owns_ray = False
        self._stack = contextlib.ExitStack()

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers."""
        return range(self._count)

    async def __aenter__(self) -> Self:
        if not ray.is_initialized():
            await asyncio.to_thread(self._start_ray)
            self._owns_ray = True
        slots = await asyncio.to_thread(_sampler_slots)
        if slots is not None and slots < self._count:
            raise RayUnavailable(
                f"the cluster offers {slots} {SAMPLER} slots, and {self._count} workers were asked for",
                remedy="lower --workers, or start nodes with more of the resource",
            )
        # Ray's listener prints what it hears of dead workers on standard output, which is for results.
        self._stack.enter_context(contextlib.redirect_stdout(sys.stderr))
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
        if self._owns_ray:
            await asyncio.to_thread(ray.shutdown)
        self._stack.close()

    async def wait_ready(self, worker: int) -> None:
        """Return when the actor has opened its connections; Ray restarts a dead one by itself."""
        await self.pid(worker)

    async def pid(self, worker: int) -> int:
        """Process id of a worker, once it is ready."""
        try:
            return int(await self._actors[worker].ready.remote())
        except RayError as error:
            raise WorkerGone(f"worker {worker}: {_one_line(error)}") from error

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
            raise WorkerGone(f"worker {worker}: {_one_line(error)}") from error

    async def drain(self, worker: int) -> None:
        """Have a worker send nothing more."""
        with contextlib.suppress(RayError):
            await self._actors[worker].drain.remote()

    async def health(self, worker: int, timeout_s: float) -> WorkerHealth:
        """State of a worker, asked on its control thread."""
        try:
            async with asyncio.timeout(timeout_s):
                method = self._actors[worker].health.options(concurrency_group=CONTROL)
                answer: WorkerHealth = await method.remote()
                return answer
        except (TimeoutError, RayError) as error:
            raise WorkerGone(f"worker {worker}: {_one_line(error)}") from error

    async def restart(self, worker: int) -> None:
        """Kill the process of an actor; Ray starts it again (a cancelled call would not free a wedged one)."""
        with contextlib.suppress(RayError):
            ray.kill(self._actors[worker], no_restart=False)

    def _start_ray(self) -> None:
        if self._address is not None:
            knock(self._address, _START_REMEDY)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        local: dict[str, Any] = {}
        if self._address is None:
            local = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        try:
            ray.init(
                address=self._address or "local",
                namespace="ttc",
                log_to_driver=False,
                logging_level="ERROR",
                **local,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RayUnavailable(
                f"Ray at {self._address or 'this machine'} could not be reached: {_one_line(error)}",
                remedy=_remedy(error),
            ) from error

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


def knock(address: str, remedy: str) -> None:
    """Refuse an address where nothing listens at once; Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdigit():
        return  # "auto", or a name that Ray looks up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
    except OSError as error:
        raise RayUnavailable(f"nothing listens at --address {address} ({error})", remedy=remedy) from error


def _remedy(error: BaseException) -> str:
    if "token" in str(error).lower():
        return "the cluster wants a token: set RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token"
    return _START_REMEDY


def _sampler_slots() -> int | None:
    """Workers that the nodes of the cluster declare room for; None if they declare nothing."""
    slots = ray.cluster_resources().get(SAMPLER)
    return None if slots is None else int(slots)


def _one_line(error: BaseException) -> str:
    """First line of an error, without Ray's tracebacks."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
