"""Search trees, read back: for a later attempt to replay, to be shown, and for what they have cost.

Functions take their transaction. Nothing in a tree is ever changed. Must not know how it is searched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.store.backend import AnyRow, Transaction
from orchestrator.store.catalog import chunks
from orchestrator.store.records import NodeRecord, SearchCost
from workers.types import NodeScore, SearchTask, Task, TreeNode

TASKS = """SELECT t.id, t.attempt, t.lane_id, t.pool_id, p.problem_id, q.statement, q.content_hash, p.seed,
        p.generator_id, c.scorer_id, c.kind, c.params_json, c.budget
    FROM tasks t JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id
    JOIN procedures c ON c.id = p.procedure_id WHERE t.id IN :ids ORDER BY t.id"""

NODES = """SELECT pool_id, path, depth, text, completion_tokens, ended, finish_reason, seed, logprob_sum, is_greedy
    FROM nodes WHERE pool_id IN :ids"""

SCORES = """SELECT s.pool_id, s.path, s.scorer_id, s.value FROM node_scores s
    JOIN pools p ON p.id = s.pool_id JOIN procedures c ON c.id = p.procedure_id AND c.scorer_id = s.scorer_id
    WHERE s.pool_id IN :ids"""

COSTS = """SELECT w.strategy, p.problem_id,
        (SELECT COUNT(*) FROM nodes n WHERE n.pool_id = p.id) AS nodes,
        (SELECT COALESCE(SUM(n.completion_tokens), 0) FROM nodes n WHERE n.pool_id = p.id) AS tokens,
        (SELECT COALESCE(SUM(n.completion_tokens), 0) FROM prunings r
            JOIN nodes n ON n.pool_id = r.pool_id AND n.path = r.path WHERE r.pool_id = p.id) AS discarded_tokens,
        COALESCE((SELECT SUM(u.prompt_tokens) FROM tasks k JOIN usage u ON u.task_id = k.id AND u.role = 'scorer'
            WHERE k.pool_id = p.id), 0) AS scorer_tokens,
        COALESCE((SELECT SUM(u.prompt_tokens) FROM tasks k JOIN usage u ON u.task_id = k.id AND u.role = 'policy'
            WHERE k.pool_id = p.id), 0) AS prompt_tokens,
        g.parameters AS policy_parameters, r.parameters AS scorer_parameters
    FROM sweep_pools w JOIN pools p ON p.id = w.pool_id JOIN procedures c ON c.id = p.procedure_id
    JOIN generators g ON g.id = p.generator_id JOIN scorers r ON r.id = c.scorer_id
    WHERE w.sweep_id = :sweep_id ORDER BY w.strategy, p.problem_id"""


SEARCHED = """SELECT w.strategy, q.external_id, q.statement, w.pool_id FROM sweep_pools w
    JOIN pools p ON p.id = w.pool_id AND p.procedure_id IS NOT NULL JOIN problems q ON q.id = p.problem_id
    WHERE w.sweep_id = :sweep_id AND q.external_id = :external_id ORDER BY w.strategy"""

VIEW = """SELECT path, parent_path, child_index, step_text, ended, score, pruned_reason FROM v_tree
    WHERE pool_id = :pool_id"""


async def searches_for(tx: Transaction, sweep_id: int, external_id: str) -> dict[str, tuple[int, str]]:
    """(Search, statement) by strategy with its budget, for a problem of a sweep."""
    rows = await tx.rows(SEARCHED, sweep_id=sweep_id, external_id=external_id)
    return {row.strategy: (row.pool_id, row.statement) for row in rows}


async def tree(tx: Transaction, pool_id: int) -> list[NodeRecord]:
    """The nodes of a search."""
    return [NodeRecord(*row) for row in await tx.rows(VIEW, pool_id=pool_id)]


async def owed_searches(tx: Transaction, task_ids: Sequence[int]) -> list[Task]:
    """Search tasks with all that earlier attempts have recorded, by id."""
    rows = await tx.rows(TASKS, ids=list(task_ids))
    pools = [row.pool_id for row in rows]
    nodes: defaultdict[int, list[TreeNode]] = defaultdict(list)
    scores: defaultdict[int, list[NodeScore]] = defaultdict(list)
    for chunk in chunks(pools):
        for each in await tx.rows(NODES, ids=chunk):
            nodes[each.pool_id].append(replace(TreeNode(*each), is_greedy=bool(each.is_greedy)))
        for each in await tx.rows(SCORES, ids=chunk):
            scores[each.pool_id].append(NodeScore(*each))
    return [
        replace(SearchTask(*row), nodes=tuple(nodes[row.pool_id]), scores=tuple(scores[row.pool_id]))
        for row in rows
    ]


async def search_costs(tx: Transaction, sweep_id: int) -> list[SearchCost]:
    """What each search of a sweep has consumed: what was thrown away is in it."""
    return [_cost(row) for row in await tx.rows(COSTS, sweep_id=sweep_id)]


def _cost(row: AnyRow) -> SearchCost:
    strategy, problem_id, *numbers = row
    # Sums are decimals in PostgreSQL.
    whole = [None if each is None else int(each) for each in numbers]
    return SearchCost(strategy, problem_id, *whole)  # type: ignore[arg-type]
