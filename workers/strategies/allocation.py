"""How many children each node gets: pure arithmetic over scores and widths, it knows neither nodes nor searches.

Ties are broken by the order given: of equal scores the first one counts as the better one. Beside that no rule
depends on the order, and equal scores get widths that differ by at most one (paper rule: that are equal).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

_ROUNDING = 1e-9  # of a child: a share that is whole but for floating point is whole


class RebaseRule(StrEnum):
    """How the shares of REBASE become whole numbers of children."""

    SEQUENTIAL = "sequential"
    """The authors' code: best first, each takes its share of what is left, rounded up. Conserves the width."""
    ROUND = "round"
    """The paper: every share is rounded. May give more or less than the width, or nothing at all."""


def rebase_widths(
    scores: Sequence[float],
    width: int,
    temperature: float,
    rule: RebaseRule = RebaseRule.SEQUENTIAL,
) -> list[int]:
    """Children of each node, in the order of `scores`, by the softmax of the scores at `temperature` > 0.

    `SEQUENTIAL` gives exactly `width` in all whenever there is a score. Source: Wu et al., section 3.1.2, and
    the authors' code.
    """
    _check(scores, width)
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature}")
    if rule is RebaseRule.ROUND:
        return _rounded(scores, width, temperature)
    return _sequential(scores, width, temperature)


def _sequential(scores: Sequence[float], width: int, temperature: float) -> list[int]:
    """Best first, each its share of what is left, rounded up.

    The share of a node among itself and all worse ones is 1 / mass, where mass is their weight in units of its own
    weight. Built from the worst one up it neither overflows nor cancels, and is exactly 1 for the last one.
    """
    order = ranking(scores)
    masses = [1.0] * len(order)
    for place in range(len(order) - 2, -1, -1):
        gap = scores[order[place + 1]] - scores[order[place]]
        masses[place] = 1.0 + masses[place + 1] * math.exp(gap / temperature)
    widths = [0] * len(order)
    left = width
    for index, mass in zip(order, masses, strict=True):
        widths[index] = min(left, math.ceil(left / mass - _ROUNDING))
        left -= widths[index]
    return widths


def _rounded(scores: Sequence[float], width: int, temperature: float) -> list[int]:
    """Each share of `width`, rounded to the nearest whole number, halves to even."""
    if not scores:
        return []
    best = max(scores)
    weights = [math.exp((score - best) / temperature) for score in scores]
    total = math.fsum(weights)
    return [round(width * weight / total) for weight in weights]


def beam_widths(open_nodes: int, width: int, expansion: int) -> list[int]:
    """Children of each survivor, best first; its length is the number of survivors.

    width // expansion nodes survive, but at least one and at most those there are; `width` is spread over them as
    evenly as whole numbers allow, the better ones first. So each gets `expansion` children where that divides
    `width`; else the left-over ones go round from the best on, and where fewer nodes are open than may survive,
    each gets more. The sum is `width` whenever a node is open. Source: Snell et al., beam search (N, M).
    """
    if expansion < 1:
        raise ValueError(f"the expansion must be at least 1, not {expansion}")
    if open_nodes < 1 or width < 1:
        return []
    return spread(width, min(open_nodes, max(1, width // expansion)))


def subtree_widths(width: int, expansion: int) -> list[int]:
    """Widths of the independent subtrees of DVTS: width // expansion of them, at least one; the sum is `width`."""
    return beam_widths(width, width, expansion)


def spread(width: int, parts: int) -> list[int]:
    """`width` in `parts` whole parts that differ by at most one, the larger ones first."""
    share, rest = divmod(width, parts)
    return [share + 1] * rest + [share] * (parts - rest)


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices from the best score to the worst; equal scores in the order given."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _check(scores: Sequence[float], width: int) -> None:
    """Refuse what has no allocation, before it becomes a NaN."""
    if width < 0:
        raise ValueError(f"the width must not be negative, but is {width}")
    if not all(math.isfinite(score) for score in scores):
        raise ValueError("scores must be finite numbers")
