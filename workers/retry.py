"""Whether and when a failed request is sent again: pure policy, no clock and no I/O.

Sources: full jitter after the AWS architecture note "Exponential Backoff And Jitter"; retry budget after
Finagle's `RetryBudget` and the SRE book, chapter 21 (retries bounded by a share of the requests).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from workers.errors import EndpointError, RateLimited, Unreachable

MAX_RETRY_AFTER_S = 600.0
THROTTLED_ATTEMPTS_FACTOR = (
    5  # a 429 says "later", not "no": quotas run by the minute, so it may be asked more often
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after how long."""

    max_attempts: int
    base_s: float = 0.5
    cap_s: float = 30.0

    def delay_s(self, retry: int, error: EndpointError, rng: random.Random) -> float:
        """Seconds before retry number `retry` (from 0): full jitter, never earlier than the server asks."""
        jitter = rng.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(retry, 62)))
        return max(jitter, min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S))


@dataclass(slots=True)
class AttemptLog:
    """Failed attempts of one request, each charged to the allowance of its kind."""

    policy: RetryPolicy
    retries: int = 0
    """Attempts beyond the first, granted so far."""
    wasted: int = 0
    """Attempts whose reply was lost or unusable."""
    _charged: int = 0
    _throttled: int = 0
    _during_outage: int = 0
    _unreachable_streak: int = 0

    def may_retry(self, error: EndpointError, *, everything_is_down: bool) -> bool:
        """Record a failed attempt; True if the request may be sent again.

        Connections lost in an outage of every replica are not charged, nor those that led to its discovery.
        The outages one request may live through are bounded all the same: it may be what causes them.
        """
        if not error.retryable:
            return False
        self._charge(error, everything_is_down)
        limit = self.policy.max_attempts
        granted = (
            self._charged < limit
            and self._throttled < limit * THROTTLED_ATTEMPTS_FACTOR
            and self._during_outage <= limit
        )
        self.retries += granted
        return granted

    def _charge(self, error: EndpointError, everything_is_down: bool) -> None:
        if isinstance(error, RateLimited):
            self._throttled += 1
            return
        self.wasted += 1
        self._unreachable_streak = self._unreachable_streak + 1 if isinstance(error, Unreachable) else 0
        if self._unreachable_streak and everything_is_down:
            self._charged -= self._unreachable_streak - 1
            self._unreachable_streak = 0
            self._during_outage += 1
        else:
            self._charged += 1


class RetryBudget:
    """Token bucket of one model: retries stay below a share of the requests, plus a burst, plus a trickle.

    Beyond it a retry waits for its turn. The trickle, so many a second, keeps things moving when every
    request is a retry.
    """

    def __init__(
        self, *, now: float, share: float = 0.2, burst: float = 10.0, trickle_per_s: float = 1.0
    ) -> None:
        self._share = share
        self._burst = burst
        self._trickle_per_s = trickle_per_s
        self._balance = burst
        self._then = now

    def on_request(self, now: float) -> None:
        """Credit a first attempt."""
        self._refill(now)
        self._balance = min(self._burst, self._balance + self._share)

    def reserve(self, now: float) -> float:
        """Take one retry; seconds until it may be sent (0 within the budget)."""
        self._refill(now)
        self._balance -= 1.0
        return max(0.0, -self._balance) / self._trickle_per_s

    def _refill(self, now: float) -> None:
        self._balance = min(self._burst, self._balance + max(0.0, now - self._then) * self._trickle_per_s)
        self._then = now


def parse_retry_after(value: str | None, now_epoch_s: float) -> float | None:
    """Seconds asked for by `Retry-After` (RFC 9110, 10.2.3: seconds or a date); None if unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now_epoch_s)
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if seconds == seconds else None


def _seconds_until(http_date: str, now_epoch_s: float) -> float:
    try:
        date = parsedate_to_datetime(http_date)
    except (ValueError, TypeError):
        return float("nan")
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_epoch_s
