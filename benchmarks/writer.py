"""Rows a second through the store's writer, beside the bare driver with the same rows, tables and durability.

The writer gets what workers send (micro-batches of 256 samples with their usage and the end of their task,
from several producers at once) and makes rows of it; the driver gets finished rows in large transactions,
with no conflict clause.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from benchmarks.draws import Writer as TextWriter
from benchmarks.draws import hash_of, mixed
from benchmarks.postgres import is_available, postgres_server
from benchmarks.report import Figure, Target
from orchestrator.store import GeneratorRecord, NewTask, ProblemRecord, Store, Writer, facts, upgrade
from orchestrator.store import rows as made
from workers.identity import content_hash
from workers.steps import step_ends
from workers.types import FactBatch, Outcome, SampleTask, Task, TaskEnd, Trajectory, Usage

GROUP = "writer"
PROBLEMS, TASK_SAMPLES, PRODUCERS = 64, 256, 8
TRANSACTION_ROWS = 5_000

Tables = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be stored: batches for the writer, the same as rows for the driver."""

    run_id: int
    extractor_id: int
    batches: tuple[FactBatch, ...]
    tables: Tables

    @property
    def rows(self) -> int:
        return sum(len(rows) for rows in self.tables.values())


def measure_writer(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """SQLite, and PostgreSQL if the package that brings a server is installed."""
    samples, repetitions = (16_384, 1) if is_quick else (65_536, 3)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [asyncio.run(_on_sqlite(folder, number, samples)) for number in range(repetitions)]
    yield _figure("SQLite", pairs, "sqlite3.executemany", Target(0.5, is_ratio=True))
    if is_available():
        yield from _postgres_figures(samples, repetitions)


def _figure(name: str, pairs: Sequence[tuple[float, float]], floor_is: str, target: Target | None) -> Figure:
    values, floors = zip(*pairs, strict=True)
    return Figure(GROUP, name, "rows/s", values, median(floors), floor_is, target)


async def _on_sqlite(folder: Path, number: int, samples: int) -> tuple[float, float]:
    """(rows/s of the writer, rows/s of the driver), each into a fresh file."""
    ours, bare = (folder / f"writer-{name}-{number}.db" for name in ("ours", "bare"))
    async with await Store.open(f"sqlite:///{bare}") as store:
        work = await _prepare(store, samples)
    floor = work.rows / _raw_sqlite(bare, work.tables)
    async with await Store.open(f"sqlite:///{ours}") as store:
        work = await _prepare(store, samples)
        return work.rows / await _through_writer(store, work), floor


def _raw_sqlite(path: Path, tables: Tables) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-64000"):
            db.execute(f"PRAGMA {pragma}")
        started = time.perf_counter()
        for table, rows in tables.items():
            names = _columns(table)
            statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            for chunk in _chunks(rows):
                db.execute("BEGIN IMMEDIATE")
                db.executemany(statement, chunk)
                db.execute("COMMIT")
        return time.perf_counter() - started


def _postgres_figures(samples: int, repetitions: int) -> Iterator[Figure]:
    with postgres_server() as url:
        pairs = [asyncio.run(_on_postgres(url, number, samples)) for number in range(repetitions)]
    yield _figure("PostgreSQL", pairs, "COPY (asyncpg)", None)


async def _on_postgres(url: str, number: int, samples: int) -> tuple[float, float]:
    """(rows/s of the writer, rows/s of COPY), each into a fresh database."""
    bare, ours = [await _new_database(url, f"bench_{name}_{number}") for name in ("bare", "ours")]
    async with await Store.open(bare) as store:
        work = await _prepare(store, samples)
    floor = work.rows / await _raw_postgres(bare, work.tables)
    async with await Store.open(ours) as store:
        work = await _prepare(store, samples)
        return work.rows / await _through_writer(store, work), floor


async def _new_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    path, mark, query = url.partition("?")
    created = path.rpartition("/")[0] + "/" + name + mark + query
    await upgrade(created)
    return created


async def _raw_postgres(url: str, tables: Tables) -> float:
    connection = await asyncpg.connect(url)
    started = time.perf_counter()
    for table, rows in tables.items():
        for chunk in _chunks(rows):
            await connection.copy_records_to_table(table, records=chunk, columns=_columns(table))
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds


async def _through_writer(store: Store, work: _Work) -> float:
    left = iter(work.batches)

    async def produce(writer: Writer) -> None:
        for batch in left:
            await writer.put(batch)

    started = time.perf_counter()
    async with Writer(store, run_id=work.run_id, extractor_id=work.extractor_id) as writer:
        await asyncio.gather(*(produce(writer) for _ in range(PRODUCERS)))
    return time.perf_counter() - started


async def _prepare(store: Store, samples: int) -> _Work:
    """Register a sweep, lease its tasks, and make up what workers would send for them."""
    sweep = await store.register_sweep("bench", "{}", "0", 1)
    extractor_id = await store.register_extractor("bench", "1")
    generator = await store.register_generator(GeneratorRecord("policy", "f" * 32, "stub", "{}"))
    problems = await store.register_problems(
        [ProblemRecord("bench", str(i), f"Problem {i}", "1", content_hash(str(i))) for i in range(PROBLEMS)]
    )
    pools = await store.register_pools(sweep.id, generator, 1, "sampling", problems, samples // PROBLEMS)
    (lane,) = await store.register_lanes(sweep.id, [generator], [])
    await store.add_tasks(
        [
            NewTask(lane.id, pool, start, TASK_SAMPLES)
            for pool in pools.values()
            for start in range(0, samples // PROBLEMS, TASK_SAMPLES)
        ]
    )
    run_id = await store.start_run(sweep.id, "bench", 1)
    text = TextWriter(300)
    batches = tuple(_batch(task, text) for task in await store.claim(sweep.id, lane.id, run_id, samples))
    return _Work(run_id, extractor_id, batches, _tables(batches, extractor_id))


def _batch(task: Task, text: TextWriter) -> FactBatch:
    trajectories = tuple(_trajectory(task, index, text) for index in range(*_bounds(task)))
    tokens = sum(each.completion_tokens or 0 for each in trajectories)
    usage = Usage(
        task.task_id, task.attempt, requests=16, prompt_tokens=300, completion_tokens=tokens, seconds=3.2
    )
    return FactBatch(trajectories, usage=(usage,), ends=(TaskEnd(task.task_id, task.attempt),))


def _bounds(task: Task) -> tuple[int, int]:
    assert isinstance(task, SampleTask)
    ((start, count),) = task.spans
    return start, start + count


def _trajectory(task: Task, index: int, writer: TextWriter) -> Trajectory:
    assert isinstance(task, SampleTask)
    seed = task.seed_base + index
    text = writer.text(hash_of(task.statement), seed, mixed(hash_of(task.statement), seed))
    start = text.rindex("{") + 1
    return Trajectory(
        task.task_id, task.pool_id, task.problem_id, index, seed, Outcome.COMPLETE, text, step_ends(text),
        text[start : text.rindex("}")], "boxed", start, "stop", writer.tokens, -12.5, 0.2, 0,
        "http://127.0.0.1:8000/v1", None,
    )  # fmt: skip


def _tables(batches: Sequence[FactBatch], extractor_id: int) -> Tables:
    """Rows of all batches by table, parents before children."""
    everything = FactBatch(
        trajectories=tuple(each for batch in batches for each in batch.trajectories),
        usage=tuple(each for batch in batches for each in batch.usage),
    )
    trajectories = made.distinct_trajectories(everything.trajectories)
    answers, extractions = made.answer_rows(trajectories, extractor_id)
    return {
        "replicas": made.replica_rows(trajectories.values()),
        "trajectories": made.trajectory_rows(trajectories, time.time()),
        "trajectory_texts": made.text_rows(trajectories),
        "answers": answers,
        "extractions": extractions,
        "usage": made.usage_rows(everything),
    }


def _columns(table: str) -> list[str]:
    """Columns in the order of the rows; a database that was migrated may have them in another."""
    return [column.name for column in facts.trajectories.metadata.tables[table].columns]


def _chunks(rows: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    return (rows[start : start + TRANSACTION_ROWS] for start in range(0, len(rows), TRANSACTION_ROWS))
