"""How hard an endpoint may be driven: pure state machines; the caller brings the time and does the waiting.

`AdaptiveLimit` follows inspect_ai's adaptive concurrency: slow start, then small steps, cuts only on 429. A
vLLM server queues and never answers 429: there the ceiling of the sweep governs.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

SATURATED = 0.8
CUT_FACTOR = 0.8
GROWTH = 0.05
START = 20
COOLDOWN_S = 15.0
HISTORY = 64
_ROUNDING = 1e-9  # of an amount: waiting exactly as long as told must be enough


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One move of a concurrency limit."""

    at: float
    before: int
    after: int
    reason: str


class ConcurrencyLimit(Protocol):
    """Requests allowed in flight, and what the replies teach about it."""

    @property
    def value(self) -> int:
        """Requests allowed in flight now."""

    def on_success(self, now: float, in_flight: int) -> LimitChange | None:
        """A first attempt succeeded while `in_flight` requests (itself included) were under way."""

    def on_rate_limited(self, now: float, retry_after_s: float | None) -> LimitChange | None:
        """The server answered 429."""

    def on_failure(self, now: float) -> None:
        """A request failed otherwise (5xx, connection, deadline)."""


class FixedCeiling:
    """The limit of a server that may be driven at full concurrency whatever it answers."""

    def __init__(self, ceiling: int) -> None:
        self.value = ceiling

    def on_success(self, now: float, in_flight: int) -> None:
        """Nothing to learn."""

    def on_rate_limited(self, now: float, retry_after_s: float | None) -> None:
        """Nothing to learn."""

    def on_failure(self, now: float) -> None:
        """Nothing to learn."""


class AdaptiveLimit:
    """Grow while replies are clean and the limit is used; cut once an episode of 429.

    A round is as many successes as the limit allows in flight. A round that was saturated and clean doubles
    the limit until the first cut and adds 5 % after it. During the cooldown of a cut neither successes nor
    further 429s count: they answer requests sent before it.
    """

    def __init__(self, ceiling: int, *, start: int = START, cooldown_s: float = COOLDOWN_S) -> None:
        self.value = min(start, ceiling)
        self.history: deque[LimitChange] = deque(maxlen=HISTORY)
        self._ceiling = ceiling
        self._cooldown_s = cooldown_s
        self._cooldown_until = -math.inf
        self._has_been_cut = False
        self._successes = 0
        self._peak = 0

    def on_success(self, now: float, in_flight: int) -> LimitChange | None:
        """Count towards the round; the change, if the round ends and the limit grows."""
        if now < self._cooldown_until:
            return None
        self._successes += 1
        self._peak = max(self._peak, in_flight)
        if self._successes < self.value:
            return None
        is_saturated = self._peak >= SATURATED * self.value
        self._begin_round()
        return self._move(now, self._grown(), "clean round") if is_saturated else None

    def on_rate_limited(self, now: float, retry_after_s: float | None) -> LimitChange | None:
        """Cut, unless the cooldown of a cut still runs; `Retry-After` extends the cooldown."""
        is_new_episode = now >= self._cooldown_until
        pause_s = max(self._cooldown_s if is_new_episode else 0.0, retry_after_s or 0.0)
        self._cooldown_until = max(self._cooldown_until, now + pause_s)
        if not is_new_episode:
            return None
        self._has_been_cut = True
        self._begin_round()
        return self._move(now, max(1, math.floor(self.value * CUT_FACTOR)), "429")

    def on_failure(self, now: float) -> None:
        """Begin the round again: no growth on an ailing server, but no cut either."""
        self._begin_round()

    def _grown(self) -> int:
        step = max(1, round(self.value * GROWTH)) if self._has_been_cut else self.value
        return min(self._ceiling, self.value + step)

    def _begin_round(self) -> None:
        self._successes = 0
        self._peak = 0

    def _move(self, now: float, after: int, reason: str) -> LimitChange | None:
        if after == self.value:
            return None
        change = LimitChange(now, self.value, after, reason)
        self.value = after
        self.history.append(change)
        return change


class TokenBucket:
    """Amount a minute. It holds one second's worth, so no minute sees much more than its due.

    An amount above the capacity goes when the bucket is full, and leaves a debt.
    """

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._per_s = per_minute / 60.0
        self._capacity = max(1.0, self._per_s)
        self._balance = self._capacity
        self._then = now

    def delay_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0: now."""
        self._refill(now)
        missing = min(amount, self._capacity) - self._balance
        return missing / self._per_s if missing > _ROUNDING else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take it, into debt if need be; a negative amount gives back."""
        self._refill(now)
        self._balance = min(self._capacity, self._balance - amount)

    def _refill(self, now: float) -> None:
        self._balance = min(self._capacity, self._balance + max(0.0, now - self._then) * self._per_s)
        self._then = now


class RateLimit:
    """Requests and tokens a minute; tokens are estimated before a request and settled after it."""

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, *, now: float
    ) -> None:
        self._requests = TokenBucket(requests_per_minute, now=now) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute, now=now) if tokens_per_minute else None

    def delay_s(self, tokens: int, now: float) -> float:
        """Seconds until a request of about `tokens` tokens may be sent; 0: now."""
        by_requests = self._requests.delay_s(1.0, now) if self._requests else 0.0
        by_tokens = self._tokens.delay_s(tokens, now) if self._tokens else 0.0
        return max(by_requests, by_tokens)

    def take(self, tokens: int, now: float) -> None:
        """Charge a request that is being sent."""
        if self._requests:
            self._requests.take(1.0, now)
        if self._tokens:
            self._tokens.take(tokens, now)

    def settle(self, estimated: int, used: int, now: float) -> None:
        """Replace the estimate by what was used."""
        if self._tokens:
            self._tokens.take(used - estimated, now)
