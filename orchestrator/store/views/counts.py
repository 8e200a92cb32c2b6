"""Views that count samples: by answer, by pool, by level.

Samples and answers of a pool are counted apart, each by the range of its keys. None but an unfinished sample meets its
answer (a sample that ended in error has none), and answers meet their verdicts once they are counted: a join and a sort
of every sample with its answer takes four times as long in SQLite, and twice as long in PostgreSQL. Verdicts are scalar
subqueries, which no planner makes a join: it cannot know how many answers a pool has, and where it guesses too many it
reads all grades for each pool.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.store.views.view import GRADE, UNFINISHED, View

V_POOL_ANSWERS = View(
    "v_pool_answers",
    "How often each outcome and answer occurs among the samples a sweep wants of a pool",
    """
    sweep_id: Sweep
    pool_id: Pool
    problem_id: Problem
    generator_id: Generator
    grader_id: Grader whose verdicts count
    outcome: How the generations ended
    answer_id: Distinct answer; NULL: none
    samples: Number of samples
    completion_tokens: Tokens generated for them
    latency_s: Seconds, summed
    """,
    """SELECT w.sweep_id, w.pool_id, w.problem_id, w.generator_id, w.grader_id, t.outcome, x.answer_id,
        COUNT(*) AS samples, SUM(t.completion_tokens) AS completion_tokens, SUM(t.latency_s) AS latency_s
    FROM v_sweep_pools w
    JOIN trajectories t ON t.pool_id = w.pool_id AND t.id >= w.first_id AND t.id < w.end_id
    LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = w.extractor_id
    WHERE w.prefix_id IS NULL AND w.procedure_id IS NULL
    GROUP BY w.sweep_id, w.pool_id, w.problem_id, w.generator_id, w.grader_id, t.outcome, x.answer_id""",
)

_ANSWER = (
    "(SELECT x.answer_id FROM extractions x WHERE x.trajectory_id = t.id AND x.extractor_id = w.extractor_id)"
)
_SAMPLES = {
    "n": "COUNT(*)",
    "errors": "COUNT(*) FILTER (WHERE t.outcome = 'error')",
    "truncated": f"COUNT(*) FILTER (WHERE CASE WHEN t.outcome IN {UNFINISHED} THEN {_ANSWER} IS NULL END)",
    "completion_tokens": "SUM(t.completion_tokens)",
}
"""Counts of the samples of a pool `w`."""
_OF_SAMPLES = "FROM trajectories t WHERE t.id >= w.first_id AND t.id < w.end_id"
_ANSWERS = {
    "answered": "CAST(COALESCE(SUM(m.n), 0) AS BIGINT)",
    "correct": "CAST(COALESCE(SUM(m.n) FILTER (WHERE m.verdict = 'correct'), 0) AS BIGINT)",
    "wrong": "CAST(COALESCE(SUM(m.n) FILTER (WHERE m.verdict = 'wrong'), 0) AS BIGINT)",
}
"""Counts of the answers of a pool `w` to a problem `p`."""
_OF_ANSWERS = f"""FROM (SELECT g.n, {GRADE} AS verdict
        FROM (SELECT k.n, (SELECT d.verdict FROM grades d
                WHERE d.answer_id = k.answer_id AND d.grader_id = w.grader_id) AS verdict
            FROM (SELECT x.answer_id, COUNT(*) AS n FROM extractions x
                WHERE x.trajectory_id >= w.first_id AND x.trajectory_id < w.end_id
                AND x.extractor_id = w.extractor_id AND x.answer_id IS NOT NULL
                GROUP BY x.answer_id) k) g) m"""
_POOL = "w.sweep_id, w.pool_id, w.problem_id, w.generator_id, p.level, p.gold_status"
_POOLS = "FROM v_sweep_pools w JOIN problems p ON p.id = w.problem_id"
_WHOLE = "WHERE w.prefix_id IS NULL AND w.procedure_id IS NULL"
_COUNTS = """SELECT c.sweep_id, c.pool_id, c.problem_id, c.generator_id, c.level, c.gold_status,
        c.n, c.correct, c.wrong, c.truncated, c.n - c.errors - c.truncated - c.answered AS no_answer, c.errors,
        c.answered - c.correct - c.wrong AS ungraded, c.completion_tokens
    FROM c WHERE c.n > 0"""


def _sqlite_counts() -> str:
    """Each pool's counts packed into an array, since a subquery of SQLite that sees the pool has but one column."""
    unpacked = (
        f"json_extract(q.{part}, '$[{place}]') AS {name}"
        for part, counts in (("samples", _SAMPLES), ("answers", _ANSWERS))
        for place, name in enumerate(counts)
    )
    return f"""WITH q AS MATERIALIZED (SELECT {_POOL},
        (SELECT json_array({", ".join(_SAMPLES.values())}) {_OF_SAMPLES}) AS samples,
        (SELECT json_array({", ".join(_ANSWERS.values())}) {_OF_ANSWERS}) AS answers
    {_POOLS} {_WHOLE}),
    c AS (SELECT q.*, {", ".join(unpacked)} FROM q)
    {_COUNTS}"""


def _postgres_counts() -> str:
    def named(counts: Mapping[str, str]) -> str:
        return ", ".join(f"{sql} AS {name}" for name, sql in counts.items())

    return f"""WITH c AS (SELECT {_POOL}, s.*, a.* {_POOLS}
    CROSS JOIN LATERAL (SELECT {named(_SAMPLES)} {_OF_SAMPLES}) s
    CROSS JOIN LATERAL (SELECT {named(_ANSWERS)} {_OF_ANSWERS}) a
    {_WHOLE})
    {_COUNTS}"""


V_PROBLEM_COUNTS = View(
    "v_problem_counts",
    "One row a pool of a sweep: how many samples, and how they ended",
    """
    sweep_id: Sweep
    pool_id: Pool
    problem_id: Problem
    generator_id: Generator
    level: Difficulty level
    gold_status: Whether the reference answer could be read
    n: Samples stored
    correct: Answer equivalent to the reference
    wrong: Answer not equivalent
    truncated: No answer, cut or timed out
    no_answer: No answer in a finished text
    errors: The endpoint failed; drawn again on the next run
    ungraded: Answer without a verdict yet, or one that could not be decided
    completion_tokens: Tokens generated
    """,
    _sqlite_counts(),
    postgres=_postgres_counts(),
)

V_ACCURACY = View(
    "v_accuracy",
    "One row a sweep, generator and difficulty level: counts and pass@1",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    generator_id: Generator
    generator: Name of the generator
    level: Difficulty level
    problems: Problems with samples
    samples: Samples stored
    correct: Answer equivalent to the reference
    wrong: Answer not equivalent
    truncated: No answer, cut or timed out
    no_answer: No answer in a finished text
    errors: The endpoint failed
    ungraded: No verdict yet, or none possible
    pass_at_1: Mean over problems of correct / (n - errors - ungraded)
    mean_tokens: Tokens generated a sample, errors apart
    """,
    """SELECT c.sweep_id, s.name AS sweep, c.generator_id, n.name AS generator, c.level,
        COUNT(*) AS problems, CAST(SUM(c.n) AS BIGINT) AS samples, CAST(SUM(c.correct) AS BIGINT) AS correct,
        CAST(SUM(c.wrong) AS BIGINT) AS wrong,
        CAST(SUM(c.truncated) AS BIGINT) AS truncated, CAST(SUM(c.no_answer) AS BIGINT) AS no_answer,
        CAST(SUM(c.errors) AS BIGINT) AS errors,
        CAST(SUM(c.ungraded) AS BIGINT) AS ungraded,
        AVG(CAST(c.correct AS DOUBLE PRECISION) / NULLIF(c.n - c.errors - c.ungraded, 0)) AS pass_at_1,
        CAST(SUM(c.completion_tokens) AS DOUBLE PRECISION) / NULLIF(SUM(c.n - c.errors), 0) AS mean_tokens
    FROM v_problem_counts c JOIN sweeps s ON s.id = c.sweep_id JOIN generators n ON n.id = c.generator_id
    GROUP BY c.sweep_id, s.name, c.generator_id, n.name, c.level""",
)

COUNT_VIEWS = (V_POOL_ANSWERS, V_PROBLEM_COUNTS, V_ACCURACY)
