"""What a strategy is written against: a search over the beginnings of solutions to one problem.

A strategy is an async function of one `Search`. It awaits `sample` and `score`, may `prune`, and returns its
candidates. It must not know where text comes from nor what is stored: the search behind the protocol records each
result under the node's path before the strategy sees it, so that a strategy that is run again is answered from the
record. For that to work a strategy may depend on nothing but the replies and `search.rng`: no clock, no global
randomness, no order in which calls happen to end.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from workers.concurrency import together


class NodeEnd(StrEnum):
    """How a node's step ended. Only `STEP` can be gone on with."""

    STEP = "step"
    """At the end of a step: the solution goes on."""
    FINISHED = "finished"
    """The model ended the solution here, be it without further text."""
    TRUNCATED = "truncated"
    """Cut by a limit of tokens: an unfinished solution, which has no answer but counts."""
    EMPTY = "empty"
    """A step without text: it adds nothing, and going on from it would ask the same again."""
    ERROR = "error"
    """The endpoint gave up: no word about the solution."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step in a search tree, and by its path the beginning of a solution that ends with it."""

    path: tuple[int, ...]
    """Child indices from the root, whose path is (): the node's key within its search."""
    depth: int
    """Number of steps from the root."""
    text: str
    """Its own step only."""
    tokens: int
    """Tokens of its own step."""
    total_tokens: int
    """Tokens from the root to the end of this step."""
    end: NodeEnd
    logprob: float | None = None
    """Sum of the log-probabilities of its own tokens, where the server tells them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a search may go. The sampler enforces the tokens, the strategy `max_depth`."""

    max_depth: int = 40
    """Steps of a solution, which are the rounds of a search."""
    max_step_tokens: int = 256
    """A longer step is cut there: `NodeEnd.TRUNCATED`."""
    max_tokens: int = 1024
    """A longer solution is cut there: `NodeEnd.TRUNCATED`. Counted from the root, not within a step."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A solution that a strategy returns.

    Only a node that is FINISHED takes part in votes. A TRUNCATED one, or one that is at the end of a step because
    the depth ran out, is returned too, so that unfinished solutions are counted and not lost.
    """

    node: Node
    score: float | None
    """Value of the whole solution; None where none was asked for (no scorer, or unfinished)."""


class Search(Protocol):
    """One search for the solution of one problem, under one strategy, with one budget."""

    @property
    def budget(self) -> int:
        """N: the most nodes that a round may sample, and the most solutions to return."""

    @property
    def limits(self) -> Limits:
        """How far the search may go."""

    @property
    def rng(self) -> random.Random:
        """The search's own seeded generator: the only source of randomness a strategy may use."""

    @property
    def root(self) -> Node:
        """The beginning without any step: path (), depth 0, no text."""

    async def sample(self, node: Node, n: int, *, greedy: bool = False) -> Sequence[Node]:
        """`n` further children of a node whose end is STEP, always `n`: a failed one is a node that says so.

        Children are numbered on from those that the node has, in the order of the calls; so no two calls for the
        same node may be under way at once. `greedy`: at temperature 0.
        """

    async def score(self, nodes: Sequence[Node]) -> Sequence[float]:
        """The value in [0, 1] of each beginning that ends with one of the nodes, in their order.

        The value of a beginning is asked of the scorer once, however often it is wanted here, and siblings of the
        same text share it. A value that cannot be had is raised as an error, never left out.
        """

    def prune(self, nodes: Iterable[Node], why: str) -> None:
        """Record that the strategy drops these nodes; every other node is kept."""


Strategy = Callable[[Search], Awaitable[Sequence[Candidate]]]
"""How compute is spent on one problem. `functools.partial` binds the options of a strategy that has some."""


async def sample_children(search: Search, nodes: Sequence[Node], widths: Sequence[int]) -> list[Node]:
    """`widths[i]` further children of `nodes[i]`, all at once; in the order of the nodes, then of the children."""
    wanted = [(node, width) for node, width in zip(nodes, widths, strict=True) if width > 0]
    families = await together(_children(search, node, width) for node, width in wanted)
    return [child for family in families for child in family]


async def _children(search: Search, node: Node, width: int) -> Sequence[Node]:
    return await search.sample(node, width)
