"""Writes a batch of facts in one transaction: facts first, then the ends of the tasks that owed them (I1,
I3).

Must not know who made the facts, nor when the transaction commits.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store import facts, rows, schema
from orchestrator.store.backend import Transaction, bulk
from orchestrator.store.owed import SCORE_ROWS
from orchestrator.store.records import WriteReceipt
from orchestrator.store.text import storable
from workers.types import Event, FactBatch, TaskEnd

_REDRAWN = ", ".join(
    f"{column.name} = excluded.{column.name}"
    for column in facts.trajectories.columns
    if column.name not in ("id", "pool_id", "sample_index")
)
_ADDED = ", ".join(
    f"{column.name} = usage.{column.name} + excluded.{column.name}"
    for column in facts.usage.columns
    if column.name not in ("task_id", "attempt", "role")
)
_REPLICAS = bulk(facts.replicas, "(id) DO NOTHING")
_TRAJECTORIES = bulk(
    facts.trajectories,
    f"(id) DO UPDATE SET {_REDRAWN} WHERE trajectories.outcome = 'error' AND excluded.outcome <> 'error'",
)
_TEXTS = bulk(facts.trajectory_texts, "(trajectory_id) DO NOTHING")
_ANSWERS = bulk(facts.answers, "(id) DO NOTHING")
_EXTRACTIONS = bulk(facts.extractions, "(trajectory_id, extractor_id) DO NOTHING")
_NODES = bulk(facts.nodes, "(pool_id, path) DO NOTHING")
_NODE_SCORES = bulk(facts.node_scores, "(pool_id, path, scorer_id) DO NOTHING")
_PRUNINGS = bulk(facts.prunings, "(pool_id, path) DO NOTHING")
_USAGE = bulk(facts.usage, f"(task_id, attempt, role) DO UPDATE SET {_ADDED}")
_SCORING_DUE = """UPDATE tasks SET state = 0 WHERE state = 2 AND id IN (
    SELECT k.id FROM tasks t JOIN lanes l ON l.id = t.lane_id AND l.kind IN ('sample', 'search')
    JOIN tasks k ON k.pool_id = t.pool_id AND k.sample_start = t.sample_start
    JOIN lanes m ON m.id = k.lane_id AND m.kind = 'score' WHERE t.id IN :ids)"""
_EVENTS = bulk(schema.events, "DO NOTHING", without=("id",))


async def write(
    tx: Transaction, batch: FactBatch, run_id: int, extractor_id: int, sequence: int | None
) -> WriteReceipt:
    """Write all facts of a batch and end its tasks.

    `sequence` numbers the commits of a run: a commit whose acknowledgement was lost is not done twice.
    """
    if sequence is None or await _is_new(tx, run_id, sequence):
        await _write_samples(tx, batch, extractor_id)
        await tx.insert(_NODES, rows.node_rows(batch))
        await tx.insert(_NODE_SCORES, rows.node_score_rows(batch))
        await tx.insert(_PRUNINGS, rows.pruning_rows(batch))
        await tx.insert(SCORE_ROWS, rows.score_rows(batch))
        await tx.insert(_USAGE, rows.usage_rows(batch))
    ended, stale = await _end_tasks(tx, batch.ends, run_id)
    return WriteReceipt(len(batch.trajectories), ended, stale)


async def _is_new(tx: Transaction, run_id: int, sequence: int) -> bool:
    sql = "UPDATE runs SET commit_sequence = :sequence WHERE id = :run_id AND commit_sequence < :sequence"
    return await tx.run(sql, sequence=sequence, run_id=run_id) == 1


async def _write_samples(tx: Transaction, batch: FactBatch, extractor_id: int) -> None:
    if not batch.trajectories:
        return
    distinct = rows.distinct_trajectories(batch.trajectories)
    answers, extractions = rows.answer_rows(distinct, extractor_id)
    await tx.insert(_REPLICAS, rows.replica_rows(distinct.values()))
    await tx.insert(_TRAJECTORIES, rows.trajectory_rows(distinct, await tx.now()))
    await tx.insert(_TEXTS, rows.text_rows(distinct))
    await tx.insert(_ANSWERS, answers)
    await tx.insert(_EXTRACTIONS, extractions)


async def _end_tasks(
    tx: Transaction, ends: Sequence[TaskEnd], run_id: int
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """End those tasks whose lease is current; (ended, stale). An end that is recorded already has ended."""
    if not ends:
        return (), ()
    sql = f"SELECT id, attempt, state FROM tasks WHERE id IN :ids AND run_id = :run_id {tx.backend.lock}"
    found = await tx.rows(sql, ids=sorted({end.task_id for end in ends}), run_id=run_id)
    leases = {(row.id, row.attempt): row.state for row in found if row.state != schema.TaskState.PENDING}
    running = [e for e in ends if leases.get((e.task_id, e.attempt)) == schema.TaskState.RUNNING]
    await _mark_done(tx, [end.task_id for end in running if end.error_kind is None])
    for end in running:
        if end.error_kind is not None:
            await _mark_failed(tx, end)
    keys = [(end.task_id, end.attempt) for end in ends]
    return tuple(k for k in keys if k in leases), tuple(k for k in keys if k not in leases)


async def _mark_done(tx: Transaction, task_ids: list[int]) -> None:
    """End tasks; if samples were drawn where scoring had ended already (errors, drawn again), it is due again."""
    if task_ids:
        sql = "UPDATE tasks SET state = 2, error_kind = NULL, error_text = NULL WHERE id IN :ids"
        await tx.run(sql, ids=task_ids)
        await tx.run(_SCORING_DUE, ids=task_ids)


async def _mark_failed(tx: Transaction, end: TaskEnd) -> None:
    sql = "UPDATE tasks SET state = 3, error_kind = :kind, error_text = :text WHERE id = :id"
    await tx.run(sql, kind=end.error_kind, text=storable(end.error_text or ""), id=end.task_id)


async def add_events(
    tx: Transaction, sweep_id: int, run_id: int | None, events: Sequence[Event], at: float | None
) -> None:
    """Add events to the log of a sweep."""
    when = await tx.now() if at is None else at
    await tx.insert(
        _EVENTS, [(sweep_id, run_id, when, e.kind, storable(e.subject), storable(e.detail)) for e in events]
    )
