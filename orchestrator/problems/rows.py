"""From a row of a problem file to a problem: which column is what, and whether every cell holds what it
should.

Pure: a row in, a problem or a finding out. It must not know files, filters or seeds; whether a gold can be
graded is checked by the graders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import DatasetError, Finding, show_value
from orchestrator.nearest import suggestion
from orchestrator.problems.files import Row
from orchestrator.spec.problems import AnswerField, FieldMap
from workers.answers import Method, extract
from workers.identity import content_hash
from workers.types import Outcome

USUAL_COLUMNS = {
    "id": ("id", "unique_id", "problem_id"),
    "statement": ("problem", "question", "statement", "prompt"),
    "answer": ("answer", "gold", "target"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "category"),
}
_LEVEL = re.compile(r"\s*(?:level\s*)?([0-9]{1,9}|\?)\s*\Z", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """One problem, ready for the store."""

    external_id: str
    statement: str
    answer: str
    """Gold answer as it stands in the file."""
    level: int | None
    subject: str | None
    content_hash: str
    """Of statement and answer: a corrected gold makes another problem."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one file, resolved."""

    id: str | None
    statement: str
    answer: AnswerField
    level: str | None
    subject: str | None
    is_level_named: bool


def resolve_columns(fields: FieldMap, cells: Mapping[str, Any], shown: str) -> Columns:
    """The columns of a file whose first row is `cells`; `DatasetError` where one is not there."""
    answer = fields.answer
    column = _column("answer", answer.column if answer else None, cells, shown, is_required=True)
    statement = _column("statement", fields.statement, cells, shown, is_required=True)
    return Columns(
        id=_column("id", fields.id, cells, shown),
        statement=statement or "",
        answer=answer or AnswerField(column=column or ""),
        level=_column("level", fields.level, cells, shown),
        subject=_column("subject", fields.subject, cells, shown),
        is_level_named=fields.level is not None,
    )


def _column(
    role: str, named: str | None, cells: Mapping[str, Any], shown: str, *, is_required: bool = False
) -> str | None:
    """The column that plays `role`: the one that is named, or the first usual one that is there."""
    if named is not None:
        if named in cells:
            return named
        remedy = suggestion(named, cells, "columns")
        value, field = show_value(named), f"problems.fields.{role}"
        raise DatasetError.of(
            "is not a column of the file", file=shown, field=field, value=value, remedy=remedy
        )
    found = next((name for name in USUAL_COLUMNS[role] if name in cells), None)
    if found is None and is_required:
        remedy = f"name it: fields: {{{role}: COLUMN}}; columns: {', '.join(list(cells)[:12])}"
        message = f"no column is called {', '.join(USUAL_COLUMNS[role])}"
        raise DatasetError.of(message, file=shown, field=f"problems.fields.{role}", remedy=remedy)
    return found


def to_problem(row: Row, columns: Columns, shown: str) -> ProblemRow | Finding:
    """The problem in `row`, or what is wrong with it."""
    try:
        statement = _text(row, columns.statement, "write the statement of the problem")
        answer = _answer(row, columns.answer)
        digest = content_hash(statement, answer)
        identifier = _text(row, columns.id, "write an identifier") if columns.id else f"h-{digest[:16]}"
        level = _level(row, columns)
        subject = _optional_text(row, columns.subject)
    except _CellError as error:
        value = None if error.value is None else show_value(error.value)
        return Finding(error.message, error.remedy, shown, row.line, field=error.column, value=value)
    return ProblemRow(identifier, statement, answer, level, subject, digest)


class _CellError(Exception):
    """A cell does not hold what its column should."""

    def __init__(self, column: str, message: str, remedy: str, value: object = None) -> None:
        super().__init__(message)
        self.column, self.message, self.remedy, self.value = column, message, remedy, value


def _text(row: Row, column: str, remedy: str) -> str:
    """Text of a cell that must not be empty; a number counts as its digits."""
    if column not in row.cells:
        raise _CellError(column, "is missing in this row", remedy)
    text = _as_text(row, column, row.cells[column])
    if not text.strip():
        raise _CellError(column, "is empty", remedy, row.cells[column])
    return text


def _as_text(row: Row, column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _CellError(column, "wants text", "write it as text, in quotes", value)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _CellError(
            column, "holds a character that no database stores", "remove NUL and lone surrogates", value
        )
    return value


def _optional_text(row: Row, column: str | None) -> str | None:
    value = row.cells.get(column) if column else None
    return (_as_text(row, column, value).strip() or None) if column else None


def _answer(row: Row, field: AnswerField) -> str:
    text = _text(row, field.column, "write the gold answer, or leave the problem out")
    if field.boxed:
        found = extract(text, Outcome.COMPLETE)
        if found is None or found.method not in (Method.BOXED, Method.BOXED_TOKEN):
            raise _CellError(
                field.column, r"has no \boxed{...}", r"write \boxed{ANSWER} at its end", text[-40:]
            )
        text = found.text
    if field.after is not None:
        _, mark, rest = text.rpartition(field.after)
        if not mark:
            message = f"does not contain {field.after}"
            raise _CellError(
                field.column, message, "correct problems.fields.answer.after, or the row", text[-40:]
            )
        text = rest
    if not text.strip():
        raise _CellError(
            field.column, "has an empty answer", "write the gold answer, or leave the problem out"
        )
    return text.strip()


def _level(row: Row, columns: Columns) -> int | None:
    value = row.cells.get(columns.level) if columns.level else None
    if value is None or value == "":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value):
        return int(value)
    match = _LEVEL.match(value) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) if match[1] != "?" else None
    if not columns.is_level_named:
        return None
    remedy = 'write a whole number or "Level N", or name another column in problems.fields.level'
    raise _CellError(columns.level or "level", "is not a level", remedy, value)
