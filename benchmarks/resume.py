"""How long it takes to go on with a sweep of a million stored samples: from start of process to first call.

The same command on an empty store, with Ray and without, tells how much of that is the interpreter, Ray, and
the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.launch import StubProcess
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, SweepDirectory, resized
from workers.identity import SAMPLES_PER_POOL_BITS

GROUP = "resume"
PROBLEMS, SAMPLES, MORE = 500, 64, 16


def measure_resume(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Seconds to the first call, on an empty store and on a full one."""
    copies = 3 if is_quick else 31
    stored = PROBLEMS * SAMPLES * (copies + 1)
    plain, full = SweepDirectory(folder / "resume-empty"), SweepDirectory(folder / "resume-full")
    on_ray = Sweep(PROBLEMS, SAMPLES, 16, name="resume")
    local = Sweep(PROBLEMS, SAMPLES, 16, name="resume", is_local=True)
    with StubProcess(StubSettings(mean_s=0.05)) as stub:
        empty_ray = plain.run(stub, on_ray).seconds_to_first_call
        empty_local = full.run(stub, local).seconds_to_first_call
        multiply(full.store, copies)
        grown = SAMPLES * (copies + 1) + MORE
        full_local = full.run(stub, resized(local, grown))
        full_ray = full.run(stub, resized(on_ray, grown + MORE)).seconds_to_first_call
    what = f"{stored:,} samples stored, to the first call"
    yield Figure(GROUP, "interpreter and imports: empty store, --local", "s", (empty_local,))
    yield Figure(GROUP, "start of Ray: empty store, Ray less --local", "s", (empty_ray - empty_local,))
    yield Figure(
        GROUP, f"{what}, --local", "s", (full_local.seconds_to_first_call,), empty_local, "empty store"
    )
    yield Figure(GROUP, f"{what}, Ray", "s", (full_ray,), empty_ray, "empty store")
    for name, extra in (
        ("--local", full_local.seconds_to_first_call - empty_local),
        ("Ray", full_ray - empty_ray),
    ):
        yield Figure(
            GROUP, f"what the stored samples add, {name}", "s", (extra,), target=Target(5, is_ceiling=True)
        )
    rest = full_local.ended - full_local.last_commit
    yield Figure(GROUP, "last commit to end: grading, clusters, results, --local", "s", (rest,))


def multiply(store: Path, copies: int) -> None:
    """Put `copies` more of every stored sample into a store, under the keys that drawing would have given.

    Every pool must hold samples 0 to SAMPLES - 1, drawn by whole tasks. Columns that are not named here are copied.
    """
    with closing(sqlite3.connect(store)) as db:
        db.execute("CREATE TEMP TABLE copies AS WITH RECURSIVE k(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM k"
                   " WHERE k < ?) SELECT k * ? AS shift FROM k", (copies, SAMPLES))  # fmt: skip
        _copy(db, "tasks", "t JOIN copies c", {"id": "NULL", "sample_start": "t.sample_start + c.shift"})
        task = "(SELECT q.id FROM tasks q JOIN tasks o ON o.id = t.task_id WHERE q.kind = o.kind" \
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
