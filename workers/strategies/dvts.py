"""Diverse verifier tree search: N/M beams of width M that never compete, so that one early score cannot take all.

Source: Beeching et al., "Scaling test-time compute with open models" (2024). Each subtree keeps its best node and
samples M children of it. No subtree waits for another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from workers.concurrency import together
from workers.strategies.allocation import subtree_widths
from workers.strategies.base import Candidate, Search
from workers.strategies.beam import BeamOptions, grow


@dataclass(frozen=True, slots=True)
class DvtsOptions:
    """What a DVTS leaves open."""

    expansion: int | None = 4
    """M, the width of a subtree; None: the square root of the budget, rounded. Where it does not divide the budget,
    the subtrees are as equal as whole numbers allow."""
    dedupe_siblings: bool = False
    """Let only the first of open siblings with the same text compete. Off: each is a node of its own, as sampled."""

    def __post_init__(self) -> None:
        self.beam()

    def beam(self) -> BeamOptions:
        """The options that its subtrees share."""
        return BeamOptions(self.expansion, self.dedupe_siblings)


async def dvts(search: Search, options: DvtsOptions = DvtsOptions()) -> list[Candidate]:
    """N first steps are dealt to N/M subtrees, each of which is a beam of one survivor."""
    first_steps = await search.sample(search.root, search.budget)
    widths = subtree_widths(search.budget, options.beam().expansion_at(search.budget))
    bounds = pairwise(accumulate(widths, initial=0))
    subtrees = await together(
        grow(search, first_steps[start:end], end - start, BeamOptions(end - start, options.dedupe_siblings))
        for start, end in bounds
    )
    return [candidate for subtree in subtrees for candidate in subtree]
