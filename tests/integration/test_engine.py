"""One engine and its server: what dies with what, what is started again, and what is said of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.chaos.processes import Traces
from tests.engine_world import TINY, marked, servers, tiny, until
from tests.sweep_world import ROOT
from workers.engines import Engine, EngineReport, EngineSettings, Phase
from workers.types import Event


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Traces]:
    with marked(monkeypatch, tmp_path) as found:
        yield found


def is_written(log: str) -> bool:
    """Does the log hold what the server has said?"""
    return Path(log).exists() and "tiny server starts" in Path(log).read_text()


class Watched:
    """An engine that runs, and all the events it has told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: list[Event] = []

    def report(self) -> EngineReport:
        report = self.engine.report()
        self.events += report.events
        return report

    def kinds(self) -> list[str]:
        """What has happened, but for passing ailments of a machine that is busy."""
        self.report()
        kinds = [event.kind.removeprefix("engine_") for event in self.events]
        return [kind for kind in kinds if kind not in ("ailing", "recovered")]

    async def up(self, times: int = 1) -> EngineReport:
        """How it is when it has come up so many times."""
        await until(lambda: self.kinds().count("ready") >= times, f"it was up {times} times: {self.events}")
        return self.report()


@asynccontextmanager
async def running(settings: EngineSettings) -> AsyncIterator[Watched]:
    engine = Engine(settings, 0)
    task = asyncio.create_task(engine.run())
    try:
        yield Watched(engine)
    finally:
        engine.stop()
        await task


async def test_it_comes_up_serves_and_leaves_nothing_when_it_is_stopped(traces: Traces) -> None:
    async with running(tiny()) as watched:
        assert watched.report().url is None
        report = await watched.up()
        assert report.phase is Phase.UP
        assert report.url is not None
        assert report.pid == servers(traces, TINY)[0].pid
        assert os.getsid(report.pid) == report.pid != os.getsid(0)
        log = str(report.log)
        assert is_written(log)
    assert watched.kinds() == ["started", "ready", "stopped"]
    assert watched.report().phase is Phase.STOPPED
    assert not is_written(log)
    await until(lambda: not traces.left(), "nothing was left")


async def test_a_killed_server_is_replaced_at_another_address(traces: Traces) -> None:
    async with running(tiny()) as watched:
        first = await watched.up()
        os.kill(first.pid or 0, signal.SIGKILL)
        second = await watched.up(2)
        assert first.url != second.url
        assert len(servers(traces, TINY)) == 1
    assert watched.kinds() == ["started", "ready", "died", "started", "ready", "stopped"]
    assert "SIGKILL" in next(each.detail for each in watched.events if each.kind == "engine_died")


async def test_what_a_killed_server_leaves_behind_is_ended_even_in_a_session_of_its_own(
    traces: Traces,
) -> None:
    async with running(tiny("--child", max_restarts=0)) as watched:
        report = await watched.up()
        await until(lambda: bool(servers(traces, "sleep(600)")), "the child was there")
        os.kill(report.pid or 0, signal.SIGKILL)
        await until(lambda: watched.report().phase is Phase.FAILED, "it was given up")
        assert not servers(traces, "sleep(600)")


async def test_a_server_that_hangs_is_killed_and_replaced(traces: Traces) -> None:
    async with running(tiny(hang_timeout_s=1.0)) as watched:
        report = await watched.up()
        os.kill(report.pid or 0, signal.SIGSTOP)
        await watched.up(2)
        assert not psutil.pid_exists(report.pid or 0)
    assert watched.kinds()[2:4] == ["died", "started"]
    assert "unanswered for 1 s" in next(each.detail for each in watched.events if each.kind == "engine_died")


async def test_a_server_that_ignores_sigterm_is_killed_after_its_grace(traces: Traces) -> None:
    async with running(tiny("--deaf", stop_timeout_s=0.3)) as watched:
        await watched.up()
    assert "SIGKILL" in str(watched.report().error)
    assert not servers(traces, TINY)


async def test_a_server_that_is_never_well_is_given_up_with_the_end_of_its_log(traces: Traces) -> None:
    async with running(tiny("--sick", start_timeout_s=1.5, max_restarts=1)) as watched:
        await until(lambda: watched.report().phase is Phase.FAILED, "it was given up")
        report = watched.report()
    assert watched.kinds() == ["started", "died", "started", "failed"]
    assert "did not answer within 1.5 s" in str(report.error)
    assert report.log_tail == ("tiny server starts",) * 2
    assert report.url is None


async def test_a_program_that_is_not_there_is_named(traces: Traces) -> None:
    settings = EngineSettings("models.policy", ("no-such-server", "{port}"), max_restarts=0)
    async with running(settings) as watched:
        await until(lambda: watched.report().phase is Phase.FAILED, "it was given up")
    assert "no-such-server" in str(watched.report().error)


async def test_the_value_of_a_named_variable_is_in_no_report(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_API_KEY", "hunter2hunter2")
    script = "import os, sys; print('key', os.environ['TINY_API_KEY'], sys.argv[1]); sys.exit(3)"
    settings = EngineSettings(
        "models.policy", ("{python}", "-c", script, "{port}"), environment=("TINY_API_KEY",), max_restarts=0
    )
    async with running(settings) as watched:
        await until(lambda: watched.report().phase is Phase.FAILED, "it was given up")
        report = watched.report()
    assert report.log_tail[-1].startswith("key *** ")
    assert "exit status 3" in str(report.error)


HOLDER = """
import asyncio, os
from workers.engines import Engine, EngineSettings

async def main():
    settings = EngineSettings("e", ("{python}", os.environ["TINY"], "{port}", "--child"), backoff_base_s=0.05)
    engine = Engine(settings, 0)
    task = asyncio.create_task(engine.run())
    while (report := engine.report()).url is None:
        await asyncio.sleep(0.05)
    print(report.pid, flush=True)
    await task

asyncio.run(main())
"""


async def holder() -> tuple[asyncio.subprocess.Process, int]:
    """A process that holds an engine, and the process of the engine's server."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TINY": TINY},
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


@pytest.mark.parametrize("victims", [("holder",), ("guard",), ("guard", "holder")])
async def test_a_server_dies_with_its_holder_and_with_its_guard(
    traces: Traces, victims: tuple[str, ...]
) -> None:
    process, pid = await holder()
    guard = psutil.Process(pid).parent()
    assert guard is not None
    assert guard.parent() != psutil.Process(process.pid)  # Ray would kill a child of its worker
    for victim in victims:
        os.kill(process.pid if victim == "holder" else guard.pid, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(pid), "the server was gone")
    if victims == ("guard",):
        await until(lambda: len(servers(traces, TINY)) == 1, "another server was there")
        process.kill()
    await process.communicate()
    if "guard" not in victims:
        await until(lambda: not traces.left(), "nothing was left")
