"""Views on what scorers and rollouts say of samples and their steps."""

from __future__ import annotations

from orchestrator.store.views.view import PG_ELEMENTS, View, verdict

V_SCORES = View(
    "v_scores",
    "One row a score of a sample, with its step scores made into one; filter on trajectory_id or scorer_id",
    """
    trajectory_id: Trajectory
    scorer_id: Scorer
    scorer: Name of the scorer
    kind: prm, orm or judge
    status: ok, truncated (first steps only), or why there is no value
    steps: Number of values
    last: Value of the last step
    lowest: Least value
    mean: Mean value
    highest: Greatest value
    detail: What was wrong, if it is not ok
    """,
    """SELECT s.trajectory_id, s.scorer_id, c.name AS scorer, c.kind, s.status,
        json_array_length(s.values_json) AS steps, json_extract(s.values_json, '$[#-1]') AS last,
        (SELECT MIN(e.value) FROM json_each(s.values_json) e) AS lowest,
        (SELECT AVG(e.value) FROM json_each(s.values_json) e) AS mean,
        (SELECT MAX(e.value) FROM json_each(s.values_json) e) AS highest, s.detail
    FROM scores s JOIN scorers c ON c.id = s.scorer_id""",
    """SELECT s.trajectory_id, s.scorer_id, c.name AS scorer, c.kind, s.status,
        jsonb_array_length(CAST(s.values_json AS jsonb)) AS steps,
        CAST(CAST(s.values_json AS jsonb) ->> -1 AS double precision) AS last, v.lowest, v.mean, v.highest, s.detail
    FROM scores s JOIN scorers c ON c.id = s.scorer_id
    CROSS JOIN LATERAL (SELECT MIN(CAST(e.v AS double precision)) AS lowest,
            AVG(CAST(e.v AS double precision)) AS mean, MAX(CAST(e.v AS double precision)) AS highest
        FROM """
    + PG_ELEMENTS.format(array="s.values_json")
    + ") v",
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
    + PG_ELEMENTS.format(array="s.values_json"),
)

_VERDICT = verdict("t.outcome", "x.answer_id")

V_PREFIX_VALUES = View(
    "v_prefix_values",
    "One row a beginning of solutions that a sweep completes: its Monte Carlo value",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    strategy: Strategy that labels
    problem_id: Problem
    prefix_id: Beginning
    pool_id: Pool of its completions
    generator_id: Generator that completes it
    completer: Name of that generator
    rollouts_wanted: Completions wanted
    rollouts: Completions with a verdict
    correct: Completions that reached the reference answer
    soft: Soft label: correct / rollouts; NULL: none yet
    hard: Hard label: 1 if any completion is correct; NULL: none yet
    """,
    f"""SELECT v.sweep_id, v.sweep, v.strategy, v.problem_id, v.prefix_id, v.pool_id, v.generator_id, v.completer,
        v.rollouts_wanted, v.rollouts, v.correct,
        CAST(v.correct AS DOUBLE PRECISION) / NULLIF(v.rollouts, 0) AS soft,
        CASE WHEN v.rollouts = 0 THEN NULL WHEN v.correct > 0 THEN 1 ELSE 0 END AS hard
    FROM (SELECT c.sweep_id, c.sweep, c.strategy, c.problem_id, c.prefix_id, c.pool_id, c.generator_id, c.completer,
            c.rollouts_wanted,
            COUNT(CASE WHEN c.verdict NOT IN ('error', 'ungraded', 'gold_unparsable') THEN 1 END) AS rollouts,
            COUNT(CASE WHEN c.verdict = 'correct' THEN 1 END) AS correct
        FROM (SELECT s.id AS sweep_id, s.name AS sweep, sp.strategy, k.problem_id, k.prefix_id, k.id AS pool_id,
                k.generator_id, n.name AS completer, sp.samples AS rollouts_wanted,
                CASE WHEN t.id IS NULL THEN NULL ELSE {_VERDICT} END AS verdict
            FROM sweep_pools sp
            JOIN pools k ON k.id = sp.pool_id AND k.prefix_id IS NOT NULL
            JOIN sweeps s ON s.id = sp.sweep_id
            JOIN problems p ON p.id = k.problem_id
            JOIN generators n ON n.id = k.generator_id
            LEFT JOIN trajectories t ON t.id >= CAST(k.id AS BIGINT) * 1048576
                AND t.id < CAST(k.id AS BIGINT) * 1048576 + sp.samples
            LEFT JOIN extractions x ON x.trajectory_id = t.id
                AND x.extractor_id = COALESCE(s.extractor_id, (SELECT MAX(id) FROM extractors))
            LEFT JOIN grades g ON g.answer_id = x.answer_id
                AND g.grader_id = COALESCE(s.grader_id, (SELECT MAX(id) FROM graders))) c
        GROUP BY c.sweep_id, c.sweep, c.strategy, c.problem_id, c.prefix_id, c.pool_id, c.generator_id, c.completer,
            c.rollouts_wanted) v""",
)

V_LABELS = View(
    "v_labels",
    "One row a labelled step: how often the solution was completed right from its end; the last step of a solution "
    "has no row, since its label is the verdict of the solution, in v_samples",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    strategy: Strategy that labels
    problem_id: Problem
    trajectory_id: Trajectory
    step_index: Step, from 0
    prefix_id: Beginning that was completed: one for all samples that begin alike
    generator_id: Generator that completed it
    completer: Name of that generator
    rollouts: Completions with a verdict
    correct: Completions that reached the reference answer
    soft: Soft label: correct / rollouts; NULL: none yet
    hard: Hard label: 1 if any completion is correct; NULL: none yet
    """,
    """SELECT v.sweep_id, v.sweep, v.strategy, v.problem_id, q.trajectory_id, q.step_index, v.prefix_id,
        v.generator_id, v.completer, v.rollouts, v.correct, v.soft, v.hard
    FROM v_prefix_values v
    JOIN trajectory_prefixes q ON q.prefix_id = v.prefix_id
    JOIN trajectories t ON t.id = q.trajectory_id
    JOIN sweep_pools w ON w.sweep_id = v.sweep_id AND w.pool_id = t.pool_id
    WHERE t.sample_index < w.samples""",
)

V_RESULTS = View(
    "v_results",
    "Estimates, with the name of the sweep; one row an estimate, of the newest estimator version",
    """
    sweep: Name of the sweep
    strategy: Strategy
    selector: Selector, with its scorer and parameters
    kind: majority, pass, best-of-n, weighted, filter-vote or hierarchical
    scorer: Scorer it uses; NULL: none
    aggregation: How step scores became one; NULL: none
    budget: Generations a problem
    level: Difficulty level; empty: all problems
    metric: Metric
    value: Estimate
    std_error: Standard error, clustered by problem
    low: Lower end of the 95% interval
    high: Upper end of the 95% interval
    mc_error: Part of the error that is due to resampling; 0: exact
    problems: Problems it rests on
    estimator_version: Version of the estimator
    computed_at: When it was computed
    """,
    """SELECT s.name AS sweep, r.strategy, c.name AS selector, c.kind, c.scorer, c.aggregation, r.budget, r.level,
        r.metric, r.value, r.std_error, r.low, r.high, r.mc_error, r.problems, r.estimator_version, r.computed_at
    FROM results r JOIN sweeps s ON s.id = r.sweep_id JOIN selectors c ON c.id = r.selector_id
    WHERE NOT EXISTS (SELECT 1 FROM results q WHERE q.sweep_id = r.sweep_id AND q.strategy = r.strategy
        AND q.selector_id = r.selector_id AND q.budget = r.budget AND q.level = r.level AND q.metric = r.metric
        AND (q.computed_at > r.computed_at
            OR (q.computed_at = r.computed_at AND q.estimator_version > r.estimator_version)))""",
)

V_ESTIMATES = View(
    "v_estimates",
    "One row a problem, selector and budget: the chance that the selector is right",
    """
    sweep: Name of the sweep
    strategy: Strategy
    selector: Selector
    budget: Generations
    problem_id: Problem
    external_id: The dataset's own name of the problem
    level: Difficulty level
    value: Chance to be right
    mc_error: Standard error that is due to resampling; 0: exact
    """,
    """SELECT s.name AS sweep, e.strategy, c.name AS selector, e.budget, e.problem_id, p.external_id, p.level,
        e.value, e.mc_error
    FROM estimates e JOIN sweeps s ON s.id = e.sweep_id JOIN selectors c ON c.id = e.selector_id
    JOIN problems p ON p.id = e.problem_id""",
)

V_PAIRED = View(
    "v_paired",
    "Every selector against every other with the same strategy and budget, problem by problem; filter on sweep, "
    "selector and other (for other pairs join v_estimates with itself)",
    """
    sweep: Name of the sweep
    strategy: Strategy
    budget: Generations a problem
    selector: Selector
    other: Selector it is compared with
    problems: Problems both have an estimate for
    difference: Mean over problems of selector minus other
    variance: Variance of that mean, clustered by problem; its square root is the standard error
    """,
    """SELECT s.name AS sweep, a.strategy, a.budget, c.name AS selector, d.name AS other, COUNT(*) AS problems,
        AVG(a.value - b.value) AS difference,
        CASE WHEN COUNT(*) > 1 THEN (SUM((a.value - b.value) * (a.value - b.value))
            - SUM(a.value - b.value) * SUM(a.value - b.value) / COUNT(*)) / (COUNT(*) - 1) / COUNT(*) END AS variance
    FROM estimates a
    JOIN estimates b ON b.sweep_id = a.sweep_id AND b.strategy = a.strategy AND b.budget = a.budget
        AND b.problem_id = a.problem_id AND b.selector_id <> a.selector_id
    JOIN sweeps s ON s.id = a.sweep_id
    JOIN selectors c ON c.id = a.selector_id JOIN selectors d ON d.id = b.selector_id
    GROUP BY s.name, a.strategy, a.budget, c.name, d.name""",
)

SCORE_VIEWS = (V_SCORES, V_STEP_SCORES, V_PREFIX_VALUES, V_LABELS, V_RESULTS, V_ESTIMATES, V_PAIRED)
