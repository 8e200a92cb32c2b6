"""How busy a server of 256 slots is kept when calls take very different times, first start to last end.

The server measures it. Beside it stand the bare client under the same conditions, and lockstep: waves of 256
that wait for their slowest call, worked out from the same service times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.draws import ServiceTimes, mixed
from benchmarks.floor import IN_FLIGHT, run_floor
from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.slots import lockstep_utilisation
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory

GROUP = "slot utilisation"
MEAN_S, SIGMA = 0.2, 0.6
CROWDED = 512
"""Requests in flight where as many as are served may wait in the server's own queue, as with vLLM."""


def measure_utilisation(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Utilisation on Ray at n=1, with as many requests in flight as slots, and with twice as many."""
    size = 10_240 if is_quick else 40_960
    times = ServiceTimes(MEAN_S, SIGMA)
    lockstep = lockstep_utilisation([times.of(mixed(0, seed)) for seed in range(size)], IN_FLIGHT)
    with StubProcess(StubSettings(slots=IN_FLIGHT, mean_s=MEAN_S, sigma=SIGMA)) as stub:
        for in_flight in (IN_FLIGHT, CROWDED):
            stub.reset()
            run_floor(stub.url, 1, size, in_flight)
            bare = stub.stats()
            sweep = Sweep(40, size // 40, 1, concurrency=in_flight)
            ours = SweepDirectory(folder / f"slots-{in_flight}").run(stub, sweep).stub
            what = f"ttc run, Ray, {in_flight} in flight on {IN_FLIGHT} slots"
            yield _figure(what, ours["utilisation"], bare["utilisation"], Target(0.97))
            yield _figure(f"{what}, middle 80%", ours["steady_utilisation"], bare["steady_utilisation"])
    yield Figure(GROUP, f"lockstep in waves of {IN_FLIGHT}, computed", "", (lockstep,))


def _figure(what: str, value: float, bare: float, target: Target | None = None) -> Figure:
    return Figure(GROUP, what, "", (value,), bare, "bare client", target)
