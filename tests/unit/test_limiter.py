"""Limits: slow start, one cut an episode, pauses of growth, and rates a minute."""

from __future__ import annotations

import heapq

import pytest

from workers.limiter import HISTORY, AdaptiveLimit, FixedCeiling, RateLimit, TokenBucket


def finish_round(limit: AdaptiveLimit, now: float, in_flight: int | None = None) -> None:
    for _ in range(limit.value):
        limit.on_success(now, limit.value if in_flight is None else in_flight)


def test_doubles_each_clean_saturated_round_up_to_the_ceiling() -> None:
    limit = AdaptiveLimit(256)
    seen = [limit.value]
    for _ in range(6):
        finish_round(limit, 0.0)
        seen.append(limit.value)
    assert seen == [20, 40, 80, 160, 256, 256, 256]
    assert [(change.before, change.after) for change in limit.history] == [
        (20, 40),
        (40, 80),
        (80, 160),
        (160, 256),
    ]


def test_starts_at_a_low_ceiling() -> None:
    assert AdaptiveLimit(3).value == 3


def test_a_closed_loop_of_200_ms_replies_reaches_256_within_a_second() -> None:
    limit, now = AdaptiveLimit(256), 0.0
    under_way = [0.2] * limit.value
    while limit.value < 256:
        now = heapq.heappop(under_way)
        limit.on_success(now, len(under_way) + 1)
        while len(under_way) < limit.value:
            heapq.heappush(under_way, now + 0.2)
    assert now <= 1.0


def test_does_not_grow_where_the_limit_is_not_used() -> None:
    limit = AdaptiveLimit(256)
    for _ in range(10):
        finish_round(limit, 0.0, in_flight=15)
    assert limit.value == 20
    finish_round(limit, 0.0, in_flight=16)
    assert limit.value == 40


def test_one_cut_an_episode_then_small_steps() -> None:
    limit = AdaptiveLimit(256, cooldown_s=15.0)
    for _ in range(3):
        finish_round(limit, 0.0)
    changes = [limit.on_rate_limited(10.0 + k / 100, None) for k in range(50)]
    assert [change.after for change in changes if change] == [128]
    finish_round(limit, 24.9)
    assert limit.value == 128  # successes in the cooldown do not count, not even towards the next round
    for _ in range(127):
        limit.on_success(25.1, 128)
    assert limit.value == 128
    limit.on_success(25.1, 128)
    assert limit.value == 134
    assert limit.on_rate_limited(26.0, None) is not None
    assert limit.value == 107


def test_retry_after_extends_the_cooldown() -> None:
    limit = AdaptiveLimit(100, cooldown_s=15.0)
    limit.on_rate_limited(0.0, 60.0)
    assert limit.on_rate_limited(59.0, 2.0) is None
    assert limit.on_rate_limited(60.5, None) is None
    assert limit.on_rate_limited(61.1, None) is not None


def test_other_failures_pause_growth_and_never_cut() -> None:
    limit = AdaptiveLimit(256)
    for _ in range(20):
        for _ in range(19):
            limit.on_success(0.0, 20)
        limit.on_failure(0.0)
    assert limit.value == 20
    finish_round(limit, 0.0)
    assert limit.value == 40


def test_never_below_one_and_history_is_bounded() -> None:
    limit = AdaptiveLimit(50, cooldown_s=1.0)
    for k in range(100):
        limit.on_rate_limited(10.0 * k, None)
    assert limit.value == 1
    for k in range(300):
        finish_round(limit, 2000.0 + k)
    assert limit.value == 50
    assert len(limit.history) <= HISTORY


def test_a_fixed_ceiling_learns_nothing() -> None:
    limit = FixedCeiling(64)
    limit.on_rate_limited(0.0, 5.0)
    limit.on_failure(0.0)
    limit.on_success(0.0, 64)
    assert limit.value == 64


def drain(bucket: TokenBucket, amount: float, until_s: float) -> int:
    now, taken = 0.0, 0
    while now < until_s:
        wait_s = bucket.delay_s(amount, now)
        if wait_s > 0.0:
            now += wait_s
            continue
        bucket.take(amount, now)
        taken += 1
    return taken


@pytest.mark.parametrize(
    ("per_minute", "amount"), [(60.0, 1.0), (6.0, 1.0), (600.0, 1.0), (90_000.0, 4_000.0)]
)
def test_no_minute_sees_much_more_than_its_due(per_minute: float, amount: float) -> None:
    taken = drain(TokenBucket(per_minute, now=0.0), amount, 60.0)
    due = per_minute / amount
    assert due - 1 <= taken <= due * 1.02 + 2


def test_an_amount_beyond_the_capacity_goes_and_is_paid_off() -> None:
    bucket = TokenBucket(600.0, now=0.0)
    assert bucket.delay_s(1000.0, 0.0) == 0.0
    bucket.take(1000.0, 0.0)
    assert bucket.delay_s(1.0, 0.0) == pytest.approx(99.1)
    assert bucket.delay_s(1000.0, 0.0) == pytest.approx(100.0)


def test_tokens_are_settled_with_what_was_used() -> None:
    rates = RateLimit(None, 6000.0, now=0.0)
    rates.take(1000, 0.0)
    assert rates.delay_s(100, 0.0) == pytest.approx(10.0)
    rates.settle(1000, 200, 0.0)
    assert rates.delay_s(100, 0.0) == pytest.approx(2.0)
    rates.settle(0, 0, 0.0)
    assert rates.delay_s(100, 2.1) == 0.0


def test_the_tighter_of_both_rates_governs_and_none_is_no_limit() -> None:
    rates = RateLimit(60.0, 6000.0, now=0.0)
    rates.take(500, 0.0)
    assert rates.delay_s(100, 0.0) == pytest.approx(5.0)
    rates.settle(500, 0, 0.0)
    assert rates.delay_s(100, 0.0) == pytest.approx(1.0)
    free = RateLimit(None, None, now=0.0)
    for _ in range(1000):
        free.take(10**9, 0.0)
    assert free.delay_s(10**9, 0.0) == 0.0
