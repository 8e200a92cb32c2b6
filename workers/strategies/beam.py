"""Beam search (N, M): every round the best N/M nodes survive and get M children each.

Source: Snell et al., section 5.2; M is 4 or the square root of N. What the paper leaves open is decided here so that
a search of budget N samples at most N nodes a round and returns at most N solutions: a finished node becomes a
candidate whatever its rank, and its place is gone from the width, so the beam narrows as solutions come in.
(Re-implementations that refill the beam to N finish more than N solutions and throw the rest away, or pad with
copies, whose votes count twice.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.strategies.allocation import beam_widths, ranking
from workers.strategies.base import Candidate, Node, Search, sample_children
from workers.strategies.rounds import Evaluate, judge, prm_values


@dataclass(frozen=True, slots=True)
class BeamOptions:
    """What a beam search leaves open."""

    expansion: int | None = 4
    """M, the children of a survivor; None: the square root of the budget, rounded."""
    dedupe_siblings: bool = False
    """Let only the first of open siblings with the same text compete. Off: each is a node of its own, as sampled."""

    def __post_init__(self) -> None:
        if self.expansion is not None and self.expansion < 1:
            raise ValueError(f"expansion must be at least 1, not {self.expansion}")

    def expansion_at(self, budget: int) -> int:
        """M at a budget."""
        return self.expansion if self.expansion is not None else max(1, round(math.sqrt(budget)))


async def beam(search: Search, options: BeamOptions = BeamOptions()) -> list[Candidate]:
    """Beam search: N first steps, then rounds of scoring, keeping N/M and sampling M children of each."""
    first_steps = await search.sample(search.root, search.budget)
    return await grow(search, first_steps, search.budget, options)


async def grow(
    search: Search,
    nodes: Sequence[Node],
    width: int,
    options: BeamOptions,
    evaluate: Evaluate = prm_values,
) -> list[Candidate]:
    """Beam search of a width from given nodes on.

    The slot of an EMPTY or ERROR node is not lost: the next round samples the full width again. Equal values are
    ranked in the order of sampling.
    """
    candidates: list[Candidate] = []
    expansion = options.expansion_at(search.budget)
    while nodes:
        judged = await judge(search, nodes, evaluate=evaluate, dedupe_siblings=options.dedupe_siblings)
        candidates += judged.candidates
        width -= len(judged.candidates)
        widths = beam_widths(len(judged.open), width, expansion)
        ranked = [judged.open[index] for index in ranking(judged.values)]
        if beaten := ranked[len(widths) :]:
            search.prune(beaten, "beaten")
        nodes = await sample_children(search, ranked[: len(widths)], widths)
    return candidates
