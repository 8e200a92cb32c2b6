"""The process between a server and whoever wants it, so that nothing of the server outlives either of the two.

Model servers start processes of their own and do not watch over who started them: vLLM's engine goes on, with its
GPU, when its API server or the launcher is killed. So: this guard starts the command in a session of its own, adopts
whatever the command's processes leave behind, and ends them all when the command ends, or when its own standard input
does, since that is what remains of a holder that was killed.

Run by path, isolated (`python -I guard.py --log FILE --grace-s SECONDS -- COMMAND ...`), with nothing but the standard
library. It reads `stop` (SIGTERM, SIGKILL after the grace) or `kill` from standard input, and writes one JSON object a
line: `{"pid": N}` when the command runs, `{"failed": TEXT}` if it cannot, `{"ended": STATUS}` when all is over.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from types import FrameType

ORPHAN_GRACE_S = 2.0
"""Nobody waits for the replies of a server whose holder is gone, and its heir wants the GPU."""
KILL_PATIENCE_S = 10.0
"""A process that the kernel will not end cannot be waited for."""
PAUSE_S = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Guard:
    """One command, and all the processes that come of it."""

    def __init__(self, command: list[str], log: str, grace_s: float) -> None:
        self._command = command
        self._log = log
        self._grace_s = grace_s
        self._pid = 0
        self._status: int | None = None
        self._wake, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until the command has ended, by itself or because it had to."""
        try:
            self._start()
        except OSError as error:
            _say({"failed": str(error)})
            return
        _say({"pid": self._pid})
        grace_s = self._wait()
        if grace_s > 0:
            self._terminate(grace_s)
        self._kill()
        self._reap()
        _say({"ended": self._status})

    def _start(self) -> None:
        with open(self._log, "ab") as output:
            child = subprocess.Popen(  # noqa: S603 -- the user's own command, no shell
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._pid = child.pid
        child.returncode = 0  # it is reaped here, with all the others

    def _wait(self) -> float:
        """Wait for the end of the command or for word of the holder; the grace of what is still alive."""
        while True:
            ready, _, _ = select.select([0, self._wake], [], [])
            self._reap()
            if self._status is not None:
                return 0.0
            if 0 in ready:
                said = os.read(0, 64)
                return 0.0 if b"kill" in said else self._grace_s if said else ORPHAN_GRACE_S

    def _terminate(self, grace_s: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGTERM)
        self._await_silence(grace_s)

    def _kill(self) -> None:
        deadline = time.monotonic() + KILL_PATIENCE_S
        while time.monotonic() < deadline:
            family = list(self._family())
            if not family:
                return
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._await_silence(PAUSE_S)

    def _await_silence(self, timeout_s: float) -> None:
        """Return when nobody is left, or it took too long."""
        deadline = time.monotonic() + timeout_s
        while any(self._family()) and (left_s := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], min(PAUSE_S, left_s))
            self._reap()

    def _reap(self) -> None:
        """Take note of the dead, our own child and adopted ones."""
        while select.select([self._wake], [], [], 0)[0]:
            os.read(self._wake, 512)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    self._status = os.waitstatus_to_exitcode(found[1])

    def _family(self) -> Iterator[int]:
        """What is alive of the command: all our descendants, where the system tells; else its process group."""
        if sys.platform == "linux":
            yield from _descendants(os.getpid())
        elif self._has_group():
            yield -self._pid

    def _has_group(self) -> bool:
        try:
            os.killpg(self._pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _descendants(ancestor: int) -> Iterator[int]:
    """Processes below a process, zombies aside."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children[int(parent)].append(int(name))
    found = [ancestor]
    for pid in found:
        found += children[pid]
    yield from found[1:]


def _die_with_parent() -> None:
    """In the child: should even the guard be killed, the kernel ends its child."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _detach() -> None:
    """Be nobody's child: Ray kills the children of a worker that ends, and then nobody would end the server."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _say(news: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the holder is gone
        os.write(1, json.dumps(news).encode() + b"\n")


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler and not SIG_IGN, which the command would inherit."""


def main() -> int:
    """Parse the command line, and guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    _detach()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, _ignore)
    Guard(options.command, options.log, options.grace_s).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
