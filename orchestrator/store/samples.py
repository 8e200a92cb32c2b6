"""Samples one by one, for selectors that need more than counts: read in bulk, without a text.

Must not know what a selector does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.store.backend import Transaction
from orchestrator.store.records import PoolSamples
from workers.identity import SAMPLES_PER_POOL_BITS

SAMPLES = """SELECT t.sample_index, t.outcome, x.answer_id FROM trajectories t
    LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = {extractor}
    WHERE t.id >= {first} AND t.id < {end} ORDER BY t.id"""

SCORES = """SELECT s.trajectory_id - {first}, s.values_json FROM scores s
    WHERE s.trajectory_id >= {first} AND s.trajectory_id < {end} AND s.scorer_id = {scorer}
        AND s.status NOT IN ('error', 'invalid') ORDER BY s.trajectory_id"""


async def pool_samples(
    tx: Transaction, pool_ids: Sequence[int], scorer_ids: Sequence[int], extractor_id: int
) -> list[PoolSamples]:
    """The samples of pools with the answers that an extractor found and their scores."""
    return [await _pool(tx, pool_id, scorer_ids, extractor_id) for pool_id in pool_ids]


async def _pool(tx: Transaction, pool_id: int, scorer_ids: Sequence[int], extractor_id: int) -> PoolSamples:
    bounds = {"first": pool_id << SAMPLES_PER_POOL_BITS, "end": (pool_id + 1) << SAMPLES_PER_POOL_BITS}
    samples = await _fetch(tx, SAMPLES.format(extractor=extractor_id, **bounds))
    scores = {scorer: await _fetch(tx, SCORES.format(scorer=scorer, **bounds)) for scorer in scorer_ids}
    return PoolSamples(pool_id, samples, scores)


async def _fetch(tx: Transaction, sql: str) -> list[tuple[Any, ...]]:
    """Plain tuples of the driver: a million rows a strategy is common, and each costs what is made of it."""
    return await tx.backend.fetch(tx.connection, sql)
