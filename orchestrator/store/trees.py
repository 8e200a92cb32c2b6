"""Search trees, read back: for a later attempt to replay, for other searches, and to be shown.

Functions take their transaction. Nothing in a tree is ever changed. Must not know how it is searched.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.store.backend import Transaction
from orchestrator.store.catalog import chunks
from orchestrator.store.records import NodeRecord
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

OTHERS = """SELECT p.id, c.params_json, c.scorer_id FROM pools p JOIN procedures c ON c.id = p.procedure_id
    WHERE p.problem_id = :problem_id AND p.generator_id = :generator_id AND p.seed = :seed
        AND p.procedure_id IS NOT NULL AND p.id <> :pool_id ORDER BY p.id"""

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


async def owed_searches(
    tx: Transaction, task_ids: Sequence[int], *, shares_steps: bool = False
) -> list[Task]:
    """Search tasks with all that earlier attempts have recorded, by id; and with what other searches offer them."""
    rows = await tx.rows(TASKS, ids=list(task_ids))
    nodes, scores = await _trees(tx, [row.pool_id for row in rows])
    tasks = [
        replace(SearchTask(*row), nodes=tuple(nodes[row.pool_id]), scores=tuple(scores[row.pool_id]))
        for row in rows
    ]
    return [await _offered(tx, task) for task in tasks] if shares_steps else list(tasks)


async def _trees(
    tx: Transaction, pools: Sequence[int]
) -> tuple[Mapping[int, list[TreeNode]], Mapping[int, list[NodeScore]]]:
    """Nodes, and the scores that guided, by search."""
    nodes: defaultdict[int, list[TreeNode]] = defaultdict(list)
    scores: defaultdict[int, list[NodeScore]] = defaultdict(list)
    for chunk in chunks(pools):
        for each in await tx.rows(NODES, ids=chunk):
            nodes[each.pool_id].append(replace(TreeNode(*each), is_greedy=bool(each.is_greedy)))
        for each in await tx.rows(SCORES, ids=chunk):
            scores[each.pool_id].append(NodeScore(*each))
    return nodes, scores


async def _offered(tx: Transaction, task: SearchTask) -> SearchTask:
    """The task, with the steps of searches for the same problem that go exactly as far a step."""
    limits = _limits(task.params)
    others = [
        row
        for row in await tx.rows(
            OTHERS, problem_id=task.problem_id, generator_id=task.generator_id, seed=task.seed,
            pool_id=task.pool_id,
        )
        if _limits(row.params_json) == limits
    ]  # fmt: skip
    guided_alike = {row.id for row in others if row.scorer_id == task.scorer_id}
    nodes, scores = await _trees(tx, [row.id for row in others])
    offered: dict[str, TreeNode] = {}
    values: dict[str, NodeScore] = {}
    for row in others:
        sampled = {each.path: each for each in _sampled(nodes[row.id])}
        offered |= sampled
        if row.id in guided_alike:
            values |= {each.path: each for each in scores[row.id] if each.path in sampled}
    return replace(task, offered_nodes=tuple(offered.values()), offered_scores=tuple(values.values()))


def _sampled(nodes: Sequence[TreeNode]) -> Iterator[TreeNode]:
    """Nodes without a greedy step on their path: what stands under a greedy one depends on the search."""
    greedy = {each.path for each in nodes if each.is_greedy}
    for node in nodes:
        parts = node.path.split(".")
        if not greedy.intersection(".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            yield node


def _limits(params: str) -> object:
    return json.loads(params)["limits"]
