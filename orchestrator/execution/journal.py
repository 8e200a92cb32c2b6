"""What happens in one run, told to whom it concerns: a line on the screen, an object in the log, a row in `events`.

It must not know workers or tasks: it is told in words. Rows are kept until `flush`, so that telling never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from orchestrator.execution.progress import Reporter
from orchestrator.store.patience import patiently
from workers.types import Event

logger = logging.getLogger(__name__)


class EventSink(Protocol):
    """Where events stay; the store."""

    async def add_events(
        self, sweep_id: int, run_id: int | None, events: Sequence[Event], at: float | None = None
    ) -> None:
        """Keep events of a run."""


class Journal:
    """The journal of one run."""

    def __init__(self, reporter: Reporter, sink: EventSink, sweep_id: int, run_id: int) -> None:
        self._reporter = reporter
        self._sink = sink
        self._sweep_id = sweep_id
        self._run_id = run_id
        self._pending: list[Event] = []

    def note(self, message: str, event: str = "note", **details: object) -> None:
        """Say one thing on the screen and in the log."""
        self._reporter.note(message)
        self.log(message, event, **details)

    def log(self, message: str, event: str, **details: object) -> None:
        """Say one thing in the log only."""
        logger.info(message, extra={"event": event, "run_id": self._run_id, **details})

    def tell(self, message: str, kind: str, subject: str) -> None:
        """Say one thing on the screen and in the log, and keep it as an event."""
        self.note(message, kind, subject=subject)
        self._pending.append(Event(kind, subject, message))

    def keep(self, events: Sequence[Event]) -> None:
        """Log and keep what workers report; it is too much for the screen."""
        for event in events:
            self.log(event.detail, event.kind, subject=event.subject)
        self._pending += events

    async def record(self, events: Sequence[Event]) -> None:
        """Log and store what others report, now."""
        self.keep(events)
        await self.flush()

    async def flush(self) -> None:
        """Store what is kept, waiting for a database that is away."""
        events = tuple(self._pending)
        if events:
            await patiently(lambda: self._sink.add_events(self._sweep_id, self._run_id, events), self.note)
            del self._pending[: len(events)]
