"""The gate before a model: one queue where requests wait for a slot, the rate and a replica that is up.

A slot given back goes to the head of the queue within the same turn of the event loop; nobody polls. It
decides nothing itself: limit, rates and replicas are the pure machines of `limiter` and `endpoints`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from workers.endpoints import Replica, Replicas
from workers.errors import Draining
from workers.limiter import ConcurrencyLimit, RateLimit


@dataclass(frozen=True, slots=True)
class Want:
    """What a request asks of the gate."""

    affinity: int | None
    """None: any replica will do."""
    tokens: int
    """Estimate of the tokens it may use."""
    avoid: Replica | None = None
    """Replica that has just failed it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Permission to send one request to one replica, or to probe it (a probe holds no slot)."""

    replica: Replica
    epoch: int = 0
    is_probe: bool = False


class Admission:
    """First come, first served; a retry goes before those that have not started."""

    def __init__(
        self, limit: ConcurrencyLimit, rates: RateLimit, replicas: Replicas, clock: Callable[[], float]
    ) -> None:
        self.in_flight = 0
        self._limit = limit
        self._rates = rates
        self._replicas = replicas
        self._clock = clock
        self._waiting: deque[tuple[Want, asyncio.Future[Lease]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_draining = False

    async def enter(self, want: Want, *, is_retry: bool = False) -> Lease:
        """Wait for a lease. The caller gives it back with `leave`, or reports the probe and calls `wake`.

        Raises `Draining` once `drain` was called: what has a lease goes on, nobody else gets one.
        """
        if self._is_draining:
            raise Draining
        if not self._waiting:
            lease = self._grant(want)
            if lease is not None:
                return lease
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        if is_retry:
            self._waiting.appendleft((want, future))
        else:
            self._waiting.append((want, future))
        self.wake()
        try:
            return await future
        except asyncio.CancelledError:
            self._forgo(future)
            raise

    @property
    def waiting(self) -> int:
        """Requests that wait for a lease."""
        return len(self._waiting)

    def enter_now(self, want: Want) -> Lease | None:
        """A lease for what would not wait, a copy of a request: only if nobody waits, and not where it is avoided."""
        if self._is_draining or self._waiting:
            return None
        if self._replicas.pick(want.affinity, want.avoid) in (None, want.avoid):
            return None
        lease = self._grant(want)
        if lease is not None and lease.is_probe:
            self.forgo_probe(lease.replica)
            return None
        return lease

    def leave(self, lease: Lease) -> None:
        """Give the slot back, to the head of the queue if there is one."""
        self.in_flight -= 1
        self._replicas.end(lease.replica)
        if self._waiting:
            self.wake()

    def forgo_probe(self, replica: Replica) -> None:
        """Leave a probe that was not carried out to the next in the queue."""
        replica.is_probed = False
        self.wake()

    def wake(self) -> None:
        """Serve the queue as far as limit, rates and replicas allow."""
        self._disarm()
        while self._waiting:
            want, future = self._waiting[0]
            if not future.done():
                lease = self._grant(want)
                if lease is None:
                    return
                future.set_result(lease)
            self._waiting.popleft()

    def drain(self) -> None:
        """Give no more leases; whoever waits for one is told so."""
        self._is_draining = True
        self._disarm()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(Draining())
        self._waiting.clear()

    def close(self) -> None:
        """Drop the timer; whoever still waits is cancelled by its own owner."""
        self._disarm()

    def _grant(self, want: Want) -> Lease | None:
        now = self._clock()
        due = self._replicas.due(now)
        if due is not None:
            due.is_probed = True
            return Lease(due, is_probe=True)
        if self.in_flight >= self._limit.value:
            return None  # whoever leaves will wake us
        delay_s = self._rates.delay_s(want.tokens, now)
        if delay_s > 0.0:
            self._come_back(delay_s)
            return None
        replica = self._replicas.pick(want.affinity, want.avoid)
        if replica is None:
            probe_at = self._replicas.next_probe_at()
            if probe_at is not None:
                self._come_back(probe_at - now)
            return None
        self._rates.take(want.tokens, now)
        self.in_flight += 1
        return Lease(replica, self._replicas.begin(replica))

    def _come_back(self, delay_s: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.001), self.wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forgo(self, future: asyncio.Future[Lease]) -> None:
        """Hand on what was granted to a caller that was cancelled before it could use it."""
        if future.done() and not future.cancelled() and future.exception() is None:
            lease = future.result()
            if lease.is_probe:
                lease.replica.is_probed = False
            else:
                self.leave(lease)
        self.wake()
