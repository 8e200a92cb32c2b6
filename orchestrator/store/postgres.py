"""The store in PostgreSQL: asyncpg, bulk inserts through `unnest`, claims that skip locked rows.

Knows no table.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.store.backend import Bulk
from orchestrator.store.errors import QueryRefused, StoreError
from orchestrator.store.failures import READ_ONLY_STATE, store_error

CONNECTIONS = 4
"""Held open; as many again are opened when all are busy, and closed afterwards."""
VANISHED_S = 60
"""A host that has not answered for so long is given up: without this, the system waits a quarter of an hour."""
_PROBES = 3
_NO_SUPERUSER = """SELECT set_config('role', 'pg_read_all_data', true)
    WHERE current_setting('is_superuser') = 'on'"""
"""A read-only transaction keeps nobody from calling functions that end connections or reach the server's files."""


class PostgresBackend:
    """A PostgreSQL database."""

    dialect = "postgresql"
    skip_locked = "FOR UPDATE OF t SKIP LOCKED"
    gather = "string_agg(CAST({column} AS TEXT), ',' ORDER BY g.i)"
    pending_index = ""
    lock = "FOR UPDATE"

    def __init__(self, url: sa.URL, *, read_only: bool) -> None:
        self._engine = postgres_engine(url)
        self.reader = self._engine.execution_options(postgresql_readonly=True)
        self.writer = self.reader if read_only else self._engine

    def transaction(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction; one that is cancelled within a call loses its connection, and the server rolls it back."""
        return engine.begin()

    async def execute(
        self, connection: AsyncConnection, statement: sa.TextClause, values: dict[str, Any]
    ) -> sa.CursorResult[Any]:
        """Run a statement."""
        return await connection.execute(statement, values)

    async def insert(
        self, connection: AsyncConnection, statement: Bulk, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert rows as one array a column."""
        raw = await _in_transaction(connection)
        await raw.execute(statement.postgres, *map(list, zip(*rows, strict=True)))

    async def fetch(self, connection: AsyncConnection, sql: str) -> list[tuple[Any, ...]]:
        """All rows; records of the driver are tuples enough."""
        raw = await _in_transaction(connection)
        return await raw.fetch(sql)

    async def now(self, connection: AsyncConnection) -> float:
        """Hosts' clocks differ; the database has one."""
        result = await connection.exec_driver_sql(
            "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"
        )
        return float(result.scalar_one())

    async def query(self, sql: str, limit: int, timeout_s: float) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a user's query in a read-only transaction, as one prepared statement that returns rows."""
        try:
            async with self.reader.connect() as connection, connection.begin() as transaction:
                await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")
                await connection.exec_driver_sql(_NO_SUPERUSER)
                raw = (await connection.get_raw_connection()).driver_connection
                assert isinstance(raw, asyncpg.Connection)
                found = await asyncio.wait_for(_fetch(raw, sql, limit), timeout_s + 1)
                await transaction.rollback()
                return found
        except (asyncpg.QueryCanceledError, TimeoutError):
            raise QueryRefused(f"the query took longer than {timeout_s:g} s") from None
        except asyncpg.ReadOnlySQLTransactionError:
            raise QueryRefused("only reading is allowed here") from None
        except (sa.exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise _refusal(error) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


async def _in_transaction(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    """The driver's connection, inside the transaction: SQLAlchemy begins it with its first own statement."""
    raw = (await connection.get_raw_connection()).driver_connection
    assert isinstance(raw, asyncpg.Connection)
    if not raw.is_in_transaction():
        await connection.exec_driver_sql("SELECT 1")
    return raw


def postgres_engine(url: sa.URL) -> AsyncEngine:
    """Engine that notices, before use, that the server was restarted, and keeps no connection to a standby."""
    engine = create_async_engine(
        url, pool_size=CONNECTIONS, max_overflow=4, pool_pre_ping=True, pool_timeout=60
    )
    sa.event.listen(engine.sync_engine, "handle_error", _leave_standby)
    sa.event.listen(engine.sync_engine, "connect", _watch_host)
    return engine


def _watch_host(connection: Any, _: Any) -> None:
    """Have the system notice a host that vanishes without a farewell, as in a failover of machines."""
    transport = getattr(
        connection.driver_connection, "_transport", None
    )  # asyncpg has no other way to its socket
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    each_s = VANISHED_S // (_PROBES + 1)
    wanted = {
        "TCP_KEEPIDLE": each_s,
        "TCP_KEEPINTVL": each_s,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": VANISHED_S * 1000,
    }
    for name, value in wanted.items():
        if hasattr(socket, name):  # each system knows some of them
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leave_standby(context: sa.ExceptionContext) -> None:
    """After a failover an address may lead to a server that only reads: its connections work, but are no use."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY_STATE:
        context.is_disconnect = True


async def _fetch(
    raw: asyncpg.Connection[Any], sql: str, limit: int
) -> tuple[list[str], list[tuple[Any, ...]]]:
    statement = await raw.prepare(sql)
    columns = [attribute.name for attribute in statement.get_attributes()]
    if not columns:  # COMMIT, COPY ... TO PROGRAM and their like
        raise QueryRefused("only statements that return rows are allowed here")
    cursor = await statement.cursor()
    return columns, [tuple(row) for row in await cursor.fetch(limit)]


def _refusal(error: Exception) -> StoreError:
    found = store_error(error)
    return found if found.retryable else QueryRefused(str(found))
