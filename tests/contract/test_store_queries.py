"""`ttc sql` on each database: the engine itself refuses whatever is more than reading, however it is dressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator.store import Store
from orchestrator.store.errors import QueryRefused
from tests.store_world import build

EVERYWHERE = {
    "insert": "INSERT INTO graders (name, version) VALUES ('x', '1')",
    "two statements": "SELECT 1; SELECT 2",
    "comment before a second": "SELECT 1 -- harmless\n; DELETE FROM problems",
    "transaction": "BEGIN",
    "end of it": "ROLLBACK",
    "savepoint": "SAVEPOINT x",
    "index": "CREATE INDEX x ON problems (id)",
    "view": "CREATE TEMPORARY VIEW x AS SELECT 1",
    "reindex": "REINDEX",
    "analyse": "ANALYZE",
    "explained delete": "EXPLAIN ANALYZE DELETE FROM problems",
}
SQLITE = {
    "schema": "PRAGMA writable_schema = ON",
    "journal": "PRAGMA journal_mode = DELETE",
    "checks": "PRAGMA foreign_keys = OFF",
    "query_only": "PRAGMA query_only = OFF",
    "checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)",
    "vacuum": "VACUUM",
    "attach": "ATTACH 'file:{target}?mode=rwc' AS x",
    "attach memory": "ATTACH ':memory:' AS x",
    "vacuum into": "VACUUM INTO '{target}'",
    "extension": "SELECT load_extension('{target}')",
    "writing function": "SELECT writefile('{target}', 'x')",
    "virtual table": "CREATE VIRTUAL TABLE x USING fts5(y)",
    "explained write": "EXPLAIN INSERT INTO graders (name, version) VALUES ('x', '1')",
    "a gigabyte": "SELECT LENGTH(ZEROBLOB(1000000000) || 'x')",
    "a gigabyte of text": "SELECT LENGTH(REPLACE(HEX(ZEROBLOB(100000000)), '0', '0123456789'))",
}
POSTGRES = {
    "writing with": "WITH x AS (DELETE FROM problems RETURNING id) SELECT id FROM x",
    "into": "SELECT 1 AS a INTO TEMPORARY x",
    "program": "COPY (SELECT 1) TO PROGRAM 'touch {target}'",
    "copy": "COPY (SELECT 1) TO '{target}'",
    "copy out": "COPY problems TO STDOUT",
    "read write": "SET TRANSACTION READ WRITE",
    "read write by function": "SELECT set_config('transaction_read_only', 'off', true)",
    "sequence": "SELECT nextval('runs_id_seq')",
    "setval": "SELECT setval('runs_id_seq', 1)",
    "block": "DO $$ BEGIN PERFORM 1; END $$",
    "call": "CALL x()",
    "lock": "LOCK TABLE problems",
    "row lock": "SELECT id FROM problems FOR UPDATE",
    "truncate": "TRUNCATE problems CASCADE",
    "notify": "NOTIFY x",
    "end of others": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "configuration": "SELECT pg_reload_conf()",
    "file": "SELECT pg_read_file('/etc/hostname')",
    "folder": "SELECT pg_ls_dir('/')",
    "large object": "SELECT lo_import('/etc/hostname')",
    "large object out": "SELECT lo_export(1, '{target}')",
}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file that no query may make."""
    path = tmp_path / "target"
    yield path
    assert not path.exists()


async def allowed(store: Store, attempts: Mapping[str, str], target: Path) -> list[str]:
    """Those of the attempts that were not refused; none of them may have changed anything."""
    await build(store)
    found = [
        name
        for name, sql in attempts.items()
        if await is_allowed(store, sql.replace("{target}", str(target)))
    ]
    assert (await store.query("SELECT COUNT(*) FROM problems")).rows == [(2,)]
    assert (await store.query("SELECT COUNT(*) FROM graders")).rows == [(1,)]
    return found


async def is_allowed(store: Store, sql: str) -> bool:
    try:
        await store.query(sql, timeout_s=10.0)
    except QueryRefused:
        return False
    return True


async def test_nothing_but_reading_is_allowed(store: Store, target: Path) -> None:
    assert not await allowed(store, EVERYWHERE, target)


async def test_sqlite_opens_no_back_door(sqlite_url: str, target: Path) -> None:
    async with await Store.open(sqlite_url) as store:
        assert not await allowed(store, SQLITE, target)


@pytest.mark.postgres
async def test_postgres_opens_no_back_door(postgres_url: str, target: Path) -> None:
    """Not even to a superuser, as whom tests connect."""
    async with await Store.open(postgres_url) as store:
        assert not await allowed(store, POSTGRES, target)
        assert (await store.query("SHOW transaction_read_only")).rows == [("on",)]


async def test_a_query_that_never_ends_is_ended(store: Store) -> None:
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    with pytest.raises(QueryRefused, match="longer than"):
        await store.query(counting, timeout_s=0.3)
    assert (await store.query("SELECT 1")).rows == [(1,)]


async def test_rows_are_limited_by_the_engine_and_not_after_reading_all(store: Store) -> None:
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert (await store.query(counting, limit=3, timeout_s=20.0)).rows == [(1,), (2,), (3,)]
