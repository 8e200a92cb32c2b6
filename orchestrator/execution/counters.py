"""Sums of one run that only ever grow, for whoever watches it from outside: what it drew, spent and lost.

Nothing here is shown on the terminal; `progress` does that. It knows no metric names and keeps no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.types import FactBatch, Role, Usage, WorkerHealth

NO_LANE = -1
"""Lane of usage whose task is unknown."""


@dataclass(slots=True)
class RunCounters:
    """Fed with committed batches, and with what workers say of themselves."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Samples by outcome."""
    score_statuses: Counter[str] = field(default_factory=Counter)
    usage: dict[tuple[int, Role], Usage] = field(default_factory=dict)
    """By lane and role; ids of tasks and attempts mean nothing in these sums."""
    worker_restarts: int = 0
    _ended: Counter[str] = field(default_factory=Counter)
    """Failed requests by kind, of workers that are gone."""

    def add(self, batch: FactBatch, lanes: Mapping[int, int]) -> None:
        """Count a committed batch; `lanes` by task."""
        self.outcomes.update(str(each.outcome) for each in batch.trajectories)
        self.score_statuses.update(str(each.status) for each in batch.scores)
        for usage in batch.usage:
            key = (lanes.get(usage.task_id, NO_LANE), usage.role)
            self.usage[key] = self.usage[key] + usage if key in self.usage else usage

    def lose(self, health: WorkerHealth | None) -> None:
        """A worker is gone, last heard of with `health`: the next one counts from zero."""
        self.worker_restarts += 1
        if health is not None:
            self._ended.update(health.failures)

    def failures(self, health: Mapping[int, WorkerHealth]) -> Counter[str]:
        """Failed requests by kind, retried or not, of all lives of all workers."""
        total = Counter(self._ended)
        for each in health.values():
            total.update(each.failures)
        return total
