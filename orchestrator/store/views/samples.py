"""Views on samples: pools of a sweep, whole solutions with their verdicts, counts, accuracy."""

from __future__ import annotations

from orchestrator.store.views.view import GRADE, UNFINISHED, View, verdict

V_SWEEP_POOLS = View(
    "v_sweep_pools",
    "The pools a sweep looks at, with the range of trajectory ids it wants of each",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    pool_id: Pool
    problem_id: Problem
    generator_id: Generator
    prefix_id: Beginning of a solution that its samples complete (rollouts); NULL: whole solutions
    procedure_id: Procedure that finds its samples (searches); NULL: they are drawn independently
    samples_wanted: Samples wanted, the most over strategies
    first_id: First trajectory id wanted
    end_id: First trajectory id beyond
    extractor_id: Extractor whose answers count: the sweep's, or else the newest
    grader_id: Grader whose verdicts count: the sweep's, or else the newest
    """,
    """SELECT s.id AS sweep_id, s.name AS sweep, sp.pool_id, p.problem_id, p.generator_id, p.prefix_id,
        p.procedure_id, MAX(sp.samples) AS samples_wanted,
        CAST(sp.pool_id AS BIGINT) * 1048576 AS first_id,
        CAST(sp.pool_id AS BIGINT) * 1048576 + MAX(sp.samples) AS end_id,
        COALESCE(s.extractor_id, (SELECT MAX(id) FROM extractors)) AS extractor_id,
        COALESCE(s.grader_id, (SELECT MAX(id) FROM graders)) AS grader_id
    FROM sweep_pools sp JOIN sweeps s ON s.id = sp.sweep_id JOIN pools p ON p.id = sp.pool_id
    GROUP BY s.id, s.name, sp.pool_id, p.problem_id, p.generator_id, p.prefix_id, p.procedure_id,
        s.extractor_id, s.grader_id""",
)

V_SAMPLES = View(
    "v_samples",
    "One row an independent solution of a sweep, with its answer and verdict; join trajectory_texts for the text",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    problem_id: Problem
    dataset: Dataset
    external_id: The dataset's own name of the problem
    level: Difficulty level
    subject: Subject
    generator_id: Generator
    generator: Name of the generator
    pool_id: Pool
    trajectory_id: Trajectory
    sample_index: Which sample of the pool
    seed: Seed sent with the request
    outcome: How the generation ended
    verdict: correct, wrong, truncated, no_answer, error, ungraded, gold_unparsable, timeout or crashed
    answer_id: Distinct answer
    answer: The answer as extracted
    answer_method: How the answer was found
    gold: Reference answer
    cluster_id: Answer that stands for all equivalent ones
    grade_method: Rule that decided
    completion_tokens: Tokens generated
    finish_reason: The server's finish reason
    latency_s: Seconds from request to reply
    retries: Attempts beyond the first
    error: Last error
    """,
    f"""SELECT w.sweep_id, w.sweep, w.problem_id, p.dataset, p.external_id, p.level, p.subject,
        w.generator_id, n.name AS generator, w.pool_id,
        t.id AS trajectory_id, t.sample_index, t.seed, t.outcome,
        {verdict("t.outcome", "x.answer_id")} AS verdict,
        x.answer_id, a.text AS answer, x.method AS answer_method, p.answer AS gold,
        COALESCE(g.cluster_id, x.answer_id) AS cluster_id, g.method AS grade_method,
        t.completion_tokens, t.finish_reason, t.latency_s, t.retries, t.error
    FROM v_sweep_pools w
    JOIN problems p ON p.id = w.problem_id
    JOIN generators n ON n.id = w.generator_id
    JOIN trajectories t ON t.pool_id = w.pool_id AND t.id >= w.first_id AND t.id < w.end_id
    LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = w.extractor_id
    LEFT JOIN answers a ON a.id = x.answer_id
    LEFT JOIN grades g ON g.answer_id = x.answer_id AND g.grader_id = w.grader_id
    WHERE w.prefix_id IS NULL AND w.procedure_id IS NULL""",
)

V_FOUND = View(
    "v_found",
    "One row a solution that a search found, with its answer and verdict; join trajectory_texts for the text",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    strategy: Strategy, with its budget
    algorithm: beam, rebase, ...
    budget: Budget of the search, in generations
    problem_id: Problem
    external_id: The dataset's own name of the problem
    level: Difficulty level
    pool_id: Search; v_tree has its nodes
    trajectory_id: Trajectory
    sample_index: Which of the solutions that the search returned
    outcome: How the generation ended
    verdict: correct, wrong, truncated, no_answer, error, ungraded, gold_unparsable, timeout or crashed
    answer: The answer as extracted
    gold: Reference answer
    cluster_id: Answer that stands for all equivalent ones
    completion_tokens: Tokens from its beginning to its end; a beginning that solutions share counts in each
    """,
    f"""SELECT w.sweep_id, w.sweep, sp.strategy, c.kind AS algorithm, c.budget, w.problem_id, p.external_id, p.level,
        w.pool_id, t.id AS trajectory_id, t.sample_index, t.outcome,
        {verdict("t.outcome", "x.answer_id")} AS verdict, a.text AS answer, p.answer AS gold,
        COALESCE(g.cluster_id, x.answer_id) AS cluster_id, t.completion_tokens
    FROM v_sweep_pools w
    JOIN procedures c ON c.id = w.procedure_id
    JOIN sweep_pools sp ON sp.sweep_id = w.sweep_id AND sp.pool_id = w.pool_id
    JOIN problems p ON p.id = w.problem_id
    JOIN trajectories t ON t.pool_id = w.pool_id AND t.id >= w.first_id AND t.id < w.end_id
    LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = w.extractor_id
    LEFT JOIN answers a ON a.id = x.answer_id
    LEFT JOIN grades g ON g.answer_id = x.answer_id AND g.grader_id = w.grader_id""",
)

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
    f"""SELECT c.sweep_id, c.pool_id, c.problem_id, c.generator_id, p.level, p.gold_status,
        c.n, c.correct, c.wrong, c.truncated, c.no_answer, c.errors,
        c.n - c.correct - c.wrong - c.truncated - c.no_answer - c.errors AS ungraded, c.completion_tokens
    FROM (SELECT v.sweep_id, v.pool_id, v.problem_id, v.generator_id, COUNT(*) AS n,
            COUNT(CASE WHEN v.verdict = 'correct' THEN 1 END) AS correct,
            COUNT(CASE WHEN v.verdict = 'wrong' THEN 1 END) AS wrong,
            COUNT(CASE WHEN v.verdict = 'truncated' THEN 1 END) AS truncated,
            COUNT(CASE WHEN v.verdict = 'no_answer' THEN 1 END) AS no_answer,
            COUNT(CASE WHEN v.verdict = 'error' THEN 1 END) AS errors,
            SUM(v.completion_tokens) AS completion_tokens
        FROM (SELECT w.sweep_id, w.pool_id, w.problem_id, w.generator_id, t.completion_tokens,
                {verdict("t.outcome", "x.answer_id")} AS verdict
            FROM v_sweep_pools w JOIN problems p ON p.id = w.problem_id
            JOIN trajectories t ON t.pool_id = w.pool_id AND t.id >= w.first_id AND t.id < w.end_id
            LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = w.extractor_id
            LEFT JOIN grades g ON g.answer_id = x.answer_id AND g.grader_id = w.grader_id
            WHERE w.prefix_id IS NULL AND w.procedure_id IS NULL) v
        GROUP BY v.sweep_id, v.pool_id, v.problem_id, v.generator_id) c
    JOIN problems p ON p.id = c.problem_id""",
    # Samples and answers are counted apart, pool by pool, by the ranges of their keys: none but unfinished samples meet
    # their answers, and answers meet their verdicts once they are counted. A sample that ended in error has no answer.
    postgres=f"""SELECT w.sweep_id, w.pool_id, w.problem_id, w.generator_id, p.level, p.gold_status,
        c.n, a.correct, a.wrong, c.truncated, c.n - c.errors - c.truncated - a.answered AS no_answer, c.errors,
        a.answered - a.correct - a.wrong AS ungraded, c.completion_tokens
    FROM v_sweep_pools w JOIN problems p ON p.id = w.problem_id
    CROSS JOIN LATERAL (
        SELECT COUNT(*) AS n, COUNT(*) FILTER (WHERE t.outcome = 'error') AS errors,
            COUNT(*) FILTER (WHERE CASE WHEN t.outcome IN {UNFINISHED} THEN NOT EXISTS (
                SELECT 1 FROM extractions x WHERE x.trajectory_id = t.id AND x.extractor_id = w.extractor_id
                AND x.answer_id IS NOT NULL) END) AS truncated,
            SUM(t.completion_tokens) AS completion_tokens
        FROM trajectories t WHERE t.id >= w.first_id AND t.id < w.end_id) c
    CROSS JOIN LATERAL (
        SELECT CAST(COALESCE(SUM(m.n), 0) AS BIGINT) AS answered,
            CAST(COALESCE(SUM(m.n) FILTER (WHERE m.verdict = 'correct'), 0) AS BIGINT) AS correct,
            CAST(COALESCE(SUM(m.n) FILTER (WHERE m.verdict = 'wrong'), 0) AS BIGINT) AS wrong
        FROM (SELECT k.n, {GRADE} AS verdict
            FROM (SELECT x.answer_id, COUNT(*) AS n FROM extractions x
                WHERE x.trajectory_id >= w.first_id AND x.trajectory_id < w.end_id
                AND x.extractor_id = w.extractor_id AND x.answer_id IS NOT NULL
                GROUP BY x.answer_id) k
            LEFT JOIN grades g ON g.answer_id = k.answer_id AND g.grader_id = w.grader_id) m) a
    WHERE w.prefix_id IS NULL AND w.procedure_id IS NULL AND c.n > 0""",
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

SAMPLE_VIEWS = (V_SWEEP_POOLS, V_SAMPLES, V_FOUND, V_POOL_ANSWERS, V_PROBLEM_COUNTS, V_ACCURACY)
