"""Hedging: patience follows what replies take, and copies stay within their budget."""

from __future__ import annotations

import pytest

from workers.hedging import BURST, ENOUGH, FACTOR, Hedging


def test_nothing_is_late_before_enough_is_known() -> None:
    hedging = Hedging(0.1)
    for _ in range(ENOUGH - 1):
        hedging.on_success(1.0)
    assert hedging.patience_s() is None
    hedging.on_success(1.0)
    assert hedging.patience_s() == FACTOR


def test_patience_is_a_multiple_of_what_nearly_all_take() -> None:
    hedging = Hedging(0.1)
    for hundredths in range(1, 101):
        hedging.on_success(hundredths / 100)
    assert hedging.patience_s() == pytest.approx(FACTOR * 0.96)


def test_without_a_share_nothing_is_ever_copied() -> None:
    hedging = Hedging(0.0)
    for _ in range(100):
        hedging.on_request()
        hedging.on_success(1.0)
    assert hedging.patience_s() is None
    assert not hedging.take()


def test_copies_are_a_share_of_the_requests_and_a_burst() -> None:
    hedging = Hedging(0.05)
    copies = 0
    for _ in range(1000):
        hedging.on_request()
        copies += hedging.take()
    assert copies == pytest.approx(50, abs=1)
    for _ in range(1000):
        hedging.on_request()
    assert sum(hedging.take() for _ in range(100)) == BURST


def test_a_copy_that_found_no_replica_costs_nothing() -> None:
    hedging = Hedging(0.2)
    for _ in range(5):
        hedging.on_request()
    assert hedging.take()
    hedging.give_back()
    assert hedging.take()
