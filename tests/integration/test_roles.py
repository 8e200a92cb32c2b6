"""What the two roles of PostgreSQL may do, and what they may not: as they connect, past all that ttc checks."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from orchestrator.errors import UsageError
from orchestrator.store import QueryRefused, Roles, Store, StoreError, apply_roles, role_statements, upgrade
from orchestrator.store.views import VIEWS
from tests.fault_server import FaultServer
from tests.sweep_world import SweepFolder, ttc

pytestmark = pytest.mark.postgres


@dataclass(frozen=True, slots=True)
class Granted:
    """A database with both roles, and its URL for each of them."""

    owner: str
    roles: Roles

    @property
    def writer(self) -> str:
        return self._as(self.roles.writer)

    @property
    def reader(self) -> str:
        return self._as(self.roles.reader)

    def _as(self, name: str) -> str:
        return sa.make_url(self.owner).set(username=name).render_as_string(hide_password=False)


def fresh() -> Roles:
    """Roles belong to the whole server: every test takes its own."""
    mark = uuid.uuid4().hex[:8]
    return Roles(f"writer_{mark}", f"reader_{mark}", timeout_s=7)


async def execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
async def granted(postgres_url: str) -> AsyncIterator[Granted]:
    roles = fresh()
    statements = await role_statements(postgres_url, roles)
    await execute(postgres_url, ";\n".join(statements))  # as psql would run what is printed
    yield Granted(postgres_url, roles)
    for name in (roles.writer, roles.reader):
        await execute(postgres_url, f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_the_writer_runs_a_sweep_and_can_neither_drop_nor_migrate(
    granted: Granted, tmp_path: Path
) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as server:
        folder.write(server.url, problems=2, samples=8)
        assert (await folder.run_here(granted.writer)).report.reason == "complete"
        folder.write(server.url, problems=3, samples=8)  # a pool is given up, and asked for again
        folder.write(server.url, problems=1, samples=16)
        assert (await folder.run_here(granted.writer)).report.samples_drawn == 8
    for refused in (
        "DROP TABLE tasks",
        "TRUNCATE events",
        "DELETE FROM trajectories",
        "CREATE TABLE t (a int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await execute(granted.writer, refused)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(granted.writer, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(StoreError, match="InsufficientPrivilege"):
        await upgrade(granted.writer)


async def test_the_reader_reads_all_and_writes_nothing(granted: Granted, tmp_path: Path) -> None:
    await upgrade(granted.owner)  # views made anew are as readable as before
    async with await Store.open(granted.reader, read_only=True) as store:
        for view in VIEWS:
            assert (await store.query(f"SELECT * FROM {view.name}")).columns
        with pytest.raises(QueryRefused, match="only reading"):
            await store.query("DELETE FROM tasks RETURNING id")
    said = await ttc("sql", "select count(*) from v_samples", "--db", granted.reader, folder=tmp_path)
    assert said.code == 0, said.err
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await execute(granted.reader, "DELETE FROM tasks")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):  # also where it lifts the guard
        await execute(granted.reader, "BEGIN READ WRITE; DELETE FROM tasks")
    connection = await asyncpg.connect(granted.reader)
    assert await connection.fetchval("SHOW statement_timeout") == "7s"
    await connection.close()


async def test_rights_cover_what_a_later_version_makes(granted: Granted) -> None:
    await execute(granted.owner, "CREATE TABLE later (id serial PRIMARY KEY, a int)")
    await execute(granted.writer, "INSERT INTO later (a) VALUES (1); UPDATE later SET a = 2")
    await execute(granted.reader, "SELECT * FROM later")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(granted.reader, "BEGIN READ WRITE; INSERT INTO later (a) VALUES (1)")


async def test_apply_may_be_repeated_and_runs_what_is_printed(granted: Granted) -> None:
    assert await apply_roles(granted.owner, granted.roles) == await role_statements(
        granted.owner, granted.roles
    )
    said = await ttc(
        "db", "roles", "--db", granted.owner, "--writer", granted.roles.writer, "--reader", granted.roles.reader,
        "--timeout", "7", folder=Path.cwd(),
    )  # fmt: skip
    assert said.out.strip().split(";\n") == [
        *(await role_statements(granted.owner, granted.roles))[:-1],
        (await role_statements(granted.owner, granted.roles))[-1] + ";",
    ]


@pytest.mark.parametrize("name", ["Robert", "x y", "a;drop", "pg_me", "", "1st", '"'])
def test_names_that_need_quotes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--writer"):
        Roles(writer=name)


def test_one_name_for_both_is_refused() -> None:
    with pytest.raises(UsageError, match="both"):
        Roles("same", "same")


async def test_sqlite_has_no_roles(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"SQLite has no roles[\s\S]*permissions"):
        await role_statements(str(tmp_path / "a.db"), Roles())


async def test_a_database_without_the_schema_is_refused(blank_postgres_url: str) -> None:
    with pytest.raises(StoreError, match="ttc db upgrade"):
        await apply_roles(blank_postgres_url, fresh())
