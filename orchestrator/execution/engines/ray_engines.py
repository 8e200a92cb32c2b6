"""Engines as Ray actors: each holds the resources of one replica, and starts its server on the node it is placed on.

The actors are not detached: they die with the run that made them, and the guards end their servers. Ray starts a dead
one again, elsewhere if its node is gone; it begins with a server of its own, so nothing has to be handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from orchestrator.errors import EndpointProblem, TtcError
from orchestrator.execution.engines.pool import EngineGone
from orchestrator.execution.ray_runtime import one_line, ray_runtime
from orchestrator.spec.engine_settings import EngineGroup, Needs
from workers.engines import Engine, EngineReport, EngineSettings

STOP_MARGIN_S = 10.0
"""On top of what a server has to end: for the guard, and for the call."""
SILENCE_S = 60.0
"""An actor that owes a report for so long is started again: its loop is stuck, or its machine is."""
DEATHS_FOR_GOOD = 20
"""An actor that Ray calls dead so often in a row is none that it starts again: it could not even be made."""
OMP = "OMP_NUM_THREADS"
LOOPBACK = "127.0.0.1"


class EngineActor:
    """An Engine behind Ray. Its first report starts it: only then does it run in the loop that it belongs to."""

    def __init__(self, settings: EngineSettings, replica: int, host: str | None) -> None:
        self._settings = settings
        self._replica = replica
        self._host = host
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None

    async def report(self) -> EngineReport:
        """How the engine is; an error of the engine itself is raised."""
        if self._engine is None or self._task is None:
            if OMP not in self._settings.environment:
                os.environ.pop(OMP, None)  # Ray's own, for a process that computes by itself
            host = self._host or ray.util.get_node_ip_address()
            self._engine = Engine(self._settings, self._replica, host=host)
            self._task = asyncio.ensure_future(self._engine.run())
        if self._task.done():
            self._task.result()
        return self._engine.report()

    async def stop(self) -> None:
        """End the server."""
        if self._engine is not None and self._task is not None:
            self._engine.stop()
            await self._task


@dataclass(slots=True)
class _Placed:
    actor: Any
    stop_timeout_s: float
    asked: Any = None
    """The report that is still owed: an actor that waits for a machine is asked once, not twice a second."""
    asked_at: float = 0.0
    deaths: int = 0
    is_known: bool = False
    """It has reported since it was placed."""


class RayEngines:
    """Engines on the nodes of a Ray cluster, or of a Ray of our own."""

    def __init__(self, *, address: str | None = None) -> None:
        self._address = address
        self._placed: dict[int, _Placed] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(ray_runtime(self._address))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self.stop(number) for number in list(self._placed)))
        await self._stack.aclose()

    def start(self, number: int, replica: int, group: EngineGroup) -> None:
        """Have an engine placed; a Ray of our own does not grow, so what does not fit now never will."""
        is_ours = self._address is None
        if is_ours and (lack := _lack(group.needs)):
            raise EndpointProblem(
                f"{group.settings.name}: a replica needs {group.needs}, and this machine has {lack}",
                remedy="lower engine.gpus, engine.cpus or engine.resources, or run on a cluster with --address",
            )
        actor = ray.remote(EngineActor).options(
            num_cpus=group.needs.cpus,
            num_gpus=group.needs.gpus,
            resources=dict(group.needs.resources),
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=16,
            enable_task_events=False,
        )
        host = LOOPBACK if is_ours else None
        self._placed[number] = _Placed(
            actor.remote(group.settings, replica, host), group.settings.stop_timeout_s
        )

    async def report(self, number: int, timeout_s: float) -> EngineReport | None:
        """How an engine is; None while its actor waits for a machine, or to be started again."""
        placed = self._placed[number]
        if placed.asked is None:
            placed.asked = asyncio.ensure_future(_asked(placed.actor))
            placed.asked_at = time.monotonic()
        done, _ = await asyncio.wait({placed.asked}, timeout=timeout_s)
        if not done:
            self._without_answer(placed)
            return None
        asked, placed.asked = placed.asked, None
        try:
            report: EngineReport = asked.result()
        except RayTaskError as error:
            raise TtcError(f"an engine failed by itself: {one_line(error)}") from error
        except RayError as error:
            placed.is_known = False
            placed.deaths += isinstance(error, ActorDiedError)
            if placed.deaths > DEATHS_FOR_GOOD:
                raise EndpointProblem(
                    f"Ray cannot start an engine: {one_line(error)}",
                    remedy="see that this version of ttc is installed on every node of the cluster",
                ) from error
            raise EngineGone(one_line(error)) from error
        placed.is_known, placed.deaths = True, 0
        return report

    def _without_answer(self, placed: _Placed) -> None:
        """Wait for a machine as long as it takes; for one that had answered, not for ever."""
        if placed.is_known and time.monotonic() - placed.asked_at > SILENCE_S:
            placed.is_known = False
            with contextlib.suppress(RayError):
                ray.kill(placed.actor, no_restart=False)
            raise EngineGone(f"no report for {SILENCE_S:.0f} s")

    async def stop(self, number: int) -> None:
        """End the server in order, then its actor; if the actor does not answer, the guard ends the server."""
        placed = self._placed[number]
        with contextlib.suppress(RayError, TimeoutError):
            if placed.is_known:
                async with asyncio.timeout(placed.stop_timeout_s + STOP_MARGIN_S):
                    await placed.actor.stop.remote()
        with contextlib.suppress(RayError):
            ray.kill(placed.actor, no_restart=True)
        if placed.asked is not None:
            await asyncio.gather(placed.asked, return_exceptions=True)
        self._placed.pop(number, None)


async def _asked(actor: Any) -> EngineReport:
    report: EngineReport = await actor.report.remote()
    return report


def _lack(needs: Needs) -> str | None:
    """What this machine has of something that there is too little of; None if one replica fits."""
    has = ray.cluster_resources()
    for name, amount in {"GPU": needs.gpus, "CPU": needs.cpus, **needs.resources}.items():
        if amount > has.get(name, 0.0):
            return f"{has.get(name, 0.0):g} {name}"
    return None
