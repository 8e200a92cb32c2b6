"""The scheduler as a state machine: scripted events give exact commands; random lives lose and repeat no task."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.scheduler import (
    Claim,
    Claimed,
    Command,
    Dispatch,
    Drain,
    Finish,
    GiveUp,
    LaneSettings,
    LookAgain,
    Requeue,
    Requeued,
    Scheduler,
    SchedulerSettings,
    Stored,
    WorkerLost,
    WorkerUp,
)
from workers.types import SampleTask

LANE, OTHER = 1, 2
SETTINGS = SchedulerSettings({LANE: LaneSettings(4, claim_tasks=4)}, lookahead=2.0, max_attempts=3)
TWO_LANES = SchedulerSettings(
    {LANE: LaneSettings(4, claim_tasks=4), OTHER: LaneSettings(2, claim_tasks=2, is_chained=True)},
    max_attempts=10**6,
)


def task(task_id: int, size: int = 4, attempt: int = 1, lane: int = LANE, pool: int = 1) -> SampleTask:
    return SampleTask(task_id, attempt, lane, pool, 1, "1+1", 1, 0, ((0, size),))


def dispatched(commands: list[Command]) -> dict[int, list[int]]:
    return {each.worker: [t.task_id for t in each.tasks] for each in commands if isinstance(each, Dispatch)}


def test_claims_before_any_worker_is_up_and_dispatches_when_one_is() -> None:
    scheduler = Scheduler(SETTINGS)
    assert scheduler.handle(LookAgain()) == [Claim(LANE, 4)]
    assert scheduler.handle(Claimed(LANE, (task(1), task(2), task(3), task(4)), asked=4)) == []
    assert dispatched(scheduler.handle(WorkerUp(0))) == {0: [1, 2]}


def test_a_worker_holds_lookahead_times_its_slots_and_no_more() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    commands = scheduler.handle(Claimed(LANE, tuple(task(i) for i in range(4)), asked=4))
    assert dispatched(commands) == {0: [0, 1]}
    assert scheduler.in_flight_samples == 8


def test_durable_samples_give_credit_before_the_task_ends() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    scheduler.handle(Claimed(LANE, tuple(task(i) for i in range(4)), asked=5))
    assert dispatched(scheduler.handle(Stored(0, samples=((0, 2),), ended=()))) == {0: [2]}


def test_small_tasks_are_sent_together_once_a_share_of_them_has_ended() -> None:
    lane = LaneSettings(4, claim_tasks=16, refill_share=0.5)  # holds 8; more is sent once 4 or fewer are left
    scheduler = Scheduler(SchedulerSettings({LANE: lane}))
    scheduler.handle(WorkerUp(0))
    tasks = tuple(task(i, size=1) for i in range(11))
    assert dispatched(scheduler.handle(Claimed(LANE, tasks, asked=16))) == {0: [0, 1, 2, 3, 4, 5, 6, 7]}
    for ended in (3, 0, 5):
        assert dispatched(scheduler.handle(Stored(0, samples=((ended, 1),), ended=(ended,)))) == {}
    assert dispatched(scheduler.handle(Stored(0, samples=((1, 1),), ended=(1,)))) == {0: [8, 9, 10]}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 3, 8, 20])
def test_every_task_is_sent_whatever_must_be_free(share: float, size: int) -> None:
    scheduler = Scheduler(SchedulerSettings({LANE: LaneSettings(4, claim_tasks=64, refill_share=share)}))
    scheduler.handle(WorkerUp(0))
    commands = deque(scheduler.handle(Claimed(LANE, tuple(task(i, size) for i in range(32)), asked=64)))
    sent: list[int] = []
    while commands:
        assert scheduler.in_flight_samples < 8 + size
        for ended in dispatched([commands.popleft()]).get(0, ()):
            sent.append(ended)
            commands += scheduler.handle(Stored(0, samples=(), ended=(ended,)))
    assert sorted(sent) == list(range(32))


def test_tasks_spread_over_the_emptiest_workers() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    scheduler.handle(WorkerUp(1))
    lots = dispatched(scheduler.handle(Claimed(LANE, (task(1), task(2), task(3)), asked=4)))
    assert sorted(len(each) for each in lots.values()) == [1, 2]


def test_a_lost_worker_s_tasks_are_requeued_and_run_elsewhere() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    scheduler.handle(Claimed(LANE, (task(1),), asked=4))
    assert scheduler.handle(WorkerLost(0)) == [Requeue(task(1))]
    scheduler.handle(WorkerUp(1))
    retried = replace(task(1), attempt=2, spans=((3, 1),))
    assert scheduler.handle(Requeued(1, retried)) == [Dispatch(1, (retried,))]


def test_late_news_of_a_lost_worker_changes_nothing() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    scheduler.handle(Claimed(LANE, (task(1),), asked=4))
    scheduler.handle(WorkerLost(0))
    scheduler.handle(WorkerUp(1))
    scheduler.handle(Requeued(1, replace(task(1), attempt=2)))
    assert scheduler.handle(Stored(0, samples=((1, 4),), ended=(1,))) == []
    assert scheduler.in_flight_samples == 4


def test_a_task_that_outlives_too_many_workers_is_given_up() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(Claimed(LANE, (task(1),), asked=4))
    for life in range(2):
        scheduler.handle(WorkerUp(life))
        assert scheduler.handle(WorkerLost(life)) == [Requeue(replace(task(1), attempt=life + 1))]
        scheduler.handle(Requeued(1, task(1, attempt=life + 2)))
    scheduler.handle(WorkerUp(9))
    assert scheduler.handle(WorkerLost(9)) == [GiveUp(task(1, attempt=3), 3), Finish("complete")]


def test_drain_dispatches_nothing_more_and_finishes_after_the_last_flight() -> None:
    scheduler = Scheduler(SETTINGS)
    scheduler.handle(WorkerUp(0))
    scheduler.handle(Claimed(LANE, tuple(task(i) for i in range(4)), asked=4))
    assert [c for c in scheduler.handle(Drain("cancelled")) if not isinstance(c, Claim)] == []
    scheduler.handle(Claimed(LANE, (), asked=4))
    assert scheduler.handle(Stored(0, (), ended=(0,))) == []
    assert scheduler.handle(Stored(0, (), ended=(1,))) == [Finish("cancelled")]


def test_finish_is_said_once_and_again_only_after_looking_again() -> None:
    scheduler = Scheduler(SETTINGS)
    assert scheduler.handle(LookAgain()) == [Claim(LANE, 4)]
    assert scheduler.handle(Claimed(LANE, (), asked=4)) == [Finish("complete")]
    assert scheduler.handle(WorkerUp(0)) == []
    assert scheduler.handle(LookAgain()) == [Claim(LANE, 4)]


def test_a_lane_that_is_full_does_not_hold_up_another() -> None:
    scheduler = Scheduler(TWO_LANES)
    assert scheduler.handle(WorkerUp(7)) == [Claim(LANE, 4), Claim(OTHER, 2)]
    full = scheduler.handle(Claimed(LANE, tuple(task(i) for i in range(4)), asked=4))
    assert dispatched(full) == {7: [0, 1]}
    assert dispatched(scheduler.handle(Claimed(OTHER, (task(9, 2, lane=OTHER),), asked=2))) == {7: [9]}


def test_the_end_of_a_chained_task_is_a_reason_to_claim_again() -> None:
    scheduler = Scheduler(TWO_LANES)
    scheduler.handle(WorkerUp(7))
    scheduler.handle(Claimed(LANE, (), asked=4))
    scheduler.handle(Claimed(OTHER, (task(9, 2, lane=OTHER),), asked=2))
    assert scheduler.handle(Stored(7, ((9, 2),), (9,))) == [Claim(OTHER, 2)]


class Life:
    """A store and some workers, played at random: workers die, deliver late, deliver in part.

    In the chained lane a task may be claimed only when those before it in its pool have ended.
    """

    def __init__(self, seed: int, tasks: int) -> None:
        self.random = random.Random(seed)
        self.pending = [self.make(i) for i in range(tasks)]
        self.missing = {each.task_id: each.size for each in self.pending}
        self.ended: list[int] = []
        self.scheduler = Scheduler(TWO_LANES)
        self.lots: list[tuple[int, SampleTask]] = []
        self.commands: list[Command] = []
        self.alive: set[int] = set()
        self.next_worker = 0
        self.is_finished = False

    def make(self, number: int) -> SampleTask:
        lane = self.random.choice((LANE, OTHER))
        return task(number, self.random.randint(1, 9), lane=lane, pool=self.random.randint(1, 3))

    def claimable(self, lane: int) -> list[SampleTask]:
        """Pending tasks of a lane whose turn has come."""
        found: list[SampleTask] = []
        busy = {t.pool_id for _, t in self.lots if t.lane_id == OTHER} if lane == OTHER else set()
        for each in self.pending:
            if each.lane_id != lane or (lane == OTHER and each.pool_id in busy):
                continue
            found.append(each)
            if lane == OTHER:
                busy.add(each.pool_id)
        return found

    def play(self) -> None:
        self.send(LookAgain())
        for _ in range(20_000):
            self.perform()
            if self.is_finished:
                return
            self.nature()
        pytest.fail("the sweep never finished")

    def send(self, event: object) -> None:
        self.commands += self.scheduler.handle(event)  # type: ignore[arg-type]

    def perform(self) -> None:
        while self.commands:
            command = self.commands.pop(0)
            match command:
                case Claim(lane, limit):
                    taken = self.claimable(lane)[:limit]
                    self.pending = [each for each in self.pending if each not in taken]
                    self.send(Claimed(lane, tuple(taken), limit))
                case Dispatch(worker, tasks):
                    assert worker in self.alive
                    self.lots += [(worker, each) for each in tasks]
                case Requeue(lost):
                    left = self.missing[lost.task_id]
                    self.send(
                        Requeued(lost.task_id, replace(lost, attempt=lost.attempt + 1, spans=((0, left),)))
                    )
                case Finish(_):
                    self.is_finished = True
                case GiveUp():
                    pytest.fail("gave up")

    def nature(self) -> None:
        if len(self.alive) < 2 or self.random.random() < 0.05:
            self.alive.add(self.next_worker)
            self.send(WorkerUp(self.next_worker))
            self.next_worker += 1
        elif self.random.random() < 0.1:
            dead = self.random.choice(sorted(self.alive))
            self.alive.discard(dead)
            self.lots = [(worker, each) for worker, each in self.lots if worker != dead]
            self.send(WorkerLost(dead))
        elif self.lots:
            self.deliver(self.random.randrange(len(self.lots)))

    def deliver(self, index: int) -> None:
        worker, current = self.lots[index]
        left = self.missing[current.task_id]
        count = self.random.randint(0, left)
        self.missing[current.task_id] -= count
        is_end = self.missing[current.task_id] == 0
        if is_end:
            del self.lots[index]
            self.ended.append(current.task_id)
        self.send(Stored(worker, ((current.task_id, count),), (current.task_id,) if is_end else ()))


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_every_task_ends_exactly_once_whatever_dies(seed: int, tasks: int) -> None:
    life = Life(seed, tasks)
    life.play()
    assert sorted(life.ended) == list(range(tasks))
    assert life.scheduler.in_flight_samples == 0
