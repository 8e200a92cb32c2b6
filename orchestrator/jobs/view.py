"""How jobs and their logs look: tables and a bar for people, one JSON object a line for machines.

It must not know where a log comes from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.execution.progress import PROGRESS_LINE, duration
from orchestrator.execution.ray_jobs import Job
from orchestrator.terminal import printable


class View(Protocol):
    """Where a watched job is shown."""

    def job(self, job: Job) -> None:
        """Say how the job is."""

    def line(self, text: str) -> None:
        """Show a line of its log."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


class PersonView:
    """Lines as they come; on a terminal progress stays in one place, as a bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def job(self, job: Job) -> None:
        """Write a line."""
        self._write(f"{job.id}: {_state(job)}")

    def line(self, text: str) -> None:
        """Write a line, or redraw the bar."""
        progress = PROGRESS_LINE.match(text)
        if progress is None or not self._console.is_terminal:
            self._write(text)
            return
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        bar = ProgressBar(total=max(1, int(progress["wanted"])), completed=int(progress["stored"]))
        self._live.update(Group(Text(printable(text)), bar))

    def close(self) -> None:
        """Remove the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _write(self, text: str) -> None:
        self._console.print(Text(printable(text.expandtabs())), soft_wrap=True)


class JsonView:
    """One JSON object a line."""

    def job(self, job: Job) -> None:
        """Write an object with the state of the job."""
        self._write(as_plain(job))

    def line(self, text: str) -> None:
        """Write an object with a line of the log."""
        self._write({"log": text})

    def close(self) -> None:
        """Nothing to restore."""

    def _write(self, record: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


def as_plain(job: Job) -> dict[str, Any]:
    """A job as plain values; what Ray says of a failure repeats its log, which is shown elsewhere."""
    plain = asdict(job)
    del plain["message"]
    return plain


def _state(job: Job) -> str:
    """What Ray says, and the exit code where it says more: a run that was cancelled has failed in Ray's eyes."""
    return f"{job.state} ({job.exit_code})" if job.exit_code else str(job.state)


def jobs_table(jobs: Sequence[Job]) -> Table:
    """Jobs, a line each; the name of a job begins with that of its sweep."""
    table = Table(box=None, header_style="bold")
    table.add_column("job", overflow="fold")  # is typed again: it may fold, but nothing of it is left out
    for heading in ("state", "started (UTC)", "ran for"):
        table.add_column(heading, no_wrap=True)
    for job in jobs:
        started = datetime.fromtimestamp(job.started_s, UTC).strftime("%m-%d %H:%M")
        ran = "-" if job.ended_s is None else duration(job.ended_s - job.started_s)
        table.add_row(Text(job.id), _state(job), started, ran)
    return table
