"""The port between the store and its two databases: what differs between them, and nothing else.

`sqlite` and `postgres` implement it. A `Transaction` is what the rest of the store writes SQL against.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchestrator.store.failures import translated

AnyRow: TypeAlias = "sa.Row[*tuple[Any, ...]]"

_PG = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Bulk:
    """An INSERT of many rows, spelled for both databases; its rows are tuples in the order of `columns`."""

    columns: tuple[str, ...]
    sqlite: str
    postgres: str


def bulk(table: sa.Table, conflict: str, *, without: tuple[str, ...] = ()) -> Bulk:
    """INSERT into all columns but `without`; `conflict` follows ON CONFLICT.

    PostgreSQL demands that no key occurs twice in one call.
    """
    columns = [column for column in table.columns if column.name not in without]
    names = ", ".join(column.name for column in columns)
    marks = ", ".join("?" for _ in columns)
    arrays = ", ".join(f"${i}::{c.type.compile(dialect=_PG)}[]" for i, c in enumerate(columns, start=1))
    head = f"INSERT INTO {table.name} ({names})"
    return Bulk(
        tuple(column.name for column in columns),
        f"{head} VALUES ({marks}) ON CONFLICT {conflict}",
        f"{head} SELECT * FROM unnest({arrays}) ON CONFLICT {conflict}",
    )


class Backend(Protocol):
    """One database."""

    dialect: str
    writer: AsyncEngine
    """Engine for write transactions."""
    reader: AsyncEngine
    """Engine for reading."""
    skip_locked: str
    """Suffix of a SELECT that leases rows of `t`."""
    pending_index: str
    """Hint for reading pending tasks in order: SQLite would rather walk all tasks, done ones included."""
    gather: str
    """Aggregate that joins the values of a `{column}` with commas, the columns of one query in the same order."""
    lock: str
    """Suffix of a SELECT whose rows must not change before the transaction ends."""

    def transaction(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in a transaction; committed at the end, rolled back on an error or a cancellation."""

    async def execute(
        self, connection: AsyncConnection, statement: sa.TextClause, values: dict[str, Any]
    ) -> sa.CursorResult[Any]:
        """Run a statement inside the transaction of `connection`."""

    async def insert(
        self, connection: AsyncConnection, statement: Bulk, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert rows inside the transaction of `connection`."""

    async def fetch(self, connection: AsyncConnection, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a statement of ours without parameters, as the driver gives them."""

    async def now(self, connection: AsyncConnection) -> float:
        """Clock that all users of the database share."""

    async def query(self, sql: str, limit: int, timeout_s: float) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a user's query; the engine itself refuses writes."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction, with few words for what the store does in it."""

    connection: AsyncConnection
    backend: Backend

    async def rows(self, sql: str, **values: Any) -> Sequence[AnyRow]:
        """Rows of a statement; a list stands for `IN :name`."""
        return (await self._execute(sql, values)).all()

    async def scalar(self, sql: str, **values: Any) -> Any:
        """First column of the first row, or None."""
        return (await self._execute(sql, values)).scalar()

    async def run(self, sql: str, **values: Any) -> int:
        """Run a statement; number of rows it touched."""
        return (await self._execute(sql, values)).rowcount

    async def insert(self, statement: Bulk, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert many rows."""
        if rows:
            await self.backend.insert(self.connection, statement, rows)

    async def now(self) -> float:
        """Seconds since 1970-01-01 UTC by the clock of the database."""
        return await self.backend.now(self.connection)

    async def _execute(self, sql: str, values: dict[str, Any]) -> sa.CursorResult[Any]:
        return await self.backend.execute(self.connection, _statement(sql, values), values)


def writing(backend: Backend) -> AbstractAsyncContextManager[Transaction]:
    """A write transaction; committed at the end, rolled back on an error."""
    return _transaction(backend, backend.writer)


def reading(backend: Backend) -> AbstractAsyncContextManager[Transaction]:
    """A transaction that only reads."""
    return _transaction(backend, backend.reader)


@asynccontextmanager
async def _transaction(backend: Backend, engine: AsyncEngine) -> AsyncIterator[Transaction]:
    with translated():
        async with backend.transaction(engine) as connection:
            yield Transaction(connection, backend)


def _statement(sql: str, values: dict[str, Any]) -> sa.TextClause:
    lists: list[sa.BindParameter[Any]] = [
        sa.bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)
    ]
    return sa.text(sql).bindparams(*lists)
