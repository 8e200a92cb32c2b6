"""Brings a database to the schema of this program, or says that it is not there. Must not know what the
schema is.

The migrations are found as the installed package `migrations`, wherever the program runs. Alembic is imported by what
migrates only: every command looks at the revision first, and should not wait for a library it does not need.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator.store.errors import StoreRefused
from orchestrator.store.failures import translated
from orchestrator.store.location import Location, locate
from orchestrator.store.postgres import postgres_engine
from orchestrator.store.sqlite import reader_engine, writer_engine

if TYPE_CHECKING:
    from alembic.config import Config

_DIGITS = 4
"""Of the number that a revision is called by."""
COPYING = "copying"
"""In place of a revision while a copy fills the database: no program takes it for a whole store."""


async def upgrade(url: str) -> str:
    """Migrate the database to head, creating a missing SQLite file; the revision it is at now."""
    await migrate(url, "head")
    return await check(url)


async def check(url: str) -> str:
    """The revision of the database, which is head.

    Raises:
        StoreRefused: it is not at head, or not there.
    """
    location = locate(url)
    if location.path is not None and not location.path.exists():
        raise StoreRefused(
            f"{location.path}: no such database; `ttc db upgrade --db {location.shown}` creates it"
        )
    engine = engine_of(location)
    try:
        return await demand_head(engine, location)
    finally:
        await engine.dispose()


async def migrate(url: str, revision: str) -> None:
    """Upgrade to `revision`; `-N` or `base` downgrades."""
    await migrate_at(locate(url), revision)


async def migrate_at(location: Location, revision: str) -> None:
    """As `migrate`.

    Raises:
        StoreRefused: a copy into the database was not finished.
    """
    if location.path is not None:
        location.path.parent.mkdir(parents=True, exist_ok=True)
    engine = migration_engine(location)
    down = revision == "base" or revision.startswith("-")
    try:
        with translated():
            async with engine.begin() as connection:
                _demand_whole(await connection.run_sync(current_revision), location)
                await connection.run_sync(_run_alembic, revision, down)
    finally:
        await engine.dispose()


async def demand_head(engine: AsyncEngine, location: Location) -> str:
    """The revision of an open database, which is head; otherwise `StoreRefused`."""
    with translated():
        async with engine.connect() as connection:
            found = await connection.run_sync(current_revision)
    _demand_whole(found, location)
    known = known_revisions()
    wanted = known[-1]
    if found == wanted:
        return wanted
    if found is not None and found not in known:
        raise StoreRefused(f"{location.shown}: made by a newer version of ttc (schema {found}); upgrade ttc")
    raise StoreRefused(
        f"{location.shown}: the schema is at {found or 'nothing'}, this program needs {wanted}; "
        f"type: ttc db upgrade --db {location.shown}"
    )


def engine_of(location: Location) -> AsyncEngine:
    """Engine that may write."""
    return writer_engine(location.path) if location.path is not None else postgres_engine(location.url)


def snapshot_engine(location: Location) -> AsyncEngine:
    """Engine whose connections only read, each transaction one moment."""
    if location.path is not None:
        return reader_engine(location.path)
    return postgres_engine(location.url).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def migration_engine(location: Location) -> AsyncEngine:
    """Engine that may change tables."""
    if location.path is not None:
        return writer_engine(location.path, enforces_keys=False)
    return postgres_engine(location.url)


def known_revisions() -> list[str]:
    """Revisions of this program, oldest first: the numbers that the files of the migrations begin with."""
    names = [entry.name for entry in (files("migrations") / "versions").iterdir()]
    return sorted(name[:_DIGITS] for name in names if name[:_DIGITS].isdigit() and name.endswith(".py"))


def alembic_config() -> Config:
    """Configuration of Alembic for the installed migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _demand_whole(revision: str | None, location: Location) -> None:
    if revision == COPYING:
        raise StoreRefused(
            f"{location.shown}: a copy into this database was not finished",
            remedy=f"type: ttc db copy FROM {location.shown}",
        )


def _run_alembic(connection: sa.Connection, revision: str, down: bool) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, revision)


def current_revision(connection: sa.Connection) -> str | None:
    """What the database says its revision is; None: it has no schema of ours."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
