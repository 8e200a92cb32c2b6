"""The `strategies` section of a sweep file: how compute is spent.

Adding a kind of strategy is one class and one name in the union below. It must not know models' servers or scorers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.fields import Name, Section
from workers.identity import MAX_SAMPLES_PER_POOL


class ParallelStrategy(Section):
    """Independent samples; every smaller budget is a part of them."""

    kind: Literal["parallel"]
    """Independent samples."""
    name: Name
    """Name in results."""
    policy: Name
    """Name of the model that draws."""
    samples: Annotated[int, Field(ge=1, lt=MAX_SAMPLES_PER_POOL)]
    """Samples drawn for every problem."""


class RolloutsStrategy(Section):
    """Monte Carlo labels of steps: every beginning of a solution is completed several times (Math-Shepherd)."""

    kind: Literal["rollouts"]
    """Monte Carlo labels of the steps of stored solutions."""
    name: Name
    """Name of the labels."""
    source: Name
    """Name of the strategy whose solutions are labelled."""
    completer: Name
    """Name of the model that completes them; it may be the one that wrote them."""
    solutions: Annotated[int, Field(ge=1, lt=MAX_SAMPLES_PER_POOL)]
    """Solutions of every problem that are labelled, the first in order; of equal beginnings one is completed."""
    rollouts: Annotated[int, Field(ge=1, le=4096)] = 8
    """Completions of every beginning (Wang 2312.08935 uses 8, Snell 2408.03314 16)."""
    label: Literal["hard", "soft"] = "soft"
    """Which label is exported by default: hard (any completion is right) or soft (the share that is)."""


AnyStrategy = Annotated[ParallelStrategy | RolloutsStrategy, Field(discriminator="kind")]
