"""Which worker gets which task, and what happens when one is lost. Pure: events in, commands out, no clock, no I/O.

The life of a task as the scheduler sees it:

    claimed ──> ready ──dispatch──> in flight ──TaskEnd──> gone
                  ^                     │
                  └──── claimed again <─┘ worker lost: the store gives it a new attempt (fence) and what it still owes

Every lane (what one model draws or scores) has its own ready tasks and its own share of every worker, so that a slow
model never holds up another. Work is kept `lookahead` times ahead of what a worker can have in flight, so that a slot
never waits for the scheduler, and no further, so that memory is bounded and a lost worker loses little (invariant I6).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from workers.types import Task


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """Bounds of the work in flight in one lane."""

    worker_samples: int
    """Samples a worker can have in flight at the lane's endpoint: concurrency x samples a request."""
    claim_tasks: int = 64
    """Tasks claimed in one transaction."""
    is_chained: bool = False
    """The end of a task may let another be claimed (score tasks of one pool run one after the other)."""
    refill_share: float = 0.0
    """Share of what a worker may hold that must be free before it is sent more. Each lot is a stream of its own, and
    small tasks that are sent one by one as others end would all be streams of a fact or two at a time."""


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Bounds of the work in flight."""

    lanes: Mapping[int, LaneSettings]
    """By lane id."""
    lookahead: float = 2.0
    """How much work a worker holds, as a multiple of `worker_samples`."""
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
    """The store leased these tasks of a lane to this run; fewer than `asked` means there are no more for now."""

    lane: int
    tasks: tuple[Task, ...]
    asked: int


@dataclass(frozen=True, slots=True)
class Requeued:
    """A task of a lost worker has its new attempt; None: nothing of it was missing, or another run has it."""

    task_id: int
    task: Task | None


@dataclass(frozen=True, slots=True)
class Stored:
    """Facts of these tasks are durable: samples stored by task id, and the attempts that ended."""

    worker: int
    samples: tuple[tuple[int, int], ...]
    ended: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """There may be tasks to claim again: the lease of another run has ended, or new tasks were made."""


@dataclass(frozen=True, slots=True)
class Drain:
    """No more dispatches: finish what is in flight, then stop."""

    reason: str


Event = WorkerUp | WorkerLost | Claimed | Requeued | Stored | LookAgain | Drain

# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Lease up to `limit` tasks of a lane from the store."""

    lane: int
    limit: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send a lot to a worker."""

    worker: int
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give a task whose worker was lost a new attempt."""

    task: Task


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail a task that outlived too many workers: it may be what kills them."""

    task: Task
    attempts: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is ready, in flight or left to claim."""

    reason: str


Command = Claim | Dispatch | Requeue | GiveUp | Finish


# --- what can be seen from outside ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """How much of a lane waits for a worker, and how much a worker has."""

    lane: int
    tasks_ready: int
    tasks_in_flight: int
    samples_in_flight: int
    """Dispatched and not yet durable."""


@dataclass(slots=True)
class _InFlight:
    task: Task
    worker: int
    remaining: int


@dataclass(slots=True)
class _WorkerLoad:
    outstanding: Counter[int] = field(default_factory=Counter)
    """Samples dispatched and not yet durable, by lane."""
    tasks: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Lane:
    """What is ready in a lane, and whether there may be more to claim."""

    number: int
    settings: LaneSettings
    target: int
    """Samples a worker may hold."""
    low: int
    """Samples a worker may still hold when it is sent more."""
    ready: deque[Task] = field(default_factory=deque)
    ready_samples: int = 0
    is_claiming: bool = False
    is_exhausted: bool = False

    def add(self, tasks: Sequence[Task]) -> None:
        """Make tasks ready."""
        self.ready.extend(tasks)
        self.ready_samples += sum(task.size for task in tasks)

    def take(self) -> Task:
        """The next ready task."""
        task = self.ready.popleft()
        self.ready_samples -= task.size
        return task

    def clear(self) -> None:
        """Forget what is ready."""
        self.ready.clear()
        self.ready_samples = 0


def _lane(number: int, settings: LaneSettings, lookahead: float) -> _Lane:
    target = max(1, int(settings.worker_samples * lookahead))
    return _Lane(number, settings, target, low=target - max(1, int(target * settings.refill_share)))


class Scheduler:
    """The state machine; the coordinator performs its commands and feeds the results back as events."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings
        self._lanes = {
            number: _lane(number, lane, settings.lookahead) for number, lane in settings.lanes.items()
        }
        self._in_flight: dict[int, _InFlight] = {}
        self._workers: dict[int, _WorkerLoad] = {}
        self._losses: dict[int, int] = {}
        self._requeueing: set[int] = set()
        self._drain_reason: str | None = None
        self._is_finished = False

    @property
    def in_flight_samples(self) -> int:
        """Samples dispatched and not yet durable, over all workers."""
        return sum(load.outstanding.total() for load in self._workers.values())

    @property
    def workers_up(self) -> int:
        """Workers that are given lots."""
        return len(self._workers)

    def loads(self) -> tuple[LaneLoad, ...]:
        """The load of every lane."""
        flights = Counter(flight.task.lane_id for flight in self._in_flight.values())
        samples: Counter[int] = Counter()
        for worker in self._workers.values():
            samples.update(worker.outstanding)
        return tuple(
            LaneLoad(number, len(lane.ready), flights[number], samples[number])
            for number, lane in self._lanes.items()
        )

    def handle(self, event: Event) -> list[Command]:
        """Apply one event; return what is to be done, in order."""
        commands: list[Command] = []
        match event:
            case WorkerUp(worker):
                self._workers.setdefault(worker, _WorkerLoad())
            case WorkerLost(worker):
                commands += self._lose(worker)
            case Claimed():
                self._claim(event)
            case Requeued(task_id, task):
                self._requeueing.discard(task_id)
                if task is not None:
                    self._make_ready([task])
            case Stored():
                self._store(event)
            case LookAgain():
                self._look_again()
            case Drain(reason):
                self._drain_reason = self._drain_reason or reason
                for lane in self._lanes.values():
                    lane.clear()
        return commands + self._advance()

    def _advance(self) -> list[Command]:
        commands: list[Command] = list(self._dispatches())
        if self._drain_reason is None:
            commands += self._claims()
        if self._is_idle() and not self._is_finished:
            self._is_finished = True
            commands.append(Finish(self._drain_reason or "complete"))
        return commands

    def _claims(self) -> Iterator[Claim]:
        """Claim while less than one refill of every worker is ready."""
        for lane in self._lanes.values():
            refill = lane.target * max(1, len(self._workers))
            if not lane.is_claiming and not lane.is_exhausted and lane.ready_samples < refill:
                lane.is_claiming = True
                yield Claim(lane.number, lane.settings.claim_tasks)

    def _claim(self, event: Claimed) -> None:
        lane = self._lanes[event.lane]
        lane.is_claiming = False
        lane.is_exhausted = len(event.tasks) < event.asked
        self._make_ready(event.tasks)

    def _look_again(self) -> None:
        self._is_finished = False
        for lane in self._lanes.values():
            lane.is_exhausted = False

    def _dispatches(self) -> Iterable[Dispatch]:
        """Fill the emptiest worker first, one task at a time, so that the last tasks spread over all workers."""
        lots: dict[int, list[Task]] = {}
        for lane in self._lanes.values():
            hungry = [
                each for each, load in self._workers.items() if load.outstanding[lane.number] <= lane.low
            ]
            while lane.ready and (worker := self._emptiest(lane, hungry)) is not None:
                task = lane.take()
                load = self._workers[worker]
                load.outstanding[lane.number] += task.size
                load.tasks.add(task.task_id)
                self._in_flight[task.task_id] = _InFlight(task, worker, task.size)
                lots.setdefault(worker, []).append(task)
        for worker, tasks in lots.items():
            yield Dispatch(worker, tuple(tasks))

    def _emptiest(self, lane: _Lane, workers: Sequence[int]) -> int | None:
        """The one of these workers that holds least of a lane, if it may hold more."""
        worker = min(workers, key=lambda each: self._workers[each].outstanding[lane.number], default=None)
        if worker is None or self._workers[worker].outstanding[lane.number] >= lane.target:
            return None
        return worker

    def _store(self, event: Stored) -> None:
        for task_id, count in event.samples:
            flight = self._in_flight.get(task_id)
            if flight is not None and flight.worker == event.worker:
                credit = min(count, flight.remaining)
                flight.remaining -= credit
                self._workers[flight.worker].outstanding[flight.task.lane_id] -= credit
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
        lane = self._lanes[flight.task.lane_id]
        load.outstanding[lane.number] -= flight.remaining
        if lane.settings.is_chained:
            lane.is_exhausted = False

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

    def _make_ready(self, tasks: Sequence[Task]) -> None:
        if self._drain_reason is not None:
            return
        for task in tasks:
            self._lanes[task.lane_id].add([task])

    def _is_idle(self) -> bool:
        lanes = self._lanes.values()
        is_working = bool(self._in_flight or self._requeueing or any(lane.is_claiming for lane in lanes))
        if self._drain_reason is not None:
            return not is_working
        return not is_working and all(lane.is_exhausted and not lane.ready for lane in lanes)
