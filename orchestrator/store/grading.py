"""Answers in, verdicts out: distinct answer strings are graded, never samples.

Must not know how a grader decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.store import facts
from orchestrator.store.backend import Transaction, bulk
from orchestrator.store.catalog import chunks
from orchestrator.store.records import Agreement, AnswerRecord, GradeRecord, UngradedAnswer
from orchestrator.store.text import storable_or_none

_GRADES = bulk(
    facts.grades,
    "(answer_id, grader_id) DO UPDATE SET verdict = excluded.verdict, method = excluded.method, "
    "detail = excluded.detail, cluster_id = COALESCE(excluded.cluster_id, grades.cluster_id), "
    "graded_at = excluded.graded_at",
)

UNGRADED = """SELECT a.id, a.problem_id, a.text, q.answer
    FROM (SELECT DISTINCT p.problem_id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
        WHERE sp.sweep_id = :sweep_id) w
    JOIN problems q ON q.id = w.problem_id
    JOIN answers a ON a.problem_id = w.problem_id
    WHERE NOT EXISTS (SELECT 1 FROM grades g WHERE g.answer_id = a.id AND g.grader_id = :grader_id)
    LIMIT :limit"""


async def ungraded(tx: Transaction, grader_id: int, sweep_id: int, limit: int) -> list[UngradedAnswer]:
    """Up to `limit` answers to problems of the sweep that the grader has not seen."""
    rows = await tx.rows(UNGRADED, grader_id=grader_id, sweep_id=sweep_id, limit=limit)
    return [UngradedAnswer(*row) for row in rows]


async def write_grades(tx: Transaction, grader_id: int, grades: Sequence[GradeRecord]) -> None:
    """Store verdicts; a second verdict of the same grader replaces the first."""
    now = await tx.now()
    distinct = {grade.answer_id: grade for grade in grades}
    await tx.insert(
        _GRADES,
        [
            (g.answer_id, grader_id, g.verdict, g.method, storable_or_none(g.detail), g.cluster_id, now)
            for g in distinct.values()
        ],
    )


async def answers_of(tx: Transaction, problem_id: int, grader_id: int) -> list[AnswerRecord]:
    """All distinct answers to a problem, with what the grader says of them."""
    rows = await tx.rows(
        """SELECT a.id, a.text, g.verdict, g.cluster_id FROM answers a
        LEFT JOIN grades g ON g.answer_id = a.id AND g.grader_id = :grader_id
        WHERE a.problem_id = :problem_id ORDER BY a.id""",
        problem_id=problem_id,
        grader_id=grader_id,
    )
    return [AnswerRecord(*row) for row in rows]


async def unclustered_problems(tx: Transaction, grader_id: int, sweep_id: int) -> list[int]:
    """Problems of the sweep that have answers which are graded but in no cluster yet."""
    rows = await tx.rows(
        """SELECT DISTINCT a.problem_id
        FROM (SELECT DISTINCT p.problem_id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
            WHERE sp.sweep_id = :sweep_id) w
        JOIN answers a ON a.problem_id = w.problem_id
        JOIN grades g ON g.answer_id = a.id AND g.grader_id = :grader_id
        WHERE g.cluster_id IS NULL""",
        grader_id=grader_id,
        sweep_id=sweep_id,
    )
    return [row.problem_id for row in rows]


async def agreement(tx: Transaction, sweep_id: int, one: int, other: int) -> Agreement:
    """How often two graders agree on the distinct answers to a sweep's problems that both call correct or wrong."""
    (row,) = await tx.rows(
        """SELECT COUNT(*), COALESCE(SUM(CASE WHEN g.verdict = h.verdict THEN 1 ELSE 0 END), 0)
        FROM (SELECT DISTINCT p.problem_id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
            WHERE sp.sweep_id = :sweep_id) w
        JOIN answers a ON a.problem_id = w.problem_id
        JOIN grades g ON g.answer_id = a.id AND g.grader_id = :one AND g.verdict IN ('correct', 'wrong')
        JOIN grades h ON h.answer_id = a.id AND h.grader_id = :other AND h.verdict IN ('correct', 'wrong')""",
        sweep_id=sweep_id, one=one, other=other,
    )  # fmt: skip
    return Agreement(int(row[0]), int(row[1]))


async def write_clusters(tx: Transaction, grader_id: int, clusters: Mapping[int, int]) -> int:
    """Set the cluster of graded answers (answer id -> id of the answer that stands for it); how many."""
    changed = 0
    for cluster in sorted(set(clusters.values())):
        for chunk in chunks([answer for answer, its in clusters.items() if its == cluster]):
            changed += await tx.run(
                "UPDATE grades SET cluster_id = :cluster WHERE grader_id = :grader_id AND answer_id IN :ids",
                cluster=cluster, grader_id=grader_id, ids=chunk,
            )  # fmt: skip
    return changed
