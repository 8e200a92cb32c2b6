"""What follows from what is stored: prefixes of new solutions to be completed, new samples to be scored.

A sweep is done when this adds nothing any more. It asks the store, which knows what has been followed up already, so it
may be interrupted and done again at any time. It must not know workers or servers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from orchestrator.store import RolloutDemand, Store

logger = logging.getLogger(__name__)

SOLUTIONS_AT_ONCE = 500
"""Solutions whose prefixes are added in one transaction."""


class Growth:
    """Adds tasks to one sweep."""

    def __init__(
        self, store: Store, sweep_id: int, rollouts: Sequence[RolloutDemand], *, has_scorers: bool
    ) -> None:
        self._store = store
        self._sweep_id = sweep_id
        self._rollouts = rollouts
        self._has_scorers = has_scorers
        self.samples_added = 0
        """Completions asked for so far: a sweep cannot know beforehand how many beginnings its solutions have."""

    @property
    def is_idle(self) -> bool:
        """Nothing ever follows from what is stored."""
        return not self._rollouts and not self._has_scorers

    async def grow(self) -> bool:
        """Add what follows from what is stored now; False if that is nothing."""
        has_grown = False
        for demand in self._rollouts:
            solutions = await self._store.unlabelled(self._sweep_id, demand)
            for chunk in _chunks(solutions):
                self.samples_added += await self._store.add_rollouts(self._sweep_id, demand, chunk)
                has_grown = True
        if self._has_scorers:
            has_grown |= await self._store.add_score_tasks(self._sweep_id) > 0
        if has_grown:
            logger.info("more follows from what is stored", extra={"event": "grown"})
        return has_grown


def _chunks(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[start : start + SOLUTIONS_AT_ONCE] for start in range(0, len(items), SOLUTIONS_AT_ONCE))
