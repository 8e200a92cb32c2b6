"""How fast work goes and what is left of it."""

from __future__ import annotations

from orchestrator.execution.pace import Pace, time_left_s


def test_the_rate_counts_from_the_first_word_of_each_work() -> None:
    pace = Pace()
    assert pace.rate("copied", 100, 10.0) is None
    assert pace.rate("copied", 100, 11.0) is None
    assert pace.rate("copied", 300, 12.0) == 100.0
    assert pace.rate("compared", 5, 12.0) is None
    assert pace.rate("compared", 15, 13.0) == 10.0


def test_the_time_left_is_what_is_left_at_that_rate() -> None:
    assert time_left_s(250, 1000, 50.0) == 15.0
    assert time_left_s(1000, 1000, 50.0) == 0.0
    assert time_left_s(0, 1000, None) is None
