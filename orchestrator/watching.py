"""What a command opens so that a run can be watched from outside: its log file, and its metrics for Prometheus."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from orchestrator.errors import is_secret_field
from orchestrator.execution.metrics.observation import Board
from orchestrator.execution.metrics.server import MetricsServer
from orchestrator.run_log import run_log
from orchestrator.sweep import RunOptions

SHORTEST_SECRET = 8
"""Shorter values would be found in words that are none."""


@asynccontextmanager
async def observed(
    sweep: str, database: str, options: RunOptions, note: Callable[[str], None]
) -> AsyncIterator[Board | None]:
    """Log and metrics as the options want them, for as long as the context; the board shows a run, if one is wanted.

    Raises UsageError, before anything is written, if the file or the port cannot be had.
    """
    with run_log(options.log_file, sweep, secrets_of(database, os.environ)):
        if options.metrics is None:
            yield None
            return
        async with MetricsServer(options.metrics) as server:
            note(f"metrics at {server.url}")
            yield server


def secrets_of(database: str, environ: Mapping[str, str]) -> Collection[str]:
    """What must never be written: the database's password, and what variables hold whose names say so."""
    password = unquote(urlsplit(database).password or "")
    found = {value for name, value in environ.items() if is_secret_field(name)}
    return {each for each in {password, *found} if len(each) >= SHORTEST_SECRET}
