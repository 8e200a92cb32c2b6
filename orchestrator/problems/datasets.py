"""From the `problems` section of a sweep to the problems: found, mapped, checked, filtered, ordered.

Why it exists: a wrong column, a repeated identifier or an empty gold ruins a sweep silently, so every row is
checked here, and all that is wrong is said at once with its line. A shuffled order depends on the identifiers
and the seed alone, never on the file's order or the version of Python. It must not know models, budgets or
SQL; whether a gold can be graded is checked by the graders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchestrator.errors import DatasetError, Finding, show_value
from orchestrator.nearest import suggestion
from orchestrator.problems.files import Row, read_rows
from orchestrator.problems.hub import fetch, sha256_of
from orchestrator.problems.presets import PRESETS
from orchestrator.problems.rows import USUAL_COLUMNS, Columns, ProblemRow, resolve_columns, to_problem
from orchestrator.spec.problems import FieldMap, ProblemsSpec
from workers.identity import content_hash

MAX_KEPT_FINDINGS = 1000


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that problems came from."""

    name: str
    """Path or URL."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems of a sweep, in its order."""

    dataset: str
    problems: tuple[ProblemRow, ...]
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...]
    """What the user should be told: rows left out, identifiers made up, files fetched."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    shown: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A problem, and what it was made of."""

    problem: ProblemRow
    row: Row
    shown: str


def load_problems(
    spec: ProblemsSpec, base_dir: Path, *, environ: Mapping[str, str] = os.environ
) -> ProblemSet:
    """Read, check, filter and order the problems of a sweep; paths are relative to `base_dir`.

    Raises `DatasetError` with every row that is wrong. A preset or `hub` is downloaded on first use
    (`hub.fetch`)."""
    fields = _fields(spec)
    sources = list(_sources(spec, base_dir, environ))
    reader = _Reader(fields, tuple(spec.filter))
    for source in sources:
        reader.read(source)
    candidates = reader.checked()
    kept = _chosen(_kept(candidates, spec, reader.level_column), spec)
    notes = [source.note for source in sources if source.note] + reader.notes()
    if len(kept) < len(candidates):
        notes.append(f"{len(kept)} of {len(candidates)} problems chosen")
    digests = tuple(SourceFile(source.shown, sha256_of(source.path)) for source in sources)
    return ProblemSet(_dataset_name(spec), tuple(kept), digests, tuple(notes))


def _dataset_name(spec: ProblemsSpec) -> str:
    if spec.hub is not None:
        return f"{spec.hub.repo}/{spec.hub.file}"
    return spec.preset or Path(spec.path or "").name


def _fields(spec: ProblemsSpec) -> FieldMap:
    """The user's columns, and for a preset its own where the user names none."""
    if spec.preset is None:
        return spec.fields
    return PRESETS[spec.preset].fields.model_copy(update=dict(_named(spec.fields)))


def _named(fields: FieldMap) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in fields if value is not None)


def _sources(spec: ProblemsSpec, base_dir: Path, environ: Mapping[str, str]) -> Iterator[_Source]:
    if spec.path is not None:
        yield _Source(base_dir / spec.path, spec.path)
        return
    preset = PRESETS[spec.preset] if spec.preset is not None else None
    if preset is not None and preset.packaged is not None:
        path = Path(str(files(preset.packaged[0]) / preset.packaged[1]))
        yield _Source(path, path.name)
        return
    for file in preset.files if preset is not None else (spec.hub,):
        if file is not None:
            fetched = fetch(file, environ)
            how = "read from the cache" if fetched.is_cached else "fetched"
            yield _Source(fetched.path, fetched.url, f"{how}: {fetched.url} (sha256 {fetched.sha256})")


class _Reader:
    """Gathers the problems of several files, and everything that is wrong with them."""

    def __init__(self, fields: FieldMap, filtered: tuple[str, ...]) -> None:
        self._fields = fields
        self._filtered = filtered
        self._findings: list[Finding] = []
        self._by_id: dict[str, _Candidate] = {}
        self._repeats = 0
        self._has_made_ids = False
        self.level_column: str | None = None

    def read(self, source: _Source) -> None:
        """Take in one file."""
        columns: Columns | None = None
        for row in read_rows(source.path, source.shown):
            if isinstance(row, Finding):
                self._findings.append(row)
            else:
                columns = columns or self._resolve(row, source.shown)
                self._add(row, columns, source.shown)
            if len(self._findings) >= MAX_KEPT_FINDINGS:
                break

    def checked(self) -> list[_Candidate]:
        """The problems, or an error that lists every finding."""
        if self._findings:
            raise DatasetError(findings=self._findings)
        return list(self._by_id.values())

    def notes(self) -> list[str]:
        """What was decided on the way."""
        made = ["no column of identifiers: they are made from the statements"] if self._has_made_ids else []
        repeats = (
            [f"{self._repeats} problems stand there twice; one of each is kept"] if self._repeats else []
        )
        return made + repeats

    def _resolve(self, row: Row, shown: str) -> Columns:
        columns = resolve_columns(self._fields, row.cells, shown)
        known = {*row.cells, *USUAL_COLUMNS}
        for name in self._filtered:
            if name not in known:
                remedy = suggestion(name, row.cells, "columns")
                field = f"problems.filter.{name}"
                raise DatasetError.of("is not a column of the file", file=shown, field=field, remedy=remedy)
        self._has_made_ids = columns.id is None
        self.level_column = columns.level
        return columns

    def _add(self, row: Row, columns: Columns, shown: str) -> None:
        made = to_problem(row, columns, shown)
        if isinstance(made, Finding):
            self._findings.append(made)
            return
        first = self._by_id.setdefault(made.external_id, candidate := _Candidate(made, row, shown))
        if first is candidate:
            return
        if columns.id is None:
            self._repeats += 1
            return
        where = f"line {first.row.line}" + (f" of {first.shown}" if first.shown != shown else "")
        message = f"is the identifier of {where} too"
        value = show_value(made.external_id)
        remedy = "give every problem an identifier of its own"
        self._findings.append(Finding(message, remedy, shown, row.line, field=columns.id, value=value))


def _kept(candidates: Iterable[_Candidate], spec: ProblemsSpec, level_column: str | None) -> list[ProblemRow]:
    """The problems that pass the filter."""
    kept = list(candidates)
    for name, wanted in spec.filter.items():
        cells = [_cell(candidate, name, level_column) for candidate in kept]
        passed = [candidate for candidate, cell in zip(kept, cells, strict=True) if _matches(cell, wanted)]
        if not passed:
            present = sorted({str(value) for cell in cells for value in cell[:1]})
            remedy = f"values there: {', '.join(present[:12])}{', ...' if len(present) > 12 else ''}"
            value, field = show_value(wanted), f"problems.filter.{name}"
            raise DatasetError.of(
                "keeps no problem", file=_dataset_name(spec), field=field, value=value, remedy=remedy
            )
        kept = passed
    return [candidate.problem for candidate in kept]


def _cell(candidate: _Candidate, name: str, level_column: str | None) -> tuple[object, ...]:
    """What a filter compares: the cell of the file, and of the level also the number."""
    problem, cells = candidate.problem, candidate.row.cells
    mapped = {"id": problem.external_id, "level": problem.level, "subject": problem.subject}
    values = [cells[name]] if name in cells else [mapped.get(name)]
    return (*values, problem.level) if name == level_column else tuple(values)


def _matches(cell: tuple[object, ...], wanted: tuple[object, ...]) -> bool:
    """Equality, where a number also equals its digits (every cell of a CSV file is text)."""
    return any(_is_same(value, want) for value in cell for want in wanted)


def _is_same(value: object, want: object) -> bool:
    if value is None or want is None or isinstance(value, bool) or isinstance(want, bool):
        return value is want or (isinstance(want, bool) and str(value).lower() == str(want).lower())
    return value == want or str(value).strip() == str(want)


def _chosen(problems: list[ProblemRow], spec: ProblemsSpec) -> list[ProblemRow]:
    """Order by the seed, then the first of each level, then the first of all."""
    if spec.shuffle is not None:
        seed = str(spec.shuffle)
        problems = sorted(problems, key=lambda problem: content_hash(seed, problem.external_id))
    if spec.per_level is not None:
        problems = _first_of_levels(problems, spec.per_level, _dataset_name(spec))
    return problems[: spec.limit]


def _first_of_levels(problems: list[ProblemRow], count: int, shown: str) -> list[ProblemRow]:
    taken: dict[int, int] = {}
    kept: list[ProblemRow] = []
    for problem in problems:
        if problem.level is not None and taken.get(problem.level, 0) < count:
            taken[problem.level] = taken.get(problem.level, 0) + 1
            kept.append(problem)
    if not kept:
        remedy = "name the column of the level in problems.fields.level, or use limit"
        raise DatasetError.of("no problem has a level", file=shown, field="problems.per_level", remedy=remedy)
    return kept
