"""The gate: first come first served, slots handed over at once, nothing lost when a caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from workers.admission import Admission, Lease, Want
from workers.endpoints import Replicas
from workers.errors import Draining
from workers.limiter import FixedCeiling, RateLimit


class Clock:
    """A hand-set clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def gate_of(ceiling: int, replicas: Replicas | None = None, per_minute: float | None = None) -> Admission:
    clock = Clock()
    return Admission(
        FixedCeiling(ceiling),
        RateLimit(per_minute, None, now=0.0),
        replicas or Replicas(["http://a/v1"]),
        clock,
    )


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_slots_go_to_whoever_waits_longest_and_retries_first() -> None:
    gate = gate_of(1)
    first = await gate.enter(Want(0, 0))
    order: list[str] = []

    async def pass_through(name: str, is_retry: bool) -> None:
        lease = await gate.enter(Want(0, 0), is_retry=is_retry)
        order.append(name)
        gate.leave(lease)

    async with asyncio.TaskGroup() as group:
        for name, is_retry in (("a", False), ("b", False), ("retry", True), ("c", False)):
            group.create_task(pass_through(name, is_retry))
            await settle()
        gate.leave(first)
    assert order == ["retry", "a", "b", "c"]
    assert gate.in_flight == 0


async def test_a_slot_is_taken_again_before_the_release_returns() -> None:
    gate = gate_of(2)
    leases = [await gate.enter(Want(0, 0)) for _ in range(2)]
    waiting = asyncio.create_task(gate.enter(Want(0, 0)))
    await settle()
    gate.leave(leases[0])
    assert gate.in_flight == 2
    assert isinstance(await waiting, Lease)


async def test_the_limit_is_never_exceeded_and_every_caller_is_served() -> None:
    gate, served, peak = gate_of(7), 0, 0

    async def one() -> None:
        nonlocal served, peak
        lease = await gate.enter(Want(served, 0))
        peak = max(peak, gate.in_flight)
        await asyncio.sleep(0)
        gate.leave(lease)
        served += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(500):
            group.create_task(one())
    assert (served, peak, gate.in_flight) == (500, 7, 0)


@pytest.mark.parametrize("is_granted_first", [False, True])
async def test_a_cancelled_caller_passes_its_turn_on(is_granted_first: bool) -> None:
    gate = gate_of(1)
    lease = await gate.enter(Want(0, 0))
    quitter = asyncio.create_task(gate.enter(Want(0, 0)))
    heir = asyncio.create_task(gate.enter(Want(0, 0)))
    await settle()
    if is_granted_first:
        gate.leave(lease)  # the slot is the quitter's now, but it has not run yet
        quitter.cancel()
    else:
        quitter.cancel()
        await settle()
        gate.leave(lease)
    gate.leave(await heir)
    assert quitter.cancelled()
    assert gate.in_flight == 0


async def test_the_rate_spaces_requests_out() -> None:
    replicas, clock = Replicas(["http://a/v1"]), Clock()
    gate = Admission(FixedCeiling(100), RateLimit(60.0, None, now=0.0), replicas, clock)
    await gate.enter(Want(0, 0))
    second = asyncio.create_task(gate.enter(Want(0, 0)))
    await settle()
    gate.wake()
    await settle()
    assert not second.done()
    clock.now = 1.0
    gate.wake()
    await settle()
    assert second.done()
    gate.close()


async def test_one_caller_probes_when_a_probation_ends_and_the_others_wait() -> None:
    replicas, clock = Replicas(["http://a/v1"]), Clock()
    gate = Admission(FixedCeiling(10), RateLimit(None, None, now=0.0), replicas, clock)
    (replica,) = replicas.all
    for _ in range(3):
        replicas.on_failure(replica, replica.epoch, "refused", 0.0)
    waiting = [asyncio.create_task(gate.enter(Want(k, 0))) for k in range(3)]
    await settle()
    assert not any(task.done() for task in waiting)
    clock.now = 1.0
    gate.wake()
    await settle()
    assert [task.done() for task in waiting] == [True, False, False]
    assert waiting[0].result().is_probe
    assert gate.in_flight == 0
    replicas.on_probe(replica, None, 1.0)
    gate.wake()
    assert [(await task).is_probe for task in waiting[1:]] == [False, False]
    gate.close()


async def test_a_draining_gate_refuses_those_that_wait_and_keeps_those_inside() -> None:
    gate = gate_of(1)
    inside = await gate.enter(Want(0, 0))
    waiting = asyncio.create_task(gate.enter(Want(0, 0)))
    await settle()
    gate.drain()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await gate.enter(Want(0, 0))
    assert gate.in_flight == 1
    gate.leave(inside)
    assert gate.in_flight == 0
