"""When a request that takes long is worth sending again, to another replica: within a budget, and only then. Pure.

Dean and Barroso, "The Tail at Scale" (2013): a copy of the slowest few requests costs little and cuts the tail. Here
a copy is the same draw, since the seed travels with it; whichever comes first is taken, and the other is given up.
"""

from __future__ import annotations

from collections import deque

REMEMBERED = 256
ENOUGH = 32
"""Replies seen before anything is called slow."""
QUANTILE = 0.95
FACTOR = 1.5
BURST = 4.0


class Hedging:
    """Knows how long requests take, and how many copies may still be sent.

    `share`: copies allowed, as a share of the requests; 0: never.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._balance = min(1.0, BURST * share)

    def on_request(self) -> None:
        """Credit a request."""
        self._balance = min(BURST, self._balance + self._share)

    def on_success(self, latency_s: float) -> None:
        """Learn how long a request took that was answered first."""
        if self._share:
            self._latencies.append(latency_s)

    def patience_s(self) -> float | None:
        """How long to wait before a copy is considered; None: it is not."""
        if not self._share or len(self._latencies) < ENOUGH:
            return None
        ordered = sorted(self._latencies)
        return FACTOR * ordered[int(QUANTILE * len(ordered))]

    def take(self) -> bool:
        """Take one copy from the budget, if it has one."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def give_back(self) -> None:
        """The copy was not sent after all."""
        self._balance += 1.0
