"""What a database holds besides its tables: views and comments, made again after every migration.

Must not know how a migration runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from orchestrator.store import facts, findings
from orchestrator.store.schema import schema_comments
from orchestrator.store.views import VIEWS

metadata = facts.trajectories.metadata  # tables of `schema`, of `facts` and of `findings`
assert findings.results.metadata is metadata


def drop_views(connection: sa.Connection) -> None:
    """Drop our views, so that tables may change; fails if views of others are made of them."""
    present = set(sa.inspect(connection).get_view_names())
    for view in reversed(VIEWS):
        if view.name in present:
            connection.exec_driver_sql(f"DROP VIEW {view.name}")


def create_derived(connection: sa.Connection) -> None:
    """Create views and comments; the tables must be at head."""
    drop_views(connection)
    dialect = connection.dialect.name
    for view in VIEWS:
        connection.exec_driver_sql(f"CREATE VIEW {view.name} AS {view.select_for(dialect)}")
    connection.execute(schema_comments.delete())
    rows = [{"object_name": o, "column_name": c, "comment": text} for o, c, text in comments()]
    connection.execute(schema_comments.insert(), rows)
    if dialect == "postgresql":
        _comment_views(connection)


def comments() -> Iterator[tuple[str, str, str]]:
    """(table or view, column or empty, comment) of everything in the schema."""
    for table in metadata.sorted_tables:
        yield table.name, "", table.comment or ""
        for column in table.columns:
            yield table.name, column.name, column.comment or ""
    for view in VIEWS:
        yield view.name, "", view.comment
        for name, comment in view.column_comments().items():
            yield view.name, name, comment


def _comment_views(connection: sa.Connection) -> None:
    for view in VIEWS:
        connection.exec_driver_sql(f"COMMENT ON VIEW {view.name} IS {_literal(view.comment)}")
        for name, comment in view.column_comments().items():
            connection.exec_driver_sql(f"COMMENT ON COLUMN {view.name}.{name} IS {_literal(comment)}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
