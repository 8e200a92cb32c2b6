"""The replicas of one model: which serves the next request, which are out, and when to look again. Pure.

Ejection is a circuit breaker a replica: out after consecutive failures, back after a probe, longer and longer
probations. A request keeps to the replica that has the prefix of its problem in cache, unless that one is
crowded, or says that requests wait there while others say that none do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.http import public_url
from workers.load import Load

EJECT_AFTER = 3
CROWDED = 1.25
TRIAL_IN_FLIGHT = 8
UNSEEN = 8
UNSEEN_SHARE = 4
"""A report of no queue is good for so many further requests, and for a quarter of those in flight: at one that has
room all others would come too."""
PROBATION_BASE_S = 1.0
PROBATION_CAP_S = 30.0
_MIX = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads consecutive problem numbers


@dataclass(slots=True, eq=False)
class Replica:
    """One server of the model, as seen from here."""

    url: str
    name: str
    """The URL as it may be shown."""
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    streak: int = 0
    """Failures since the last success."""
    ejections: int = 0
    """Ejections and failed probes since the last success."""
    epoch: int = 0
    """Counts ejections; a failure of a request sent in an earlier epoch is old news."""
    probe_at: float | None = None
    """When to look again; None while it is up."""
    is_probed: bool = False
    is_on_trial: bool = False
    """It answered a probe, but no request yet: some servers list their models while the engine hangs."""
    load: Load | None = None
    """Its own last account of its load; None: it gives none."""
    unseen: int = 0
    """Requests sent since then."""

    @property
    def is_up(self) -> bool:
        """May it be given requests."""
        return self.probe_at is None

    @property
    def has_room(self) -> bool:
        """May it be given one more request now."""
        return self.probe_at is None and not (self.is_on_trial and self.in_flight >= TRIAL_IN_FLIGHT)

    @property
    def waiting(self) -> float:
        """Requests that wait there by its own account; with nothing of ours in flight the account is too old."""
        return self.load.waiting if self.load is not None and self.in_flight else 0.0

    @property
    def is_calm(self) -> bool:
        """Nothing waits there, as far as is known."""
        is_fresh = self.load is None or self.unseen <= UNSEEN + self.in_flight // UNSEEN_SHARE
        return not self.waiting and is_fresh


class Replicas:
    """All replicas of one model. The caller reports what happened and when; nothing here waits or sends."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        eject_after: int = EJECT_AFTER,
        probation_base_s: float = PROBATION_BASE_S,
        probation_cap_s: float = PROBATION_CAP_S,
        most_in_flight: int | None = None,
    ) -> None:
        self.all = tuple(Replica(url.rstrip("/"), public_url(url.rstrip("/"))) for url in urls)
        self._leaving: list[Replica] = []
        if not self.all:
            raise ValueError("a model needs at least one replica")
        self._eject_after = eject_after
        self._probation_base_s = probation_base_s
        self._probation_cap_s = probation_cap_s
        self._most_in_flight = most_in_flight

    def update(self, urls: Sequence[str]) -> None:
        """Serve from these from now on: those that stay keep their state, those that go finish what they have."""
        known = {replica.url: replica for replica in self.all}
        kept = [url.rstrip("/") for url in urls]
        self.all = tuple(known.pop(url) if url in known else Replica(url, public_url(url)) for url in kept)
        for replica in known.values():
            replica.epoch += 1  # what becomes of its requests is old news
        self._leaving = [each for each in (*self._leaving, *known.values()) if each.in_flight]

    @property
    def leaving(self) -> tuple[Replica, ...]:
        """Replicas that get no more requests, and still have some."""
        return tuple(replica for replica in self._leaving if replica.in_flight)

    @property
    def is_everything_down(self) -> bool:
        """No replica may be given requests."""
        return not any(replica.is_up for replica in self.all)

    def pick(self, affinity: int | None, avoid: Replica | None = None) -> Replica | None:
        """Choose a replica, if possible not the one that failed this request; None: none has room.

        Without affinity the least loaded is chosen.
        """
        ready = [replica for replica in self.all if self._has_room(replica)]
        candidates = [replica for replica in ready if replica is not avoid] or ready
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        calm = [replica for replica in candidates if replica.is_calm]
        if affinity is not None:
            preferred = self.all[((affinity * _MIX) >> 32) % len(self.all)]
            mean = sum(replica.in_flight for replica in candidates) / len(candidates)
            if preferred in (calm or candidates) and preferred.in_flight <= CROWDED * mean + 1:
                return preferred
        return min(calm or candidates, key=lambda replica: (replica.waiting, replica.in_flight))

    def _has_room(self, replica: Replica) -> bool:
        is_full = self._most_in_flight is not None and replica.in_flight >= self._most_in_flight
        return replica.has_room and not is_full

    def begin(self, replica: Replica) -> int:
        """Count a request that is being sent; the epoch to report it with."""
        replica.in_flight += 1
        replica.requests += 1
        replica.unseen += 1
        return replica.epoch

    def end(self, replica: Replica) -> None:
        """Count a request that is over, however it ended."""
        replica.in_flight -= 1

    def on_load(self, replica: Replica, load: Load) -> None:
        """Believe what a replica says of itself, until its next word."""
        replica.load = load
        replica.unseen = 0

    def on_success(self, replica: Replica) -> bool:
        """The replica gave an answer; True if that brings it back."""
        replica.streak = 0
        replica.ejections = 0
        was_down = not replica.is_up
        replica.probe_at = None
        replica.is_on_trial = False
        return was_down

    def on_failure(self, replica: Replica, epoch: int, error: str, now: float) -> bool:
        """Record a failed connection, a 5xx or a missed deadline; True if that ejects the replica.

        A few failures are no sign of death where many are in flight: the streak must be an eighth of them.
        """
        replica.failures += 1
        replica.last_error = error
        if epoch != replica.epoch or not replica.is_up:
            return False
        replica.streak += 1
        if replica.streak < max(self._eject_after, replica.in_flight // 8):
            return False
        replica.epoch += 1
        self._postpone(replica, now)
        return True

    def due(self, now: float) -> Replica | None:
        """Return a replica whose probation is over and that nobody probes yet."""
        for replica in self.all:
            if replica.probe_at is not None and not replica.is_probed and replica.probe_at <= now:
                return replica
        return None

    def next_probe_at(self) -> float | None:
        """When the next probation ends; None if none runs (or its probe is under way)."""
        times = [r.probe_at for r in self.all if r.probe_at is not None and not r.is_probed]
        return min(times) if times else None

    def on_probe(self, replica: Replica, error: str | None, now: float) -> bool:
        """Record the end of a probe; True if the replica is back, which one more failure would undo."""
        replica.is_probed = False
        if replica.is_up:
            return False
        if error is not None:
            replica.last_error = error
            self._postpone(replica, now)
            return False
        replica.probe_at = None
        replica.is_on_trial = True
        replica.streak = self._eject_after - 1
        return True

    def _postpone(self, replica: Replica, now: float) -> None:
        wait_s = min(self._probation_cap_s, self._probation_base_s * 2.0 ** min(replica.ejections, 62))
        replica.ejections += 1
        replica.probe_at = now + wait_s
