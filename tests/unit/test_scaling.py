"""How many replicas there are to be: at once more, after a while fewer, never outside of the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.engines.gpus import Gpus
from orchestrator.execution.engines.scaling import Sizing, first_sizing, resized
from orchestrator.spec.engine_settings import Scale

SCALE = Scale(least=1, most=4, requests=10, idle_s=60.0)


def after(*seen: tuple[float, int], scale: Scale = SCALE) -> Sizing:
    """The decision after these (time, requests)."""
    sizing = first_sizing(scale, 0.0)
    for now, requests in seen:
        sizing = resized(scale, sizing, requests, now)
    return sizing


@pytest.mark.parametrize(
    ("requests", "wanted"), [(0, 1), (1, 1), (10, 1), (11, 2), (40, 4), (41, 4), (9999, 4)]
)
def test_it_grows_at_once_to_what_the_requests_need(requests: int, wanted: int) -> None:
    assert after((1.0, requests)).replicas == wanted


def test_it_shrinks_only_after_a_while() -> None:
    assert after((0.0, 40), (10.0, 0), (69.9, 0)).replicas == 4
    assert after((0.0, 40), (10.0, 0), (70.0, 0)).replicas == 1


def test_it_shrinks_to_the_most_that_was_needed_meanwhile() -> None:
    assert after((0.0, 40), (10.0, 0), (30.0, 25), (50.0, 5), (70.0, 0)).replicas == 3


def test_need_for_all_of_them_begins_the_wait_anew() -> None:
    assert after((0.0, 40), (10.0, 0), (60.0, 40), (65.0, 0), (124.0, 0)).replicas == 4
    assert after((0.0, 40), (10.0, 0), (60.0, 40), (65.0, 0), (125.0, 0)).replicas == 1


def test_a_fixed_number_stays() -> None:
    fixed = Scale(least=3, most=3, requests=10)
    assert after((0.0, 1000), (1000.0, 0), (2000.0, 0), scale=fixed).replicas == 3


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 200)), max_size=30))
def test_it_stays_within_its_bounds_and_never_below_the_need(steps: list[tuple[float, int]]) -> None:
    sizing, now = first_sizing(SCALE, 0.0), 0.0
    for pause_s, requests in steps:
        now += pause_s
        sizing = resized(SCALE, sizing, requests, now)
        assert SCALE.least <= sizing.replicas <= SCALE.most
        assert sizing.replicas >= min(SCALE.most, -(-requests // SCALE.requests))


def test_gpus_are_given_out_once() -> None:
    gpus = Gpus(["0", "3", "5"])
    first = gpus.take(2)
    assert first is not None
    assert gpus.names(first) == "0,3"
    assert gpus.take(2) is None
    assert str(gpus) == "1 of 3"
    gpus.give_back(first)
    assert str(gpus) == "3 of 3"


def test_a_gpu_may_be_shared_but_not_beyond_its_whole() -> None:
    gpus = Gpus(["0", "1"])
    parts = [gpus.take(0.5) for _ in range(4)]
    assert [gpus.names(part) for part in parts if part] == ["0", "0", "1", "1"]
    assert gpus.take(0.5) is None
    assert gpus.take(0) == {}
