"""What strategies do alike with the nodes of a round: tell apart how they ended, value them, go on with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from workers.strategies.base import Candidate, Node, NodeEnd, Search

Evaluate = Callable[[Search, Sequence[Node]], Awaitable[Sequence[float]]]
"""Gives each node a value in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The nodes of a round, told apart. EMPTY and ERROR nodes are in neither part: nothing is made of them."""

    open: tuple[Node, ...]
    """Nodes that may be expanded, in the order given."""
    values: tuple[float, ...]
    """The value of each open node."""
    candidates: tuple[Candidate, ...]
    """Finished nodes with their score, and unfinished ones that cannot be gone on with, without."""


async def prm_values(search: Search, nodes: Sequence[Node]) -> Sequence[float]:
    """The plain value of a node: the score of the beginning that ends with it."""
    return await search.score(nodes)


async def judge(
    search: Search, nodes: Sequence[Node], *, evaluate: Evaluate = prm_values, dedupe_siblings: bool = False
) -> Judged:
    """Value the nodes that are worth it, in one call, and make candidates of those that ended.

    `dedupe_siblings`: of open siblings with the same text all but the first are pruned. Finished ones stay, since
    each is a vote that the policy cast.
    """
    open_nodes = [node for node in nodes if _may_go_on(search, node)]
    if dedupe_siblings:
        open_nodes = _pruned_duplicates(search, open_nodes)
    finished = [node for node in nodes if node.end is NodeEnd.FINISHED]
    worth_it = [*open_nodes, *finished]
    values = await evaluate(search, worth_it) if worth_it else ()
    value_of = {node.path: value for node, value in zip(worth_it, values, strict=True)}
    return Judged(
        open=tuple(open_nodes),
        values=tuple(value_of[node.path] for node in open_nodes),
        candidates=tuple(
            Candidate(node, value_of.get(node.path)) for node in nodes if is_candidate(search, node)
        ),
    )


def is_candidate(search: Search, node: Node) -> bool:
    """Whether a node is a solution to return: finished, cut by a token limit, or out of depth."""
    is_out_of_depth = node.end is NodeEnd.STEP and node.depth >= search.limits.max_depth
    return is_out_of_depth or node.end in (NodeEnd.FINISHED, NodeEnd.TRUNCATED)


async def go_on(search: Search, node: Node, *, steps: int | None = None, greedy: bool = False) -> list[Node]:
    """Go on with a node, one child at a time, for at most `steps` steps or to its end; the nodes passed."""
    passed: list[Node] = []
    while _may_go_on(search, node) and (steps is None or len(passed) < steps):
        (node,) = await search.sample(node, 1, greedy=greedy)
        passed.append(node)
    return passed


def _may_go_on(search: Search, node: Node) -> bool:
    return node.end is NodeEnd.STEP and node.depth < search.limits.max_depth


def _pruned_duplicates(search: Search, nodes: Sequence[Node]) -> list[Node]:
    """The first of the siblings of each text; the others are pruned."""
    first: dict[tuple[tuple[int, ...], str], Node] = {}
    for node in nodes:
        first.setdefault((node.path[:-1], node.text), node)
    kept = list(first.values())
    if len(kept) < len(nodes):
        paths = {node.path for node in kept}
        search.prune([node for node in nodes if node.path not in paths], "duplicate")
    return kept
