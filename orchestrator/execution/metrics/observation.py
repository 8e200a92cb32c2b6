"""Looks at a run from outside, whenever somebody asks: gathers the numbers of its parts into one view.

The parts do not know that they are looked at. It must not know HTTP nor the names of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from orchestrator.execution.metrics.families import LaneModels, RunIdentity, RunView, ServedModel
from orchestrator.execution.progress import Tally
from orchestrator.execution.scheduler import Scheduler
from orchestrator.registration import Registered
from orchestrator.spec.sections import SweepSpec
from orchestrator.store import LaneRecord, Writer
from workers.types import Role


class Board(Protocol):
    """Where a run is shown to the outside."""

    def show(self, view: Callable[[], RunView]) -> None:
        """Show from now on what `view` returns."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The parts of a run that have something to show."""

    identity: RunIdentity
    lanes: dict[int, LaneModels]
    tally: Tally
    scheduler: Scheduler
    writer: Writer

    def view(self) -> RunView:
        """The run now."""
        counters = self.tally.counters
        progress = self.tally.snapshot(self.scheduler.in_flight_samples)
        return RunView(
            identity=self.identity,
            progress=progress,
            writer=self.writer.stats,
            lanes=self.lanes,
            loads=self.scheduler.loads(),
            workers_up=self.scheduler.workers_up,
            worker_restarts=counters.worker_restarts,
            outcomes=counters.outcomes,
            score_statuses=counters.score_statuses,
            failures=progress.failures,
            usage=counters.usage,
        )

    @contextmanager
    def on(self, board: Board | None) -> Iterator[None]:
        """Show the run on a board while it lasts, and its sums from then on."""
        if board is None:
            yield
            return
        board.show(self.view)
        try:
            yield
        finally:
            last = self.view().at_rest()
            board.show(lambda: last)


def lane_models(
    spec: SweepSpec, registered: Registered, lanes: Sequence[LaneRecord]
) -> dict[int, LaneModels]:
    """What lanes are called, and which models of the sweep file they spend, by lane id."""
    return {lane.id: _models_of(spec, registered, lane) for lane in lanes}


def _models_of(spec: SweepSpec, registered: Registered, lane: LaneRecord) -> LaneModels:
    by_role: dict[Role, ServedModel] = {}
    if lane.scorer_id is not None:
        scorer = registered.scorers[lane.scorer_id]
        by_role[Role.SCORER] = ServedModel(scorer, spec.scorers[scorer].parameters)
    if lane.generator_id is not None:
        policy = registered.models[lane.generator_id]
        by_role[Role.POLICY] = ServedModel(policy, spec.models[policy].parameters)
    leading = by_role.get(Role.POLICY) or by_role[Role.SCORER]
    return LaneModels(leading.name, lane.kind, by_role)
