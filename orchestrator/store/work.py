"""Runs and tasks: leases and fences. Functions take the transaction they run in.

A lease belongs to a run: while its heartbeat is younger than `LEASE_S` its tasks are its own. `attempt`
is the fence: it grows with every lease, and a word about an older one changes nothing. Must not know
facts other than their keys; what a task owes is in `owed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store import schema
from orchestrator.store.backend import Backend, Transaction, bulk
from orchestrator.store.owed import owed
from orchestrator.store.records import LaneRecord, NewTask, OpenRun
from orchestrator.store.schema import LEASE_S
from workers.identity import SAMPLES_PER_POOL_BITS
from workers.types import Task

_TASKS = bulk(
    schema.tasks,
    "(lane_id, pool_id, sample_start) DO NOTHING",
    without=("id", "state", "attempt", "run_id", "not_before", "error_kind", "error_text"),
)
_IN_POOLS = """EXISTS (SELECT 1 FROM sweep_pools sp WHERE sp.sweep_id = :sweep_id AND sp.pool_id = t.pool_id
        AND sp.samples > t.sample_start)"""
_IN_SWEEP = f"""EXISTS (SELECT 1 FROM sweep_lanes sl WHERE sl.sweep_id = :sweep_id AND sl.lane_id = t.lane_id)
        AND {_IN_POOLS}"""

EXPIRE = """UPDATE tasks SET state = 0 WHERE state = 1 AND run_id IN (
        SELECT id FROM runs WHERE id <> :run_id AND (heartbeat_at < :silent_since OR ended_at IS NOT NULL))"""

CLAIM = """WITH chosen AS MATERIALIZED (
        SELECT t.id FROM tasks t {pending_index}
        WHERE t.lane_id = :lane_id AND t.state = 0 AND (t.not_before IS NULL OR t.not_before <= :now)
            AND {in_pools}{in_turn}
        ORDER BY t.id LIMIT :limit {skip_locked})
    UPDATE tasks SET state = 1, attempt = attempt + 1, run_id = :run_id, not_before = NULL
    WHERE id IN (SELECT id FROM chosen) RETURNING id"""

_IN_TURN = """ AND NOT EXISTS (SELECT 1 FROM tasks e WHERE e.pool_id = t.pool_id AND e.lane_id = t.lane_id
            AND e.state < 2 AND e.sample_start < t.sample_start)"""
"""Of the score tasks of a pool one runs at a time: what it finds out holds for equal texts of the next."""

_SEARCH_IN_TURN = """ AND NOT EXISTS (SELECT 1 FROM pools b JOIN pools a ON a.problem_id = b.problem_id
            AND a.generator_id = b.generator_id AND a.seed = b.seed AND a.procedure_id IS NOT NULL
            JOIN tasks e ON e.pool_id = a.id AND e.lane_id = t.lane_id AND e.state < 2 AND e.id < t.id
            JOIN sweep_pools o ON o.sweep_id = :sweep_id AND o.pool_id = e.pool_id
            WHERE b.id = t.pool_id)"""
"""Of the searches for a problem that share their steps one runs at a time: what it draws, the next need not."""

_SCORED_AGAIN = f"""SELECT k.id FROM scores s JOIN lanes l ON l.scorer_id = s.scorer_id
    JOIN tasks k ON k.lane_id = l.id AND k.pool_id = s.trajectory_id / {1 << SAMPLES_PER_POOL_BITS}
        AND s.trajectory_id % {1 << SAMPLES_PER_POOL_BITS} >= k.sample_start
        AND s.trajectory_id % {1 << SAMPLES_PER_POOL_BITS} < k.sample_start + k.sample_count
    WHERE s.status IN ('error', 'invalid')"""


async def add_tasks(tx: Transaction, tasks: Sequence[NewTask]) -> None:
    """Add tasks; a span that starts where another of its lane does is dropped."""
    distinct = {(t.lane_id, t.pool_id, t.sample_start): t.sample_count for t in tasks}
    await tx.insert(_TASKS, [(*key, count) for key, count in distinct.items()])


SCORE_TASKS = f"""SELECT m.id, t.pool_id, t.sample_start, t.sample_count
    FROM tasks t
    JOIN lanes l ON l.id = t.lane_id AND l.kind IN ('sample', 'search')
    JOIN pools p ON p.id = t.pool_id AND p.prefix_id IS NULL
    JOIN sweep_lanes n ON n.sweep_id = :sweep_id
    JOIN lanes m ON m.id = n.lane_id AND m.kind = 'score'
    WHERE t.state = 2 AND {_IN_POOLS} AND NOT EXISTS (SELECT 1 FROM tasks k
        WHERE k.lane_id = m.id AND k.pool_id = t.pool_id AND k.sample_start = t.sample_start)
    ORDER BY t.sample_start, t.pool_id"""
"""What has been drawn and no scorer has a task for."""


async def add_score_tasks(tx: Transaction, sweep_id: int) -> int:
    """Have every scorer of a sweep score what its tasks have drawn; how many tasks that adds."""
    return await tx.run(
        f"""INSERT INTO tasks (lane_id, pool_id, sample_start, sample_count) {SCORE_TASKS}
        ON CONFLICT (lane_id, pool_id, sample_start) DO NOTHING""",
        sweep_id=sweep_id,
    )


async def start_run(tx: Transaction, sweep_id: int, host: str, pid: int, details: str) -> int:
    """Id of a new run; its sweep is running now, and a request to cancel an earlier run is none to cancel this one."""
    await tx.run(
        "UPDATE sweeps SET state = 'running', cancel_requested = '0' WHERE id = :sweep_id", sweep_id=sweep_id
    )
    return int(
        await tx.scalar(
            """INSERT INTO runs (sweep_id, host, pid, started_at, heartbeat_at, details)
            VALUES (:sweep_id, :host, :pid, :now, :now, :details) RETURNING id""",
            sweep_id=sweep_id, host=host, pid=pid, now=await tx.now(), details=details,
        )
    )  # fmt: skip


async def open_runs(tx: Transaction, sweep_id: int) -> list[OpenRun]:
    """Runs that have not ended in good order, oldest first."""
    rows = await tx.rows(
        f"""SELECT r.id, r.sweep_id, r.host, r.pid, r.details, :now - r.heartbeat_at AS silent_s,
            (SELECT COUNT(*) FROM tasks t WHERE t.state = 1 AND t.run_id = r.id AND {_IN_SWEEP}) AS tasks
        FROM runs r WHERE r.ended_at IS NULL ORDER BY r.id""",
        now=await tx.now(), sweep_id=sweep_id,
    )  # fmt: skip
    return [OpenRun(*row) for row in rows]


async def heartbeat(tx: Transaction, run_id: int) -> bool:
    """Say that the run lives; whether someone asked to cancel its sweep."""
    await tx.run("UPDATE runs SET heartbeat_at = :now WHERE id = :run_id", now=await tx.now(), run_id=run_id)
    sql = "SELECT s.cancel_requested FROM sweeps s JOIN runs r ON r.sweep_id = s.id WHERE r.id = :run_id"
    return bool(await tx.scalar(sql, run_id=run_id))


async def end_run(tx: Transaction, run_id: int, outcome: str) -> None:
    """End a run in good order; its sweep takes the outcome as its state."""
    sql = "UPDATE runs SET ended_at = :now, outcome = :outcome WHERE id = :run_id"
    await tx.run(sql, now=await tx.now(), outcome=outcome, run_id=run_id)
    sql = "UPDATE sweeps SET state = :outcome WHERE id = (SELECT sweep_id FROM runs WHERE id = :run_id)"
    await tx.run(sql, outcome=outcome, run_id=run_id)


def claim_sql(backend: Backend, kind: str, *, shares_steps: bool = False) -> str:
    """The statement that leases tasks of a lane."""
    turns = {"score": _IN_TURN, "search": _SEARCH_IN_TURN if shares_steps else ""}
    return CLAIM.format(
        in_pools=_IN_POOLS,
        in_turn=turns.get(kind, ""),
        pending_index=backend.pending_index,
        skip_locked=backend.skip_locked,
    )


async def lane(tx: Transaction, lane_id: int) -> LaneRecord:
    """A lane."""
    sql = "SELECT id, kind, generator_id, scorer_id FROM lanes WHERE id = :lane_id"
    (row,) = await tx.rows(sql, lane_id=lane_id)
    return LaneRecord(*row)


async def claim(
    tx: Transaction,
    sweep_id: int,
    lane_id: int,
    run_id: int,
    limit: int,
    now: float | None,
    *,
    shares_steps: bool,
) -> list[Task]:
    """Lease up to `limit` tasks in order; one that owes nothing is marked done at once and not returned."""
    at = await tx.now() if now is None else now
    await tx.run(EXPIRE, run_id=run_id, silent_since=at - LEASE_S)
    kind = (await lane(tx, lane_id)).kind
    sql = claim_sql(tx.backend, kind, shares_steps=shares_steps)
    claimed: list[Task] = []
    while len(claimed) < limit:
        wanted = limit - len(claimed)
        leased = await tx.rows(sql, sweep_id=sweep_id, lane_id=lane_id, run_id=run_id, limit=wanted, now=at)
        found = await owed(tx, kind, [row.id for row in leased], run_id, shares_steps=shares_steps)
        settled = [task.task_id for task in found if not task.size]
        await _finish(tx, settled)
        claimed += [task for task in found if task.size]
        if len(leased) < wanted and not settled:
            break
    return claimed


async def _finish(tx: Transaction, task_ids: Sequence[int]) -> None:
    if task_ids:
        await tx.run(
            "UPDATE tasks SET state = 2, error_kind = NULL, error_text = NULL WHERE id IN :ids",
            ids=list(task_ids),
        )


async def release(tx: Transaction, run_id: int) -> int:
    """Give back all tasks the run holds; how many."""
    return await tx.run("UPDATE tasks SET state = 0 WHERE state = 1 AND run_id = :run_id", run_id=run_id)


async def requeue(
    tx: Transaction, task_id: int, attempt: int, run_id: int, *, shares_steps: bool
) -> Task | None:
    """Lease a running task anew; None if the lease was not current. Owing nothing, it is done: its size is 0."""
    rows = await tx.rows(
        """UPDATE tasks SET attempt = attempt + 1
        WHERE id = :task_id AND attempt = :attempt AND run_id = :run_id AND state = 1 RETURNING lane_id""",
        task_id=task_id, attempt=attempt, run_id=run_id,
    )  # fmt: skip
    if not rows:
        return None
    kind = (await lane(tx, rows[0].lane_id)).kind
    (task,) = await owed(tx, kind, [task_id], run_id, shares_steps=shares_steps)
    if not task.size:
        await _finish(tx, [task_id])
    return task


async def fail_task(
    tx: Transaction, task_id: int, attempt: int, error_kind: str, error_text: str, not_before: float | None
) -> bool:
    """Fail a task, or put it off until `not_before`; False if the lease was not current."""
    changed = await tx.run(
        """UPDATE tasks SET state = :state, error_kind = :kind, error_text = :text,
            not_before = CAST(:not_before AS DOUBLE PRECISION)
        WHERE id = :task_id AND attempt = :attempt AND state = 1""",
        state=3 if not_before is None else 0, kind=error_kind, text=error_text, not_before=not_before,
        task_id=task_id, attempt=attempt,
    )  # fmt: skip
    return changed == 1


async def reopen_failed(tx: Transaction, sweep_id: int) -> int:
    """Failed tasks of the sweep, and done ones that hold errors, are pending again; how many."""
    return await tx.run(
        f"""UPDATE tasks SET state = 0, not_before = NULL, error_kind = NULL, error_text = NULL
        WHERE id IN (SELECT t.id FROM tasks t WHERE {_IN_SWEEP} AND (t.state = 3
            OR (t.state = 2 AND (t.id IN (SELECT task_id FROM trajectories WHERE outcome = 'error')
                OR t.id IN ({_SCORED_AGAIN})))))""",
        sweep_id=sweep_id,
    )
