"""Rows of a problem file, one after the other: JSON Lines, CSV (both also gzipped) and Parquet.

Why it exists: whatever a file holds, memory stays bounded and every error names a line. A line that cannot be
read is yielded as a finding, so that one pass reports several; what makes the rest unreadable is raised. It
must not know what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from orchestrator.errors import DatasetError, Finding, show_value
from orchestrator.nearest import nearest

MAX_LINE_BYTES = 8_000_000
MAX_FILE_BYTES = 8 << 30
"""After decompression."""
MAX_ROWS = 1_000_000
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its cells by column, and where it stands."""

    line: int
    """Line of a text file, number of the row in a Parquet file; counted from 1."""
    cells: dict[str, Any]


def read_rows(path: Path, shown: str) -> Iterator[Row | Finding]:
    """The rows of `path`, and a finding for each line that is not one; errors call the file `shown`."""
    _check_file(path, shown)
    count = 0
    for row in _rows(path, shown):
        count += 1
        if count > MAX_ROWS:
            raise DatasetError.of(
                f"has more than {MAX_ROWS} rows", file=shown, remedy="cut it into several files"
            )
        yield row
    if count == 0:
        raise DatasetError.of(
            "holds no problems", file=shown, remedy="write one problem a line, or another path"
        )


def _rows(path: Path, shown: str) -> Iterator[Row | Finding]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path, shown)
    if name.endswith((".csv", ".csv.gz")):
        return _csv(_lines(path, shown), shown)
    return _jsonl(_lines(path, shown), shown)


def _check_file(path: Path, shown: str) -> None:
    if path.is_dir():
        raise DatasetError.of(
            "is a directory, not a file of problems", file=shown, remedy="name one file in it"
        )
    if not path.exists():
        found = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, found)
        remedy = f"did you mean {near}?" if near else "check problems.path; it is relative to the sweep file"
        raise DatasetError.of("does not exist", file=shown, field="problems.path", remedy=remedy)
    if not path.is_file():
        raise DatasetError.of("is not a regular file", file=shown, remedy="copy it to a file")
    if not path.name.lower().endswith(SUFFIXES):
        raise DatasetError.of(
            "has a suffix that is not known", file=shown, remedy=f"use {', '.join(SUFFIXES)}"
        )


def _lines(path: Path, shown: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, each of bounded length."""
    total = 0
    try:
        with _open(path) as handle:
            number = 0
            while line := handle.readline(MAX_LINE_BYTES + 1):
                number, total = number + 1, total + len(line)
                if len(line) > MAX_LINE_BYTES or total > MAX_FILE_BYTES:
                    remedy = "write one problem a line"
                    message = f"is longer than {MAX_LINE_BYTES} bytes"
                    raise DatasetError.of(message, file=shown, line=number, remedy=remedy)
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DatasetError.of("is not a whole gzip file", file=shown, remedy="compress it again") from None
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise DatasetError.of(message, file=shown, remedy="check the permissions of the file") from None


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _jsonl(lines: Iterator[tuple[int, bytes]], shown: str) -> Iterator[Row | Finding]:
    for number, raw in lines:
        if not raw.strip():
            continue
        try:
            cells = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            yield _not_utf8(error, raw, shown, number)
        except json.JSONDecodeError as error:
            yield _not_json(error, shown, number)
        except (ValueError, RecursionError) as error:
            message = (
                "holds a value that JSON does not allow"
                if isinstance(error, ValueError)
                else "is nested too deeply"
            )
            yield Finding(message, "write numbers, text, lists and objects only", shown, number)
        else:
            yield Row(number, cells) if isinstance(cells, dict) else _not_object(cells, shown, number)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _not_utf8(error: UnicodeDecodeError, raw: bytes, shown: str, number: int) -> Finding:
    found = f"byte 0x{raw[error.start]:02X}"
    return Finding("is not UTF-8 text", "save the file as UTF-8", shown, number, error.start + 1, value=found)


def _not_json(error: json.JSONDecodeError, shown: str, number: int) -> Finding:
    around = error.doc[max(0, error.pos - 10) : error.pos + 20]
    message = f"is not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
    remedy = "write one JSON object a line, without line breaks in it"
    return Finding(message, remedy, shown, number, error.pos + 1, value=show_value(around))


def _not_object(cells: object, shown: str, number: int) -> Finding:
    remedy = 'write one object a line: {"problem": ..., "answer": ...}'
    return Finding("is not a JSON object", remedy, shown, number, value=show_value(cells))


def _csv(lines: Iterator[tuple[int, bytes]], shown: str) -> Iterator[Row | Finding]:
    reader = csv.reader(_decoded(lines, shown), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, shown)
        for cells in reader:
            if len(cells) == len(header):
                yield Row(reader.line_num, dict(zip(header, cells, strict=True)))
            elif cells:
                message = f"has {len(cells)} cells, and the header has {len(header)}"
                yield Finding(message, "quote cells that hold commas or line breaks", shown, reader.line_num)
    except csv.Error as error:
        remedy = 'quote cells that hold commas, quotes ("") or line breaks'
        raise DatasetError.of(
            f"is not valid CSV: {error}", file=shown, line=reader.line_num, remedy=remedy
        ) from None


def _decoded(lines: Iterator[tuple[int, bytes]], shown: str) -> Iterator[str]:
    for number, raw in lines:
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(findings=[_not_utf8(error, raw, shown, number)]) from None


def _check_header(header: list[str], shown: str) -> None:
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        remedy = "give every column a name of its own"
        raise DatasetError.of("is the name of two columns", file=shown, line=1, field=repeated, remedy=remedy)


def _parquet(path: Path, shown: str) -> Iterator[Row | Finding]:
    import pyarrow as pa  # a third of a second, which most sweeps need not spend
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(number, cells)
    except (pa.ArrowException, OSError) as error:
        message = f"is not a valid Parquet file: {str(error).splitlines()[0] if str(error) else 'unreadable'}"
        remedy = "fetch or write the file again"
        raise DatasetError.of(message, file=shown, line=number + 1, remedy=remedy) from None
