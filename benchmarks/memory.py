"""Peak memory of a run at 10,000 and at 200,000 samples: what is in flight must decide it, not the size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory, SweepRun
from benchmarks.watch import COORDINATOR, WORKER

GROUP = "peak memory"
MIB = 1 << 20
PROBLEMS = 40


def measure_memory(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Resident memory of the coordinator and of the worker, small run and large run, and the difference."""
    small, large = 10_240, 51_200 if is_quick else 204_800
    with StubProcess(StubSettings(mean_s=0.2)) as stub:
        runs = [
            SweepDirectory(folder / f"memory-{size}").run(stub, Sweep(PROBLEMS, size // PROBLEMS, 16))
            for size in (small, large)
        ]
    for role in (COORDINATOR, WORKER):
        before, after = (_peak(run, role) for run in runs)
        yield Figure(GROUP, f"{role}, {large:,} samples", "MiB", (after,), before, f"{small:,} samples")
        yield Figure(GROUP, f"{role}, growth", "MiB", (after - before,), target=Target(100, is_ceiling=True))


def _peak(run: SweepRun, role: str) -> float:
    return run.usage.peak_rss.get(role, 0) / MIB
