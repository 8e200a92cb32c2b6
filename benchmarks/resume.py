"""How long it takes to go on with a sweep of a million stored samples: from start of process to first call.

The same command on a small store, with Ray and without, and the bare imports tell how much of that is the
interpreter, Ray, and the stored samples.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory, SweepRun
from workers.identity import SAMPLES_PER_POOL_BITS

GROUP = "resume"
PROBLEMS, SAMPLES, MORE = 500, 64, 16


def measure_resume(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Seconds to the first call, with few samples stored and with many."""
    copies, repetitions = (3, 1) if is_quick else (31, 3)
    few, many = SweepDirectory(folder / "resume-few"), SweepDirectory(folder / "resume-many")
    sweep = Sweep(PROBLEMS, SAMPLES, 16, name="resume", is_local=True)
    with StubProcess(StubSettings(mean_s=0.05)) as stub:
        for place in (few, many):
            place.run(stub, sweep)
        multiply(many.store, copies)
        imports = tuple(_import_s() for _ in range(repetitions))
        few_local = list(_raises(few, stub, sweep, repetitions))
        few_ray = next(_raises(few, stub, replace(few_local[-1].sweep, is_local=False), 1))
        large = replace(sweep, samples=SAMPLES * (copies + 1))
        many_local = list(_raises(many, stub, large, repetitions))
        many_ray = next(_raises(many, stub, replace(many_local[-1].sweep, is_local=False), 1))
    yield from _figures(imports, few_local, many_local, few_ray, many_ray, large.size)


@dataclass(frozen=True, slots=True)
class _Raise:
    """A run that drew a few more samples of every problem."""

    sweep: Sweep
    run: SweepRun


def _raises(place: SweepDirectory, stub: StubProcess, sweep: Sweep, count: int) -> Iterator[_Raise]:
    """Raise the samples of a problem `count` times, from what `sweep` has."""
    for number in range(1, count + 1):
        raised = replace(sweep, samples=sweep.samples + number * MORE)
        yield _Raise(raised, place.run(stub, raised))


def _import_s() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import orchestrator.commands, orchestrator.sweep"], check=True)
    return time.perf_counter() - started


def _figures(
    imports: tuple[float, ...],
    few: list[_Raise],
    many: list[_Raise],
    few_ray: _Raise,
    many_ray: _Raise,
    size: int,
) -> Iterator[Figure]:
    start = median(imports)
    stored = f"{size:,} samples stored"
    few_s, many_s = (tuple(each.run.seconds_to_first_call for each in runs) for runs in (few, many))
    yield Figure(GROUP, "interpreter and imports", "s", imports)
    yield Figure(
        GROUP,
        f"{PROBLEMS * SAMPLES:,} samples stored, --local, to the first call",
        "s",
        few_s,
        start,
        "imports",
    )
    yield Figure(GROUP, f"{stored}, --local, to the first call", "s", many_s, start, "imports")
    rest = tuple(seconds - start for seconds in many_s)
    yield Figure(GROUP, f"{stored}, --local, after the imports", "s", rest, target=Target(5, is_ceiling=True))
    few_ray_s, many_ray_s = (each.run.seconds_to_first_call for each in (few_ray, many_ray))
    yield Figure(GROUP, f"{stored}, Ray, to the first call", "s", (many_ray_s,), few_ray_s, "few stored, Ray")
    yield Figure(GROUP, "start of Ray and its worker", "s", (many_ray_s - median(many_s),))
    tails = tuple(each.run.ended - each.run.last_commit for each in many)
    yield Figure(GROUP, f"{stored}, --local, last commit to end of process", "s", tails)


def multiply(store: Path, copies: int) -> None:
    """Put `copies` more of every stored sample into a store, under the keys that drawing would have given.

    Every pool must hold samples 0 to SAMPLES - 1, drawn by whole tasks. Columns that are not named here are copied.
    """
    with closing(sqlite3.connect(store)) as db:
        db.execute("CREATE TEMP TABLE copies AS WITH RECURSIVE k(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM k"
                   " WHERE k < ?) SELECT k * ? AS shift FROM k", (copies, SAMPLES))  # fmt: skip
        _copy(db, "tasks", "t JOIN copies c", {"id": "NULL", "sample_start": "t.sample_start + c.shift"})
        task = "(SELECT q.id FROM tasks q JOIN tasks o ON o.id = t.task_id WHERE q.lane_id = o.lane_id" \
               " AND q.pool_id = o.pool_id AND q.sample_start = o.sample_start + c.shift)"  # fmt: skip
        bound = f"t JOIN copies c WHERE t.{{key}} & {(1 << SAMPLES_PER_POOL_BITS) - 1} < {SAMPLES}"
        for table in ("trajectory_texts", "extractions"):
            _copy(
                db, table, bound.format(key="trajectory_id"), {"trajectory_id": "t.trajectory_id + c.shift"}
            )
        _copy(
            db, "trajectories", bound.format(key="id"),
            {"id": "t.id + c.shift", "sample_index": "t.sample_index + c.shift", "seed": "t.seed + c.shift",
             "task_id": task},
        )  # fmt: skip
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(db: sqlite3.Connection, table: str, source: str, changed: dict[str, str]) -> None:
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    db.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} {source}")
