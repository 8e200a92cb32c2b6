"""The writer's decisions, then the writer over sinks that are slow, broken, picky or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.store.batching import GroupQueue, Queued, WriterLimits, merged, weigh
from orchestrator.store.errors import StoreError, StoreUnavailable, WriterFailed
from orchestrator.store.records import WriteReceipt
from orchestrator.store.writer import Writer
from workers.types import FactBatch, Outcome, TaskEnd, Trajectory

LIMITS = WriterLimits(
    commit_rows=10, linger_s=0.001, group_rows=20, held_rows=40, held_bytes=1000, retry_first_s=0.001
)


def drawn(index: int, text: str = "x") -> Trajectory:
    return Trajectory(
        1, 1, 1, index, index, Outcome.COMPLETE, text, (len(text),), None, None, None, "stop", 1, None, 0.1, 0,
        "r", None,
    )  # fmt: skip


def batch(start: int, count: int = 1, *ends: TaskEnd, text: str = "x") -> FactBatch:
    return FactBatch(tuple(drawn(i, text) for i in range(start, start + count)), ends=ends)


def queued(start: int, count: int, at_s: float, text: str = "x") -> Queued[int]:
    facts = batch(start, count, text=text)
    return Queued(facts, *weigh(facts), at_s, start)


class Sink:
    """A store that keeps what it commits, and does what `behave` says before each commit."""

    def __init__(self, behave: Callable[[FactBatch], None] = lambda _: None) -> None:
        self.behave = behave
        self.open = asyncio.Event()
        self.open.set()
        self.commits: list[FactBatch] = []
        self.sequences: list[int | None] = []

    async def write(
        self, batch: FactBatch, *, run_id: int, extractor_id: int, sequence: int | None = None
    ) -> WriteReceipt:
        await self.open.wait()
        self.sequences.append(sequence)
        self.behave(batch)
        self.commits.append(batch)
        keys = tuple((end.task_id, end.attempt) for end in batch.ends)
        stale = tuple(key for key in keys if key[1] > 1)
        return WriteReceipt(len(batch.trajectories), tuple(k for k in keys if k not in stale), stale)

    @property
    def stored(self) -> list[int]:
        return [t.sample_index for committed in self.commits for t in committed.trajectories]


def writer(sink: Sink, limits: WriterLimits = LIMITS) -> Writer:
    return Writer(sink, run_id=1, extractor_id=1, limits=limits)


async def accepted(w: Writer, rows: int) -> None:
    """Return once the writer holds so many rows."""
    while w.stats.held_rows < rows:  # noqa: ASYNC110
        await asyncio.sleep(0)


# Decisions ------------------------------------------------------------------------------------------------


def test_a_group_is_due_when_full_or_old() -> None:
    queue: GroupQueue[int] = GroupQueue(WriterLimits(commit_rows=10, linger_s=0.05))
    assert queue.due_in_s(0.0) is None
    queue.add(queued(0, 4, at_s=1.0))
    assert queue.due_in_s(1.02) == pytest.approx(0.03)
    assert queue.due_in_s(9.0) == 0.0
    queue.add(queued(4, 6, at_s=1.01))
    assert queue.due_in_s(1.01) == 0.0


def test_groups_are_taken_in_order_and_bounded() -> None:
    queue: GroupQueue[int] = GroupQueue(WriterLimits(group_rows=10))
    for start, count in ((0, 6), (6, 4), (10, 3), (13, 50)):
        queue.add(queued(start, count, at_s=0.0))
    assert [[item.tag for item in queue.take()] for _ in range(4)] == [[0, 6], [10], [13], []]


def test_room_is_measured_in_rows_and_in_text_until_released() -> None:
    queue: GroupQueue[int] = GroupQueue(WriterLimits(held_rows=10, held_bytes=100))
    assert queue.has_room(1000, 1000)  # alone, anything fits
    queue.add(queued(0, 5, at_s=0.0, text="x" * 10))
    assert queue.has_room(5, 50)
    assert not queue.has_room(6, 6)
    assert not queue.has_room(1, 51)
    group = queue.take()
    assert not queue.has_room(6, 6)
    queue.release(group)
    assert (queue.held_rows, queue.held_bytes, queue.has_room(6, 6)) == (0, 0, True)


def test_merging_keeps_order() -> None:
    both = merged([batch(3, 2, TaskEnd(1, 1)), batch(0, 1, TaskEnd(2, 1))])
    assert [t.sample_index for t in both.trajectories] == [3, 4, 0]
    assert [end.task_id for end in both.ends] == [1, 2]


def test_retries_slow_down() -> None:
    limits = WriterLimits(retry_first_s=0.1, retry_most_s=5.0)
    assert [limits.retry_delay_s(n) for n in (1, 2, 3, 100)] == [0.1, 0.2, 0.4, 5.0]


# Writer ---------------------------------------------------------------------------------------------------


async def test_an_acknowledged_batch_is_committed() -> None:
    sink = Sink()
    async with writer(sink) as w:
        receipt = await w.put(batch(0, 3, TaskEnd(7, 1), TaskEnd(8, 2)))
        assert sink.stored == [0, 1, 2]
    assert receipt == WriteReceipt(3, ((7, 1),), ((8, 2),))
    assert w.stats.samples == 3
    assert w.stats.held_rows == 0


async def test_nothing_is_acknowledged_before_its_commit() -> None:
    sink = Sink()
    sink.open.clear()
    async with writer(sink) as w, asyncio.TaskGroup() as group:
        put = group.create_task(w.put(batch(0)))
        done, _ = await asyncio.wait([put], timeout=0.05)
        assert not done
        sink.open.set()
    assert put.result().stored == 1


async def test_producers_share_commits() -> None:
    sink = Sink()
    async with writer(sink, WriterLimits()) as w, asyncio.TaskGroup() as group:
        puts = [group.create_task(w.put(batch(i, 1, TaskEnd(i, 1)))) for i in range(200)]
    assert sorted(sink.stored) == list(range(200))
    assert len(sink.commits) < 10
    assert [put.result().ended for put in puts] == [((i, 1),) for i in range(200)]


async def test_a_slow_database_slows_producers_and_memory_stays_bounded() -> None:
    sink = Sink()
    sink.open.clear()
    async with writer(sink) as w, asyncio.TaskGroup() as group:
        puts = [group.create_task(w.put(batch(10 * i, 10))) for i in range(20)]
        await asyncio.wait(puts, timeout=0.05)
        assert w.stats.held_rows <= LIMITS.held_rows
        sink.open.set()
    assert sorted(sink.stored) == list(range(200))


async def test_an_unreachable_database_is_waited_for_with_the_same_sequence() -> None:
    failures = iter([True, True, True])

    def behave(_: FactBatch) -> None:
        if next(failures, False):
            raise StoreUnavailable("restarting")

    sink = Sink(behave)
    async with writer(sink) as w:
        assert (await w.put(batch(0))).stored == 1
        assert (await w.put(batch(1))).stored == 1
    assert sink.stored == [0, 1]
    assert sink.sequences == [1, 1, 1, 1, 2]
    assert w.stats.retries == 3


async def test_a_database_that_never_returns_fails_the_writer_and_all_callers() -> None:
    def behave(_: FactBatch) -> None:
        raise StoreUnavailable("gone")

    async def run(w: Writer) -> None:
        async with w:
            puts = [asyncio.create_task(w.put(batch(i))) for i in range(3)]
            await asyncio.wait(puts)
            for put in puts:
                assert isinstance(put.exception(), WriterFailed)
            with pytest.raises(WriterFailed):
                await w.put(batch(9))

    with pytest.raises(WriterFailed, match="gone"):
        await run(writer(Sink(behave), WriterLimits(give_up_s=0.0, retry_first_s=0.001)))


async def test_a_poisoned_batch_fails_alone() -> None:
    def behave(given: FactBatch) -> None:
        if any(t.sample_index == 5 for t in given.trajectories):
            raise StoreError("no such pool")

    sink = Sink(behave)
    async with writer(sink, WriterLimits()) as w:
        puts = [asyncio.create_task(w.put(batch(i))) for i in range(10)]
        await asyncio.wait(puts)
    assert [i for i, put in enumerate(puts) if put.exception()] == [5]
    assert "no such pool" in str(puts[5].exception())
    assert sorted(sink.stored) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(set(sink.sequences)) == len(sink.sequences)
    assert w.stats.refused == 1


async def test_closing_commits_what_was_accepted() -> None:
    sink = Sink()
    w = writer(sink, WriterLimits(linger_s=1000.0, commit_rows=1000))
    async with w:
        put = asyncio.create_task(w.put(batch(0)))
        await accepted(w, 1)
    assert (await put).stored == 1
    with pytest.raises(WriterFailed, match="closed"):
        await w.put(batch(1))


async def test_a_cancelled_coordinator_still_flushes() -> None:
    sink = Sink()
    sink.open.clear()
    inside = asyncio.Event()

    async def coordinate() -> None:
        async with writer(sink) as w:
            put = asyncio.create_task(w.put(batch(0)))
            await accepted(w, 1)
            inside.set()
            await put

    task = asyncio.create_task(coordinate())
    await inside.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    sink.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.stored == [0]


async def test_a_cancelled_producer_disturbs_nobody() -> None:
    sink = Sink()
    sink.open.clear()
    async with writer(sink) as w:
        puts = [asyncio.create_task(w.put(batch(i))) for i in range(2)]
        await accepted(w, 2)
        puts[0].cancel()
        sink.open.set()
        assert (await puts[1]).stored == 1
    assert sorted(sink.stored) == [0, 1]


async def test_the_death_of_the_background_task_is_everybodys_error() -> None:
    class Bug(BaseException):
        pass

    def behave(_: FactBatch) -> None:
        raise Bug("unforeseen")

    async def run(w: Writer) -> None:
        async with w:
            with pytest.raises(WriterFailed, match="unforeseen"):
                await w.put(batch(0))
            while True:
                await w.put(batch(1))

    with pytest.raises(WriterFailed, match="unforeseen"):
        await run(writer(Sink(behave)))


async def test_the_wait_of_the_oldest_batch_is_known_while_its_transaction_hangs() -> None:
    now = [100.0]
    sink = Sink()
    sink.open.clear()
    waiting = Writer(sink, run_id=1, extractor_id=1, limits=LIMITS, clock=lambda: now[0])
    assert waiting.stats.waiting_s == 0.0
    async with waiting:
        first = asyncio.create_task(waiting.put(batch(0, LIMITS.commit_rows)))
        await accepted(waiting, LIMITS.commit_rows)
        now[0] += 2.0
        second = asyncio.create_task(waiting.put(batch(LIMITS.commit_rows, 1)))
        await accepted(waiting, LIMITS.commit_rows + 1)
        assert (
            waiting.stats.waiting_s == 2.0
        )  # of the batch that is being committed, not of the one behind it
        sink.open.set()
        await first
        now[0] += 1.0
        await second
    assert waiting.stats.waiting_s == 0.0
