"""Roles of PostgreSQL with no more rights than their work needs: one that runs sweeps, one that reads.

The owner of the tables, who migrates, is neither. A role that exists is kept and given its rights again, so the
statements may be run after every upgrade. No password is set here: a role without one cannot log in by password. Must
not know how statements are shown.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchestrator.errors import UsageError
from orchestrator.store.derived import metadata
from orchestrator.store.failures import translated
from orchestrator.store.location import Location, locate
from orchestrator.store.migrate import demand_head
from orchestrator.store.postgres import postgres_engine
from orchestrator.store.schema import schema_comments, sweep_lanes, sweep_pools
from orchestrator.store.views import VIEWS

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SHRINKING: Final = (sweep_lanes, sweep_pools)
"""The tables that a sweep deletes rows from."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the roles, and how long a statement of the reader may take unless it says otherwise."""

    writer: str = "ttc_writer"
    reader: str = "ttc_reader"
    timeout_s: int = 300

    def __post_init__(self) -> None:
        for option, name in (("--writer", self.writer), ("--reader", self.reader)):
            if not _NAME.fullmatch(name) or name.startswith("pg_"):
                raise UsageError.of(
                    "is no name for a role", field=option, value=repr(name),
                    remedy="write small letters, digits and _, not beginning with a digit or pg_",
                )  # fmt: skip
        if self.writer == self.reader:
            raise UsageError.of("is the name of both roles", field="--reader", value=repr(self.reader))


async def role_statements(url: str, roles: Roles) -> list[str]:
    """The SQL that makes the roles for the database at `url`; changes nothing.

    Raises:
        UsageError: SQLite has no roles.
        StoreRefused: the database is not at head.
    """
    async with _at_head(url) as engine, engine.connect() as connection:
        return await _statements(connection, roles)


async def apply_roles(url: str, roles: Roles) -> list[str]:
    """Run what `role_statements` returns, in one transaction; the statements."""
    async with _at_head(url) as engine, engine.begin() as connection:
        statements = await _statements(connection, roles)
        for statement in statements:
            await connection.exec_driver_sql(statement)
    return statements


@asynccontextmanager
async def _at_head(url: str) -> AsyncIterator[AsyncEngine]:
    """The PostgreSQL database at `url`, for as long as the context; its errors are ours."""
    location = _postgres(url)
    engine = postgres_engine(location.url)
    try:
        with translated():
            await demand_head(engine, location)
            yield engine
    finally:
        await engine.dispose()


def _postgres(url: str) -> Location:
    location = locate(url)
    if location.path is not None:
        raise UsageError.of(
            "SQLite has no roles: whoever may read or write the file may read or write the store",
            field="--db", value=repr(location.shown), remedy="set the permissions of the file and its folder",
        )  # fmt: skip
    return location


async def _statements(connection: AsyncConnection, roles: Roles) -> list[str]:
    sql = "SELECT quote_ident(current_database()) AS database, quote_ident(current_schema()) AS schema"
    here = (await connection.exec_driver_sql(sql)).mappings().one()
    database, schema = str(here["database"]), str(here["schema"])
    return [
        *_made(roles.writer, database, {}),
        *_made(
            roles.reader,
            database,
            {
                "default_transaction_read_only": "on",
                "statement_timeout": f"'{roles.timeout_s}s'",
                "idle_in_transaction_session_timeout": "'60s'",
            },
        ),
        *_shared_rights(roles, database, schema),
        *_writer_rights(roles.writer, schema),
        *_future_rights(roles, schema),
    ]


def _made(role: str, database: str, settings: dict[str, str]) -> Iterator[str]:
    yield (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
        f'THEN CREATE ROLE "{role}" LOGIN; END IF; END $$'
    )
    for name, value in settings.items():
        yield f'ALTER ROLE "{role}" IN DATABASE {database} SET {name} = {value}'


def _shared_rights(roles: Roles, database: str, schema: str) -> Iterator[str]:
    both = f'"{roles.writer}", "{roles.reader}"'
    names = _names(
        schema, [*(table.name for table in metadata.sorted_tables), *(view.name for view in VIEWS)]
    )
    yield f"GRANT CONNECT ON DATABASE {database} TO {both}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {both}"
    yield f"GRANT SELECT ON {names}, {schema}.alembic_version TO {both}"


def _writer_rights(writer: str, schema: str) -> Iterator[str]:
    filled = [table for table in metadata.sorted_tables if table is not schema_comments]
    yield f'GRANT INSERT, UPDATE ON {_names(schema, [table.name for table in filled])} TO "{writer}"'
    yield f'GRANT DELETE ON {_names(schema, [table.name for table in _SHRINKING])} TO "{writer}"'
    yield f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO "{writer}"'


def _future_rights(roles: Roles, schema: str) -> Iterator[str]:
    """Rights on what a later upgrade makes; views are made anew by each of them."""
    head = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT"
    yield f'{head} SELECT ON TABLES TO "{roles.writer}", "{roles.reader}"'
    yield f'{head} INSERT, UPDATE ON TABLES TO "{roles.writer}"'
    yield f'{head} USAGE ON SEQUENCES TO "{roles.writer}"'


def _names(schema: str, names: Sequence[str]) -> str:
    return ", ".join(f"{schema}.{name}" for name in names)
