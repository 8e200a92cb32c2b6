"""Watches a process and all it starts: CPU-seconds and resident memory by role, as a timeline.

It polls four times a second, which costs a percent of a core; what a process used after its last poll is not
seen.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

COORDINATOR, WORKER, RAY, HELPER = "coordinator", "worker", "ray", "helper"
OURS = (COORDINATOR, WORKER, HELPER)
"""Roles whose CPU is `ttc`'s own: the coordinator, its workers, its grader processes."""
POLL_S = 0.25
_RAY_NAMES = ("raylet", "gcs_server", "/ray/", "ray::", "ray-")


@dataclass(slots=True)
class Usage:
    """What was seen: CPU-seconds by role over time, and the largest resident memory of one process a role."""

    at: list[float] = field(default_factory=list)
    """Seconds since 1970-01-01 UTC of each poll."""
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    """By role: CPU-seconds of all its processes, dead ones included, at each poll."""
    peak_rss: dict[str, int] = field(default_factory=dict)

    def cpu_between(self, start: float, end: float, roles: tuple[str, ...] = OURS) -> float:
        """CPU-seconds of these roles in a span of time."""
        return sum(self._cpu_at(role, end) - self._cpu_at(role, start) for role in roles)

    def _cpu_at(self, role: str, moment: float) -> float:
        values = self.cpu_s.get(role)
        if not values:
            return 0.0
        after = min(bisect_left(self.at, moment), len(values) - 1)
        before = max(after - 1, 0)
        span = self.at[after] - self.at[before]
        share = min(1.0, max(0.0, (moment - self.at[before]) / span)) if span > 0 else 1.0
        return values[before] + share * (values[after] - values[before])


class Watch:
    """Polls the process tree below `pid` on a thread of its own, inside a `with` block."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._roles: dict[int, str] = {}
        self._cpu: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="watch")
        self.usage = Usage()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._is_over.wait(POLL_S):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                self._look_at(process)
            self._note()

    def _look_at(self, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                cpu, memory = process.cpu_times(), process.memory_info().rss
                role = self._role(process)
        except psutil.Error:
            return
        self._cpu[process.pid] = cpu.user + cpu.system
        self.usage.peak_rss[role] = max(memory, self.usage.peak_rss.get(role, 0))

    def _note(self) -> None:
        totals: defaultdict[str, float] = defaultdict(float)
        for pid, cpu in self._cpu.items():
            totals[self._roles[pid]] += cpu
        polls = len(self.usage.at)
        self.usage.at.append(time.time())
        for role, total in totals.items():
            self.usage.cpu_s.setdefault(role, [0.0] * polls).append(total)

    def _role(self, process: psutil.Process) -> str:
        """Role of a process, looked up again while Ray may still rename it."""
        known = self._roles.get(process.pid)
        if known in (COORDINATOR, WORKER):
            return known
        self._roles[process.pid] = role = self._role_now(process)
        return role

    def _role_now(self, process: psutil.Process) -> str:
        if process.pid == self._root.pid:
            return COORDINATOR
        line = " ".join(process.cmdline())
        if line.startswith("ray::WorkerActor"):
            return WORKER
        return RAY if any(name in line for name in _RAY_NAMES) else HELPER
