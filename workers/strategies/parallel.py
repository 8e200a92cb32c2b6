"""N independent solutions, step by step: the baseline of every search, on the same footing as the searches.

Where no step scores are wanted, a pool of whole samples gives the same solutions with one request each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.concurrency import together
from workers.strategies.base import Candidate, Node, Search
from workers.strategies.rounds import go_on, is_candidate, judge


@dataclass(frozen=True, slots=True)
class ParallelOptions:
    """What parallel sampling leaves open."""

    is_scored: bool = True
    """Score the finished solutions; off for plain votes, which need no scorer."""


async def parallel(search: Search, options: ParallelOptions = ParallelOptions()) -> list[Candidate]:
    """Every first step is gone on with alone, at its own pace."""
    first_steps = await search.sample(search.root, search.budget)
    ends = await together(_end(search, node) for node in first_steps)
    return await returned(search, ends, is_scored=options.is_scored)


async def returned(search: Search, ends: Sequence[Node], *, is_scored: bool) -> list[Candidate]:
    """The solutions among the ends, with scores where they are wanted."""
    if is_scored:
        return list((await judge(search, ends)).candidates)
    return [Candidate(node, None) for node in ends if is_candidate(search, node)]


async def _end(search: Search, node: Node) -> Node:
    passed = await go_on(search, node)
    return passed[-1] if passed else node
