"""Views on the work: what it cost, how far it is, how far two graders agree."""

from __future__ import annotations

from orchestrator.store.views.view import View

V_COST = View(
    "v_cost",
    "One row a sweep and model: what its pools have consumed (a shared pool counts in each sweep)",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    role: What the model was used for: policy (completions of prefixes included) or scorer
    model: Name of the generator or scorer
    requests: Requests sent
    prompt_tokens: Tokens read
    cached_tokens: Of these, what the server had in its cache
    completion_tokens: Tokens generated
    retries: Requests sent again
    wasted_requests: Requests whose reply was lost or unusable
    request_seconds: Sum over requests of the time to reply
    generation_flops: 2 x parameters x tokens generated; NULL: the size of the model is not known
    reading_flops: 2 x parameters x tokens read; NULL: the size of the model is not known
    """,
    """SELECT v.sweep_id, v.sweep, v.role, v.model, v.requests, v.prompt_tokens, v.cached_tokens, v.completion_tokens,
        v.retries, v.wasted_requests, v.request_seconds,
        CAST(2 AS DOUBLE PRECISION) * v.parameters * v.completion_tokens AS generation_flops,
        CAST(2 AS DOUBLE PRECISION) * v.parameters * v.prompt_tokens AS reading_flops
    FROM (SELECT s.id AS sweep_id, s.name AS sweep, u.role,
            CASE u.role WHEN 'scorer' THEN c.name ELSE n.name END AS model,
            CASE u.role WHEN 'scorer' THEN c.parameters ELSE n.parameters END AS parameters,
            CAST(SUM(u.requests) AS BIGINT) AS requests, CAST(SUM(u.prompt_tokens) AS BIGINT) AS prompt_tokens,
            CAST(SUM(u.cached_tokens) AS BIGINT) AS cached_tokens,
            CAST(SUM(u.completion_tokens) AS BIGINT) AS completion_tokens,
            CAST(SUM(u.retries) AS BIGINT) AS retries, CAST(SUM(u.wasted_requests) AS BIGINT) AS wasted_requests,
            SUM(u.seconds) AS request_seconds
        FROM sweeps s
        JOIN (SELECT DISTINCT sweep_id, pool_id FROM sweep_pools) w ON w.sweep_id = s.id
        JOIN tasks t ON t.pool_id = w.pool_id
        JOIN sweep_lanes k ON k.sweep_id = s.id AND k.lane_id = t.lane_id
        JOIN lanes l ON l.id = t.lane_id
        JOIN usage u ON u.task_id = t.id
        LEFT JOIN generators n ON n.id = l.generator_id
        LEFT JOIN scorers c ON c.id = l.scorer_id
        GROUP BY s.id, s.name, u.role, CASE u.role WHEN 'scorer' THEN c.name ELSE n.name END,
            CASE u.role WHEN 'scorer' THEN c.parameters ELSE n.parameters END) v""",
)

V_PROGRESS = View(
    "v_progress",
    "One row a sweep: samples wanted and stored, scores stored, tasks by state",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    state: State of the sweep
    samples_wanted: Samples wanted, completions of prefixes included; of a search that is done, what it found
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
    LEFT JOIN (SELECT c.sweep_id, CAST(SUM(c.samples_stored) AS BIGINT) AS samples_stored,
            SUM(CASE WHEN c.is_found THEN c.samples_stored ELSE c.samples_wanted END) AS samples_wanted
        FROM (SELECT v.sweep_id, v.samples_wanted,
                (SELECT COUNT(*) FROM trajectories t WHERE t.id >= v.first_id AND t.id < v.end_id) AS samples_stored,
                v.procedure_id IS NOT NULL AND EXISTS (SELECT 1 FROM tasks k JOIN lanes m ON m.id = k.lane_id
                    AND m.kind = 'search' WHERE k.pool_id = v.pool_id AND k.state = 2) AS is_found
            FROM v_sweep_pools v) c
        GROUP BY c.sweep_id) w ON w.sweep_id = s.id
    LEFT JOIN (SELECT v.sweep_id, SUM(CASE WHEN t.state = 0 THEN 1 ELSE 0 END) AS pending,
            SUM(CASE WHEN t.state = 1 THEN 1 ELSE 0 END) AS running,
            SUM(CASE WHEN t.state = 2 THEN 1 ELSE 0 END) AS done,
            SUM(CASE WHEN t.state = 3 THEN 1 ELSE 0 END) AS failed
        FROM v_sweep_pools v JOIN tasks t ON t.pool_id = v.pool_id AND t.sample_start < v.samples_wanted
        JOIN sweep_lanes l ON l.sweep_id = v.sweep_id AND l.lane_id = t.lane_id
        GROUP BY v.sweep_id) k ON k.sweep_id = s.id""",
)

V_SCORING = View(
    "v_scoring",
    "One row a sweep and scorer: how many samples have a score, and how many have none, by reason",
    """
    sweep_id: Sweep
    sweep: Name of the sweep
    scorer_id: Scorer
    scorer: Name of the scorer
    scored: Samples with values
    truncated: Samples with values of their first steps only
    too_long: Samples that are too long for the scorer
    unparsed: Samples whose verdict could not be read
    invalid: Samples for which the scorer broke its contract; scored again by the next run
    errors: Samples for which its endpoint failed; scored again by the next run
    """,
    """SELECT w.sweep_id, w.sweep, s.scorer_id, c.name AS scorer,
        COUNT(CASE WHEN s.status = 'ok' THEN 1 END) AS scored,
        COUNT(CASE WHEN s.status = 'truncated' THEN 1 END) AS truncated,
        COUNT(CASE WHEN s.status = 'too_long' THEN 1 END) AS too_long,
        COUNT(CASE WHEN s.status = 'unparsed' THEN 1 END) AS unparsed,
        COUNT(CASE WHEN s.status = 'invalid' THEN 1 END) AS invalid,
        COUNT(CASE WHEN s.status = 'error' THEN 1 END) AS errors
    FROM v_sweep_pools w
    JOIN scores s ON s.trajectory_id >= w.first_id AND s.trajectory_id < w.end_id
    JOIN scorers c ON c.id = s.scorer_id
    GROUP BY w.sweep_id, w.sweep, s.scorer_id, c.name""",
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

WORK_VIEWS = (V_COST, V_PROGRESS, V_SCORING, V_AGREEMENT)
