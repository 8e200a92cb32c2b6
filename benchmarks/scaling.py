"""How many replicas one coordinator keeps busy: measured costs of a call, put into the model of `model`.

The costs are those of real runs on this machine. The model is held against the same runs first: what it says of 256
slots beside what their server measured. Then it is asked about clusters that this machine cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.floor import IN_FLIGHT
from benchmarks.launch import StubProcess
from benchmarks.model import Cluster, Costs, bound, simulate
from benchmarks.report import Figure
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory
from benchmarks.utilisation import CROWDED, MEAN_S, SIGMA
from benchmarks.watch import COORDINATOR, WORKER

GROUP = "scaling"
REPLICAS = (10, 100, 1000)
SLOTS = 64
"""Requests that a replica decodes at once: 256 sequences of vLLM are 16 requests of 16 or 256 of one."""
MOST_CALLS = 400_000


@dataclass(frozen=True, slots=True)
class _Kind:
    """A way to work, with the service time of a real engine."""

    name: str
    n: int
    service_s: float


KINDS = (
    _Kind("solutions, 16 a request, 20 s each", 16, 20.0),
    _Kind("solutions, one a request, 10 s each", 1, 10.0),
    _Kind("steps of searches, one a request, 1.5 s each", 1, 1.5),
)


def measure_scaling(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Costs of a call, the model beside the measurement, and what the model says of large clusters."""
    costs = {}
    for n in (16, 1):
        sweep = Sweep(40, (2048 if n == 16 else 512) // (4 if is_quick else 1), n, concurrency=CROWDED)
        with StubProcess(StubSettings(slots=IN_FLIGHT, mean_s=MEAN_S, sigma=SIGMA)) as stub:
            run = SweepDirectory(folder / f"scaling-{n}").run(stub, sweep)
        calls = run.new / n
        spent = {
            role: run.usage.cpu_between(run.stub["first_start"], run.last_commit, (role,)) / calls
            for role in (COORDINATOR, WORKER)
        }
        costs[n] = Costs(worker_s=spent[WORKER], coordinator_s=spent[COORDINATOR])
        for role, seconds in spent.items():
            yield Figure(GROUP, f"CPU, {role}, n={n}", "ms/call", (1000 * seconds,))
        here = Cluster(1, IN_FLIGHT, MEAN_S, SIGMA, workers=1, queue=CROWDED / IN_FLIGHT)
        said = simulate(here, costs[n], calls=round(calls)).utilisation
        measured = run.stub["steady_utilisation"]
        yield Figure(GROUP, f"utilisation of {IN_FLIGHT} slots, n={n}", "", (measured,), said, "the model")
    for kind in KINDS:
        yield from _predicted(kind, costs[kind.n])


def _predicted(kind: _Kind, costs: Costs) -> Iterator[Figure]:
    most = kind.service_s / (SLOTS * costs.coordinator_s)
    yield Figure(GROUP, f"{kind.name}: replicas of {SLOTS} that fill a coordinator", "replicas", (most,))
    for replicas in REPLICAS:
        cluster = Cluster(replicas, SLOTS, kind.service_s, SIGMA, workers=max(1, replicas // 8))
        calls = min(MOST_CALLS, 12 * SLOTS * replicas)
        outcome = simulate(cluster, costs, calls=calls)
        what = f"{kind.name}: utilisation of {replicas} replicas, bound by {outcome.bottleneck}"
        yield Figure(GROUP, what, "", (outcome.utilisation,), bound(cluster, costs), "by counting")
