"""Monte Carlo tree search with PRM values in place of rollouts.

Source: Wu et al., appendix B. An expansion selects an open leaf by UCT, Q + C sqrt(ln N(parent) / N(s)), samples its
children, values them by the PRM and takes each value into the running means on the way up to the root. The budget is
the number of expansions; the paper plans 4/8/16 children at the root and 2 elsewhere for 32/64/128 of them, which is
budget / 8 at the root.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from workers.strategies.base import Candidate, Node, Search
from workers.strategies.rounds import Judged, judge


@dataclass(frozen=True, slots=True)
class MctsOptions:
    """What a Monte Carlo tree search leaves open."""

    exploration: float = 1.0
    """C of UCT."""
    root_children: int | None = None
    """Children of the root; None: an eighth of the budget, but not fewer than elsewhere."""
    children: int = 2
    """Children of any other node."""
    dedupe_siblings: bool = False
    """Let only the first of open siblings with the same text be selected. Off: each is a node of its own."""

    def __post_init__(self) -> None:
        if self.exploration < 0:
            raise ValueError(f"exploration must not be negative, but is {self.exploration}")
        if self.children < 1 or (self.root_children is not None and self.root_children < 1):
            raise ValueError("root_children and children must be at least 1")

    def width(self, node: Node, budget: int) -> int:
        """Children that an expansion gives a node."""
        if node.depth > 0:
            return self.children
        return self.root_children if self.root_children is not None else max(self.children, budget // 8)


@dataclass(slots=True)
class Branch:
    """A node of the tree with what the search has learnt below it."""

    node: Node
    parent: Branch | None = None
    visits: int = 0
    """N: values taken into the mean, its own included."""
    mean: float = 0.0
    """Q: mean of its own value and of those of all nodes below it."""
    is_open: bool = True
    """Whether a leaf that can be expanded is left here or below."""
    children: list[Branch] = field(default_factory=list)

    def add(self, node: Node, value: float, *, is_open: bool) -> None:
        """A new child with its value, which counts once here and in every node above."""
        self.children.append(Branch(node, self, 1, value, is_open))
        for branch in self.lineage():
            branch.visits += 1
            branch.mean += (value - branch.mean) / branch.visits

    def close_what_is_done(self) -> None:
        """After its expansion: it, and each node above, is open only while a child is."""
        for branch in self.lineage():
            branch.is_open = any(child.is_open for child in branch.children)

    def lineage(self) -> Iterator[Branch]:
        """The branch itself, its parent, and so on to the root."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.parent

    def open_leaves(self) -> Iterator[Branch]:
        """Leaves that can be expanded, depth first."""
        if self.is_open and not self.children:
            yield self
        for child in self.children:
            yield from child.open_leaves()


async def mcts(search: Search, options: MctsOptions = MctsOptions()) -> list[Candidate]:
    """As many expansions as the budget says, or until nothing is open.

    Finished nodes are candidates; their value counts, and they are never selected. A node that is EMPTY, ERROR or
    cut has no value: it moves no mean. Leaves left over at the end are pruned.
    """
    candidates: list[Candidate] = []
    root = Branch(search.root)
    for _ in range(search.budget):
        if not root.is_open:
            break
        leaf = select(root, options.exploration)
        nodes = await search.sample(leaf.node, options.width(leaf.node, search.budget))
        judged = await judge(search, nodes, dedupe_siblings=options.dedupe_siblings)
        candidates += judged.candidates
        expand(leaf, judged)
    if left_over := [leaf.node for leaf in root.open_leaves()]:
        search.prune(left_over, "expansions spent")
    return candidates


def expand(leaf: Branch, judged: Judged) -> None:
    """Hang the valued nodes under a leaf and take their values up the tree."""
    for node, value in zip(judged.open, judged.values, strict=True):
        leaf.add(node, value, is_open=True)
    for candidate in judged.candidates:
        if candidate.score is not None:
            leaf.add(candidate.node, candidate.score, is_open=False)
    leaf.close_what_is_done()


def select(root: Branch, exploration: float) -> Branch:
    """The open leaf that UCT leads to from an open root; of equal values the child sampled first."""
    branch = root
    while branch.children:
        log_visits = math.log(branch.visits)
        branch = max(
            (child for child in branch.children if child.is_open),
            key=lambda child: child.mean + exploration * math.sqrt(log_visits / child.visits),
        )
    return branch
