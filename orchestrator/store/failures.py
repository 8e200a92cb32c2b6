"""Drivers' errors made into ours: is it worth trying again? Must not know what was being done."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import asyncpg
import sqlalchemy as sa

from orchestrator.store.errors import StoreError, StoreUnavailable

READ_ONLY_STATE = "25006"
"""A write where only reading is possible: a standby, which a failover soon replaces or promotes."""
# 08 connection, 53 out of resources, 57P01..3 shutting down or starting, 40001/40P01 rolled back, 55P03 lock.
_TRANSIENT_STATES = ("08", "53", "57P0", "40001", "40P01", "55P03", READ_ONLY_STATE)
_TRANSIENT_SQLITE = ("locked", "busy", "disk is full", "disk I/O error")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise our errors instead of a driver's."""
    try:
        yield
    except (
        sa.exc.SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        sqlite3.Error,
        OSError,
    ) as error:
        raise store_error(error) from error


def store_error(error: BaseException) -> StoreError:
    """`StoreUnavailable` if trying again may help, else `StoreError`; the message holds no parameters."""
    causes = list(_causes(error))
    kind = StoreUnavailable if any(_is_transient(cause) for cause in causes) else StoreError
    return kind(f"{type(causes[-1]).__name__}: {_first_line(causes[-1])}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it wraps, innermost last."""
    yield error
    inner = error.orig if isinstance(error, sa.exc.DBAPIError) else error.__cause__
    if inner is not None:
        yield from _causes(inner)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, sqlite3.OperationalError):
        return any(word in str(error) for word in _TRANSIENT_SQLITE)
    if isinstance(error, (sa.exc.TimeoutError, OSError, asyncpg.InterfaceError)):
        return not isinstance(error, asyncpg.exceptions.DataError)
    return str(getattr(error, "sqlstate", "") or "").startswith(_TRANSIENT_STATES)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
