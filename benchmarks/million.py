"""A million samples through a real `ttc run`, into SQLite and PostgreSQL: speed, lag, memory, and the views afterwards.

How far behind: the time from the end of the last call to its commit, which is what the writer lags when all is drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.launch import StubProcess
from benchmarks.postgres import postgres_server
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory, run_ttc, spec_of, write_sweep
from benchmarks.views import view_figures
from benchmarks.watch import COORDINATOR, Usage

GROUP = "a million samples"
MIB = 1 << 20
PROBLEMS = 500
SMALL, LARGE, QUICK = 20, 2048, 128
"""Samples a problem: 10,000 and 1,024,000."""
VIEWS_S = 2.0


def measure_million(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Samples a second, seconds behind and peak memory, beside a run of ten thousand samples."""
    many = QUICK if is_quick else LARGE
    with StubProcess(StubSettings(mean_s=0.2)) as stub:
        small = SweepDirectory(folder / "small").run(stub, Sweep(PROBLEMS, SMALL, 16))
        million = SweepDirectory(folder / "million")
        run = million.run(stub, Sweep(PROBLEMS, many, 16))
        yield from _figures(
            "SQLite", run.samples_per_second, run.last_commit, run.stub, run.usage, small.usage
        )
        yield from view_figures(GROUP, "SQLite, ", f"sqlite:///{million.store}", VIEWS_S)
        yield from _into_postgres(folder, stub, many, small.usage)


def _into_postgres(folder: Path, stub: StubProcess, samples: int, small: Usage) -> Iterator[Figure]:
    sweep = Sweep(PROBLEMS, samples, 16)
    with postgres_server() as url:
        write_sweep(folder / "postgres", PROBLEMS, spec_of([stub.url], sweep))
        stub.reset()
        usage = run_ttc(folder / "postgres", url)
        stats = stub.stats()
        count, last = asyncio.run(_stored(url))
        views = list(view_figures(GROUP, "PostgreSQL, ", url, VIEWS_S))
    if count != sweep.size:
        raise RuntimeError(f"{count} of {sweep.size} samples stored")
    rate = count / (last - stats["first_start"])
    yield from _figures("PostgreSQL", rate, last, stats, usage, small)
    yield from views


def _figures(
    where: str, rate: float, last_commit: float, stub: dict[str, Any], usage: Usage, small: Usage
) -> Iterator[Figure]:
    ceiling = stub["slots"] * 16 / 0.2
    yield Figure(GROUP, f"{where}, stored", "samples/s", (rate,), ceiling, "256 x 16 / 0.2 s")
    yield Figure(GROUP, f"{where}, last reply to last commit", "s", (last_commit - stub["last_end"],))
    peak, before = (each.peak_rss[COORDINATOR] / MIB for each in (usage, small))
    what = f"{where}, coordinator's memory above that of 10,000 samples"
    yield Figure(GROUP, what, "MiB", (peak - before,), before, "10,000 samples", Target(150, is_ceiling=True))


async def _stored(url: str) -> tuple[int, float]:
    connection = await asyncpg.connect(url)
    row = await connection.fetchrow("SELECT COUNT(*), MAX(created_at) FROM trajectories")
    await connection.close()
    return int(row[0]), float(row[1])
