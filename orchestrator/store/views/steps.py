"""Views on steps: of samples, of search trees."""

from __future__ import annotations

from orchestrator.store.views.view import PG_ELEMENTS, View

_STEPS = """SELECT x.trajectory_id, {index} AS step_index, {start} AS char_start, {end} AS char_end,
        SUBSTR(x.text, {start} + 1, {end} - {start}) AS text
    FROM trajectory_texts x{unnest}"""
_LITE_START = "COALESCE(json_extract(x.step_ends, '$[' || (e.key - 1) || ']'), 0)"
_PG_START = "COALESCE((CAST(x.step_ends AS jsonb) ->> CAST(e.n - 2 AS int))::int, 0)"

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
        unnest=" CROSS JOIN LATERAL " + PG_ELEMENTS.format(array="x.step_ends"),
    ),
)

V_TREE = View(
    "v_tree",
    "One row a node of a search tree, with the full text from the root; filter on pool_id",
    """
    pool_id: Search
    problem_id: Problem
    algorithm: beam, rebase, ...
    budget: Budget of the search, in generations
    path: Child indices from the root
    parent_path: Path of its parent; empty: the root
    child_index: Which child of its parent
    depth: Steps from the root
    step_text: Text of this step
    full_text: Text from the root to the end of this step
    completion_tokens: Tokens generated for this step
    ended: step (the solution goes on), finished, truncated, empty or error
    is_greedy: Drawn at temperature 0, to look ahead
    score: What the scorer that guides the search says of it; NULL: was not asked
    kept: Not pruned
    pruned_reason: Why it was pruned
    """,
    """SELECT n.pool_id, p.problem_id, c.kind AS algorithm, c.budget, n.path, n.parent_path, n.child_index, n.depth,
        n.text AS step_text,
        (WITH RECURSIVE walk(parent_path, text) AS (
            SELECT n.parent_path, n.text
            UNION ALL
            SELECT q.parent_path, q.text || walk.text
            FROM walk JOIN nodes q ON q.pool_id = n.pool_id AND q.path = walk.parent_path)
        SELECT walk.text FROM walk WHERE walk.parent_path = '') AS full_text,
        n.completion_tokens, n.ended, n.is_greedy, s.value AS score, r.reason IS NULL AS kept,
        r.reason AS pruned_reason
    FROM nodes n
    JOIN pools p ON p.id = n.pool_id
    JOIN procedures c ON c.id = p.procedure_id
    LEFT JOIN node_scores s ON s.pool_id = n.pool_id AND s.path = n.path AND s.scorer_id = c.scorer_id
    LEFT JOIN prunings r ON r.pool_id = n.pool_id AND r.path = n.path""",
)

STEP_VIEWS = (V_STEPS, V_TREE)
