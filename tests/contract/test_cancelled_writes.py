"""What is cancelled while it writes leaves nothing behind: no lock, no half of a transaction."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator

import pytest

from orchestrator.store import Store
from tests.store_world import build, indices, sample
from workers.types import FactBatch

ROWS = 2000
"""So many that it takes a while, in which to cancel."""


@pytest.fixture
def rare_collections() -> Iterator[None]:
    """As in a run, whose collector is calmed: what nobody refers to but itself stays."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("rare_collections")
async def test_a_write_that_is_cancelled_anywhere_holds_up_no_other(store: Store) -> None:
    rng = random.Random(7)
    world = await build(store, count=12, samples=ROWS, task_size=ROWS)
    stored = 0
    for task in await store.claim(world.sweep_id, world.lane_id, world.run_id, 12):
        batch = FactBatch(tuple(sample(task, index) for index in indices(task)))
        writing = asyncio.create_task(
            store.write(batch, run_id=world.run_id, extractor_id=world.extractor_id)
        )
        await asyncio.sleep(rng.random() * 0.15)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await store.heartbeat(world.run_id)
        ((found,),) = (await store.query("SELECT COUNT(*) FROM trajectories")).rows
        assert found in (stored, stored + ROWS)
        stored = found
    assert stored < 12 * ROWS
