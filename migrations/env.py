"""Alembic's environment: runs on the connection it is given, or on the database named by TTC_DATABASE_URL.

Views and comments are derived from the code: dropped before a migration, made again when the schema is at
head.
"""

from __future__ import annotations

import asyncio
import os

import sqlalchemy as sa
from alembic import context
from alembic.script import ScriptDirectory

from orchestrator.store.derived import create_derived, drop_views, metadata
from orchestrator.store.location import locate
from orchestrator.store.migrate import migration_engine


def run(connection: sa.Connection) -> None:
    """Run migrations inside the transaction of `connection`."""
    drop_views(connection)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    context.run_migrations()
    check_references(connection)
    revision = context.get_context().get_current_revision()
    if revision is not None and revision == ScriptDirectory.from_config(context.config).get_current_head():
        create_derived(connection)


def check_references(connection: sa.Connection) -> None:
    """Refuse to leave rows that refer to nothing: SQLite does not look while a migration rebuilds tables."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(1)
        if broken:
            raise RuntimeError(f"the migration would leave a row of {broken[0][0]} that refers to nothing")


async def run_on_url() -> None:
    """Entry of the `alembic` command itself."""
    engine = migration_engine(locate(os.environ["TTC_DATABASE_URL"]))
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_on_url())
