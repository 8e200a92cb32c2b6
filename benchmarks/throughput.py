"""Durable throughput: samples committed a second, beside a bare client that keeps nothing.

Constant service time and as many slots as requests in flight, so that nothing but the client limits the rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.floor import IN_FLIGHT, FloorRun, run_floor
from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory, SweepRun

LATENCY_S = 0.2
GROUP = "throughput"


@dataclass(frozen=True, slots=True)
class _Case:
    n: int
    is_verbose: bool
    problems: int
    samples: int

    @property
    def label(self) -> str:
        return f"n={self.n}" + (", vLLM's full log probabilities" if self.is_verbose else "")


def measure_throughput(folder: Path, *, is_quick: bool, with_ttc: bool = True) -> Iterator[Figure]:
    """Floor and, `with_ttc`, the real thing in turn, at n=1 and n=16."""
    size = 1 if is_quick else 3
    for case in (
        _Case(1, False, 32, 96 * size),
        _Case(16, False, 64, 320 * size),
        _Case(16, True, 64, 320 * size),
    ):
        yield from _measure_case(case, folder, 1 if is_quick else 3, with_ttc=with_ttc)


def _measure_case(case: _Case, folder: Path, repetitions: int, *, with_ttc: bool) -> Iterator[Figure]:
    floors: list[FloorRun] = []
    runs: defaultdict[str, list[SweepRun]] = defaultdict(list)
    with StubProcess(StubSettings(slots=IN_FLIGHT, mean_s=LATENCY_S, is_verbose=case.is_verbose)) as stub:
        for repetition in range(repetitions):
            floors.append(run_floor(stub.url, case.n, case.problems * case.samples // case.n))
            for name, is_local in (("Ray, 1 worker", False), ("--local", True)) if with_ttc else ():
                place = SweepDirectory(folder / f"n{case.n}-{case.is_verbose}-{is_local}-{repetition}")
                sweep = Sweep(case.problems, case.samples, case.n, is_local=is_local)
                runs[name].append(place.run(stub, sweep))
    yield from _figures(case, floors, runs)


def _figures(case: _Case, floors: list[FloorRun], runs: dict[str, list[SweepRun]]) -> Iterator[Figure]:
    rate = median(run.samples_per_second for run in floors)
    cpu = median(run.cpu_per_1000 for run in floors)
    ceiling = case.n * IN_FLIGHT / LATENCY_S
    yield Figure(
        GROUP, f"bare client, {case.label}", "samples/s", tuple(run.samples_per_second for run in floors),
        ceiling, "256 / 0.2 s",
    )  # fmt: skip
    for name, each in runs.items():
        yield Figure(
            GROUP, f"ttc run, {name}, {case.label}", "samples/s", tuple(run.samples_per_second for run in each),
            rate, "bare client", _target(case),
        )  # fmt: skip
        yield Figure(
            GROUP, f"CPU of ttc, {name}, {case.label}", "CPU-s/1,000", tuple(run.cpu_per_1000 for run in each),
            cpu, "bare client",
        )  # fmt: skip


def _target(case: _Case) -> Target | None:
    if case.is_verbose:
        return None
    return Target(0.6, is_ratio=True) if case.n == 1 else Target(6000)
