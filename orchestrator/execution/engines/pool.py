"""Where engines live. `EnginePool` is the port that the fleet drives; `LocalEngines` keeps them in this process.

A pool only carries: it places engines, passes on what they report, and ends them. How many there are, and what
becomes of their news, is the fleet's business.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from orchestrator.errors import EndpointProblem, TtcError
from orchestrator.execution.engines.gpus import Gpus
from orchestrator.spec.engine_settings import EngineGroup
from workers.engines import Engine, EngineReport


class EngineGone(TtcError):
    """An engine's holder died, or does not answer; where there is a machine for it, another takes its place."""


class EnginePool(Protocol):
    """Engines by number. `async with` ends all of them, with their servers."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, number: int, replica: int, group: EngineGroup) -> None:
        """Have an engine started; raises EndpointProblem if there never will be room for it."""

    async def report(self, number: int, timeout_s: float) -> EngineReport | None:
        """How an engine is; None while it waits for a machine. Raises EngineGone if its holder is lost."""

    async def stop(self, number: int) -> None:
        """End an engine: SIGTERM for its server, SIGKILL if that is not enough. A lost one is no error."""


@dataclass(frozen=True, slots=True)
class _Kept:
    engine: Engine
    task: asyncio.Task[None]
    gpus: Mapping[int, float]


class LocalEngines:
    """Engines as tasks of this event loop; their servers listen on loopback."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._gpus = Gpus(visible_gpus(os.environ, Path("/dev")))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self.stop(number) for number in list(self._kept)))

    def start(self, number: int, replica: int, group: EngineGroup) -> None:
        """Start an engine on GPUs of its own."""
        gpus = self._gpus.take(group.needs.gpus)
        if gpus is None:
            raise EndpointProblem(
                f"{group.settings.name}: a replica needs {group.needs.gpus:g} GPUs, and {self._gpus} are free here",
                remedy="lower engine.replicas or engine.gpus, or run on a Ray cluster with --address",
            )
        variables = {"CUDA_VISIBLE_DEVICES": self._gpus.names(gpus)} if gpus else {}
        engine = Engine(group.settings, replica, variables=variables)
        self._kept[number] = _Kept(engine, asyncio.create_task(engine.run()), gpus)

    async def report(self, number: int, timeout_s: float) -> EngineReport:
        """How an engine is; an error in the engine itself is raised here."""
        kept = self._kept[number]
        if kept.task.done():
            kept.task.result()
        return kept.engine.report()

    async def stop(self, number: int) -> None:
        """End an engine."""
        kept = self._kept[number]
        kept.engine.stop()
        await asyncio.shield(kept.task)
        if self._kept.pop(number, None) is not None:
            self._gpus.give_back(kept.gpus)


def visible_gpus(environment: Mapping[str, str], devices: Path) -> list[str]:
    """GPUs that this process may use: those it was given, else those that the machine has."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*"))
    return sorted((number for number in numbers if number.isdigit()), key=int)
