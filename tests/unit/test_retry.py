"""Retry policy: what is retried, after how long, and how many retries a model may see."""

from __future__ import annotations

import random

import pytest

from workers import errors
from workers.retry import MAX_RETRY_AFTER_S, AttemptLog, RetryBudget, RetryPolicy, parse_retry_after

POLICY = RetryPolicy(max_attempts=3, base_s=0.5, cap_s=4.0)


def test_delays_are_full_jitter_under_a_doubling_bound_and_a_cap() -> None:
    rng = random.Random(0)
    for retry, bound in enumerate([0.5, 1.0, 2.0, 4.0, 4.0, 4.0]):
        delays = [POLICY.delay_s(retry, errors.ServerFault(), rng) for _ in range(2000)]
        assert max(delays) <= bound
        assert max(delays) > 0.99 * bound
        assert min(delays) < 0.01 * bound
        assert sum(delays) / len(delays) == pytest.approx(bound / 2, rel=0.05)
    assert POLICY.delay_s(5000, errors.ServerFault(), rng) <= 4.0


def test_the_server_may_ask_for_more_but_not_for_less_and_not_for_ever() -> None:
    rng = random.Random(0)
    assert POLICY.delay_s(0, errors.RateLimited(retry_after_s=17.0), rng) == 17.0
    assert POLICY.delay_s(0, errors.RateLimited(retry_after_s=1e9), rng) == MAX_RETRY_AFTER_S
    assert POLICY.delay_s(0, errors.RateLimited(retry_after_s=0.0), random.Random(1)) > 0.0


@pytest.mark.parametrize(
    "kind", [errors.ContextOverflow, errors.ContentRefused, errors.Misconfigured, errors.Rejected]
)
def test_a_refusal_is_final(kind: type[errors.EndpointError]) -> None:
    log = AttemptLog(POLICY)
    assert not log.may_retry(kind(), everything_is_down=False)
    assert (log.retries, log.wasted) == (0, 0)


@pytest.mark.parametrize(
    "kind", [errors.Unreachable, errors.ServerFault, errors.DeadlineExceeded, errors.MalformedReply]
)
def test_max_attempts_counts_the_first(kind: type[errors.EndpointError]) -> None:
    log = AttemptLog(POLICY)
    granted = [log.may_retry(kind(), everything_is_down=False) for _ in range(3)]
    assert granted == [True, True, False]
    assert (log.retries, log.wasted) == (2, 3)


def test_a_429_has_an_allowance_of_its_own_and_wastes_nothing() -> None:
    log = AttemptLog(POLICY)
    granted = [log.may_retry(errors.RateLimited(), everything_is_down=False) for _ in range(15)]
    assert granted == [True] * 14 + [False]
    assert log.wasted == 0


def test_an_outage_is_not_charged_nor_what_led_to_its_discovery_but_is_bounded() -> None:
    log = AttemptLog(POLICY)
    rounds = []
    for _ in range(4):
        rounds.append(log.may_retry(errors.Unreachable(), everything_is_down=False))
        rounds.append(log.may_retry(errors.Unreachable(), everything_is_down=True))
    assert rounds == [True] * 7 + [False]


def test_only_lost_connections_are_free_in_an_outage() -> None:
    log = AttemptLog(POLICY)
    assert [log.may_retry(errors.ServerFault(), everything_is_down=True) for _ in range(3)] == [
        True,
        True,
        False,
    ]


def test_budget_allows_a_burst_then_a_share_of_the_requests() -> None:
    budget = RetryBudget(now=0.0, share=0.2, burst=5.0, trickle_per_s=1.0)
    assert [budget.reserve(0.0) for _ in range(5)] == [0.0] * 5
    assert budget.reserve(0.0) == pytest.approx(1.0)
    assert budget.reserve(0.0) == pytest.approx(2.0)
    for _ in range(15):
        budget.on_request(0.0)
    assert budget.reserve(0.0) == pytest.approx(0.0)
    assert budget.reserve(0.0) > 0.0


def test_budget_trickles_in_time_and_never_hoards() -> None:
    budget = RetryBudget(now=0.0, share=0.2, burst=2.0, trickle_per_s=4.0)
    for _ in range(100):
        budget.on_request(0.0)
    waits = [budget.reserve(1000.0) for _ in range(4)]
    assert waits == [0.0, 0.0, 0.25, 0.5]
    assert budget.reserve(1000.5) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 1.5 ", 1.5),
        ("-4", 0.0),
        ("99999999", MAX_RETRY_AFTER_S),
        ("inf", MAX_RETRY_AFTER_S),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0),
        ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37", 7.0),
        ("soon", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    now_epoch_s = 784111770.0  # 08:49:30 that day
    assert parse_retry_after(header, now_epoch_s) == seconds
