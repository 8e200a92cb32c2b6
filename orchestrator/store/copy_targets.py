"""The database that a copy fills: SQLite or PostgreSQL, empty, marked until it is finished.

The mark is a revision that no program knows, so every command refuses the database as it refuses one of another
version. References are not enforced row by row (some go round in a circle); they are checked as a whole at the end.
Must not know where rows come from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchestrator.store.checksums import flags_of
from orchestrator.store.derived import metadata
from orchestrator.store.errors import CopyDiffers, StoreRefused
from orchestrator.store.location import Location
from orchestrator.store.migrate import (
    COPYING,
    current_revision,
    demand_head,
    known_revisions,
    migrate_at,
    migration_engine,
)
from orchestrator.store.schema import schema_comments
from orchestrator.store.sqlite import is_blank

COPIED: Final = tuple(table for table in metadata.sorted_tables if table is not schema_comments)
"""Every table but the one that each program fills itself when it migrates."""

_REFERENCES: Final = tuple(key for table in metadata.sorted_tables for key in table.foreign_key_constraints)
_LOCK: Final = 0x7474635F636F7079
"""Advisory lock of PostgreSQL that a copy holds ("ttc_copy")."""
_MARK: Final = "UPDATE alembic_version SET version_num = '{}'"


class Target(Protocol):
    """An empty database that is being filled."""

    async def begin(self) -> None:
        """Mark it, and remove what an interrupted copy has left."""

    async def insert(self, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows in one transaction."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read back what was added."""

    async def finish(self) -> None:
        """Check the references, let new rows have new numbers, and take the mark away."""


@asynccontextmanager
async def target_at(location: Location) -> AsyncIterator[Target]:
    """The target at `location`, migrated if there was nothing; nobody else fills it at the same time.

    Raises:
        StoreRefused: it holds rows, is at another revision, or another copy into it is under way.
    """
    await _demand_empty(location)
    engine = migration_engine(location)
    try:
        if location.path is not None:
            yield _SqliteTarget(engine)
        else:
            async with _locked(engine, location):
                yield _PostgresTarget(engine)
    finally:
        await engine.dispose()


async def _demand_empty(location: Location) -> None:
    if location.path is not None and (not location.path.exists() or is_blank(location.path)):
        await migrate_at(location, "head")
    engine = migration_engine(location)
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(current_revision)
            if revision is None and location.path is None:
                await connection.rollback()
                await migrate_at(location, "head")
        if revision != COPYING:
            await demand_head(engine, location)
            await _demand_no_rows(engine, location)
    finally:
        await engine.dispose()


async def _demand_no_rows(engine: AsyncEngine, location: Location) -> None:
    async with engine.connect() as connection:
        for table in COPIED:
            if (await connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1))).first():
                raise StoreRefused(
                    f"{location.shown}: the target of a copy must be empty, and its table {table.name} is not",
                    remedy="name a database that does not exist yet (SQLite) or that is empty (PostgreSQL)",
                )


class _SqliteTarget:
    """A SQLite file, locked for everybody else."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine  # of one connection, which keeps the lock until it is closed

    async def begin(self) -> None:
        async with self._engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA locking_mode=EXCLUSIVE")
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(_MARK.format(COPYING))
            for table in COPIED:
                await connection.execute(table.delete())

    async def insert(self, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" for _ in table.columns)
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(
                f"INSERT INTO {table.name} ({names}) VALUES ({marks})", list(rows)
            )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection

    async def finish(self) -> None:
        async with self._engine.begin() as connection:
            broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).first()
            if broken is not None:
                raise CopyDiffers(f"table {broken[0]}: a row refers to nothing")
            await connection.exec_driver_sql(_MARK.format(known_revisions()[-1]))
        async with self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.execute("PRAGMA optimize")  # type: ignore[union-attr]


class _PostgresTarget:
    """A PostgreSQL database, without its references until the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self) -> None:
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(_MARK.format(COPYING))
            for key in _REFERENCES:
                await connection.execute(sa.schema.DropConstraint(key, if_exists=True))
            names = ", ".join(table.name for table in COPIED)
            await connection.exec_driver_sql(f"TRUNCATE {names}")

    async def insert(self, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
        names = [column.name for column in table.columns]
        async with self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert isinstance(raw, asyncpg.Connection)
            await raw.copy_records_to_table(table.name, records=_with_flags(table, rows), columns=names)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection

    async def finish(self) -> None:
        async with self._engine.begin() as connection:
            for key in _REFERENCES:
                await connection.execute(sa.schema.AddConstraint(key, isolate_from_table=False))
            for table in COPIED:
                if table.autoincrement_column is not None:
                    await connection.exec_driver_sql(_next_number(table))
            await connection.exec_driver_sql(_MARK.format(known_revisions()[-1]))
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql("ANALYZE")


def _with_flags(table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    flags = set(flags_of(table))
    if not flags:
        return rows
    return [tuple(bool(v) if i in flags else v for i, v in enumerate(row)) for row in rows]


def _next_number(table: sa.Table) -> str:
    """SQL that lets the numbers of new rows follow those that were copied."""
    sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
    return f"SELECT setval({sequence}, COALESCE(MAX(id), 1), MAX(id) IS NOT NULL) FROM {table.name}"


@asynccontextmanager
async def _locked(engine: AsyncEngine, location: Location) -> AsyncIterator[None]:
    """While it is held, another copy into the same database is refused; it ends with its connection."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        is_mine = (await connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar_one()
        if not is_mine:
            raise StoreRefused(f"{location.shown}: another copy into it is under way")
        yield
        await connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
