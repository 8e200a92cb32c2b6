"""How compute is spent on a problem: plain async functions over a search, with no word about where text comes from.

`base` is all that a strategy of one's own needs; `registry` finds strategies by name. A whole strategy, which goes on
with the one best first step and never looks back:

    async def commit_early(search: Search, tries: int = 4) -> list[Candidate]:
        nodes = await search.sample(search.root, tries)
        judged = await judge(search, nodes)
        if not judged.open:
            return list(judged.candidates)
        best = judged.open[judged.values.index(max(judged.values))]
        search.prune([node for node in judged.open if node is not best], "not the best")
        end = (await go_on(search, best))[-1:]
        return [*judged.candidates, *(await judge(search, end)).candidates]
"""

from __future__ import annotations

from workers.concurrency import together
from workers.strategies.base import (
    Candidate,
    Limits,
    Node,
    NodeEnd,
    Search,
    Strategy,
    sample_children,
)
from workers.strategies.registry import KINDS, build, load, names
from workers.strategies.rounds import Judged, go_on, judge

__all__ = [
    "KINDS",
    "Candidate",
    "Judged",
    "Limits",
    "Node",
    "NodeEnd",
    "Search",
    "Strategy",
    "build",
    "go_on",
    "judge",
    "load",
    "names",
    "sample_children",
    "together",
]
