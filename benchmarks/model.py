"""One coordinator, its workers and the replicas that they keep busy, as a small discrete-event model. No clock, no I/O.

A replica has slots, each of which serves one call at a time. A worker sends a call the moment it has dealt with the
last reply, and deals with one reply at a time; so does the coordinator with what the workers hand on, and a worker that
is too far ahead of it waits (the backpressure of the real one). That is all: no network, no failures, no searches that
wait for each other. What saturates first, and at how many replicas, follows from a few measured costs.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

AHEAD = 64
"""Calls a worker may be ahead of the coordinator."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU-seconds of one core, a call."""

    worker_s: float
    coordinator_s: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is to be kept busy, and by how many."""

    replicas: int
    slots: int
    """Of a replica."""
    service_s: float
    """Mean time of a call in its slot; log-normal."""
    sigma: float
    workers: int
    queue: float = 1.25
    """Calls in flight, as a multiple of the slots."""

    @property
    def demand(self) -> float:
        """Calls a second that all slots can serve."""
        return self.replicas * self.slots / self.service_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """How busy everybody was."""

    utilisation: float
    """Of the slots."""
    coordinator: float
    """Of one core."""
    worker: float
    """Of one core each; mean."""

    @property
    def bottleneck(self) -> str:
        """Who is at the end of its strength."""
        if self.utilisation >= 0.95:
            return "replicas"
        return "coordinator" if self.coordinator >= self.worker else "workers"


def bound(cluster: Cluster, costs: Costs) -> float:
    """The most that can be kept busy, by counting: the slowest stage sets the rate of all."""
    rate = min(
        cluster.demand,
        cluster.workers / costs.worker_s if costs.worker_s else float("inf"),
        1 / costs.coordinator_s if costs.coordinator_s else float("inf"),
    )
    return rate / cluster.demand


class _Worker:
    """Deals with replies one after the other, never too far ahead of the coordinator."""

    def __init__(self, cost_s: float) -> None:
        self.busy_s = 0.0
        self._cost_s = cost_s
        self._free_at = 0.0
        self._unacknowledged: deque[float] = deque()

    def handle(self, now: float) -> float:
        """When a reply that is there now will have been dealt with."""
        start = max(now, self._free_at)
        if len(self._unacknowledged) >= AHEAD:
            start = max(start, self._unacknowledged.popleft())
        self._free_at = start + self._cost_s
        self.busy_s += self._cost_s
        return self._free_at

    def hand_on(self, done_at: float) -> None:
        """The coordinator will be done with it then."""
        self._unacknowledged.append(done_at)


def simulate(cluster: Cluster, costs: Costs, *, calls: int, seed: int = 0) -> Outcome:
    """Send so many calls; the first fifth of the time, until all is in flow, does not count."""
    times = _service_times(cluster, random.Random(seed))
    slots = [[0.0] * cluster.slots for _ in range(cluster.replicas)]
    workers = [_Worker(costs.worker_s) for _ in range(cluster.workers)]
    free_at, spans = 0.0, []
    replies: list[tuple[float, int, int]] = []

    def send(at: float, worker: int, replica: int) -> None:
        start = max(at, slots[replica][0])
        end = start + next(times)
        heapq.heapreplace(slots[replica], end)
        spans.append((start, end))
        heapq.heappush(replies, (end, worker, replica))

    for number in range(round(cluster.queue * cluster.slots) * cluster.replicas):
        send(0.0, number % cluster.workers, number % cluster.replicas)
    now = 0.0
    while len(spans) < calls:
        now, worker, replica = heapq.heappop(replies)
        handed_on = workers[worker].handle(now)
        free_at = max(free_at, handed_on) + costs.coordinator_s
        workers[worker].hand_on(free_at)
        send(handed_on, worker, replica)
    low, high = 0.2 * now, now
    busy_s = sum(max(0.0, min(end, high) - max(start, low)) for start, end in spans)
    handled = len(spans) - len(replies)
    return Outcome(
        utilisation=busy_s / (cluster.replicas * cluster.slots * (high - low)),
        coordinator=min(1.0, handled * costs.coordinator_s / now),
        worker=sum(each.busy_s for each in workers) / (cluster.workers * now),
    )


def _service_times(cluster: Cluster, rng: random.Random) -> Iterator[float]:
    """Log-normal times with the mean asked for."""
    mu = math.log(cluster.service_s) - cluster.sigma**2 / 2
    while True:
        yield rng.lognormvariate(mu, cluster.sigma) if cluster.sigma else cluster.service_s
