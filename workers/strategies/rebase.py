"""REBASE: the width of a round is shared among its open nodes by the softmax of their scores.

Source: Wu et al., section 3.1.2, and the authors' code, which shares out in another way (`RebaseRule`). No rollouts,
no visit counts: all that a round hands to the next one is the width, less by one for every solution.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.strategies.allocation import RebaseRule, rebase_widths
from workers.strategies.base import Candidate, Search, sample_children
from workers.strategies.rounds import judge


@dataclass(frozen=True, slots=True)
class RebaseOptions:
    """What REBASE leaves open."""

    temperature: float = 0.1
    """T_b of the softmax over the scores: 0.1 in the paper, 0.2 in the configuration that the authors ship."""
    rule: RebaseRule = RebaseRule.SEQUENTIAL
    """How shares become whole numbers. `ROUND`, the paper's, may sample some nodes more or less than the width."""
    dedupe_siblings: bool = False
    """Let only the first of open siblings with the same text have a share. Off: each has its own, as sampled."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")


async def rebase(search: Search, options: RebaseOptions = RebaseOptions()) -> list[Candidate]:
    """Rounds of scoring and of sharing the remaining width; a finished or cut node takes its place from it.

    The slot of an EMPTY or ERROR node is not lost: the next round samples the full width again.
    """
    candidates: list[Candidate] = []
    width = search.budget
    nodes = await search.sample(search.root, width)
    while nodes:
        judged = await judge(search, nodes, dedupe_siblings=options.dedupe_siblings)
        candidates += judged.candidates
        width = max(0, width - len(judged.candidates))
        widths = rebase_widths(judged.values, width, options.temperature, options.rule)
        if starved := [node for node, share in zip(judged.open, widths, strict=True) if share == 0]:
            search.prune(starved, "no share")
        nodes = await sample_children(search, judged.open, widths)
    return candidates
