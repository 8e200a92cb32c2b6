"""A copied store is the same store: rows, checksums, numbers of new rows, and a sweep that goes on in the copy."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from orchestrator.store import (
    Store,
    StoreRefused,
    check,
    copy_store,
    copying,
    upgrade,
)
from orchestrator.store.copy_targets import COPIED
from orchestrator.store.derived import metadata
from orchestrator.store.errors import CopyDiffers, StoreError
from orchestrator.store.location import locate
from orchestrator.store.migrate import COPYING, engine_of
from tests.fault_server import FaultServer
from tests.store_world import build
from tests.sweep_world import Command, SweepFolder, assert_same_rows, rows_of, ttc

pytestmark = pytest.mark.postgres

PARTS = {"problems": 4, "samples": 32}
MORE = {"problems": 4, "samples": 48}


def silent(work: str, done: int, total: int) -> None:
    """Hear nothing."""


async def execute(url: str, *statements: str) -> list[Any]:
    """Run statements past the store; the rows of the last."""
    engine = engine_of(locate(url))
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []
    finally:
        await engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


async def test_there_and_back_and_on(folder: SweepFolder, blank_postgres_url: str) -> None:
    """SQLite to PostgreSQL, where the sweep grows, and back; nothing is drawn twice."""
    back = f"sqlite:///{folder.folder / 'back.db'}"
    async with FaultServer() as server:
        folder.write(server.url, **PARTS)
        await folder.run_here()
        said = await ttc(
            "db", "copy", folder.folder / "ttc.db", blank_postgres_url, "--json", folder=folder.folder
        )
        assert said.code == 0, said.err
        copied = {each["table"]: each["rows"] for each in json.loads(said.out)}
        assert copied["trajectories"] == 4 * 32
        assert_same_rows(await rows_of(blank_postgres_url), await rows_of(folder.database))
        assert await differences(blank_postgres_url) == []

        folder.write(server.url, **MORE)
        drawn = server.requests
        ended = await folder.run_here(blank_postgres_url)
        assert ended.report.samples_drawn == 4 * 16
        assert server.requests > drawn
        await copy_store(blank_postgres_url, back, silent)
        grown = await folder.run_here()  # the source goes on as well, and comes to the same
        assert grown.report.samples_drawn == 4 * 16
    assert_same_rows(await rows_of(back), await rows_of(blank_postgres_url))
    assert_same_rows(await rows_of(back), await rows_of(folder.database))
    assert (await folder.run_here(back)).report.samples_drawn == 0


async def differences(url: str) -> list[Any]:
    """What a copied schema lacks of the schema of the code."""
    engine = engine_of(locate(url))
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda c: list(compare_metadata(MigrationContext.configure(c), metadata))
        )
    await engine.dispose()
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a copy, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'target.db'}"
    else:
        yield request.getfixturevalue("postgres_url")


async def test_an_interrupted_copy_is_refused_until_it_is_made_again(
    sqlite_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(sqlite_url)
    monkeypatch.setattr(copying, "BATCH_ROWS", 2)

    def stop(work: str, done: int, total: int) -> None:
        if done > total // 2:
            raise InterruptedError

    with pytest.raises(StoreError):
        await copy_store(sqlite_url, target_url, stop)
    assert sum(await counts(target_url)) > 0
    for refused in (Store.open(target_url), check(target_url), upgrade(target_url)):
        with pytest.raises(StoreRefused, match=r"not finished\n.*ttc db copy FROM"):
            await refused
    with pytest.raises(StoreRefused, match="not finished"):
        await copy_store(target_url, f"{sqlite_url}.other", silent)
    await copy_store(sqlite_url, target_url, silent)
    assert await counts(target_url) == await counts(sqlite_url)
    async with await Store.open(target_url) as store:
        assert (await store.register_sweep("another", "{}", "h", seed=1)).id == 2  # after the one copied


async def test_a_command_that_is_stopped_leaves_its_mark(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    await filled(sqlite_url)
    await execute(
        postgres_url,
        """CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$""",
        "CREATE TRIGGER wait BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION wait()",
    )
    command = await Command.start("db", "copy", sqlite_url, postgres_url, folder=tmp_path)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    async with asyncio.timeout(60):
        while not await execute(postgres_url, waiting):  # noqa: ASYNC110 -- another process has no event to wait for
            await asyncio.sleep(0.05)
    command.process.send_signal(signal.SIGINT)
    said = await command.ended()
    assert said.code == 130, said.err
    assert "the copy is not finished" in said.err
    with pytest.raises(StoreRefused, match="not finished"):
        await check(postgres_url)


async def filled(url: str) -> None:
    """A small store, with a row whose spelling differs between databases."""
    async with await Store.open(url) as store:
        world = await build(store, count=3)
        await store.request_cancel(world.sweep_id)


async def counts(url: str) -> list[int]:
    """Rows of every table."""
    return [(await execute(url, f"SELECT COUNT(*) FROM {table.name}"))[0][0] for table in COPIED]


async def test_a_difference_is_found_and_leaves_the_copy_unusable(sqlite_url: str, postgres_url: str) -> None:
    await filled(sqlite_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        """CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.statement := NEW.statement || ' '; RETURN NEW; END $$;
        CREATE TRIGGER bend BEFORE INSERT ON problems FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION bend()"""
    )
    with pytest.raises(CopyDiffers, match="table problems: 3 rows"):
        await copy_store(sqlite_url, postgres_url, silent)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == COPYING
    await connection.close()


async def test_what_a_copy_refuses(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="no such database"):
        await copy_store(sqlite_url, postgres_url, silent)
    await filled(sqlite_url)
    with pytest.raises(StoreRefused, match="same database"):
        await copy_store(sqlite_url, sqlite_url, silent)
    await filled(postgres_url)
    with pytest.raises(StoreRefused, match=r"must be empty.*its table"):
        await copy_store(sqlite_url, postgres_url, silent)
    assert (await counts(postgres_url)) == (await counts(sqlite_url))
    note = tmp_path / "note.txt"
    note.write_text("this is no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await copy_store(sqlite_url, str(note), silent)


async def test_one_copy_at_a_time(sqlite_url: str, postgres_url: str) -> None:
    await filled(sqlite_url)
    seconds: list[asyncio.Task[Any]] = []

    def start_another(work: str, done: int, total: int) -> None:
        if not seconds:
            seconds.append(asyncio.create_task(copy_store(sqlite_url, postgres_url, silent)))

    await copy_store(sqlite_url, postgres_url, start_another)
    with pytest.raises(StoreRefused, match="under way"):
        await seconds[0]
    assert await counts(postgres_url) == await counts(sqlite_url)


def test_every_table_is_copied_after_those_it_refers_to_but_for_the_circle() -> None:
    seen: set[str] = set()
    backward = set()
    for table in COPIED:
        backward |= {
            (table.name, key.column.table.name)
            for key in table.foreign_keys
            if key.column.table.name not in seen | {table.name}
        }
        seen.add(table.name)
    assert backward <= {("pools", "prefixes")}
    assert seen == set(metadata.tables) - {"schema_comments"}
