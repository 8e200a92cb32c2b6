"""An engine: one server after the other on this machine, as `watch` says, and where requests for it go.

It runs in the process of whoever holds it (a Ray actor, or the run itself), and its server dies with that process.
Values of secret variables never leave it: not in a report, not in an event, not in the end of a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from workers.engines.records import SERVING, EngineReport, EngineSettings, Phase, fill
from workers.engines.server import CommandFailed, Server
from workers.engines.watch import Watch
from workers.errors import EndpointError
from workers.http import exchange, open_session, redact, shorten
from workers.types import Event

ANSWER_TIMEOUT_S = 5.0
ANSWER_BYTES = 1 << 20
OK = 200
SERVER_ERROR = 500
MAX_EVENTS = 64
TAIL_LINES = 40
TAIL_BYTES = 1 << 14
LOG_BYTES = 1 << 26
"""Beyond it a log begins anew: a server may talk for weeks."""
_SECRET = re.compile(r"(?i)(key|token|secret|credential)s?(_|$)|passw|database_url")


class Engine:
    """Keeps one server alive. `run` does it, `stop` ends it, `report` says how it is."""

    def __init__(
        self,
        settings: EngineSettings,
        number: int,
        *,
        host: str = "127.0.0.1",
        variables: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`host` is the address it listens on; `variables` are added to its environment."""
        self._settings = settings
        self._subject = f"{settings.name}/{number}"
        self._host = host
        self._environment = {**environment_for(settings, os.environ), **(variables or {})}
        self._clock = clock
        self._watch = Watch(settings)
        self._stopping = asyncio.Event()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._log: Path | None = None
        self._url: str | None = None
        self._pid: int | None = None
        self._error: str | None = None

    async def run(self) -> None:
        """Keep a server alive until `stop`, or until too many have died; nothing of it is left afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="ttc-engine-"))
        self._log = folder / "server.log"
        async with open_session() as session:
            while not self._stopping.is_set():
                await self._live(session, self._log)
                if self._stopping.is_set() or not await self._back_off():
                    break
        if self._watch.phase is not Phase.FAILED:
            self._watch.on_stop()
            self._record("engine_stopped", self._error or "it had not been started")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def stop(self) -> None:
        """Have `run` end its server and return."""
        self._stopping.set()

    def report(self) -> EngineReport:
        """How it is; events are told once."""
        events = tuple(self._events)
        self._events.clear()
        is_failed = self._watch.phase is Phase.FAILED
        return EngineReport(
            phase=self._watch.phase,
            url=self._url if self._watch.phase in SERVING else None,
            pid=self._pid,
            events=events,
            error=self._error,
            log=str(self._log) if self._log else None,
            log_tail=self._tail() if is_failed else (),
        )

    async def _live(self, session: aiohttp.ClientSession, log: Path) -> None:
        """One life of a server, from its start to its end."""
        address = f"{self._host}:{_free_port(self._host)}"
        self._watch.on_start(self._clock())
        try:
            server = await Server.start(
                self._command(address),
                environment=self._environment,
                log=log,
                grace_s=self._settings.stop_timeout_s,
            )
        except CommandFailed as error:
            self._error = self._clean(str(error))
            return
        self._pid = server.pid
        self._record("engine_started", f"process {server.pid} at {address}, log in {log}")
        end = asyncio.ensure_future(server.ended())
        try:
            reason = await self._attend(server, end, session, address)
            how = await end
            self._error = f"{reason}; {how}" if reason else how
        finally:
            end.cancel()
            server.close()
            self._pid = self._url = None

    async def _attend(
        self, server: Server, end: asyncio.Future[str], session: aiohttp.ClientSession, address: str
    ) -> str | None:
        """Look at the server until it ends or is to end; why it was ended, None if it was not our doing."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        waits: set[asyncio.Future[Any]] = {end, stopping}
        try:
            while not end.done() and not stopping.done():
                await self._look(session, address)
                reason = self._watch.overdue(self._clock())
                if reason is not None:
                    server.kill()
                    return reason
                pause_s = self._watch.poll_s(self._clock())
                await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if end.done():
            return None
        server.stop()
        return "it was told to stop"

    async def _look(self, session: aiohttp.ClientSession, address: str) -> None:
        """Ask the server how it is; the first good answer wants its list of models to be there too."""
        patience_s = min(ANSWER_TIMEOUT_S, self._settings.hang_timeout_s)
        health = f"http://{address}{self._settings.health}"
        is_well = await _answers(session, health, patience_s, below=OK + 1)
        if is_well and self._watch.phase is Phase.STARTING:
            is_well = await _answers(session, f"http://{address}/v1/models", patience_s, below=SERVER_ERROR)
        if not is_well:
            if self._watch.on_silence():
                self._record("engine_ailing", "its health is not answered as it should be")
            return
        was_ailing = self._watch.phase is Phase.AILING
        if self._watch.on_answer(self._clock()):
            self._url = f"http://{address}/v1"
            self._record("engine_ready", f"{self._url}, {self._watch.start_took_s():.0f} s after its start")
        elif was_ailing:
            self._record("engine_recovered", "its health is answered again")
        self._trim_log()

    async def _back_off(self) -> bool:
        """Wait for the next start; False if there is none."""
        pause_s = self._watch.on_end(self._clock())
        if pause_s is None:
            self._record("engine_failed", f"{self._error}; that was death {self._watch.deaths} in a row")
            return False
        self._record("engine_died", f"{self._error}; another is started in {pause_s:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        return True

    def _command(self, address: str) -> tuple[str, ...]:
        host, _, port = address.rpartition(":")
        return fill(self._settings.command, {"host": host, "port": port, "python": sys.executable})

    def _record(self, kind: str, detail: str) -> None:
        self._events.append(Event(kind, self._subject, shorten(self._clean(detail))))

    def _tail(self) -> tuple[str, ...]:
        """The last lines of the log, without empty ones and without secrets."""
        if self._log is None or not self._log.exists():
            return ()
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return tuple(self._clean(line) for line in lines if line.strip())[-TAIL_LINES:]

    def _trim_log(self) -> None:
        """Servers append, so a file that is cut simply goes on from its new end."""
        if self._log is not None and self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            os.truncate(self._log, 0)

    def _clean(self, text: str) -> str:
        for name in self._settings.environment:
            text = redact(text, self._environment.get(name))
        return text


def environment_for(settings: EngineSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a server inherits: everything but what looks like a secret, and that too where it is named."""
    return {
        name: value
        for name, value in inherited.items()
        if name in settings.environment or not _SECRET.search(name)
    }


async def _answers(session: aiohttp.ClientSession, url: str, patience_s: float, *, below: int) -> bool:
    """Is there a reply with a status of at least 200 and below the given one?"""
    try:
        reply = await exchange(session, "GET", url, deadline_s=patience_s, max_bytes=ANSWER_BYTES)
    except EndpointError:
        return False
    return OK <= reply.status < below


def _free_port(host: str) -> int:
    """A port that nobody listens on now; should another take it first, the server dies and the next one asks again."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port
