"""What tests of engines share: commands of tiny servers, and who is alive of what they started."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.chaos import processes
from tests.chaos.processes import MARK, Traces
from workers.engines import EngineSettings

TINY = str(Path(__file__).with_name("tiny_server.py"))
PATIENCE_S = 60.0
until = partial(processes.until, patience_s=PATIENCE_S)


def tiny(*options: str, name: str = "models.policy", **settings: float) -> EngineSettings:
    """A tiny server as an engine, with short times."""
    times = {"hang_timeout_s": 20.0, "stop_timeout_s": 5.0, "backoff_base_s": 0.05, "poll_s": 0.1, **settings}
    return EngineSettings(name, ("{python}", TINY, "{port}", *options), **times)  # type: ignore[arg-type]


@contextmanager
def marked(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[Traces]:
    """Processes that are started from here can be found, and nothing of them outlives the test; logs go to `folder`."""
    traces = Traces()
    patch.setattr(tempfile, "tempdir", str(folder))
    patch.setenv(MARK, traces.mark)
    yield traces
    traces.clear()


def servers(traces: Traces, word: str) -> list[psutil.Process]:
    """Living processes of this test with a word in their command line, guards aside; the oldest first."""
    found = []
    for each in traces.left():
        try:
            line = each.cmdline()
            if word in " ".join(line) and not any(part.endswith("guard.py") for part in line):
                found.append(each)
        except psutil.Error:
            continue
    return sorted(found, key=lambda each: each.create_time())
