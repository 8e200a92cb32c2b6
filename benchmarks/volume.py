"""Whether a PostgreSQL store of millions of trajectories is still comfortable: its views, and going on with a sweep.

A real sweep is run, then multiplied in the database under the keys that drawing would have given; so rows, indexes and
plans are those of a sweep that was drawn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg

from benchmarks.launch import StubProcess
from benchmarks.postgres import postgres_server
from benchmarks.report import Figure, Target
from benchmarks.stub import StubSettings
from benchmarks.sweep import Sweep, run_ttc, spec_of, write_sweep
from benchmarks.views import view_figures
from workers.identity import SAMPLES_PER_POOL_BITS

GROUP = "volume"
PROBLEMS, SAMPLES, MORE = 500, 64, 16
COPIES = (31, 319)
"""More of every sample: 1,024,000 and 10,240,000 in all."""
_SHIFT = f"{SAMPLES} * c.k"
_POOL = (1 << SAMPLES_PER_POOL_BITS) - 1


def measure_volume(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Seconds of the main views, and from start of process to first call, by number of trajectories."""
    sweep = Sweep(PROBLEMS, SAMPLES, 16, name="volume", is_local=True)
    with postgres_server() as url, StubProcess(StubSettings(mean_s=0.05)) as stub:
        _run(folder, stub, sweep, url)
        for copies in COPIES[:1] if is_quick else COPIES:
            asyncio.run(multiply(url, copies))
            yield from _figures(folder, stub, sweep, url, copies)


def _figures(folder: Path, stub: StubProcess, sweep: Sweep, url: str, copies: int) -> Iterator[Figure]:
    size = PROBLEMS * SAMPLES * (copies + 1)
    stored = f"{size:,} trajectories: "
    views_s, resume_s = (2.0, 5.0) if size < 2_000_000 else (10.0, 20.0)
    yield from view_figures(GROUP, stored, url, views_s)
    grown = Sweep(PROBLEMS, SAMPLES * (copies + 1) + MORE, 16, name="volume", is_local=True)
    seconds = _run(folder, stub, grown, url)
    yield Figure(
        GROUP,
        f"{stored}resume, --local, to the first call",
        "s",
        (seconds,),
        target=Target(resume_s, is_ceiling=True),
    )
    asyncio.run(_forget(url, SAMPLES * (copies + 1)))


def _run(folder: Path, stub: StubProcess, sweep: Sweep, url: str) -> float:
    """Run a sweep to its end; seconds to its first call."""
    place = folder / "volume"
    write_sweep(place, sweep.problems, spec_of([stub.url], sweep))
    stub.reset()
    started = time.time()
    run_ttc(place, url, is_local=True)
    return float(stub.stats()["first_start"]) - started


async def multiply(url: str, copies: int) -> None:
    """Put so many more of every sample of the first `SAMPLES` into a store, with their texts, answers and tasks."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")  # keys hold by construction
    await _copy(connection, "tasks", copies, {"id": None, "sample_start": f"t.sample_start + {_SHIFT}"},
                f"t.sample_start < {SAMPLES}")  # fmt: skip
    task = f"""(SELECT q.id FROM tasks q JOIN tasks o ON o.id = t.task_id WHERE q.lane_id = o.lane_id
        AND q.pool_id = o.pool_id AND q.sample_start = o.sample_start + {_SHIFT})"""
    await _copy(
        connection, "trajectories", copies,
        {"id": f"t.id + {_SHIFT}", "sample_index": f"t.sample_index + {_SHIFT}", "seed": f"t.seed + {_SHIFT}",
         "task_id": task},
        f"t.sample_index < {SAMPLES}",
    )  # fmt: skip
    for table in ("trajectory_texts", "extractions"):
        await _copy(connection, table, copies, {"trajectory_id": f"t.trajectory_id + {_SHIFT}"},
                    f"(t.trajectory_id & {_POOL}) < {SAMPLES}")  # fmt: skip
    await connection.execute(f"UPDATE sweep_pools SET samples = {SAMPLES * (copies + 1)}")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def _copy(
    connection: asyncpg.Connection, table: str, copies: int, changed: Mapping[str, str | None], which: str
) -> None:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND table_schema = 'public'"
        " ORDER BY ordinal_position", table,
    )  # fmt: skip
    columns = [row[0] for row in rows if changed.get(row[0], "") is not None]
    values = ", ".join(changed.get(column) or f"t.{column}" for column in columns)
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t"
        f" CROSS JOIN generate_series(1, {copies}) AS c(k) WHERE {which} ON CONFLICT DO NOTHING"
    )


async def _forget(url: str, kept: int) -> None:
    """Take back what a resumed sweep has drawn, so that the next multiple meets no strangers."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")
    for table in ("trajectory_texts", "extractions"):
        await connection.execute(f"DELETE FROM {table} WHERE (trajectory_id & {_POOL}) >= {kept}")
    await connection.execute(f"DELETE FROM trajectories WHERE sample_index >= {kept}")
    await connection.execute(
        f"DELETE FROM usage WHERE task_id IN (SELECT id FROM tasks WHERE sample_start >= {kept})"
    )
    await connection.execute(f"DELETE FROM tasks WHERE sample_start >= {kept}")
    await connection.close()
