"""Views on samples: pools of a sweep, whole solutions with their verdicts, solutions that searches found."""

from __future__ import annotations

from orchestrator.store.views.view import View, verdict

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

SAMPLE_VIEWS = (V_SWEEP_POOLS, V_SAMPLES, V_FOUND)
