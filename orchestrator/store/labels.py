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

_SOLUTIONS = """sweep_pools w JOIN pools o ON o.id = w.pool_id AND o.prefix_id IS NULL
    JOIN problems p ON p.id = o.problem_id
    JOIN sweeps s ON s.id = w.sweep_id
    JOIN trajectories j ON j.id >= CAST(o.id AS BIGINT) * 1048576
        AND j.id < CAST(o.id AS BIGINT) * 1048576 + w.samples"""

_VERDICT = verdict("t.outcome", "e.answer_id")

LABELLED = f"""SELECT q.trajectory_id, q.step_index, v.samples AS wanted,
        COUNT(CASE WHEN {_VERDICT} NOT IN ('error', 'ungraded', 'gold_unparsable') THEN t.id END) AS rollouts,
        COUNT(CASE WHEN {_VERDICT} = 'correct' THEN t.id END) AS correct
    FROM {_SOLUTIONS}
    JOIN trajectory_prefixes q ON q.trajectory_id = j.id
    JOIN pools k ON k.prefix_id = q.prefix_id
    JOIN sweep_pools v ON v.sweep_id = w.sweep_id AND v.pool_id = k.id AND v.strategy = :strategy
    LEFT JOIN trajectories t ON t.id >= CAST(k.id AS BIGINT) * 1048576
        AND t.id < CAST(k.id AS BIGINT) * 1048576 + v.samples
    LEFT JOIN extractions e ON e.trajectory_id = t.id AND e.extractor_id = s.extractor_id
    LEFT JOIN grades g ON g.answer_id = e.answer_id AND g.grader_id = s.grader_id
    WHERE w.sweep_id = :sweep_id AND w.pool_id IN :pool_ids
    GROUP BY q.trajectory_id, q.step_index, v.samples ORDER BY q.trajectory_id, q.step_index"""
"""Driven by the solutions, by keys all the way: `v_labels` goes through all beginnings of a sweep instead."""

SOLUTIONS = f"""SELECT DISTINCT j.id AS trajectory_id, p.dataset, p.external_id, p.level, p.statement,
        x.text, x.step_ends,
        {verdict("j.outcome", "e.answer_id")} AS verdict
    FROM {_SOLUTIONS}
    JOIN trajectory_texts x ON x.trajectory_id = j.id
    LEFT JOIN extractions e ON e.trajectory_id = j.id AND e.extractor_id = s.extractor_id
    LEFT JOIN grades g ON g.answer_id = e.answer_id AND g.grader_id = s.grader_id
    WHERE w.sweep_id = :sweep_id AND w.pool_id IN :pool_ids ORDER BY j.id"""


async def labelled_pools(tx: Transaction, sweep_id: int, source: str) -> list[int]:
    """Pools of the solutions that may be labelled."""
    sql = """SELECT w.pool_id FROM sweep_pools w JOIN pools p ON p.id = w.pool_id
        WHERE w.sweep_id = :sweep_id AND w.strategy = :source AND p.prefix_id IS NULL ORDER BY w.pool_id"""
    return [row.pool_id for row in await tx.rows(sql, sweep_id=sweep_id, source=source)]


async def labelled_solutions(
    tx: Transaction, sweep_id: int, strategy: str, pool_ids: Sequence[int]
) -> list[LabelledSolution]:
    """The solutions in these pools whose steps a strategy labels, whether all their completions are there or not."""
    chosen = {"sweep_id": sweep_id, "pool_ids": list(pool_ids)}
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
