"""One life of a server: started behind its guard, ended through it. It must not know why either is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")


class CommandFailed(Exception):
    """The command cannot be run."""


class Server:
    """A server process. `start` makes one; `ended` says how it ended, whoever ended it."""

    def __init__(self, guard: asyncio.subprocess.Process, pid: int) -> None:
        self.pid = pid
        self._guard = guard

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str], log: Path, grace_s: float
    ) -> Server:
        """Start the command; raises CommandFailed if there is no such program."""
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(GUARD), "--log", str(log), "--grace-s", str(grace_s), "--", *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            # A session of its own: Ctrl-C in the terminal is for the run, which lets requests in flight finish.
            start_new_session=True,
        )
        try:
            news = await _news(guard)
        except BaseException:
            assert guard.stdin is not None
            guard.stdin.close()
            raise
        if "pid" not in news:
            await guard.communicate()
            raise CommandFailed(str(news.get("failed", "its guard did not start")))
        return cls(guard, int(news["pid"]))

    async def ended(self) -> str:
        """Wait for the end of the server and of all its processes; how it ended."""
        news = await _news(self._guard)
        self.close()
        await self._guard.communicate()  # to its end, so that nothing of it is left open
        if "ended" not in news:
            # The guard itself was killed; the kernel ended the server, and this ends what the server had started.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            return "its guard was killed"
        return _described(news["ended"])

    def stop(self) -> None:
        """Ask it to end, and have it killed if it does not within its grace."""
        self._tell(b"stop\n")

    def kill(self) -> None:
        """Have it killed, with all its processes."""
        self._tell(b"kill\n")

    def close(self) -> None:
        """Let go of it: the guard ends whatever is left."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def _tell(self, word: bytes) -> None:
        if self._guard.stdin is not None and not self._guard.stdin.is_closing():
            self._guard.stdin.write(word)


async def _news(guard: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line that a guard writes; empty if it is gone."""
    assert guard.stdout is not None
    line = await guard.stdout.readline()
    return dict(json.loads(line)) if line else {}


def _described(status: int | None) -> str:
    if status is None:
        return "it could not be ended"
    if status < 0:
        return f"it was killed by {signal.Signals(-status).name}"
    return f"it ended with exit status {status}"
