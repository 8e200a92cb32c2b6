"""How fast long work goes and when it ends, from how far it has come. Does no I/O and reads no clock."""

from __future__ import annotations


class Pace:
    """Follows works by name, each from the first time it is heard of."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}

    def rate(self, work: str, done: int, now_s: float) -> float | None:
        """Units a second since the work began; None until that can be told."""
        since_s, before = self._began.setdefault(work, (now_s, done))
        elapsed_s = now_s - since_s
        return (done - before) / elapsed_s if elapsed_s > 0 and done > before else None


def time_left_s(done: int, total: int, rate: float | None) -> float | None:
    """Seconds to the end at that rate; None while it is not known."""
    return None if rate is None else max(0, total - done) / rate
