"""Waiting for a database that is away: a restart or a failover under a run is a pause, not a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.store import StoreUnavailable

Result = TypeVar("Result")

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0


async def patiently(call: Callable[[], Awaitable[Result]], note: Callable[[str], None]) -> Result:
    """The result of `call`, tried again while the database cannot be reached; `note` hears of the first failure.

    A call whose acknowledgement was lost runs twice, so only calls for which that is harmless belong here.
    """
    delay_s = FIRST_DELAY_S
    is_noted = False
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if not is_noted:
                note(f"the database is away ({error}); waiting for it")
                is_noted = True
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
