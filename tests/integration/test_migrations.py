"""The schema a database gets is the schema of the code, on both databases, from anywhere, and only at head."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.store import Store, StoreRefused, check, upgrade
from orchestrator.store.derived import comments, metadata
from orchestrator.store.location import locate
from orchestrator.store.migrate import alembic_config, engine_of, known_revisions, migrate
from orchestrator.store.schema import tasks
from tests.store_world import build

T = TypeVar("T")


async def inspected(url: str, look: Callable[[sa.Connection], T]) -> T:
    engine = engine_of(locate(url))
    async with engine.connect() as connection:
        found = await connection.run_sync(look)
    await engine.dispose()
    return found


def differences(connection: sa.Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def test_migrations_make_the_schema_of_the_code(blank_url: str) -> None:
    head = await upgrade(blank_url)
    assert await check(blank_url) == head
    assert await inspected(blank_url, differences) == []


async def test_the_comparison_would_notice(blank_url: str) -> None:
    await upgrade(blank_url)
    engine = engine_of(locate(blank_url))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP INDEX ix_tasks_span")
        await connection.exec_driver_sql("CREATE TABLE stray (a INTEGER)")
    await engine.dispose()
    assert {change[0] for change in await inspected(blank_url, differences)} == {"add_index", "remove_table"}


async def test_down_and_up_again_leaves_the_same_schema(blank_url: str) -> None:
    await upgrade(blank_url)
    await migrate(blank_url, "-4")
    assert "trajectories" not in await inspected(blank_url, lambda c: sa.inspect(c).get_table_names())
    await migrate(blank_url, "base")
    assert await inspected(blank_url, lambda c: sa.inspect(c).get_table_names()) == ["alembic_version"]
    assert await inspected(blank_url, lambda c: sa.inspect(c).get_view_names()) == []
    await upgrade(blank_url)
    assert await inspected(blank_url, differences) == []


async def test_data_survive_another_upgrade_and_views_are_made_again(blank_url: str) -> None:
    await upgrade(blank_url)
    async with await Store.open(blank_url) as store:
        await build(store)
    engine = engine_of(locate(blank_url))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DROP VIEW v_agreement")
    await engine.dispose()
    await upgrade(blank_url)
    async with await Store.open(blank_url) as store:
        assert (await store.progress())[0].tasks_pending == 4
        assert (await store.query("SELECT * FROM v_agreement")).rows == []


async def test_a_database_not_at_head_is_refused_with_the_command_to_type(blank_url: str) -> None:
    await upgrade(blank_url)
    await migrate(blank_url, "-1")
    with pytest.raises(StoreRefused, match="ttc db upgrade --db"):
        await Store.open(blank_url)
    with pytest.raises(StoreRefused, match="needs"):
        await check(blank_url)


async def test_a_database_of_the_future_is_refused(blank_url: str) -> None:
    await upgrade(blank_url)
    engine = engine_of(locate(blank_url))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await engine.dispose()
    with pytest.raises(StoreRefused, match="newer version"):
        await Store.open(blank_url)


@pytest.mark.postgres
async def test_an_empty_postgres_database_is_refused(blank_postgres_url: str) -> None:
    with pytest.raises(StoreRefused, match=r"at nothing.*ttc db upgrade"):
        await Store.open(blank_postgres_url)


async def test_a_missing_file_is_created_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "new.db"
    with pytest.raises(StoreRefused, match="no such database"):
        await Store.open(str(path), create=False)
    with pytest.raises(StoreRefused, match="no such database"):
        await Store.open(str(path), read_only=True)
    assert not path.exists()
    async with await Store.open(str(path)):
        pass
    async with await Store.open(f"sqlite:///{path}", read_only=True) as store:
        assert await store.sweeps() == []


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("this is not a database, whatever its name is" * 100)
    with pytest.raises(Exception, match="not a database"):
        await Store.open(str(path))


async def test_sqlite_tables_are_strict_and_the_log_is_on(sqlite_url: str) -> None:
    await upgrade(sqlite_url)
    path = locate(sqlite_url).path
    assert path is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        kinds = connection.execute("SELECT name, strict, wr FROM pragma_table_list WHERE type = 'table'")
        strict = {name: (strict, without_rowid) for name, strict, without_rowid in kinds}
    connection.close()
    assert strict["trajectories"] == (1, 0)
    assert strict["extractions"] == (1, 1)
    assert all(strict[table.name][0] for table in metadata.sorted_tables)


@pytest.mark.postgres
async def test_postgres_carries_the_comments(postgres_url: str) -> None:
    async with await Store.open(postgres_url) as store:
        sql = "SELECT col_description('tasks'::regclass, 1), obj_description('v_accuracy'::regclass)"
        ((column, view),) = (await store.query(sql)).rows
    assert column == tasks.c.id.comment
    assert view == {name: text for name, part, text in comments() if not part}["v_accuracy"]


@pytest.mark.postgres
async def test_storage_of_tasks_is_set_wherever_an_upgrade_begins(blank_postgres_url: str) -> None:
    """Pages stay full, since no update of a task could use the room; its dead rows are removed early."""
    await upgrade(blank_postgres_url)
    wanted = ["autovacuum_vacuum_scale_factor=0.02"]
    assert await inspected(blank_postgres_url, storage_of_tasks) == wanted
    await migrate(blank_postgres_url, "-1")
    assert "fillfactor=70" in await inspected(blank_postgres_url, storage_of_tasks)
    await upgrade(blank_postgres_url)
    assert await inspected(blank_postgres_url, storage_of_tasks) == wanted


def storage_of_tasks(connection: sa.Connection) -> list[str]:
    sql = "SELECT reloptions FROM pg_class WHERE oid = 'tasks'::regclass"
    return list(connection.exec_driver_sql(sql).scalar_one())


def test_migrations_are_found_from_anywhere(tmp_path: Path) -> None:
    """As an installed package finds them: nothing but the import path, and another working directory."""
    program = """
        import asyncio, sys
        from orchestrator.store import Store
        async def main():
            async with await Store.open("new.db") as store:
                print(len(await store.sweeps()))
        asyncio.run(main())
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


def test_the_names_of_the_files_are_the_revisions_of_alembic() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert known_revisions() == sorted(script.revision for script in scripts.walk_revisions())
    assert known_revisions()[-1] == scripts.get_current_head()
