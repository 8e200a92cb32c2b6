"""A server of fixed capacity, as arithmetic: which slot takes a call, when it ends, how busy the slots were.

Pure: the caller says what time it is. Because service times are known when a call arrives and the queue is
first come first served, start and end of a call are known at once. The schedule is kept by this clock, not by
the machine's: where the server is late in sending a reply, the slot was free all the same, and whoever had a
call waiting used it.
"""

from __future__ import annotations

import heapq


class Slots:
    """`count` slots that serve one call each; what does not find a free one waits in line."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("a server needs at least one slot")
        self.count = count
        self._free_at = [float("-inf")] * count
        self.reset()

    def reset(self) -> None:
        """Forget what was measured; calls under way keep their slots."""
        self._spans: list[tuple[float, float]] = []
        self.busy_s = 0.0
        self.waited_s = 0.0
        self.first_start: float | None = None
        self.last_end: float | None = None

    def serve(self, now: float, service_s: float) -> float:
        """Take a call that arrives now and needs `service_s` of a slot; when it will have been served."""
        start = max(now, self._free_at[0])
        end = start + service_s
        heapq.heapreplace(self._free_at, end)
        self._spans.append((start, end))
        self.busy_s += service_s
        self.waited_s += start - now
        if self.first_start is None or start < self.first_start:
            self.first_start = start
        if self.last_end is None or end > self.last_end:
            self.last_end = end
        return end

    @property
    def calls(self) -> int:
        """Calls taken since the last reset."""
        return len(self._spans)

    @property
    def utilisation(self) -> float | None:
        """Busy slot-seconds over all slot-seconds from first start to last end; None before any call."""
        if self.first_start is None or self.last_end is None or self.last_end <= self.first_start:
            return None
        return self.busy_s / (self.count * (self.last_end - self.first_start))

    def steady_utilisation(self, margin: float = 0.1) -> float | None:
        """The same without this share of the time at the beginning and at the end: neither start nor tail."""
        if self.first_start is None or self.last_end is None or self.last_end <= self.first_start:
            return None
        cut_s = margin * (self.last_end - self.first_start)
        low, high = self.first_start + cut_s, self.last_end - cut_s
        busy_s = sum(max(0.0, min(end, high) - max(start, low)) for start, end in self._spans)
        return busy_s / (self.count * (high - low))


def lockstep_utilisation(service_s: list[float], slots: int) -> float:
    """Utilisation if a wave of `slots` calls starts only when the slowest one of the last wave has ended."""
    waves = [service_s[start : start + slots] for start in range(0, len(service_s), slots)]
    return sum(service_s) / (slots * sum(max(wave) for wave in waves))
