"""Calls that are seen through to their end, although whoever waits for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def completed(work: Awaitable[Result]) -> Result:
    """The result of `work`. A cancellation does not reach it: it is raised afterwards, whatever came of the work."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # has been seen
    raise cancellation
