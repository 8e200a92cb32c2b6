"""Labelled solutions as training data is made of them. Reads only.

Must not know any layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

import orjson

from orchestrator.store.backend import AnyRow, Transaction
from orchestrator.store.records import LabelledSolution
from orchestrator.store.views.view import verdict
from workers.identity import SAMPLES_PER_POOL_BITS

_VERDICT = verdict("t.outcome", "e.answer_id")

LABELLED = f"""SELECT q.trajectory_id, q.step_index, v.samples AS wanted,
        COUNT(CASE WHEN {_VERDICT} NOT IN ('error', 'ungraded', 'gold_unparsable') THEN t.id END) AS rollouts,
        COUNT(CASE WHEN {_VERDICT} = 'correct' THEN t.id END) AS correct
    FROM trajectory_prefixes q
    JOIN pools k ON k.prefix_id = q.prefix_id
    JOIN problems p ON p.id = k.problem_id
    JOIN sweep_pools v ON v.sweep_id = :sweep_id AND v.pool_id = k.id AND v.strategy = :strategy
    JOIN sweeps s ON s.id = v.sweep_id
    LEFT JOIN trajectories t ON t.id >= CAST(k.id AS BIGINT) * 1048576
        AND t.id < CAST(k.id AS BIGINT) * 1048576 + v.samples
    LEFT JOIN extractions e ON e.trajectory_id = t.id AND e.extractor_id = s.extractor_id
    LEFT JOIN grades g ON g.answer_id = e.answer_id AND g.grader_id = s.grader_id
    WHERE q.trajectory_id >= :first AND q.trajectory_id < :end
    GROUP BY q.trajectory_id, q.step_index, v.samples ORDER BY q.trajectory_id, q.step_index"""
"""One pool a statement, its range given: a join of pools SQLite would begin at another end, and read everything."""

SOLUTIONS = f"""SELECT t.id AS trajectory_id, p.dataset, p.external_id, p.level, p.statement, x.text, x.step_ends,
        {_VERDICT} AS verdict
    FROM trajectories t
    JOIN trajectory_texts x ON x.trajectory_id = t.id
    JOIN pools o ON o.id = t.pool_id
    JOIN problems p ON p.id = o.problem_id
    JOIN sweeps s ON s.id = :sweep_id
    LEFT JOIN extractions e ON e.trajectory_id = t.id AND e.extractor_id = s.extractor_id
    LEFT JOIN grades g ON g.answer_id = e.answer_id AND g.grader_id = s.grader_id
    WHERE t.id >= :first AND t.id < :end ORDER BY t.id"""


async def labelled_pools(tx: Transaction, sweep_id: int, source: str) -> list[tuple[int, int]]:
    """(pool, samples wanted) of the solutions that may be labelled."""
    sql = """SELECT w.pool_id, w.samples FROM sweep_pools w JOIN pools p ON p.id = w.pool_id
        WHERE w.sweep_id = :sweep_id AND w.strategy = :source AND p.prefix_id IS NULL ORDER BY w.pool_id"""
    return [(row.pool_id, row.samples) for row in await tx.rows(sql, sweep_id=sweep_id, source=source)]


async def labelled_solutions(
    tx: Transaction, sweep_id: int, strategy: str, pools: Sequence[tuple[int, int]]
) -> list[LabelledSolution]:
    """The solutions in these pools whose steps a strategy labels, whether all their completions are there or not."""
    return [
        solution
        for pool_id, samples in pools
        for solution in await _of_pool(tx, sweep_id, strategy, pool_id, samples)
    ]


async def _of_pool(
    tx: Transaction, sweep_id: int, strategy: str, pool_id: int, samples: int
) -> list[LabelledSolution]:
    first = pool_id << SAMPLES_PER_POOL_BITS
    chosen = {"sweep_id": sweep_id, "first": first, "end": first + samples}
    rows = await tx.rows(LABELLED, strategy=strategy, **chosen)
    labels = {key: list(group) for key, group in groupby(rows, key=attrgetter("trajectory_id"))}
    solutions = await tx.rows(SOLUTIONS, **chosen)
    return [_labelled(row, labels[row.trajectory_id]) for row in solutions if row.trajectory_id in labels]


def _labelled(row: AnyRow, labels: Sequence[AnyRow]) -> LabelledSolution:
    ends = orjson.loads(row.step_ends)
    starts = [0, *ends[:-1]]
    is_whole = [label.step_index for label in labels] == list(range(len(ends) - 1)) and all(
        label.rollouts == label.wanted for label in labels
    )
    return LabelledSolution(
        trajectory_id=row.trajectory_id,
        dataset=row.dataset,
        problem_id=row.external_id,
        level=row.level,
        statement=row.statement,
        steps=tuple(row.text[start:end] for start, end in zip(starts, ends, strict=True)),
        verdict=row.verdict,
        rollouts=tuple(int(label.rollouts) for label in labels),
        correct=tuple(int(label.correct) for label in labels),
        is_whole=is_whole,
    )
