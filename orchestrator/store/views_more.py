"""Views on steps, trees, cost, progress and agreement; `views` says what a view is and the shared rules."""

from __future__ import annotations

from orchestrator.store.views import SAMPLE_VIEWS, View

V_RESULTS = View(
    "v_results",
    "Estimates, with the name of the sweep; one row an estimate, of the newest estimator version",
    """
    sweep: Name of the sweep
    strategy: Strategy
    selector: Selector
    budget: Generations a problem
    level: Difficulty level; empty: all problems
    metric: Metric
    value: Estimate
    std_error: Standard error
    problems: Problems it rests on
    estimator_version: Version of the estimator
    computed_at: When it was computed
    """,
    """SELECT s.name AS sweep, r.strategy, r.selector, r.budget, r.level, r.metric, r.value, r.std_error,
        r.problems, r.estimator_version, r.computed_at
    FROM results r JOIN sweeps s ON s.id = r.sweep_id
    WHERE NOT EXISTS (SELECT 1 FROM results q WHERE q.sweep_id = r.sweep_id AND q.strategy = r.strategy
        AND q.selector = r.selector AND q.budget = r.budget AND q.level = r.level AND q.metric = r.metric
        AND (q.computed_at > r.computed_at
            OR (q.computed_at = r.computed_at AND q.estimator_version > r.estimator_version)))""",
)

_STEPS = """SELECT x.trajectory_id, {index} AS step_index, {start} AS char_start, {end} AS char_end,
        SUBSTR(x.text, {start} + 1, {end} - {start}) AS text
    FROM trajectory_texts x{unnest}"""
_LITE_START = "COALESCE(json_extract(x.step_ends, '$[' || (e.key - 1) || ']'), 0)"
_PG_START = "COALESCE((CAST(x.step_ends AS jsonb) ->> CAST(e.n - 2 AS int))::int, 0)"

_PG_ELEMENTS = "jsonb_array_elements_text(CAST({array} AS jsonb)) WITH ORDINALITY e(v, n)"

V_STEPS = View(
    "v_steps",
    "One row a step of a sample, with its text; filter on trajectory_id",
    """
    trajectory_id: Trajectory
    step_index: Step, from 0
    char_start: Offset of its first character
    char_end: Offset after its last character, separator included
    text: Text of the step
    """,
    _STEPS.format(
        index="CAST(e.key AS INTEGER)",
        start="CASE WHEN e.key = 0 THEN 0 ELSE " + _LITE_START + " END",
        end="e.value",
        unnest=", json_each(x.step_ends) e",
    ),
    _STEPS.format(
        index="CAST(e.n - 1 AS int)",
        start="(CASE WHEN e.n = 1 THEN 0 ELSE " + _PG_START + " END)",
        end="CAST(e.v AS int)",
        unnest=" CROSS JOIN LATERAL " + _PG_ELEMENTS.format(array="x.step_ends"),
    ),
)

V_STEP_SCORES = View(
    "v_step_scores",
    "One row a step score; filter on trajectory_id or scorer_id",
    """
    trajectory_id: Trajectory
    scorer_id: Scorer
    scorer: Name of the scorer
    kind: prm, orm or judge
    step_index: Step, from 0; always 0 for orm and judge
    value: Score
    """,
    """SELECT s.trajectory_id, s.scorer_id, c.name AS scorer, c.kind,
        CAST(e.key AS INTEGER) AS step_index, e.value
    FROM scores s JOIN scorers c ON c.id = s.scorer_id, json_each(s.values_json) e""",
    """SELECT s.trajectory_id, s.scorer_id, c.name AS scorer, c.kind, CAST(e.n - 1 AS int) AS step_index,
        CAST(e.v AS double precision) AS value
    FROM scores s JOIN scorers c ON c.id = s.scorer_id
    CROSS JOIN LATERAL """
    + _PG_ELEMENTS.format(array="s.values_json"),
)

V_TREE = View(
    "v_tree",
    "One row a node of a search tree, with the full text from the root; filter on search_id",
    """
    search_id: Search
    node_index: Node
    parent_index: Parent node
    depth: Steps from the root
    step_text: Text of this step
    full_text: Text from the root to the end of this step
    completion_tokens: Tokens generated for this step
    finish_reason: The server's finish reason
    kept: Not pruned
    pruned_reason: Why it was pruned
    """,
    """SELECT n.search_id, n.node_index, n.parent_index, n.depth, n.text AS step_text,
        (WITH RECURSIVE path(parent_index, text) AS (
            SELECT n.parent_index, n.text
            UNION ALL
            SELECT q.parent_index, q.text || path.text
            FROM path JOIN nodes q ON q.search_id = n.search_id AND q.node_index = path.parent_index)
        SELECT path.text FROM path WHERE path.parent_index IS NULL) AS full_text,
        n.completion_tokens, n.finish_reason, n.kept, n.pruned_reason
    FROM nodes n""",
)

V_COST = View(
    "v_cost",
    "One row a sweep and generator: what drawing its pools has consumed (a shared pool counts in each sweep)",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    generator_id: Generator
    generator: Name of the generator
    requests: Requests sent
    prompt_tokens: Prompt tokens
    cached_tokens: Prompt tokens the server had in its cache
    completion_tokens: Tokens generated
    scorer_tokens: Tokens read by scorers
    retries: Requests sent again
    wasted_requests: Requests whose reply was lost or unusable
    request_seconds: Sum over requests of the time to reply
    generation_flops: 2 x parameters x tokens generated; NULL: the size of the model is not known
    """,
    """SELECT s.id AS sweep_id, s.name AS sweep, n.id AS generator_id, n.name AS generator,
        CAST(SUM(u.requests) AS BIGINT) AS requests, CAST(SUM(u.prompt_tokens) AS BIGINT) AS prompt_tokens,
        CAST(SUM(u.cached_tokens) AS BIGINT) AS cached_tokens,
        CAST(SUM(u.completion_tokens) AS BIGINT) AS completion_tokens,
        CAST(SUM(u.scorer_tokens) AS BIGINT) AS scorer_tokens,
        CAST(SUM(u.retries) AS BIGINT) AS retries, CAST(SUM(u.wasted_requests) AS BIGINT) AS wasted_requests,
        SUM(u.seconds) AS request_seconds,
        CAST(2 AS DOUBLE PRECISION) * n.parameters * CAST(SUM(u.completion_tokens) AS BIGINT) AS generation_flops
    FROM sweeps s
    JOIN (SELECT DISTINCT sweep_id, pool_id FROM sweep_pools) w ON w.sweep_id = s.id
    JOIN pools p ON p.id = w.pool_id
    JOIN generators n ON n.id = p.generator_id
    JOIN tasks t ON t.pool_id = p.id
    JOIN usage u ON u.task_id = t.id
    GROUP BY s.id, s.name, n.id, n.name, n.parameters""",
)

V_PROGRESS = View(
    "v_progress",
    "One row a sweep: samples wanted and stored, tasks by state",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    state: State of the sweep
    samples_wanted: Samples wanted
    samples_stored: Samples stored, errors included
    tasks_pending: Tasks nobody has claimed
    tasks_running: Tasks under lease
    tasks_done: Tasks done
    tasks_failed: Tasks that gave up
    """,
    """SELECT s.id AS sweep_id, s.name AS sweep, s.state,
        COALESCE(w.samples_wanted, 0) AS samples_wanted, COALESCE(w.samples_stored, 0) AS samples_stored,
        COALESCE(k.pending, 0) AS tasks_pending, COALESCE(k.running, 0) AS tasks_running,
        COALESCE(k.done, 0) AS tasks_done, COALESCE(k.failed, 0) AS tasks_failed
    FROM sweeps s
    LEFT JOIN (SELECT v.sweep_id, SUM(v.samples_wanted) AS samples_wanted,
            CAST(SUM((SELECT COUNT(*) FROM trajectories t
                WHERE t.id >= v.first_id AND t.id < v.end_id)) AS BIGINT) AS samples_stored
        FROM v_sweep_pools v GROUP BY v.sweep_id) w ON w.sweep_id = s.id
    LEFT JOIN (SELECT v.sweep_id, SUM(CASE WHEN t.state = 0 THEN 1 ELSE 0 END) AS pending,
            SUM(CASE WHEN t.state = 1 THEN 1 ELSE 0 END) AS running,
            SUM(CASE WHEN t.state = 2 THEN 1 ELSE 0 END) AS done,
            SUM(CASE WHEN t.state = 3 THEN 1 ELSE 0 END) AS failed
        FROM v_sweep_pools v JOIN tasks t ON t.pool_id = v.pool_id AND t.sample_start < v.samples_wanted
        GROUP BY v.sweep_id) k ON k.sweep_id = s.id""",
)

V_AGREEMENT = View(
    "v_agreement",
    "How often two graders agree, over the distinct answers both have decided",
    """
    grader_a: First grader
    grader_b: Second grader
    answers: Distinct answers decided by both
    agreed: Answers with the same verdict
    only_a_correct: Answers only the first accepts
    only_b_correct: Answers only the second accepts
    agreement: agreed / answers
    """,
    """SELECT ga.name || ' ' || ga.version AS grader_a, gb.name || ' ' || gb.version AS grader_b,
        COUNT(*) AS answers, SUM(CASE WHEN a.verdict = b.verdict THEN 1 ELSE 0 END) AS agreed,
        SUM(CASE WHEN a.verdict = 'correct' AND b.verdict = 'wrong' THEN 1 ELSE 0 END) AS only_a_correct,
        SUM(CASE WHEN a.verdict = 'wrong' AND b.verdict = 'correct' THEN 1 ELSE 0 END) AS only_b_correct,
        AVG(CASE WHEN a.verdict = b.verdict THEN CAST(1 AS DOUBLE PRECISION) ELSE 0 END) AS agreement
    FROM grades a
    JOIN grades b ON b.answer_id = a.answer_id AND b.grader_id > a.grader_id
    JOIN graders ga ON ga.id = a.grader_id
    JOIN graders gb ON gb.id = b.grader_id
    WHERE a.verdict IN ('correct', 'wrong') AND b.verdict IN ('correct', 'wrong')
    GROUP BY ga.name, ga.version, gb.name, gb.version""",
)

VIEWS: tuple[View, ...] = (
    *SAMPLE_VIEWS,
    V_RESULTS,
    V_STEPS,
    V_STEP_SCORES,
    V_TREE,
    V_COST,
    V_PROGRESS,
    V_AGREEMENT,
)
"""All views, each after those it is made of."""
