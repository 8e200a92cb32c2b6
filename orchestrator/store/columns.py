"""Column types and naming shared by the tables: one meaning, two dialects. Must not know any table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = sa.MetaData(naming_convention=NAMING)

# SQLite tables are STRICT, which knows INTEGER, REAL, TEXT and BLOB only.
INT = sa.Integer()
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text()
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")

STRICT: dict[str, Any] = {"sqlite_strict": True}
KEYED: dict[str, Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}
"""Tables clustered on their primary key: rows are read by ranges of it."""


def col(name: str, kind: sa.types.TypeEngine[Any], comment: str, *rest: Any, **kw: Any) -> sa.Column[Any]:
    """Column with its comment; NOT NULL unless `nullable=True`."""
    kw.setdefault("nullable", False)
    return sa.Column(name, kind, *rest, comment=comment, **kw)


def partial(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """Index of the rows that meet a condition, in either database."""
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def key(comment: str, kind: sa.types.TypeEngine[Any] = INT, **kw: Any) -> sa.Column[Any]:
    """Primary key `id`, given by the database unless `autoincrement=False`."""
    return sa.Column("id", kind, primary_key=True, comment=comment, **kw)


def ref(name: str, target: str, comment: str, **kw: Any) -> sa.Column[Any]:
    """Foreign key to `target` (`table.column`)."""
    kind = kw.pop("kind", INT)
    use_alter = kw.pop("use_alter", False)
    kw.setdefault("nullable", False)
    return sa.Column(name, kind, sa.ForeignKey(target, use_alter=use_alter), comment=comment, **kw)
