"""Asks workers how they are: news of theirs goes into the journal, and one that stays silent has to go.

It must not know tasks or lives; the coordinator decides what the loss of a worker means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from orchestrator.execution.journal import Journal
from orchestrator.execution.pool import WorkerGone, WorkerPool
from orchestrator.execution.progress import Tally
from orchestrator.store import StoreUnavailable

HEALTH_TIMEOUT_S = 10.0
SILENCES_BEFORE_RESTART = 3
LAST_WORDS_S = 2.0


class Watchdog:
    """Knows how often in a row each worker has not answered."""

    def __init__(self, pool: WorkerPool, tally: Tally, journal: Journal) -> None:
        self._pool = pool
        self._tally = tally
        self._journal = journal
        self._silences: Counter[int] = Counter()

    async def check(self, worker: int) -> str | None:
        """Why a worker has to be started again: it has been silent too often; None: it need not be."""
        try:
            await self._ask(worker, HEALTH_TIMEOUT_S)
        except WorkerGone as error:
            self._silences[worker] += 1
            return str(error) if self._silences[worker] >= SILENCES_BEFORE_RESTART else None
        return None

    def forget(self, worker: int) -> None:
        """A worker was lost; whoever comes in its place is another."""
        self._silences.pop(worker, None)
        self._tally.lose(worker)

    async def last_words(self, workers: Sequence[int]) -> None:
        """Keep what workers have seen since they were last asked; a run that ends does not wait long for it."""
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(LAST_WORDS_S):
                for worker in workers:
                    with contextlib.suppress(WorkerGone):
                        await self._ask(worker, LAST_WORDS_S)
                await self._journal.flush()

    async def _ask(self, worker: int, timeout_s: float) -> None:
        health = await self._pool.health(worker, timeout_s)
        self._silences.pop(worker, None)
        self._tally.health[worker] = health
        self._journal.keep(health.events)
