"""How busy six unequal replicas are kept: 43 slots each, but one of them takes three times as long.

The servers measure it. Beside it stands taking turns, worked out from the same mean times: as many requests for each
replica, whatever it makes of them, so that all wait for the slow one's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, run_ttc, spec_of, write_sweep
from benchmarks.utilisation import SIGMA

GROUP = "unequal replicas"
SLOTS = 43
SLOWNESS = (1.0, 1.0, 1.0, 1.0, 1.0, 3.0)
MEAN_S = 0.5
IN_FLIGHT = 512
"""Twice as many as slots: every server has a queue."""


def measure_replicas(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Utilisation of all slots together, and of the slow replica's."""
    samples = 8 if is_quick else 144
    sweep = Sweep(500, samples, 1, concurrency=IN_FLIGHT, name="replicas")
    with ExitStack() as stack:
        stubs = [
            stack.enter_context(StubProcess(StubSettings(slots=SLOTS, mean_s=MEAN_S * slow, sigma=SIGMA)))
            for slow in SLOWNESS
        ]
        write_sweep(folder / "replicas", sweep.problems, spec_of([stub.url for stub in stubs], sweep))
        run_ttc(folder / "replicas", folder / "replicas" / "store.db")
        found = [stub.stats() for stub in stubs]
    turns = sum(SLOWNESS) / (len(SLOWNESS) * max(SLOWNESS))
    whole, target = _utilisation(found), None if is_quick else Target(0.95)  # of a short run, much is tail
    yield Figure(GROUP, "utilisation", "", (whole,), turns, "taking turns, computed", target)
    steady = sum(each["steady_utilisation"] for each in found) / len(found)
    yield Figure(
        GROUP, "utilisation, middle 80%", "", (steady,), turns, "taking turns, computed", Target(0.95)
    )
    slowest = found[SLOWNESS.index(max(SLOWNESS))]
    share = slowest["requests"] / sum(each["requests"] for each in found)
    fair = (1 / max(SLOWNESS)) / sum(1 / slow for slow in SLOWNESS)
    yield Figure(
        GROUP, "share of requests that the slow one gets", "", (share,), fair, "its share of the speed"
    )


def _utilisation(found: Sequence[dict[str, Any]]) -> float:
    """Busy slot-seconds over all slot-seconds, from the first start anywhere to the last end anywhere."""
    seconds = max(each["last_end"] for each in found) - min(each["first_start"] for each in found)
    return float(sum(each["busy_slot_s"] for each in found) / (SLOTS * len(found) * seconds))
