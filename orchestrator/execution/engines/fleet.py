"""All engines of a run: starts them, listens to them, tells the workers where to send, and adds or retires replicas.

It decides nothing about a single server (`workers.engines` does) and does not know where engines live (`engine_pool`
does). What it learns goes three ways: to the workers as sets of URLs, to the store as events, to the user as notes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from orchestrator.errors import EndpointProblem, Finding
from orchestrator.execution.engines.pool import EngineGone, EnginePool
from orchestrator.execution.engines.scaling import Sizing, first_sizing, resized
from orchestrator.execution.pool import WorkerPool
from orchestrator.spec.engine_settings import EngineGroup
from workers.engines import EngineReport, Phase
from workers.types import Event, ReplicaSet, WorkerHealth

POLL_S = 0.5
REPORT_TIMEOUT_S = 5.0
SCALING_S = 5.0
"""As often as the coordinator asks the workers how they are."""
RETIRING_TIMEOUT_S = 600.0
"""How long a replica that is not needed may finish what it has."""
PLACING_NOTE_S = 30.0
TAIL_LINES = 8

Note = Callable[[str], None]
Record = Callable[[Sequence[Event]], Awaitable[None]]
Health = Callable[[], Mapping[int, WorkerHealth]]


@dataclass(slots=True)
class Member:
    """One engine, as the fleet knows it."""

    number: int
    name: str
    started_at: float
    report: EngineReport | None = None
    """None until it has a machine."""
    is_awaited: bool = False
    """It was said that it waits for a machine."""

    @property
    def url(self) -> str | None:
        """Where it serves."""
        return self.report.url if self.report else None

    @property
    def has_failed(self) -> bool:
        """It has given up."""
        return self.report is not None and self.report.phase is Phase.FAILED


@dataclass(slots=True)
class Crew:
    """The engines of one model or scorer."""

    group: EngineGroup
    sizing: Sizing
    members: list[Member] = field(default_factory=list)
    started: int = 0
    announced: ReplicaSet | None = None

    @property
    def name(self) -> str:
        """Name of the engines."""
        return self.group.settings.name

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it can be served now."""
        return tuple(member.url for member in self.members if member.url)

    def news(self) -> ReplicaSet | None:
        """What the workers do not know yet; None if that is nothing."""
        last = self.announced
        if last is not None and last.urls == self.urls:
            return None
        self.announced = ReplicaSet(self.name, self.urls, 1 if last is None else last.version + 1)
        return self.announced

    def problem(self) -> EndpointProblem | None:
        """Why nothing will ever serve here: every engine has given up."""
        if not all(member.has_failed for member in self.members):
            return None
        return _given_up(self.members[-1])


class Fleet:
    """The engines of a run, by the name of their model or scorer. `async with` starts them, and ends them."""

    def __init__(
        self,
        pool: EnginePool,
        groups: Sequence[EngineGroup],
        note: Note,
        record: Record,
        *,
        clock: Callable[[], float] = time.monotonic,
        scaling_s: float = SCALING_S,
    ) -> None:
        self._pool = pool
        self._note = note
        self._record = record
        self._clock = clock
        self._crews = {
            group.settings.name: Crew(group, first_sizing(group.scale, clock())) for group in groups
        }
        self._scaling_s = scaling_s
        self._next = 0
        self._events: list[Event] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._crews:
            await self._stack.enter_async_context(self._pool)
        try:
            for crew in self._crews.values():
                self._fill(crew)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for crew in self._crews.values():
            for member in crew.members:
                if member.report is not None and not member.has_failed:
                    self._events.append(Event("engine_stopped", member.name, "the run has ended"))
        await self._flush()

    async def ready(self) -> None:
        """Wait until every model and scorer has an engine that serves; raises EndpointProblem if one never will."""
        while not all(crew.urls for crew in self._crews.values()):
            await asyncio.sleep(POLL_S)
            await self._listen()
            await self._flush()

    def urls(self, name: str) -> tuple[str, ...]:
        """Where the engines of this name serve now."""
        return self._crews[name].urls

    async def run(self, workers: WorkerPool, health: Health) -> None:
        """Keep workers and engines together until cancelled; raises EndpointProblem when a model is lost for good."""
        if not self._crews:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_recording())
            group.create_task(self._keep_scaling(workers, health, group))
            while True:
                await self._announce(workers)
                await asyncio.sleep(POLL_S)
                await self._listen()

    # --- listening ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear all engines; raises EndpointProblem if a model has none left that may come back."""
        members = [member for crew in self._crews.values() for member in crew.members]
        await asyncio.gather(*(self._hear(member) for member in members))
        for crew in self._crews.values():
            problem = crew.problem()
            if problem is not None:
                raise problem

    async def _hear(self, member: Member) -> None:
        try:
            report = await self._pool.report(member.number, REPORT_TIMEOUT_S)
        except EngineGone as error:
            if member.report is not None:
                self._tell(Event("engine_lost", member.name, f"{error}; it is started again"))
            member.report = None
            return
        if report is None:
            self._await_machine(member)
            return
        member.report = report
        for event in report.events:
            self._tell(event)

    def _await_machine(self, member: Member) -> None:
        waited_s = self._clock() - member.started_at
        if member.report is None and waited_s > PLACING_NOTE_S and not member.is_awaited:
            member.is_awaited = True
            self._tell(Event("engine_waiting", member.name, "the cluster has no machine free for it yet"))

    def _tell(self, event: Event) -> None:
        self._note(f"{event.subject}: {event.kind.removeprefix('engine_')}: {event.detail}")
        self._events.append(event)

    async def _keep_recording(self) -> None:
        """Apart from the rest: a database that is away must not keep workers from news of their engines."""
        while True:
            await self._flush()
            await asyncio.sleep(POLL_S)

    async def _flush(self) -> None:
        events, self._events = self._events, []
        if events:
            await self._record(events)

    # --- workers ------------------------------------------------------------------------------------------------------

    async def _announce(self, workers: WorkerPool) -> None:
        news = [each for crew in self._crews.values() if (each := crew.news()) is not None]
        await asyncio.gather(
            *(workers.set_replicas(number, each) for number in workers.workers for each in news)
        )

    # --- size ---------------------------------------------------------------------------------------------------------

    async def _keep_scaling(self, workers: WorkerPool, health: Health, group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(self._scaling_s)
            for crew in self._crews.values():
                requests = _requests(crew.name, health().values())
                crew.sizing = resized(crew.group.scale, crew.sizing, requests, self._clock())
                self._grow(crew)
                for member in self._surplus(crew):
                    crew.members.remove(member)
                    self._tell(Event("engine_retired", member.name, f"{requests} requests need no more"))
                    await self._announce(workers)
                    group.create_task(self._retire(member, health))

    def _fill(self, crew: Crew) -> None:
        """Start what is missing; an engine that has given up is not replaced."""
        while len(crew.members) < crew.sizing.replicas:
            member = Member(self._next, f"{crew.name}/{crew.started}", self._clock())
            self._pool.start(member.number, crew.started, crew.group)
            crew.members.append(member)
            self._next += 1
            crew.started += 1

    def _grow(self, crew: Crew) -> None:
        """As `_fill`, but what there is no room for is done without."""
        try:
            self._fill(crew)
        except EndpointProblem as error:
            scale = replace(crew.group.scale, most=len(crew.members))
            crew.group = replace(crew.group, scale=scale)
            self._note(f"{error.message}; it stays at {scale.most} replicas")

    def _surplus(self, crew: Crew) -> list[Member]:
        """Who goes first: engines that serve nothing, then the youngest."""
        count = len(crew.members) - crew.sizing.replicas
        by_use = sorted(crew.members, key=lambda member: (member.url is not None, -member.number))
        return [member for member in by_use if not member.has_failed][:count] if count > 0 else []

    async def _retire(self, member: Member, health: Health) -> None:
        """Let a replica finish what it has, then end it."""
        before = dict(health())
        deadline = self._clock() + RETIRING_TIMEOUT_S
        while self._clock() < deadline and not _is_idle(member.url, before, health()):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        await self._pool.stop(member.number)
        self._tell(Event("engine_stopped", member.name, "it was not needed"))


def _requests(name: str, views: Iterable[WorkerHealth]) -> int:
    """Requests under way or waiting, over all workers."""
    loads = (load for view in views for load in view.loads if load.engines == name)
    return sum(load.in_flight + load.waiting for load in loads)


def _is_idle(url: str | None, before: Mapping[int, WorkerHealth], now: Mapping[int, WorkerHealth]) -> bool:
    """Has every worker said, since it knows that the replica goes, that it has nothing there any more?"""
    if url is None:
        return True
    is_heard = all(now.get(number) is not view for number, view in before.items())
    return is_heard and not any(
        replica.in_flight for view in now.values() for replica in view.replicas if replica.url == url
    )


def _given_up(member: Member) -> EndpointProblem:
    report = member.report
    assert report is not None
    return EndpointProblem(
        f"{member.name}: its server does not stay up: {report.error} (whole log: {report.log}); the log ends with",
        findings=[Finding(line) for line in report.log_tail[-TAIL_LINES:]],
        remedy="correct engine in the sweep file; `ttc doctor SWEEP.yaml` shows the command, to be tried by hand",
    )
