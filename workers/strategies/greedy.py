"""One solution at temperature 0, step by step: parallel sampling of one, and the cheapest thing to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from workers.strategies.base import Candidate, Search
from workers.strategies.parallel import returned
from workers.strategies.rounds import go_on


@dataclass(frozen=True, slots=True)
class GreedyOptions:
    """What greedy decoding leaves open."""

    is_scored: bool = False
    """Score the solution, which no vote needs."""


async def greedy(search: Search, options: GreedyOptions = GreedyOptions()) -> list[Candidate]:
    """The most likely step after the most likely step; one solution, whatever the budget."""
    passed = await go_on(search, search.root, greedy=True)
    return await returned(search, passed[-1:], is_scored=options.is_scored)
