"""A call is seen through to its end, and the cancellation comes afterwards."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.store.completion import completed


async def test_the_result_and_the_error_are_those_of_the_call() -> None:
    async def fails() -> None:
        raise ValueError("no")

    assert await completed(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="no"):
        await completed(fails())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_for_the_call_however_often_it_is_asked_for(fails: bool) -> None:
    begun, may_end, ends = asyncio.Event(), asyncio.Event(), []

    async def call() -> None:
        begun.set()
        await may_end.wait()
        ends.append("call")
        if fails:
            raise ValueError("no")

    caller = asyncio.create_task(completed(call()))
    await begun.wait()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ends == ["call"]


async def test_a_call_that_is_cancelled_itself_is_cancelled() -> None:
    call = asyncio.create_task(asyncio.sleep(60))
    caller = asyncio.create_task(completed(call))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
