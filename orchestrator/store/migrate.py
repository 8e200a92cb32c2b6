"""Brings a database to the schema of this program, or says that it is not there. Must not know what the
schema is.

The migrations are found as the installed package `migrations`, wherever the program runs.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator.store.errors import StoreRefused
from orchestrator.store.failures import translated
from orchestrator.store.location import Location, locate
from orchestrator.store.postgres import postgres_engine
from orchestrator.store.sqlite import writer_engine


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
    location = locate(url)
    if location.path is not None:
        location.path.parent.mkdir(parents=True, exist_ok=True)
    engine = engine_of(location)
    down = revision == "base" or revision.startswith("-")
    try:
        with translated():
            async with engine.begin() as connection:
                await connection.run_sync(_run_alembic, revision, down)
    finally:
        await engine.dispose()


async def demand_head(engine: AsyncEngine, location: Location) -> str:
    """The revision of an open database, which is head; otherwise `StoreRefused`."""
    with translated():
        async with engine.connect() as connection:
            found = await connection.run_sync(_current_revision)
    wanted, known = await asyncio.to_thread(_known_revisions)
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


def alembic_config() -> Config:
    """Configuration of Alembic for the installed migrations."""
    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run_alembic(connection: sa.Connection, revision: str, down: bool) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, revision)


def _current_revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known_revisions() -> tuple[str, set[str]]:
    scripts = ScriptDirectory.from_config(alembic_config())
    head = scripts.get_current_head()
    assert head is not None
    return head, {script.revision for script in scripts.walk_revisions()}
