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

STEP_VIEWS = (V_STEPS, V_TREE)
