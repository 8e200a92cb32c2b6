"""How many replicas a model is to have: pure, from how many requests there are and what was decided before.

More at once, fewer only after a while: a replica costs minutes to start, and a sweep breathes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.spec.engine_settings import Scale


@dataclass(frozen=True, slots=True)
class Sizing:
    """What was decided, and since when less would do."""

    replicas: int
    enough: int
    """Replicas that would have been enough at every moment since `since_s`."""
    since_s: float
    """When more than that were last needed, by the caller's clock."""


def first_sizing(scale: Scale, now: float) -> Sizing:
    """Begin with the least."""
    return Sizing(scale.least, scale.least, now)


def resized(scale: Scale, sizing: Sizing, requests: int, now: float) -> Sizing:
    """The next decision, where so many requests are under way or waiting.

    Grows at once to what the requests need. Shrinks when less was needed for `scale.idle_s`, to the most that was
    needed in that time.
    """
    needed = min(scale.most, max(scale.least, math.ceil(requests / scale.requests)))
    if needed >= sizing.replicas:
        return Sizing(needed, needed, now)
    enough = needed if sizing.enough >= sizing.replicas else max(needed, sizing.enough)
    since_s = now if sizing.enough >= sizing.replicas else sizing.since_s
    if now - since_s >= scale.idle_s:
        return Sizing(enough, enough, now)
    return Sizing(sizing.replicas, enough, since_s)
