"""Solutions made elsewhere, read from a file: problems with samples, scores and verdicts, as somebody recorded them.

A row is a problem with a list of samples, or one sample, in which case rows with the same identifier are one problem.
Every cell is checked here, and all that is wrong is said at once with its line. Pure but for reading the file. It must
not know stores, models or scorers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import DatasetError, Finding, show_value
from orchestrator.nearest import suggestion
from orchestrator.problems.files import Row, read_rows
from orchestrator.problems.rows import ProblemRow, resolve_columns, to_problem
from orchestrator.spec.problems import AnswerField, FieldMap

ROLES: Mapping[str, tuple[str, ...]] = {
    "id": ("unique_id", "id", "problem_id", "idx"),
    "problem": ("problem", "question", "statement", "prompt"),
    "gold": ("gold", "gold_answer", "target"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "category"),
    "samples": ("samples", "completions", "responses"),
    "text": ("text", "completion", "response", "output"),
    "steps": (),
    "answer": (),
    "verdict": (),
    "scores": ("step_scores", "scores"),
    "score": ("score", "reward"),
    "tokens": ("n_tokens", "completion_tokens"),
    "finish_reason": ("finish_reason",),
}
"""What a column may stand for, and the names it usually has; roles without a usual name are used only when named."""
MAX_KEPT_FINDINGS = 1000
NO_GOLD = "(graded where it came from)"
"""Reference answer of a problem whose samples bring verdicts instead."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read."""

    columns: Mapping[str, str]
    """Column by role, where the usual name does not do."""
    answer_after: str | None = None
    """The answer of a sample is what follows the last occurrence of this in its text, on that line."""
    are_logits: bool = False
    """Scores are logits: the sigmoid makes them probabilities."""


@dataclass(frozen=True, slots=True)
class ImportedSample:
    """One solution."""

    text: str
    steps: tuple[str, ...] | None
    """Its steps, where the file has them apart."""
    answer: str | None
    """Its answer as the file has it; None: to be found in the text, or there is none."""
    verdict: bool | None
    """Whether it is right, as the file has it."""
    scores: tuple[float, ...]
    tokens: int | None
    is_truncated: bool


@dataclass(slots=True)
class ImportedProblem:
    """A problem and its solutions, in the order of the file."""

    problem: ProblemRow
    samples: list[ImportedSample] = field(default_factory=list)


def read_trajectories(path: Path, shown: str, reading: Reading) -> list[ImportedProblem]:
    """All problems of a file with their samples. Raises DatasetError with every row that is wrong."""
    reader = _Reader(shown, reading)
    for row in read_rows(path, shown):
        if isinstance(row, Finding):
            reader.findings.append(row)
        else:
            reader.add(row)
        if len(reader.findings) >= MAX_KEPT_FINDINGS:
            break
    if reader.findings:
        raise DatasetError(findings=reader.findings)
    return list(reader.problems.values())


class _Wrong(Exception):
    """A cell does not hold what its column should."""

    def __init__(self, column: str, message: str, remedy: str, value: object = None) -> None:
        super().__init__(message)
        self.column, self.message, self.remedy, self.value = column, message, remedy, value


class _Reader:
    """Gathers problems, and everything that is wrong with them."""

    def __init__(self, shown: str, reading: Reading) -> None:
        self._shown = shown
        self._reading = reading
        self._columns: dict[str, str] = {}
        self.problems: dict[str, ImportedProblem] = {}
        self.findings: list[Finding] = []

    def add(self, row: Row) -> None:
        """Take in a row."""
        if not self._columns:
            self._columns = self._resolved(row.cells)
        problem = self._problem(row)
        if isinstance(problem, Finding):
            self.findings.append(problem)
            return
        held = self.problems.setdefault(problem.external_id, ImportedProblem(problem))
        if held.problem.content_hash != problem.content_hash:
            self._note(
                row, self._columns.get("id"), "stands for another problem in a row before", "correct it"
            )
            return
        try:
            held.samples += [self._sample(cells) for cells in self._samples(row.cells)]
        except _Wrong as wrong:
            self._note(row, wrong.column, wrong.message, wrong.remedy, wrong.value)

    def _note(self, row: Row, column: str | None, message: str, remedy: str, value: object = None) -> None:
        shown = None if value is None else show_value(value)
        self.findings.append(Finding(message, remedy, self._shown, row.line, field=column, value=shown))

    def _resolved(self, cells: Mapping[str, Any]) -> dict[str, str]:
        """Column by role, from the first row: what is named, else what has a usual name."""
        columns = {role: name for role, usual in ROLES.items() for name in reversed(usual) if name in cells}
        samples = cells.get(self._reading.columns.get("samples", columns.get("samples", "")))
        first = samples[0] if isinstance(samples, list) and samples else cells
        inner = first if isinstance(first, dict) else {}
        columns |= {role: name for role, usual in ROLES.items() for name in reversed(usual) if name in inner}
        for role, name in self._reading.columns.items():
            if role not in ROLES:
                remedy = suggestion(role, ROLES, "write one of")
                raise DatasetError.of("is not a role", field="--field", value=show_value(role), remedy=remedy)
            if name not in cells and name not in inner:
                remedy = suggestion(name, [*cells, *inner], "columns")
                raise DatasetError.of(
                    "is not a column of the file", file=self._shown, field=f"--field {role}",
                    value=show_value(name), remedy=remedy,
                )  # fmt: skip
            columns[role] = name
        if "gold" not in columns and "verdict" not in columns:
            raise DatasetError.of(
                "holds no gold answers", file=self._shown, field="--field gold",
                remedy="name their column by --field gold=COLUMN, or that of verdicts by --field verdict=COLUMN",
            )  # fmt: skip
        return columns

    def _problem(self, row: Row) -> ProblemRow | Finding:
        columns = self._columns
        if "gold" not in columns:
            row = replace(row, cells={**row.cells, NO_GOLD: NO_GOLD})
        identifier = columns.get("id")
        fields = FieldMap(
            id=identifier if identifier and row.cells.get(identifier) is not None else None,
            statement=columns.get("problem"),
            answer=AnswerField(column=columns.get("gold", NO_GOLD)),
            level=columns.get("level"),
            subject=columns.get("subject"),
        )
        resolved = resolve_columns(fields, row.cells, self._shown)
        if identifier is None or row.cells.get(identifier) is None:
            resolved = replace(resolved, id=None)
        return to_problem(row, resolved, self._shown)

    def _samples(self, cells: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        column = self._columns.get("samples")
        if column is None:
            return [cells]
        samples = cells.get(column)
        if not isinstance(samples, list):
            raise _Wrong(column, "wants a list of samples", "write [{...}, ...]", samples)
        return [_as_cells(column, sample, self._columns.get("text", "text")) for sample in samples]

    def _sample(self, cells: Mapping[str, Any]) -> ImportedSample:
        columns = self._columns
        steps = _steps(cells, columns.get("steps"))
        text = "".join(steps) if steps is not None else _text(cells, columns.get("text", "text"))
        return ImportedSample(
            text=text,
            steps=steps,
            answer=self._answer(cells, text),
            verdict=_verdict(cells, columns.get("verdict")),
            scores=tuple(self._scores(cells)),
            tokens=_count(cells, columns.get("tokens")),
            is_truncated=cells.get(columns.get("finish_reason", "")) in ("length", "max_tokens"),
        )

    def _answer(self, cells: Mapping[str, Any], text: str) -> str | None:
        mark = self._reading.answer_after
        if mark is not None:
            _, found, rest = text.rpartition(mark)
            return (rest.strip().splitlines() or [""])[0].strip() or None if found else None
        column = self._columns.get("answer")
        answer = cells.get(column) if column else None
        return str(answer).strip() or None if answer is not None else None

    def _scores(self, cells: Mapping[str, Any]) -> Iterator[float]:
        column = next((self._columns[role] for role in ("scores", "score") if role in self._columns), None)
        found = cells.get(column) if column else None
        if column is None or found is None:
            return
        for score in found if isinstance(found, list) else [found]:
            if not isinstance(score, (int, float)) or isinstance(score, bool) or not math.isfinite(score):
                raise _Wrong(column, "holds what is no score", "write numbers, or leave it out", score)
            value = _sigmoid(score) if self._reading.are_logits else float(score)
            if not 0 <= value <= 1:
                remedy = "add --logits if they are logits, or map them to 0..1"
                raise _Wrong(column, "holds a score outside of 0..1", remedy, score)
            yield value


def _as_cells(column: str, sample: object, text_column: str) -> Mapping[str, Any]:
    if isinstance(sample, str):
        return {text_column: sample}
    if isinstance(sample, dict):
        return sample
    raise _Wrong(column, "holds a sample that is neither text nor fields", "write {text: ...}", sample)


def _text(cells: Mapping[str, Any], column: str) -> str:
    text = cells.get(column)
    if not isinstance(text, str):
        raise _Wrong(column, "wants text", "name the column of the text by --field text=COLUMN", text)
    return text


def _steps(cells: Mapping[str, Any], column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    steps = cells.get(column)
    if not isinstance(steps, list) or not all(isinstance(step, str) and step.strip() for step in steps):
        raise _Wrong(column, "wants a list of steps, none of them blank", "write [step, step, ...]", steps)
    return tuple(steps)


def _verdict(cells: Mapping[str, Any], column: str | None) -> bool | None:
    if column is None or cells.get(column) is None:
        return None
    verdict = cells[column]
    if verdict not in (True, False):  # 1 and 0 count
        raise _Wrong(column, "wants true or false", "write true, false, 1 or 0", verdict)
    return bool(verdict)


def _count(cells: Mapping[str, Any], column: str | None) -> int | None:
    count = cells.get(column) if column else None
    return count if type(count) is int and count > 0 else None


def _sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1 + odds)
