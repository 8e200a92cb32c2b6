"""How results, plans and rows look on standard output: tables for people, JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.analysis import results, results_tables
from orchestrator.analysis.conclusion import Conclusions
from orchestrator.analysis.forecast import Forecast
from orchestrator.analysis.search_costs import Axis
from orchestrator.console import note as note
from orchestrator.console import show as show
from orchestrator.console import show_json as show_json
from orchestrator.console import show_line as show_line
from orchestrator.execution.progress import duration
from orchestrator.problems.integrity import ScrambleCheck
from orchestrator.store import LEASE_S, Progress, Scoring
from orchestrator.terminal import Terminal, printable, write_text

FORMATS = ("table", "csv", "json")
WIDEST_RESULTS = 140
LONGEST_CELL = 1000
"""Characters that are looked at at all: a text may be of any size, and to measure it takes time."""
CELL_WIDTH = 60
"""Characters of a value that a table of rows shows; csv and json show all."""
MOST_FORECAST_COLUMNS = 4
EXACT_TOKENS = 1e7
"""Larger bounds are shown in powers of ten, where there is a line each."""
EXACT = 1e6
"""Larger numbers (times, ids) are shown with all their digits."""


def conclusions_json(found: Conclusions, *, shows_first: bool = False) -> dict[str, Any]:
    """The results as plain values."""
    first = (
        {"first_k": {each.strategy: _first_k_json(each) for each in found.strategies if not each.is_search}}
        if shows_first
        else {}
    )
    return {
        "strategies": {each.strategy: results.to_json(each) for each in found.strategies},
        **first,
        "costs": [asdict(each) for each in found.costs],
        "scoring": [asdict(each) for each in found.scoring],
        "grader_agreement": asdict(found.agreement),
        "scramble_alarm": found.scramble.is_alarm,
    }


def _first_k_json(found: results.StrategyResults) -> list[dict[str, Any]]:
    return [asdict(row) for row in results.first_k(found)]


def show_conclusions(
    found: Conclusions, *, shows_first: bool = False, axis: Axis | None = None, is_json: bool
) -> None:
    """Print the results, strategy by strategy, and what should make a reader doubt them."""
    if is_json:
        show_json(conclusions_json(found, shows_first=shows_first))
        return
    console = Terminal()
    width = min(console.width, WIDEST_RESULTS)
    for each in found.strategies:
        tables = results_tables.render(each, width)
        if shows_first and not each.is_search:
            tables.append(results_tables.first_k_table(results.first_k(each), width))
        for table in tables:
            console.print(table)
            console.print()
    if found.costs:
        console.print(results_tables.cost_table(found.costs, width, axis))
        console.print()
    if found.scoring:
        console.print(scoring_table(found.scoring))
        console.print()
    _warn(found.scramble)
    if found.agreement.answers:
        share = found.agreement.agreed / found.agreement.answers
        console.print(
            f"The strict grader agrees on {share:.1%} of {found.agreement.answers:,} distinct answers."
        )


def scoring_table(rows: Sequence[Scoring]) -> Table:
    """What has become of the samples that each scorer was to score."""
    table = Table(
        title="Scores", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold", title_justify="left"
    )
    headings = ("scorer", "scored", "cut short", "too long", "unparsed", "invalid", "errors")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "scorer" else "right", no_wrap=True)
    for row in rows:
        counts = (row.scored, row.truncated, row.too_long, row.unparsed, row.invalid, row.errors)
        table.add_row(row.scorer, *(Text(f"{count:,}", "" if count else "dim") for count in counts))
    return table


def _warn(scramble: ScrambleCheck) -> None:
    if scramble.is_alarm:
        note(
            f"ALARM: {scramble.other_matches} samples equal the gold of another problem, only "
            f"{scramble.own_matches} that of their own: are they filed under the right problems?"
        )


def forecast_table(name: str, found: Sequence[Forecast]) -> Table:
    """What a sweep has, lacks and will cost: a column a strategy, or a line each where there are many."""
    if len(found) > MOST_FORECAST_COLUMNS:
        return _forecast_lines(name, found)
    table = Table(title=f"plan of {name}", box=None, title_style="bold", header_style="bold")
    table.add_column("")
    for each in found:
        table.add_column(Text(f"{each.name} ({each.model})"), justify="right")
    lines: tuple[tuple[str, Callable[[Forecast], str]], ...] = (
        ("problems", lambda each: f"{each.problems:,}"),
        ("what is counted", lambda each: each.unit),
        ("wanted", lambda each: _or_dash(each.wanted, ",")),
        ("stored", lambda each: f"{each.stored:,}"),
        ("missing", lambda each: _or_dash(each.missing, ",")),
        ("requests", lambda each: _or_dash(each.requests, ",")),
        ("tokens, expected", lambda each: _or_dash(each.expected_tokens, ",.0f")),
        ("generated tokens, at most", lambda each: _or_dash(each.max_tokens, ",")),
        ("FLOPs of the model", lambda each: _or_dash(each.flops, ".2e")),
        ("time at full concurrency", lambda each: duration(each.seconds)),
    )
    for heading, cell in lines:
        table.add_row(heading, *(cell(each) for each in found))
    if any(each.shared_steps for each in found):
        table.add_row("first steps shared, at most", *(f"{each.shared_steps:,}" for each in found))
    return table


def _forecast_lines(name: str, found: Sequence[Forecast]) -> Table:
    table = Table(title=f"plan of {name}", box=None, title_style="bold", header_style="bold")
    headings = ["", "counted", "wanted", "stored", "missing", "tokens", "at most", "FLOPs", "time"]
    is_sharing = any(each.shared_steps for each in found)
    for heading in (*headings, "shared steps") if is_sharing else headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for each in found:
        table.add_row(
            Text(each.name),
            each.unit,
            _or_dash(each.wanted, ","),
            f"{each.stored:,}",
            _or_dash(each.missing, ","),
            _or_dash(each.expected_tokens, ",.0f"),
            _or_dash(each.max_tokens, ",.0f" if (each.max_tokens or 0) < EXACT_TOKENS else ".1e"),
            _or_dash(each.flops, ".1e"),
            duration(each.seconds),
            *((f"{each.shared_steps:,}",) if is_sharing else ()),
        )
    return table


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def status_table(rows: Sequence[Progress], silent: Mapping[int, float | None]) -> Table:
    """How far sweeps are; `silent` holds the seconds since their runs were last heard of, by sweep id."""
    table = Table(box=None, header_style="bold")
    table.add_column("sweep", overflow="fold")
    for heading in ("state", "samples"):
        table.add_column(heading, no_wrap=True)
    table.add_column("tasks")
    for row in rows:
        share = row.samples_stored / max(1, row.samples_wanted)
        counts = {
            "done": row.tasks_done,
            "running": row.tasks_running,
            "pending": row.tasks_pending,
            "failed": row.tasks_failed,
        }
        table.add_row(
            Text(row.name),
            _life(row.state, silent[row.sweep_id]),
            f"{row.samples_stored:,} of {row.samples_wanted:,} ({share:.0%})",
            ", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "none",
        )
    return table


def _life(state: str, silent_s: float | None) -> str:
    """State of a sweep; a run that has been silent for longer than its lease was killed."""
    if state != "running" or silent_s is None:
        return state
    return f"killed, {duration(silent_s)} ago" if silent_s > LEASE_S else "running"


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], output: str) -> None:
    """Print the rows of a query in one of `FORMATS`."""
    if output == "json":
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif output == "csv":
        buffer = io.StringIO()
        csv.writer(buffer).writerows([columns, *rows])
        write_text(sys.stdout, buffer.getvalue())
    else:
        # As wide as its rows: a terminal folds long lines, a pipe should not lose columns.
        Terminal(width=2 * CELL_WIDTH * max(1, len(columns))).print(_query_table(columns, rows))


def _query_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(Text(name), no_wrap=True, max_width=CELL_WIDTH)
    for row in rows:
        table.add_row(*(Text("" if value is None else _cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    """A value for a terminal: only printable characters pass, and of a long text only its beginning."""
    text = (
        (f"{value:.6g}" if abs(value) < EXACT else f"{value:.3f}") if isinstance(value, float) else str(value)
    )
    return printable(text[:LONGEST_CELL])
