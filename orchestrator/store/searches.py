"""Searches are registered: procedures, and a pool and a task for each problem.

A search is named by the pool of what it finds. Functions take their transaction. Must not know trees, nor how a
procedure searches.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store import schema
from orchestrator.store.backend import Transaction, bulk
from orchestrator.store.catalog import chunks
from orchestrator.store.records import NewTask, ProcedureRecord
from orchestrator.store.work import add_tasks

_POOLS = bulk(
    schema.pools,
    "(problem_id, generator_id, seed, procedure_id) WHERE procedure_id IS NOT NULL DO NOTHING",
    without=("id", "prefix_id"),
)
_SWEEP_POOLS = bulk(
    schema.sweep_pools, "(sweep_id, pool_id, strategy) DO UPDATE SET samples = excluded.samples"
)


async def register_procedure(tx: Transaction, procedure: ProcedureRecord) -> int:
    """Id of the procedure with that fingerprint."""
    return int(
        await tx.scalar(
            """INSERT INTO procedures (fingerprint, kind, budget, params_json, scorer_id)
            VALUES (:fingerprint, :kind, :budget, :params, :scorer)
            ON CONFLICT (fingerprint) DO UPDATE SET kind = excluded.kind RETURNING id""",
            fingerprint=procedure.fingerprint, kind=procedure.kind, budget=procedure.budget,
            params=procedure.params_json, scorer=procedure.scorer_id,
        )
    )  # fmt: skip


async def register_pools(
    tx: Transaction,
    sweep_id: int,
    generator_id: int,
    procedure_id: int,
    seed: int,
    strategy: str,
    problem_ids: Sequence[int],
    budget: int,
) -> dict[int, int]:
    """Search of each problem; the sweep wants them for that strategy."""
    wanted = list(dict.fromkeys(problem_ids))
    await tx.insert(_POOLS, [(problem, generator_id, seed, procedure_id) for problem in wanted])
    pools: dict[int, int] = {}
    for chunk in chunks(wanted):
        sql = """SELECT id, problem_id FROM pools WHERE problem_id IN :ids AND generator_id = :generator_id
            AND seed = :seed AND procedure_id = :procedure_id"""
        rows = await tx.rows(sql, ids=chunk, generator_id=generator_id, seed=seed, procedure_id=procedure_id)
        pools.update({row.problem_id: row.id for row in rows})
    await tx.insert(_SWEEP_POOLS, [(sweep_id, pools[problem], strategy, budget) for problem in wanted])
    return {problem: pools[problem] for problem in wanted}


async def add_search_tasks(tx: Transaction, sweep_id: int) -> int:
    """A task for every search of a sweep that has none; how many."""
    rows = await tx.rows(
        """SELECT l.id AS lane_id, p.id AS pool_id, c.budget FROM sweep_pools w
        JOIN pools p ON p.id = w.pool_id JOIN procedures c ON c.id = p.procedure_id
        JOIN sweep_lanes k ON k.sweep_id = w.sweep_id
        JOIN lanes l ON l.id = k.lane_id AND l.kind = 'search' AND l.generator_id = p.generator_id
            AND l.scorer_id = c.scorer_id
        WHERE w.sweep_id = :sweep_id AND NOT EXISTS (
            SELECT 1 FROM tasks t WHERE t.lane_id = l.id AND t.pool_id = p.id)
        ORDER BY c.budget, p.id""",
        sweep_id=sweep_id,
    )
    await add_tasks(tx, [NewTask(row.lane_id, row.pool_id, 0, row.budget) for row in rows])
    return len(rows)
