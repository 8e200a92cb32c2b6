"""The queries of the hot path and the main views use indexes, and none reads a text it does not show.

The tables are filled and analysed first: on an empty table PostgreSQL prefers to read it whole.
"""

from __future__ import annotations

import pytest

from orchestrator.store import Store
from orchestrator.store import samples as reading
from orchestrator.store.backend import Transaction
from orchestrator.store.grading import UNGRADED
from orchestrator.store.labels import LABELLED
from orchestrator.store.labels import SOLUTIONS as LABELLED_SOLUTIONS
from orchestrator.store.owed import PRESENT, SAMPLES, SCORED, UNSCORED, WANTING
from orchestrator.store.prefixes import UNLABELLED
from orchestrator.store.queries import COVERAGE, OPEN_TASKS, TASK_SPANS
from orchestrator.store.work import EXPIRE, SCORE_TASKS, claim_sql
from tests.store_world import World, build

COUNT = 64


async def fill(store: Store, world: World) -> None:
    """Make the large tables large, in SQL."""
    on_sqlite = store.shown_url.startswith("sqlite")
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT - 1})"
        if on_sqlite
        else f"WITH n(i) AS (SELECT generate_series(0, {COUNT - 1}))"
    )
    async with store._write() as tx:
        await tx.run(
            f"""INSERT INTO trajectories
                (id, pool_id, sample_index, seed, outcome, latency_s, retries, created_at)
            {numbers} SELECT CAST(p.id AS BIGINT) * 1048576 + n.i, p.id, n.i, n.i, 'complete', 0, 0, 0
            FROM pools p, n WHERE 1 = 1"""
        )
        await tx.run("INSERT INTO trajectory_texts SELECT id, 'a text', '[6]' FROM trajectories WHERE 1 = 1")
        await tx.run(
            f"""INSERT INTO extractions (trajectory_id, extractor_id)
            SELECT id, {world.extractor_id} FROM trajectories WHERE 1 = 1"""
        )
        await tx.run(
            """INSERT INTO scorers (id, name, fingerprint, kind, config_json)
            VALUES (1, 'prm', 'f', 'prm', '{}'), (2, 'orm', 'g', 'orm', '{}')"""
        )
        for scorer in (1, 2):
            await tx.run(
                f"""INSERT INTO scores (trajectory_id, scorer_id, values_json, status)
                SELECT id, {scorer}, '[0.5]', 'ok' FROM trajectories WHERE id % 4 > 0"""
            )
        await tx.run("INSERT INTO prefixes SELECT id, 1, id, 3 FROM trajectories WHERE sample_index < 8")
        await tx.run("INSERT INTO trajectory_prefixes SELECT id, 0, id FROM prefixes WHERE 1 = 1")
        await tx.run("UPDATE tasks SET state = 2 WHERE id % 10 > 0")
        await tx.run("ANALYZE")


@pytest.fixture
async def world(store: Store) -> World:
    built = await build(store, count=300, samples=COUNT, task_size=2)
    await fill(store, built)
    return built


async def plan(tx: Transaction, sql: str, **values: object) -> str:
    explain = "EXPLAIN QUERY PLAN " if tx.backend.dialect == "sqlite" else "EXPLAIN "
    return "\n".join(str(row[-1]) for row in await tx.rows(explain + sql, **values))


def scans(found: str) -> set[str]:
    """Large tables that a plan reads from end to end."""
    large = ("trajectories", "trajectory_texts", "extractions", "tasks", "usage", "nodes", "scores")
    aliases = {"j": "trajectories", "t": "", "x": ""}
    read: set[str] = set()
    for line in found.splitlines():
        words = line.replace("->", " ").split()
        if words[:1] == ["SCAN"] and "USING" not in words:
            read.add(aliases.get(words[1], words[1]) or words[1])
        if "Seq" in words and "on" in words:
            read.add(words[words.index("on") + 1])
    return {name for name in read if name in large or name in aliases}


async def test_claiming_walks_the_pending_tasks_in_order(store: Store, world: World) -> None:
    async with store._write() as tx:
        for kind in ("sample", "score"):
            sql = claim_sql(tx.backend, kind)
            found = await plan(
                tx,
                sql,
                sweep_id=world.sweep_id,
                lane_id=world.lane_id,
                run_id=world.run_id,
                limit=16,
                now=0.0,
            )
            assert "ix_tasks_pending" in found
            assert scans(found) == set()


async def test_expiring_touches_only_running_tasks(store: Store, world: World) -> None:
    async with store._write() as tx:
        found = await plan(tx, EXPIRE, run_id=world.run_id, silent_since=0.0)
    assert "ix_tasks_running" in found


async def test_what_a_task_owes_is_a_range_of_keys(store: Store, world: World) -> None:
    tasks = list(range(1, 17))
    async with store._read() as tx:
        for sql in (SAMPLES, PRESENT):
            found = await plan(tx, sql, ids=tasks)
            assert scans(found) == set(), found
        span = {"scorer_id": 1, "first": 1 << 20, "end": (1 << 20) + 16}
        unscored = await plan(tx, UNSCORED, extractor_id=world.extractor_id, **span)
        wanting = await plan(tx, WANTING, **span)
        scored = await plan(tx, SCORED, **span)
    assert scans(unscored + "\n" + wanting + "\n" + scored) == set()


async def test_what_follows_from_samples_is_found_by_ranges_of_keys(store: Store, world: World) -> None:
    async with store._write() as tx:
        grown = await plan(tx, SCORE_TASKS, sweep_id=world.sweep_id)
        unlabelled = await plan(
            tx, UNLABELLED, sweep_id=world.sweep_id, source="best_of_n", strategy="v", solutions=8,
            generator_id=1, seed=7, rollouts=8,
        )  # fmt: skip
        waiting = await plan(tx, OPEN_TASKS, sweep_id=world.sweep_id, lanes=[1])
    if tx.backend.dialect == "sqlite":  # PostgreSQL may well read a table whose every row is wanted
        assert scans(grown + "\n" + unlabelled + "\n" + waiting) == set()


async def test_resuming_reads_tasks_through_an_index_that_covers(store: Store, world: World) -> None:
    async with store._read() as tx:
        spans = await plan(tx, TASK_SPANS, sweep_id=world.sweep_id)
        wanted = await plan(tx, COVERAGE, sweep_id=world.sweep_id)
    if tx.backend.dialect == "sqlite":  # PostgreSQL may well read a table whose every row is wanted
        assert "COVERING INDEX ix_tasks_span" in spans
        assert scans(spans) == set()
    assert "trajectories" not in spans + wanted


async def test_ungraded_answers_are_found_by_problem(store: Store, world: World) -> None:
    async with store._read() as tx:
        found = await plan(tx, UNGRADED, grader_id=1, sweep_id=world.sweep_id, limit=100)
    assert "trajectories" not in found
    if tx.backend.dialect == "sqlite":
        assert "ix_answers_problem_id" in found


@pytest.mark.parametrize(
    "view",
    ["v_samples", "v_pool_answers", "v_problem_counts", "v_accuracy", "v_progress", "v_cost", "v_scoring"],
)
async def test_main_views_read_ranges_and_no_text(store: Store, world: World, view: str) -> None:
    async with store._read() as tx:
        found = await plan(tx, f"SELECT * FROM {view} WHERE sweep_id = :id", id=world.sweep_id)
        whole = await plan(tx, f"SELECT * FROM {view}")
    assert "trajectory_texts" not in found + whole
    if tx.backend.dialect == "sqlite":
        assert scans(found) == set(), found


async def test_the_samples_of_pools_are_read_by_ranges(store: Store, world: World) -> None:
    bounds = {"first": 1 << 20, "end": (1 << 20) + 64}
    async with store._read() as tx:
        samples = await plan(tx, reading.gathering(tx.backend, reading.SAMPLES, extractor=1, **bounds))
        scores = await plan(tx, reading.gathering(tx.backend, reading.SCORES, scorer=1, **bounds))
        answers = await plan(tx, reading.ANSWERS, sweep_id=world.sweep_id, grader_id=world.grader_id)
    if tx.backend.dialect == "sqlite":
        assert scans(samples + "\n" + scores + "\n" + answers) == set()
        assert "ix_answers_problem_id" in answers
    assert "trajectory_texts" not in samples + scores + answers


@pytest.mark.parametrize(
    ("view", "column"),
    [("v_steps", "trajectory_id"), ("v_tree", "pool_id"), ("v_scores", "trajectory_id")],
)
async def test_views_of_text_are_cheap_when_filtered(
    store: Store, world: World, view: str, column: str
) -> None:
    async with store._read() as tx:
        found = await plan(tx, f"SELECT * FROM {view} WHERE {column} = :id", id=1 << 20)
    if tx.backend.dialect == "sqlite":
        assert "SEARCH" in found
        assert "SCAN x\n" not in found
        assert "SCAN n\n" not in found


async def test_failed_samples_are_found_without_reading_the_others(store: Store, world: World) -> None:
    async with store._read() as tx:
        found = await plan(tx, "SELECT task_id FROM trajectories WHERE outcome = 'error'")
    assert "ix_trajectories_error" in found


LABELLED_STORE = {
    ("extractions", "extractions"): "813576 1 1",
    ("tasks", "ix_tasks_span"): "101697 1 1 1 1 1",
    ("lanes", "sqlite_autoindex_lanes_1"): "1 1",
    ("trajectories", None): "813576",
    ("trajectory_prefixes", "ix_trajectory_prefixes_prefix_id"): "241465 3",
    ("trajectory_prefixes", "trajectory_prefixes"): "241465 4 1",
    ("pools", "uq_pools_prefix"): "91697 1 1 1",
    ("pools", "uq_pools_whole"): "10000 1 1 1",
    ("pools", "ix_pools_generator_id"): "101697 101697",
    ("sweep_pools", "ix_sweep_pools_pool_id"): "101697 1",
    ("sweep_pools", "sweep_pools"): "101697 101697 1 1",
}
"""What SQLite knew of a store with 80,000 labelled solutions, by table and index."""


async def test_labels_are_found_by_ranges_in_a_large_store(store: Store, world: World) -> None:
    """With these statistics SQLite once indexed a whole table on the outcome, and once joined from the far end."""
    async with store._write() as tx:
        if tx.backend.dialect != "sqlite":
            pytest.skip("the statistics of SQLite")
        await tx.run("DELETE FROM sqlite_stat1")
        for (table, index), numbers in LABELLED_STORE.items():
            await tx.run(
                "INSERT INTO sqlite_stat1 VALUES (:table, :index, :numbers)",
                table=table,
                index=index,
                numbers=numbers,
            )
        await tx.run("ANALYZE sqlite_schema")
        unlabelled = await plan(
            tx, UNLABELLED, sweep_id=world.sweep_id, source="best_of_n", strategy="v", solutions=8,
            generator_id=1, seed=7, rollouts=8,
        )  # fmt: skip
        span = {"sweep_id": world.sweep_id, "first": 1 << 20, "end": (1 << 20) + 8}
        labelled = await plan(tx, LABELLED, strategy="v", **span)
        solutions = await plan(tx, LABELLED_SOLUTIONS, **span)
    assert "AUTOMATIC" not in unlabelled + labelled + solutions
    assert "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in unlabelled
    assert "SCAN" not in labelled + solutions


def test_a_scan_would_be_noticed() -> None:
    assert scans("SCAN trajectories") == {"trajectories"}
    assert scans("  ->  Seq Scan on trajectory_texts  (cost=0)") == {"trajectory_texts"}
    assert scans("SCAN t USING INDEX i\nSEARCH x USING PRIMARY KEY") == set()
