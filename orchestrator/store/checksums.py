"""What makes rows of two databases comparable: one spelling of a row, and a checksum that needs no order.

PostgreSQL sorts text by the rules of a language and SQLite by bytes, so a checksum over rows in order would differ
between equal tables. The sum of the hashes of all rows does not, and needs no memory. Must not know how rows are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import sqlalchemy as sa

_MODULUS = 1 << 256


class Checksum:
    """SHA-256 of each row, added up; the rows may come in any order, a row twice counts twice."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Count rows in their common spelling."""
        for row in rows:
            self._sum += int.from_bytes(hashlib.sha256(orjson.dumps(row)).digest(), "big")
            self.rows += 1
        self._sum %= _MODULUS

    @property
    def text(self) -> str:
        """The checksum as 64 hexadecimal digits."""
        return f"{self._sum:064x}"


def spelling(table: sa.Table) -> Callable[[Iterable[Any]], list[tuple[Any, ...]]]:
    """How rows of a table are written alike: flags as 0 and 1, and no zero is negative (SQLite keeps no such one)."""
    spelled = [(i, rule) for i, column in enumerate(table.columns) if (rule := _rule(column)) is not None]
    return lambda rows: [_spelled(row, spelled) for row in rows]


def flags_of(table: sa.Table) -> list[int]:
    """Positions of the columns that are true or false in PostgreSQL."""
    return [i for i, column in enumerate(table.columns) if isinstance(column.type, sa.Boolean)]


def _rule(column: sa.Column[Any]) -> Callable[[Any], Any] | None:
    if isinstance(column.type, sa.Boolean):
        return int
    return _without_negative_zero if isinstance(column.type, sa.Double) else None


def _without_negative_zero(value: float) -> float:
    return value + 0.0


def _spelled(row: Iterable[Any], rules: list[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    values = list(row)
    for i, rule in rules:
        if values[i] is not None:
            values[i] = rule(values[i])
    return tuple(values)
