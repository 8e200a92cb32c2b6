"""What the planner, the estimators and people read: aggregated in SQL, never one row a sample. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store.backend import Transaction
from orchestrator.store.records import (
    PoolContent,
    PoolWanted,
    Progress,
    Scoring,
    TaskSpan,
)

COVERAGE = """SELECT sp.pool_id, p.problem_id, p.generator_id, sp.samples AS samples_wanted, sp.strategy
    FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
    WHERE sp.sweep_id = :sweep_id AND p.prefix_id IS NULL AND p.procedure_id IS NULL
    ORDER BY sp.pool_id, sp.strategy"""

TASK_SPANS = """SELECT t.pool_id, t.sample_start, t.sample_count, t.state
    FROM (SELECT DISTINCT sp.pool_id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
        WHERE sp.sweep_id = :sweep_id AND p.prefix_id IS NULL) w
    JOIN tasks t ON t.pool_id = w.pool_id AND t.lane_id IN (SELECT id FROM lanes WHERE kind = 'sample')
    ORDER BY t.pool_id, t.sample_start"""

PROGRESS = """SELECT sweep_id, sweep, state, samples_wanted, samples_stored, tasks_pending, tasks_running,
        tasks_done, tasks_failed FROM v_progress"""


async def coverage(tx: Transaction, sweep_id: int) -> list[PoolWanted]:
    """The pools of whole solutions of a sweep, and how many samples its strategies want of each."""
    return [PoolWanted(*row) for row in await tx.rows(COVERAGE, sweep_id=sweep_id)]


async def task_spans(tx: Transaction, sweep_id: int) -> list[TaskSpan]:
    """Spans of all tasks that draw in the pools of whole solutions of a sweep, by pool and start."""
    return [TaskSpan(*row) for row in await tx.rows(TASK_SPANS, sweep_id=sweep_id)]


_HELD = """FROM generators g JOIN pools p ON p.generator_id = g.id JOIN problems q ON q.id = p.problem_id
    JOIN trajectories t ON t.id >= CAST(p.id AS BIGINT) * 1048576 AND t.id < (CAST(p.id AS BIGINT) + 1) * 1048576
    WHERE g.fingerprint = :fingerprint AND p.seed = :seed AND t.outcome <> 'error'"""


async def pool_contents(tx: Transaction, fingerprint: str, seed: int) -> dict[str, PoolContent]:
    """What the pools of whole solutions of a generator hold, by content hash of their problem."""
    rows = await tx.rows(
        f"""SELECT q.content_hash, COUNT(*), SUM(COALESCE(t.completion_tokens, 0)), SUM(t.latency_s)
        {_HELD} AND p.prefix_id IS NULL AND p.procedure_id IS NULL GROUP BY q.content_hash""",
        fingerprint=fingerprint,
        seed=seed,
    )
    return {row[0]: PoolContent(int(row[1]), int(row[2]), float(row[3])) for row in rows}


async def completions_held(tx: Transaction, fingerprint: str, seed: int) -> PoolContent:
    """What a generator has completed of beginnings."""
    (row,) = await tx.rows(
        f"""SELECT COUNT(*), COALESCE(SUM(COALESCE(t.completion_tokens, 0)), 0), COALESCE(SUM(t.latency_s), 0)
        {_HELD} AND p.prefix_id IS NOT NULL""",
        fingerprint=fingerprint,
        seed=seed,
    )
    return PoolContent(int(row[0]), int(row[1]), float(row[2]))


async def mean_steps(tx: Transaction, fingerprint: str, seed: int) -> float | None:
    """Steps of a whole solution of a generator, over those that are stored; None while there are none."""
    commas = "LENGTH(x.step_ends) - LENGTH(REPLACE(x.step_ends, ',', ''))"
    found = await tx.scalar(
        f"""SELECT AVG(CAST(1 + {commas} AS DOUBLE PRECISION))
        FROM generators g JOIN pools p ON p.generator_id = g.id AND p.prefix_id IS NULL AND p.procedure_id IS NULL
        JOIN trajectories t ON t.id >= CAST(p.id AS BIGINT) * 1048576
            AND t.id < (CAST(p.id AS BIGINT) + 1) * 1048576
        JOIN trajectory_texts x ON x.trajectory_id = t.id
        WHERE g.fingerprint = :fingerprint AND p.seed = :seed AND t.outcome || '' = 'complete'""",
        fingerprint=fingerprint,
        seed=seed,
    )
    return None if found is None else float(found)


async def scores_held(tx: Transaction, scorer: str, fingerprint: str, seed: int) -> int:
    """Solutions of a generator that a scorer (by its fingerprint) is not to score again."""
    return int(
        await tx.scalar(
            """SELECT COUNT(*) FROM generators g JOIN pools p ON p.generator_id = g.id AND p.prefix_id IS NULL
                AND p.procedure_id IS NULL
            JOIN scores s ON s.trajectory_id >= CAST(p.id AS BIGINT) * 1048576
                AND s.trajectory_id < (CAST(p.id AS BIGINT) + 1) * 1048576
            JOIN scorers c ON c.id = s.scorer_id
            WHERE g.fingerprint = :fingerprint AND p.seed = :seed AND c.fingerprint = :scorer
                AND s.status NOT IN ('error', 'invalid')""",
            fingerprint=fingerprint, seed=seed, scorer=scorer,
        )
    )  # fmt: skip


_OPEN = """SELECT COUNT(*) AS tasks FROM tasks t WHERE t.state = {state} AND t.lane_id IN :lanes AND EXISTS (
    SELECT 1 FROM sweep_pools sp WHERE sp.sweep_id = :sweep_id AND sp.pool_id = t.pool_id
        AND sp.samples > t.sample_start)"""
OPEN_TASKS = f"SELECT SUM(tasks) FROM ({_OPEN.format(state=0)} UNION ALL {_OPEN.format(state=1)}) n"
"""Pending and leased tasks are few among all, and each of the two states has an index of its own."""


async def open_tasks(tx: Transaction, sweep_id: int, lane_ids: Sequence[int]) -> int:
    """Tasks of a sweep in these lanes that are pending or leased."""
    return int(await tx.scalar(OPEN_TASKS, sweep_id=sweep_id, lanes=list(lane_ids))) if lane_ids else 0


async def samples_failed(tx: Transaction, sweep_id: int) -> int:
    """Samples of a sweep that are stored as errors."""
    return int(
        await tx.scalar(
            """SELECT COUNT(*) FROM trajectories t JOIN sweep_pools sp ON sp.pool_id = t.pool_id
            WHERE t.outcome = 'error' AND sp.sweep_id = :sweep_id AND t.sample_index < sp.samples""",
            sweep_id=sweep_id,
        )
    )


async def tokens_generated(tx: Transaction, sweep_id: int) -> int:
    """Tokens generated so far for the tasks of a sweep's pools, lost and repeated ones included."""
    return int(
        await tx.scalar(
            """SELECT COALESCE(SUM(u.completion_tokens), 0)
            FROM (SELECT DISTINCT pool_id FROM sweep_pools WHERE sweep_id = :sweep_id) w
            JOIN tasks t ON t.pool_id = w.pool_id JOIN usage u ON u.task_id = t.id AND u.role = 'policy'""",
            sweep_id=sweep_id,
        )
    )


async def scores_failed(tx: Transaction, sweep_id: int) -> int:
    """Scores that a sweep wants and that are stored as errors or as breaches of the scorer's contract."""
    return int(
        await tx.scalar(
            """SELECT COUNT(*) FROM scores s
            JOIN lanes l ON l.scorer_id = s.scorer_id
            JOIN sweep_lanes k ON k.lane_id = l.id AND k.sweep_id = :sweep_id
            JOIN trajectories t ON t.id = s.trajectory_id
            JOIN (SELECT pool_id, MAX(samples) AS samples FROM sweep_pools WHERE sweep_id = :sweep_id
                GROUP BY pool_id) w ON w.pool_id = t.pool_id AND t.sample_index < w.samples
            WHERE s.status IN ('error', 'invalid')""",
            sweep_id=sweep_id,
        )
    )


async def scoring(tx: Transaction, sweep_id: int) -> list[Scoring]:
    """What has become of the samples that each scorer of a sweep was to score."""
    rows = await tx.rows(
        """SELECT scorer_id, scorer, scored, truncated, too_long, unparsed, invalid, errors FROM v_scoring
        WHERE sweep_id = :sweep_id ORDER BY scorer_id""",
        sweep_id=sweep_id,
    )
    return [Scoring(*row) for row in rows]


async def progress(tx: Transaction, sweep_id: int | None) -> list[Progress]:
    """How far one sweep is, or all sweeps, newest first."""
    where = "WHERE sweep_id = :sweep_id" if sweep_id is not None else ""
    values = {"sweep_id": sweep_id} if sweep_id is not None else {}
    rows = await tx.rows(f"{PROGRESS} {where} ORDER BY sweep_id DESC", **values)
    return [Progress(row[0], row[1], row[2], *(int(count) for count in row[3:])) for row in rows]
