"""What a task still owes: samples that are not stored, scores that are not final, or a search with its tree.

Functions take their transaction.

A claimed task is handed out with exactly that, so a task that was interrupted is never paid for twice. Must not know
leases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import orjson

from orchestrator.store import facts
from orchestrator.store.backend import AnyRow, Transaction, bulk
from orchestrator.store.catalog import chunks
from orchestrator.store.spans import missing
from orchestrator.store.trees import owed_searches
from workers.identity import SAMPLES_PER_POOL_BITS, prefixed, seed_base
from workers.types import SampleTask, ScoreItem, ScoreTask, Task

_FIRST = f"CAST(t.pool_id AS BIGINT) * {1 << SAMPLES_PER_POOL_BITS} + t.sample_start"
_IS_FINAL = "s.status NOT IN ('error', 'invalid')"

SAMPLES = """SELECT t.id, t.attempt, t.lane_id, t.pool_id, t.sample_start, t.sample_count, p.seed, p.problem_id,
        p.generator_id, p.prefix_id, q.statement, q.content_hash, g.fingerprint,
        SUBSTR(x.text, 1, f.char_end) AS prefix
    FROM tasks t JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id
    JOIN generators g ON g.id = p.generator_id
    LEFT JOIN prefixes f ON f.id = p.prefix_id
    LEFT JOIN trajectory_texts x ON x.trajectory_id = f.trajectory_id
    WHERE t.id IN :ids ORDER BY t.id"""

PRESENT = f"""SELECT t.id, j.sample_index FROM tasks t
    JOIN trajectories j ON j.id >= {_FIRST} AND j.id < {_FIRST} + t.sample_count
    WHERE t.id IN :ids AND j.outcome <> 'error' ORDER BY t.id, j.sample_index"""

SCORES = f"""SELECT t.id, t.attempt, t.lane_id, t.pool_id, l.scorer_id, p.problem_id, q.statement,
        {_FIRST} AS first_id, {_FIRST} + t.sample_count AS end_id
    FROM tasks t JOIN lanes l ON l.id = t.lane_id JOIN pools p ON p.id = t.pool_id
    JOIN problems q ON q.id = p.problem_id
    WHERE t.id IN :ids ORDER BY t.id"""

_WANTS_A_SCORE = f"""j.id >= :first AND j.id < :end AND j.outcome = 'complete' AND NOT EXISTS (
        SELECT 1 FROM scores s WHERE s.trajectory_id = j.id AND s.scorer_id = :scorer_id AND {_IS_FINAL})"""
"""Samples that ended by themselves are scored: no other may be selected.

One task a statement, its range given: from a join of ranges PostgreSQL expects so many rows that it reads whole tables.
"""

UNSCORED = f"""SELECT j.id, x.text, x.step_ends, a.text AS answer
    FROM trajectories j
    JOIN trajectory_texts x ON x.trajectory_id = j.id
    LEFT JOIN extractions e ON e.trajectory_id = j.id AND e.extractor_id = :extractor_id
    LEFT JOIN answers a ON a.id = e.answer_id
    WHERE {_WANTS_A_SCORE} ORDER BY j.id"""

WANTING = (
    f"""SELECT j.id, j.text_hash FROM trajectories j WHERE j.text_hash IS NOT NULL AND {_WANTS_A_SCORE}"""
)

SCORED = f"""SELECT j.text_hash, MIN(j.id) AS id FROM trajectories j
    JOIN scores s ON s.trajectory_id = j.id AND s.scorer_id = :scorer_id AND {_IS_FINAL}
    WHERE j.id >= :first AND j.id < :end AND j.text_hash IS NOT NULL GROUP BY j.text_hash"""

EXTRACTOR = """SELECT COALESCE(s.extractor_id, (SELECT MAX(id) FROM extractors))
    FROM sweeps s JOIN runs r ON r.sweep_id = s.id WHERE r.id = :run_id"""

SCORE_ROWS = bulk(
    facts.scores,
    "(trajectory_id, scorer_id) DO UPDATE SET values_json = excluded.values_json, status = excluded.status, "
    "detail = excluded.detail WHERE scores.status IN ('error', 'invalid')",
)
"""A score is final once it is neither an error nor a breach of contract: those alone may be replaced."""


async def owed(
    tx: Transaction, kind: str, task_ids: Sequence[int], run_id: int, *, shares_steps: bool = False
) -> list[Task]:
    """The tasks (all of one kind of lane) with what they still owe, by id.

    Samples whose texts have a score already get it on the way, before anybody is asked for it. Searches may be offered
    the steps of others.
    """
    if not task_ids:
        return []
    if kind == "sample":
        return await _owed_samples(tx, list(task_ids))
    if kind == "search":
        return await owed_searches(tx, task_ids, shares_steps=shares_steps)
    extractor_id = await tx.scalar(EXTRACTOR, run_id=run_id)
    return [await _owed_scores(tx, row, extractor_id) for row in await tx.rows(SCORES, ids=list(task_ids))]


async def _owed_scores(tx: Transaction, task: AnyRow, extractor_id: int) -> ScoreTask:
    await _share_scores(tx, task)
    span = {"first": task.first_id, "end": task.end_id, "scorer_id": task.scorer_id}
    items = tuple(
        ScoreItem(row.id, row.text, tuple(orjson.loads(row.step_ends)), row.answer)
        for row in await tx.rows(UNSCORED, extractor_id=extractor_id, **span)
    )
    return ScoreTask(
        task.id, task.attempt, task.lane_id, task.pool_id, task.problem_id, task.statement, task.scorer_id,
        items,
    )  # fmt: skip


async def _share_scores(tx: Transaction, task: AnyRow) -> None:
    """Give samples of a task the scores of equal texts of its pool.

    A text that stands twice within one task is the worker's business.
    """
    pool = {
        "first": task.pool_id << SAMPLES_PER_POOL_BITS,
        "end": (task.pool_id + 1) << SAMPLES_PER_POOL_BITS,
    }
    sources = {row.text_hash: row.id for row in await tx.rows(SCORED, scorer_id=task.scorer_id, **pool)}
    if not sources:
        return
    wanting = await tx.rows(WANTING, first=task.first_id, end=task.end_id, scorer_id=task.scorer_id)
    pairs = [(row.id, sources[row.text_hash]) for row in wanting if row.text_hash in sources]
    await _copy_scores(tx, task.scorer_id, pairs)


async def _copy_scores(tx: Transaction, scorer_id: int, pairs: Sequence[tuple[int, int]]) -> None:
    sql = """SELECT trajectory_id, values_json, status, detail FROM scores
        WHERE scorer_id = :scorer_id AND trajectory_id IN :ids"""
    found: dict[int, AnyRow] = {}
    for chunk in chunks(sorted({source for _, source in pairs})):
        found |= {row.trajectory_id: row for row in await tx.rows(sql, scorer_id=scorer_id, ids=chunk)}
    await tx.insert(
        SCORE_ROWS,
        [
            (target, scorer_id, found[source].values_json, found[source].status, found[source].detail)
            for target, source in pairs
        ],
    )


async def _owed_samples(tx: Transaction, task_ids: list[int]) -> list[Task]:
    present: defaultdict[int, list[int]] = defaultdict(list)
    for task_id, index in await tx.rows(PRESENT, ids=task_ids):
        present[task_id].append(index)
    return [_sample_task(row, present[row.id]) for row in await tx.rows(SAMPLES, ids=task_ids)]


def _sample_task(row: AnyRow, present: list[int]) -> SampleTask:
    return SampleTask(
        row.id, row.attempt, row.lane_id, row.pool_id, row.problem_id, row.statement, row.generator_id,
        seed_base(row.seed, prefixed(row.content_hash, row.prefix_id), row.fingerprint),
        missing(row.sample_start, row.sample_count, present),
        row.prefix or "",
    )  # fmt: skip
