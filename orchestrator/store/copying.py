"""Copies a whole store into another database of either kind, and proves that every table arrived as it was.

The source is read in one transaction, so the copy is of one moment even while a sweep runs. The target carries a mark
from before the first row until after the last comparison, and whoever opens a database with that mark is refused: a
copy that was interrupted never looks whole. Copying into it again begins anew. Must not know what a table means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store.checksums import Checksum, spelling
from orchestrator.store.copy_targets import COPIED, Target, target_at
from orchestrator.store.errors import CopyDiffers, StoreRefused
from orchestrator.store.failures import translated
from orchestrator.store.location import Location, locate
from orchestrator.store.migrate import demand_head, snapshot_engine

BATCH_ROWS = 2_000
"""Rows read, and written in one transaction: memory stays flat however large a table is."""


@dataclass(frozen=True, slots=True)
class TableCopy:
    """A table that is the same in both databases."""

    table: str
    rows: int
    checksum: str


class Advance(Protocol):
    """Hears how far some work is."""

    def __call__(self, work: str, done: int, total: int) -> None:
        """So many of `total` rows are done."""


async def copy_store(source_url: str, target_url: str, advance: Advance) -> list[TableCopy]:
    """Copy all rows, compare them, and only then let the target be used; every table with its checksum.

    Raises:
        StoreRefused: the source is not at head; the target is not empty, not at head, or the source itself.
        CopyDiffers: what arrived is not what was sent; the target stays marked.
        StoreUnavailable: a database cannot be reached; the target stays marked if the copy had begun.
    """
    source, target = locate(source_url), locate(target_url)
    if _same(source, target):
        raise StoreRefused(f"{target.shown}: source and target are the same database")
    with translated():
        async with _snapshot(source) as reader, target_at(target) as writer:
            total = await _count(reader)
            await writer.begin()
            sent = await _send(reader, writer, advance, total)
            await _compare(sent, writer, advance, total)
            await writer.finish()
    return [TableCopy(name, checksum.rows, checksum.text) for name, checksum in sent.items()]


def _same(source: Location, target: Location) -> bool:
    if source.path is not None and target.path is not None:
        return source.path.resolve() == target.path.resolve()
    return source.url.set(password=None) == target.url.set(password=None)


@asynccontextmanager
async def _snapshot(location: Location) -> AsyncIterator[AsyncConnection]:
    """A connection whose every statement sees the same moment."""
    if location.path is not None and not location.path.exists():
        raise StoreRefused(f"{location.path}: no such database")
    engine = snapshot_engine(location)
    try:
        await demand_head(engine, location)
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def _count(connection: AsyncConnection) -> int:
    counts = [sa.select(sa.func.count()).select_from(table) for table in COPIED]
    return sum([int((await connection.execute(each)).scalar_one()) for each in counts])


async def _send(reader: AsyncConnection, writer: Target, advance: Advance, total: int) -> dict[str, Checksum]:
    """Copy table by table; the checksum of what was read of each."""
    sent = {table.name: Checksum() for table in COPIED}
    done = 0
    for table in COPIED:
        async for rows in batches(reader, table):
            sent[table.name].add(rows)
            await writer.insert(table, rows)
            done += len(rows)
            advance("rows copied", done, total)
    return sent


async def _compare(sent: dict[str, Checksum], writer: Target, advance: Advance, total: int) -> None:
    """Read back what the target holds; raises at the first table that is not what was sent."""
    done = 0
    async with writer.reading() as connection:
        for table in COPIED:
            found = Checksum()
            async for rows in batches(connection, table):
                found.add(rows)
                done += len(rows)
                advance("rows compared", done, total)
            wanted = sent[table.name]
            if (found.rows, found.text) != (wanted.rows, wanted.text):
                raise CopyDiffers(
                    f"table {table.name}: {wanted.rows:,} rows with checksum {wanted.text[:12]} were sent, "
                    f"{found.rows:,} with {found.text[:12]} arrived"
                )


async def batches(connection: AsyncConnection, table: sa.Table) -> AsyncIterator[list[tuple[Any, ...]]]:
    """All rows of a table in the spelling of both databases, in the order of its primary key."""
    spelled = spelling(table)
    keys = list(table.primary_key.columns)
    places = [list(table.columns).index(key) for key in keys]
    first = sa.select(*table.columns).order_by(*keys).limit(BATCH_ROWS)
    marks = [sa.bindparam(f"after_{key.name}", type_=key.type) for key in keys]
    following = first.where(sa.tuple_(*keys) > sa.tuple_(*marks))
    after: dict[str, Any] | None = None
    while True:
        result = await (connection.execute(first) if after is None else connection.execute(following, after))
        rows = spelled(result)
        if rows:
            yield rows
        if len(rows) < BATCH_ROWS:
            return
        after = {f"after_{key.name}": rows[-1][place] for key, place in zip(keys, places, strict=True)}
