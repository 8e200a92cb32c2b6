"""Training sets in files: JSON Lines or Parquet, written whole or not at all.

It must not know how labels come about, nor the command line.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as parquet

from orchestrator.analysis.training_data import Census, LabelType, Layout, training_rows
from orchestrator.errors import UsageError
from orchestrator.nearest import suggestion
from orchestrator.registration import recall
from orchestrator.spec.strategies import RolloutsStrategy
from orchestrator.store import LabelledSolution, Store

FORMATS = ("jsonl", "parquet")
POOLS_AT_ONCE = 50
ROWS_A_GROUP = 2_000
"""Rows of a Parquet row group."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is to be exported, and how."""

    layout: Layout
    file_format: str
    """One of `FORMATS`."""
    strategy: str | None = None
    """Strategy whose labels are wanted; None: the only one."""
    label_type: LabelType | None = None
    """None: hard in Math-Shepherd's layout, else as the sweep file says."""
    keeps_repeated: bool = False
    """A solution that was drawn several times is as many rows."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written."""

    path: Path
    strategy: str
    label_type: LabelType
    census: Census


async def export_labels(name: str, folder: Path, options: ExportOptions, store: Store) -> Exported:
    """Write the labelled solutions of a sweep as a training set into `folder`."""
    spec, registered = await recall(name, store)
    strategy = _strategy(spec.labelled, options.strategy, name)
    label_type = options.label_type or _usual_labels(options.layout, strategy)
    path = folder / f"{name}-{strategy.name}-{options.layout}-{label_type}.{options.file_format}"
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    census = Census()
    with _writer(path, options.file_format) as sink:
        async for solutions in _solutions(store, registered.sweep_id, strategy):
            rows = training_rows(
                solutions, options.layout, label_type, census, keeps_repeated=options.keeps_repeated
            )
            sink.write(list(rows))
    return Exported(path, strategy.name, label_type, census)


def _usual_labels(layout: Layout, strategy: RolloutsStrategy) -> LabelType:
    return LabelType.HARD if layout is Layout.MATH_SHEPHERD else LabelType(strategy.label)


def _strategy(labelled: Sequence[RolloutsStrategy], wanted: str | None, name: str) -> RolloutsStrategy:
    by_name = {each.name: each for each in labelled}
    if not by_name:
        raise UsageError(
            f"the sweep {name!r} labels no steps", remedy="add a strategy of kind: rollouts, and run it"
        )
    if wanted is None and len(by_name) == 1:
        return labelled[0]
    if wanted not in by_name:
        raise UsageError.of(
            "is not the name of a strategy that labels steps",
            field="--strategy",
            value=repr(wanted),
            remedy=suggestion(wanted or "", by_name, "name one of"),
        )
    return by_name[wanted]


async def _solutions(
    store: Store, sweep_id: int, strategy: RolloutsStrategy
) -> AsyncIterator[list[LabelledSolution]]:
    pools = await store.labelled_pools(sweep_id, strategy.source)
    for start in range(0, len(pools), POOLS_AT_ONCE):
        chunk = pools[start : start + POOLS_AT_ONCE]
        yield await store.labelled_solutions(sweep_id, strategy.name, chunk)


class _Sink(Protocol):
    def write(self, rows: Sequence[dict[str, Any]]) -> None: ...


@contextmanager
def _writer(path: Path, file_format: str) -> Iterator[_Sink]:
    """Write beside the file and put it in its place at the end: a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.part")
    try:
        if file_format == "parquet":
            parquet_sink = _Parquet(fresh)
            yield parquet_sink
            parquet_sink.close()
        else:
            with fresh.open("w", encoding="utf-8") as file:
                yield _JsonLines(file)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


class _JsonLines:
    """One JSON object a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _Parquet:
    """Row groups of bounded size, with the schema of the first rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None
        self._file: parquet.ParquetWriter | None = None

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self._rows += rows
        if len(self._rows) >= ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        if not self._rows and self._file is not None:
            return
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        if self._file is None:
            self._schema = table.schema
            self._file = parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        self._file.write_table(table)
        self._rows.clear()
