"""The writer: many producers, one transaction at a time, an acknowledgement for each batch after its commit.

A slow database makes `put` wait, and so slows whatever produces. What to commit when is decided in
`batching`; this module moves bytes and owns one background task, whose death is an error for every
caller. Must not know SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from orchestrator.store.batching import GroupQueue, Queued, WriterLimits, merged, weigh
from orchestrator.store.completion import completed
from orchestrator.store.errors import StoreUnavailable, WriterFailed
from orchestrator.store.records import WriteReceipt
from workers.types import FactBatch

__all__ = ["FactSink", "Writer", "WriterLimits", "WriterStats"]

logger = logging.getLogger(__name__)

_Pending: TypeAlias = "Queued[asyncio.Future[WriteReceipt]]"


class FactSink(Protocol):
    """Where batches go; the store."""

    async def write(
        self, batch: FactBatch, *, run_id: int, extractor_id: int, sequence: int | None = None
    ) -> WriteReceipt:
        """Commit a batch in one transaction; with the same `sequence` again, do it once."""


@dataclass(frozen=True, slots=True)
class WriterStats:
    """What a writer has done since it started."""

    commits: int
    rows: int
    samples: int
    retries: int
    refused: int
    """Batches that could not be stored by themselves."""
    held_rows: int
    lag_s: float
    """Time the oldest batch of the last commit took from `put` to acknowledgement."""
    busy_s: float
    """Time spent inside commits."""
    elapsed_s: float
    waiting_s: float
    """How long the oldest batch that is not committed yet has waited; 0: there is none."""

    @property
    def rows_per_s(self) -> float:
        """Rows committed a second of commit time."""
        return self.rows / self.busy_s if self.busy_s else 0.0


class Writer:
    """Commits batches in groups; `async with Writer(store, run_id=..., extractor_id=...) as writer`."""

    def __init__(
        self,
        sink: FactSink,
        *,
        run_id: int,
        extractor_id: int,
        limits: WriterLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._run_id = run_id
        self._extractor_id = extractor_id
        self._limits = limits or WriterLimits()
        self._clock = clock
        self._queue: GroupQueue[asyncio.Future[WriteReceipt]] = GroupQueue(self._limits)
        self._wake = asyncio.Event()
        self._room = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._death: WriterFailed | None = None
        self._sequence = 0
        self._started_s = clock()
        self._commits = self._rows = self._samples = self._retries = self._refused = 0
        self._lag_s = self._busy_s = 0.0
        self._group_at_s: float | None = None
        """When the oldest batch of the transaction under way came; None: there is no such transaction."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="store writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def stats(self) -> WriterStats:
        """What the writer has done so far."""
        return WriterStats(
            self._commits, self._rows, self._samples, self._retries, self._refused, self._queue.held_rows,
            self._lag_s, self._busy_s, self._clock() - self._started_s, self._waiting_s(),
        )  # fmt: skip

    def _waiting_s(self) -> float:
        since_s = self._queue.oldest_at_s if self._group_at_s is None else self._group_at_s
        return 0.0 if since_s is None else self._clock() - since_s

    async def put(self, batch: FactBatch) -> WriteReceipt:
        """Hand over a batch; returns once the transaction that holds it is committed.

        Raises:
            StoreError: this batch cannot be stored; others are not concerned.
            WriterFailed: the writer has stopped.
        """
        rows, size = weigh(batch)
        async with self._room:
            await self._room.wait_for(lambda: self._is_over or self._queue.has_room(rows, size))
            self._demand_life()
            item = Queued(batch, rows, size, self._clock(), asyncio.get_running_loop().create_future())
            self._queue.add(item)
        self._wake.set()
        receipt: WriteReceipt = await item.tag
        return receipt

    async def close(self) -> None:
        """Commit what was accepted, then stop. Cancelling the caller does not interrupt that."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await completed(self._task)

    @property
    def _is_over(self) -> bool:
        return self._closing or self._death is not None

    def _demand_life(self) -> None:
        if self._death is not None:
            raise self._death
        if self._closing or self._task is None:
            raise WriterFailed("the writer is closed")

    async def _run(self) -> None:
        try:
            while await self._wait_until_due():
                await self._commit_group(self._queue.take())
        except BaseException as error:
            self._death = (
                error if isinstance(error, WriterFailed) else WriterFailed(f"the writer died: {error!r}")
            )
            self._death.__cause__ = None if self._death is error else error
            self._fail(self._queue.take_all(), self._death)
            raise self._death from self._death.__cause__
        finally:
            async with self._room:
                self._room.notify_all()

    async def _wait_until_due(self) -> bool:
        """True once a group is due, False once there is nothing left and never will be."""
        while True:
            self._wake.clear()
            delay_s = self._queue.due_in_s(self._clock())
            if self._closing or delay_s == 0.0:
                return delay_s is not None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    async def _commit_group(self, group: Sequence[_Pending]) -> None:
        self._group_at_s = group[0].at_s
        try:
            await self._commit(group)
        except BaseException as error:
            self._fail(group, WriterFailed(f"the writer died: {error!r}"))
            raise
        finally:
            self._group_at_s = None
            async with self._room:
                self._queue.release(group)
                self._room.notify_all()

    async def _commit(self, group: Sequence[_Pending]) -> None:
        """Commit a group; if it cannot be stored, each of its batches alone, to find the guilty one."""
        try:
            receipt = await self._write_until_reachable(merged(item.batch for item in group))
        except WriterFailed:
            raise
        except Exception as error:
            if len(group) > 1:
                for item in group:
                    await self._commit([item])
                return
            logger.warning("a batch cannot be stored: %s", error, extra=self._said("batch_refused"))
            self._refused += 1
            self._fail(group, error)
        else:
            self._acknowledge(group, receipt)

    async def _write_until_reachable(self, batch: FactBatch) -> WriteReceipt:
        """Commit one transaction, waiting out a database that is locked, restarting or unreachable."""
        self._sequence += 1
        started_s = self._clock()
        failures = 0
        while True:
            try:
                receipt = await self._sink.write(
                    batch, run_id=self._run_id, extractor_id=self._extractor_id, sequence=self._sequence
                )
            except StoreUnavailable as error:
                failures += 1
                self._retries += 1
                if self._clock() - started_s > self._limits.give_up_s:
                    raise WriterFailed(f"the database stays unreachable: {error}") from error
                logger.warning(
                    "commit failed %d times in a row, trying again: %s", failures, error,
                    extra=self._said("commit_failed"),
                )  # fmt: skip
                await asyncio.sleep(self._limits.retry_delay_s(failures))
            else:
                self._busy_s += self._clock() - started_s
                return receipt

    def _said(self, event: str) -> dict[str, object]:
        return {"event": event, "run_id": self._run_id}

    def _acknowledge(self, group: Sequence[_Pending], receipt: WriteReceipt) -> None:
        self._commits += 1
        self._rows += sum(item.rows for item in group)
        self._samples += receipt.stored
        self._lag_s = self._clock() - group[0].at_s
        ended = set(receipt.ended)
        for item in group:
            keys = [(end.task_id, end.attempt) for end in item.batch.ends]
            own = WriteReceipt(
                len(item.batch.trajectories),
                tuple(key for key in keys if key in ended),
                tuple(key for key in keys if key not in ended),
            )
            if not item.tag.done():  # the producer may have been cancelled
                item.tag.set_result(own)

    @staticmethod
    def _fail(group: Sequence[_Pending], error: Exception) -> None:
        for item in group:
            if not item.tag.done():
                item.tag.set_exception(error)
