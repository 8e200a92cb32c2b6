"""Beginnings of stored solutions that are to be completed: found, named, and turned into pools and tasks.

The completions of a prefix are a pool like any other: drawn by tasks, stored as trajectories, graded as answers. Equal
beginnings have one key, so whoever wrote them, they are completed once. Functions take the transaction they run in.
Must not know what the completions are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from orchestrator.store import facts, schema
from orchestrator.store.backend import AnyRow, Transaction, bulk
from orchestrator.store.catalog import chunks
from orchestrator.store.records import NewTask, RolloutDemand
from orchestrator.store.work import add_tasks
from workers.identity import prefix_id

_PREFIXES = bulk(facts.prefixes, "(id) DO NOTHING")
_OF_TRAJECTORY = bulk(facts.trajectory_prefixes, "(trajectory_id, step_index) DO NOTHING")
_POOLS = bulk(
    schema.pools,
    "(prefix_id, generator_id, seed) WHERE prefix_id IS NOT NULL DO NOTHING",
    without=("id", "procedure_id"),
)
_SWEEP_POOLS = bulk(
    schema.sweep_pools, "(sweep_id, pool_id, strategy) DO UPDATE SET samples = excluded.samples"
)

UNLABELLED = """SELECT t.id
    FROM sweep_pools w
    JOIN pools p ON p.id = w.pool_id AND p.prefix_id IS NULL
    JOIN trajectories t ON t.id >= CAST(p.id AS BIGINT) * 1048576
        AND t.id < CAST(p.id AS BIGINT) * 1048576 + :solutions AND t.outcome || '' = 'complete'
    JOIN trajectory_texts x ON x.trajectory_id = t.id AND x.step_ends LIKE '%,%'
    WHERE w.sweep_id = :sweep_id AND w.strategy = :source
        AND EXISTS (SELECT 1 FROM extractions e WHERE e.trajectory_id = t.id AND e.answer_id IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM trajectory_prefixes f
            JOIN pools k ON k.prefix_id = f.prefix_id AND k.generator_id = :generator_id AND k.seed = :seed
            JOIN sweep_pools v ON v.pool_id = k.id AND v.sweep_id = :sweep_id AND v.strategy = :strategy
                AND v.samples = :rollouts
            WHERE f.trajectory_id = t.id AND f.step_index = 0)
    ORDER BY t.sample_index, t.id"""
"""Answered solutions of two steps or more whose first prefix the strategy does not want completed yet.

An outcome that is an expression keeps SQLite from making an index on it, of a whole table, in place of the ranges.
"""

SOLUTIONS = """SELECT t.id, p.problem_id, q.content_hash, x.text, x.step_ends
    FROM trajectories t JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id
    JOIN trajectory_texts x ON x.trajectory_id = t.id WHERE t.id IN :ids ORDER BY t.id"""


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A beginning of a stored solution, whole steps."""

    id: int
    problem_id: int
    trajectory_id: int
    step_index: int
    char_end: int


async def unlabelled(tx: Transaction, sweep_id: int, demand: RolloutDemand) -> list[int]:
    """Solutions whose prefixes are not completed yet; the first samples of all problems come first."""
    rows = await tx.rows(
        UNLABELLED, sweep_id=sweep_id, source=demand.source, strategy=demand.strategy, solutions=demand.solutions,
        generator_id=demand.generator_id, seed=demand.seed, rollouts=demand.rollouts,
    )  # fmt: skip
    return [row.id for row in rows]


async def rollouts_wanted(tx: Transaction, sweep_id: int, strategy: str) -> int:
    """Completions that a strategy of a sweep wants so far."""
    sql = """SELECT COALESCE(SUM(w.samples), 0) FROM sweep_pools w JOIN pools p ON p.id = w.pool_id
        WHERE w.sweep_id = :sweep_id AND w.strategy = :strategy AND p.prefix_id IS NOT NULL"""
    return int(await tx.scalar(sql, sweep_id=sweep_id, strategy=strategy))


async def add_rollouts(
    tx: Transaction, sweep_id: int, demand: RolloutDemand, trajectory_ids: Sequence[int]
) -> int:
    """Have the prefixes of these solutions completed; how many samples that asks for."""
    prefixes = [
        prefix
        for chunk in chunks(trajectory_ids)
        for row in await tx.rows(SOLUTIONS, ids=chunk)
        for prefix in _prefixes(row)
    ]
    distinct = {each.id: each for each in reversed(prefixes)}
    await tx.insert(_PREFIXES, [(p.id, p.problem_id, p.trajectory_id, p.char_end) for p in distinct.values()])
    await tx.insert(_OF_TRAJECTORY, [(p.trajectory_id, p.step_index, p.id) for p in prefixes])
    await tx.insert(
        _POOLS, [(p.problem_id, demand.generator_id, demand.seed, p.id) for p in distinct.values()]
    )
    pools = await _pools_of(tx, demand, sorted(distinct))
    covered = await _covered(tx, demand.lane_id, pools)
    tasks = [
        NewTask(demand.lane_id, pool, covered.get(pool, 0), demand.rollouts - covered.get(pool, 0))
        for pool in pools
        if covered.get(pool, 0) < demand.rollouts
    ]
    await tx.insert(_SWEEP_POOLS, [(sweep_id, pool, demand.strategy, demand.rollouts) for pool in pools])
    await add_tasks(tx, tasks)
    return sum(task.sample_count for task in tasks)


def _prefixes(row: AnyRow) -> list[_Prefix]:
    """All beginnings of a solution but the whole of it: its value is its own verdict."""
    ends = orjson.loads(row.step_ends)
    return [
        _Prefix(prefix_id(row.content_hash, row.text[:end]), row.problem_id, row.id, index, end)
        for index, end in enumerate(ends[:-1])
    ]


async def _pools_of(tx: Transaction, demand: RolloutDemand, prefix_ids: Sequence[int]) -> list[int]:
    sql = """SELECT id FROM pools WHERE prefix_id IN :ids AND generator_id = :generator_id AND seed = :seed
        ORDER BY id"""
    return [
        row.id
        for chunk in chunks(prefix_ids)
        for row in await tx.rows(sql, ids=chunk, generator_id=demand.generator_id, seed=demand.seed)
    ]


async def _covered(tx: Transaction, lane_id: int, pools: Sequence[int]) -> dict[int, int]:
    """How many samples of each pool have a task already: tasks of a pool of completions follow one another."""
    sql = """SELECT pool_id, MAX(sample_start + sample_count) AS covered FROM tasks
        WHERE lane_id = :lane_id AND pool_id IN :ids GROUP BY pool_id"""
    return {
        row.pool_id: row.covered
        for chunk in chunks(pools)
        for row in await tx.rows(sql, lane_id=lane_id, ids=chunk)
    }
