"""Lookahead search: beam search that values a node by where k greedy steps from it lead.

Source: Snell et al., section 5.2. A round costs N(k + 1) generations instead of N, less where a solution ends
earlier. The nodes looked at are kept in the tree, pruned as "lookahead": they are never expanded and never returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.concurrency import together
from workers.strategies.base import Candidate, Node, NodeEnd, Search
from workers.strategies.beam import BeamOptions, grow
from workers.strategies.rounds import go_on


@dataclass(frozen=True, slots=True)
class LookaheadOptions:
    """What a lookahead search leaves open."""

    steps: int = 3
    """k, greedy steps looked ahead; 0 is beam search."""
    expansion: int | None = 4
    """M, the children of a survivor; None: the square root of the budget, rounded."""
    dedupe_siblings: bool = False
    """Let only the first of open siblings with the same text compete. Off: each is a node of its own, as sampled."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, but is {self.steps}")
        self.beam()

    def beam(self) -> BeamOptions:
        """The options of the beam search that it is otherwise."""
        return BeamOptions(self.expansion, self.dedupe_siblings)


async def lookahead(search: Search, options: LookaheadOptions = LookaheadOptions()) -> list[Candidate]:
    """Beam search whose value of a node is the score of the end of `steps` greedy steps from it."""

    async def look_ahead(search: Search, nodes: Sequence[Node]) -> Sequence[float]:
        return await search.score(
            await together(_end_of_the_look(search, node, options.steps) for node in nodes)
        )

    first_steps = await search.sample(search.root, search.budget)
    return await grow(search, first_steps, search.budget, options.beam(), look_ahead)


async def _end_of_the_look(search: Search, node: Node, steps: int) -> Node:
    """The last whole step on the greedy way from a node: a cut, empty or failed one says nothing of its value."""
    passed = await go_on(search, node, steps=steps, greedy=True)
    if passed:
        search.prune(passed, "lookahead")
    whole = [step for step in passed if step.end in (NodeEnd.STEP, NodeEnd.FINISHED)]
    return whole[-1] if whole else node
