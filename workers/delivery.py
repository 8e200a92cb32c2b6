"""Facts on their way from finished requests to the stream of a lot: gathered into micro-batches.

It must not know what the facts say, nor who makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from workers.types import (
    FactBatch,
    NodeScore,
    Pruning,
    StepScores,
    TaskEnd,
    Trajectory,
    TreeNode,
    Usage,
    merged_usage,
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The facts of one finished request, or the end of a task."""

    trajectories: tuple[Trajectory, ...] = ()
    nodes: tuple[TreeNode, ...] = ()
    node_scores: tuple[NodeScore, ...] = ()
    prunings: tuple[Pruning, ...] = ()
    scores: tuple[StepScores, ...] = ()
    usage: Usage | None = None
    end: TaskEnd | None = None

    @property
    def size(self) -> int:
        """Number of samples it says something of."""
        return len(self.trajectories) + len(self.nodes) + len(self.scores)


Deliveries = asyncio.Queue[Delivery | None]
"""What the tasks of a lot have found out; None: nothing more will come."""


async def micro_batches(queue: Deliveries, *, size: int, delay_s: float) -> AsyncIterator[FactBatch]:
    """Group deliveries until there are `size` samples or `delay_s` has passed; the first leaves at once, to be seen."""
    is_first = True
    is_open = True
    while is_open:
        delivery = await queue.get()
        if delivery is None:
            return
        held = [delivery]
        if not is_first:
            is_open = await _gather(queue, held, size, delay_s)
        is_first = False
        yield _batch(held)


async def _gather(queue: Deliveries, held: list[Delivery], size: int, delay_s: float) -> bool:
    """Add what comes in time to what is held; False once nothing more will come."""
    deadline = asyncio.get_running_loop().time() + delay_s
    count = sum(delivery.size for delivery in held)
    while count < size:
        try:
            async with asyncio.timeout_at(deadline):
                following = await queue.get()
        except TimeoutError:
            return True
        if following is None:
            return False
        held.append(following)
        count += following.size
    return True


def _batch(deliveries: Sequence[Delivery]) -> FactBatch:
    return FactBatch(
        trajectories=tuple(each for delivery in deliveries for each in delivery.trajectories),
        nodes=tuple(each for delivery in deliveries for each in delivery.nodes),
        node_scores=tuple(each for delivery in deliveries for each in delivery.node_scores),
        prunings=tuple(each for delivery in deliveries for each in delivery.prunings),
        scores=tuple(each for delivery in deliveries for each in delivery.scores),
        usage=merged_usage(delivery.usage for delivery in deliveries if delivery.usage),
        ends=tuple(delivery.end for delivery in deliveries if delivery.end),
    )
