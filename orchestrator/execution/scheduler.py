"""Which worker gets which task, and what happens when one is lost. Pure: events in, commands out, no clock, no I/O.

The life of a task as the scheduler sees it:

    claimed ──> ready ──dispatch──> in flight ──TaskEnd──> gone
                  ^                     │
                  └──── claimed again <─┘ worker lost: the store gives it a new attempt (fence) and its missing spans

Work is kept `lookahead` times ahead of what a worker can have in flight, so that a slot never waits for the scheduler,
and no further, so that memory is bounded and a lost worker loses little (invariant I6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from workers.types import SampleTask


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Bounds of the work in flight."""

    worker_samples: int
    """Samples a worker can have in flight at its endpoints: concurrency x samples a request."""
    lookahead: float = 2.0
    """How much work a worker holds, as a multiple of `worker_samples`."""
    claim_tasks: int = 64
    """Tasks claimed in one transaction."""
    max_attempts: int = 5
    """Workers a task may outlive before it is failed rather than dispatched again."""


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A worker is ready for lots (at start, or again after a restart)."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, with whatever it had not delivered."""

    worker: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The store leased these tasks to this run; fewer than `asked` means there are no more for now."""

    tasks: tuple[SampleTask, ...]
    asked: int


@dataclass(frozen=True, slots=True)
class Requeued:
    """A task of a lost worker has its new attempt; None: nothing of it was missing, or another run has it."""

    task_id: int
    task: SampleTask | None


@dataclass(frozen=True, slots=True)
class Stored:
    """Facts of these tasks are durable: samples stored by task id, and the attempts that ended."""

    worker: int
    samples: tuple[tuple[int, int], ...]
    ended: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """There may be tasks to claim again: the lease of another run has ended."""


@dataclass(frozen=True, slots=True)
class Drain:
    """No more dispatches: finish what is in flight, then stop."""

    reason: str


Event = WorkerUp | WorkerLost | Claimed | Requeued | Stored | LookAgain | Drain

# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Lease up to `limit` tasks from the store."""

    limit: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send a lot to a worker."""

    worker: int
    tasks: tuple[SampleTask, ...]


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give a task whose worker was lost a new attempt."""

    task: SampleTask


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail a task that outlived too many workers: it may be what kills them."""

    task: SampleTask
    attempts: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is ready, in flight or left to claim."""

    reason: str


Command = Claim | Dispatch | Requeue | GiveUp | Finish


@dataclass(slots=True)
class _InFlight:
    task: SampleTask
    worker: int
    remaining: int


@dataclass(slots=True)
class _WorkerLoad:
    outstanding: int = 0
    """Samples dispatched and not yet durable."""
    tasks: set[int] = field(default_factory=set)


class Scheduler:
    """The state machine; the coordinator performs its commands and feeds the results back as events."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings
        self._ready: deque[SampleTask] = deque()
        self._ready_samples = 0
        self._in_flight: dict[int, _InFlight] = {}
        self._workers: dict[int, _WorkerLoad] = {}
        self._losses: dict[int, int] = {}
        self._requeueing: set[int] = set()
        self._is_claiming = False
        self._is_exhausted = False
        self._drain_reason: str | None = None
        self._is_finished = False

    @property
    def in_flight_samples(self) -> int:
        """Samples dispatched and not yet durable, over all workers."""
        return sum(load.outstanding for load in self._workers.values())

    def handle(self, event: Event) -> list[Command]:
        """Apply one event; return what is to be done, in order."""
        commands: list[Command] = []
        match event:
            case WorkerUp(worker):
                self._workers.setdefault(worker, _WorkerLoad())
            case WorkerLost(worker):
                commands += self._lose(worker)
            case Claimed(tasks, asked):
                self._is_claiming = False
                self._is_exhausted = len(tasks) < asked
                self._make_ready(tasks)
            case Requeued(task_id, task):
                self._requeueing.discard(task_id)
                if task is not None:
                    self._make_ready([task])
            case Stored():
                self._store(event)
            case LookAgain():
                self._is_exhausted = self._is_finished = False
            case Drain(reason):
                self._drain_reason = self._drain_reason or reason
                self._ready.clear()
                self._ready_samples = 0
        return commands + self._advance()

    def _advance(self) -> list[Command]:
        commands: list[Command] = list(self._dispatches())
        if self._drain_reason is None and self._wants_claim():
            self._is_claiming = True
            commands.append(Claim(self._settings.claim_tasks))
        if self._is_idle() and not self._is_finished:
            self._is_finished = True
            commands.append(Finish(self._drain_reason or "complete"))
        return commands

    def _dispatches(self) -> Iterable[Dispatch]:
        """Fill the emptiest worker first, one task at a time, so that the last tasks spread over all workers."""
        lots: dict[int, list[SampleTask]] = {}
        while self._ready:
            worker = min(self._workers, key=lambda each: self._workers[each].outstanding, default=None)
            if worker is None or self._workers[worker].outstanding >= self._target:
                break
            task = self._ready.popleft()
            self._ready_samples -= task.size
            load = self._workers[worker]
            load.outstanding += task.size
            load.tasks.add(task.task_id)
            self._in_flight[task.task_id] = _InFlight(task, worker, task.size)
            lots.setdefault(worker, []).append(task)
        for worker, tasks in lots.items():
            yield Dispatch(worker, tuple(tasks))

    def _store(self, event: Stored) -> None:
        for task_id, count in event.samples:
            flight = self._in_flight.get(task_id)
            if flight is not None and flight.worker == event.worker:
                credit = min(count, flight.remaining)
                flight.remaining -= credit
                self._workers[flight.worker].outstanding -= credit
        for task_id in event.ended:
            self._forget(task_id, event.worker)

    def _forget(self, task_id: int, worker: int) -> None:
        flight = self._in_flight.get(task_id)
        if flight is None or flight.worker != worker:
            return  # late news of an attempt that was already given to another worker
        del self._in_flight[task_id]
        self._losses.pop(task_id, None)
        load = self._workers[worker]
        load.tasks.discard(task_id)
        load.outstanding -= flight.remaining

    def _lose(self, worker: int) -> list[Command]:
        load = self._workers.pop(worker, None)
        if load is None:
            return []
        commands: list[Command] = []
        for task_id in sorted(load.tasks):
            task = self._in_flight.pop(task_id).task
            losses = self._losses[task_id] = self._losses.get(task_id, 0) + 1
            if losses >= self._settings.max_attempts:
                self._losses.pop(task_id)
                commands.append(GiveUp(task, losses))
            else:
                self._requeueing.add(task_id)
                commands.append(Requeue(task))
        return commands

    def _make_ready(self, tasks: Sequence[SampleTask]) -> None:
        if self._drain_reason is not None:
            return
        self._ready.extend(tasks)
        self._ready_samples += sum(task.size for task in tasks)

    def _wants_claim(self) -> bool:
        """Claim while less than one refill of every worker is ready."""
        refill = self._target * max(1, len(self._workers))
        return not self._is_claiming and not self._is_exhausted and self._ready_samples < refill

    def _is_idle(self) -> bool:
        is_working = bool(self._in_flight or self._requeueing or self._is_claiming)
        if self._drain_reason is not None:
            return not is_working
        return not is_working and not self._ready and self._is_exhausted

    @property
    def _target(self) -> int:
        return max(1, int(self._settings.worker_samples * self._settings.lookahead))
