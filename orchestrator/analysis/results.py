"""Accuracy by level and budget: counts of pools in, rows out, and the rows as terminal tables or JSON.

Pure: must not know the store, the sweep or where the text goes. All that the tables show is in the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.estimators import (
    Estimate,
    FloatArray,
    PoolCounts,
    accuracy_bounds,
    majority_at_k,
    mean_over_problems,
    mean_tokens,
    pass_at_k,
)

ESTIMATOR_VERSION = 1
"""Raised when the meaning of a row changes: the formulas, what counts as a sample, the interval."""
PASS, MAJORITY = "pass", "majority"
OVERALL = "all"
NO_LEVEL = "none"
NOTHING = "–"


class _CountColumn(NamedTuple):
    field: str
    header: str
    style: str = ""
    is_always_shown: bool = True


COUNT_COLUMNS = (
    _CountColumn("problems", "\nproblems"),
    _CountColumn("samples", "\nsamples"),
    _CountColumn("correct", "\ncorrect", "green"),
    _CountColumn("wrong", "\nwrong"),
    _CountColumn("no_answer", "no\nanswer"),
    _CountColumn("truncated", "trun-\ncated", "yellow"),
    _CountColumn("ungraded", "un-\ngraded", "red", is_always_shown=False),
    _CountColumn("errors", "\nerrors", "red"),
    _CountColumn("mean_tokens", "mean\ntokens"),
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """Accuracy of one selector at one budget over the problems of one level; fractions, not percent."""

    level: str
    """`OVERALL` for all problems, `NO_LEVEL` for those without a level."""
    selector: str
    """`PASS` (a perfect verifier picks) or `MAJORITY` (plurality over answer clusters)."""
    budget: int
    """Samples a problem."""
    value: float | None
    """Mean over problems; None if none has enough samples."""
    std_error: float | None
    """Clustered by problem; None below two problems."""
    low: float | None
    high: float | None
    """95% interval (Student t), cut to [0, 1]."""
    mc_error: float
    """Part of the error that is due to resampling; 0.0 where every value is exact."""
    problems: int
    skipped: int
    """Problems left out because they have fewer samples than the budget."""


@dataclass(frozen=True, slots=True)
class CountRow:
    """What became of the samples of one level: a partition, so failed, unfinished and wrong never mix."""

    level: str
    problems: int
    samples: int
    correct: int
    wrong: int
    no_answer: int
    truncated: int
    ungraded: int
    errors: int
    mean_tokens: float | None
    accuracy_low: float | None
    """Accuracy if every error and every missing verdict were wrong; mean over problems."""
    accuracy_high: float | None
    """And if every one were right."""


def summarise(pools: Sequence[PoolCounts], budgets: Iterable[int], seed: int) -> list[ResultRow]:
    """Rows for every level (then all), selector and budget; `seed` matters only where votes are resampled."""
    levels = _by_level(pools)
    wanted = sorted(set(budgets))
    methods = ((PASS, _pass_values), (MAJORITY, _majority_values))
    tables = {(selector, k): values(pools, k, seed) for selector, values in methods for k in wanted}
    return [
        _row(level, selector, k, tables[selector, k][members])
        for level, members in levels.items()
        for selector, _ in methods
        for k in wanted
    ]


def count_outcomes(pools: Sequence[PoolCounts]) -> list[CountRow]:
    """Counts for every level, then for all."""
    return [_count_row(level, [pools[i] for i in members]) for level, members in _by_level(pools).items()]


def to_json(rows: Sequence[ResultRow], counts: Sequence[CountRow]) -> dict[str, Any]:
    """Rows as plain values, ready for any JSON encoder; fractions in full precision."""
    return {
        "estimator_version": ESTIMATOR_VERSION,
        "results": [asdict(row) for row in rows],
        "counts": [asdict(row) for row in counts],
    }


def render(rows: Sequence[ResultRow], counts: Sequence[CountRow], width: int = 100) -> list[Table]:
    """Tables for a terminal of `width` columns: accuracy by level, counts by level.

    Where not all budgets fit, the first, the last and budgets evenly spaced between them (in the order of the
    list, so powers stay powers) are shown; no number is ever wrapped.
    """
    exact = _counts_table(counts, _whole)
    return [
        _widest_that_fits(rows, width),
        exact if _fits(exact, width) else _counts_table(counts, _short),
    ]


def _pass_values(pools: Sequence[PoolCounts], k: int, seed: int) -> FloatArray:
    """One (value, Monte Carlo error) a pool; NaN where the pool is too small."""
    n, c = (np.array(column, dtype=np.int64) for column in ([p.n for p in pools], [p.correct for p in pools]))
    values = pass_at_k(n, c, k)
    return np.stack((values, np.zeros_like(values)), axis=-1)


def _majority_values(pools: Sequence[PoolCounts], k: int, seed: int) -> FloatArray:
    missing = Estimate(math.nan)
    estimates = [majority_at_k(pool, k, seed) if pool.n >= k else missing for pool in pools]
    return np.array([(e.value, e.mc_error) for e in estimates], dtype=np.float64).reshape(-1, 2)


def _row(level: str, selector: str, budget: int, estimates: FloatArray) -> ResultRow:
    known = estimates[~np.isnan(estimates[:, 0])]
    mean = mean_over_problems(known[:, 0])
    return ResultRow(
        level=level,
        selector=selector,
        budget=budget,
        value=mean.value,
        std_error=mean.std_error,
        low=mean.low,
        high=mean.high,
        mc_error=float(np.sqrt((known[:, 1] ** 2).sum())) / max(1, mean.problems),
        problems=mean.problems,
        skipped=len(estimates) - mean.problems,
    )


def _count_row(level: str, pools: Sequence[PoolCounts]) -> CountRow:
    low, high = accuracy_bounds(pools) or (None, None)
    return CountRow(
        level=level,
        problems=len(pools),
        samples=sum(p.samples for p in pools),
        correct=sum(p.correct for p in pools),
        wrong=sum(p.wrong for p in pools),
        no_answer=sum(p.no_answer for p in pools),
        truncated=sum(p.truncated for p in pools),
        ungraded=sum(p.ungraded for p in pools),
        errors=sum(p.errors for p in pools),
        mean_tokens=mean_tokens(pools),
        accuracy_low=low,
        accuracy_high=high,
    )


def _by_level(pools: Sequence[PoolCounts]) -> dict[str, list[int]]:
    """Indices of the pools of each level, levels in natural order, all of them last; one level is none."""
    levels = sorted({pool.level for pool in pools}, key=_level_order)
    groups = {
        NO_LEVEL if level is None else level: [i for i, pool in enumerate(pools) if pool.level == level]
        for level in levels
    }
    return {**(groups if levels != [None] else {}), OVERALL: list(range(len(pools)))}


def _level_order(level: str | None) -> tuple[bool, bool, int, str]:
    text = level or ""
    is_number = text.isdecimal()
    return level is None, not is_number, int(text) if is_number else 0, text


def _widest_that_fits(rows: Sequence[ResultRow], width: int) -> Table:
    budgets = sorted({row.budget for row in rows})
    for count in range(len(budgets), 1, -1):
        table = _accuracy_table(rows, _spaced(budgets, count))
        if _fits(table, width):
            return table
    return _accuracy_table(rows, budgets[-1:])


def _fits(table: Table, width: int) -> bool:
    ruler = Console(width=10 * width)
    return Measurement.get(ruler, ruler.options, table).maximum <= width


def _spaced(values: Sequence[int], count: int) -> list[int]:
    """`count` >= 2 of the values, evenly spaced, both ends included."""
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _accuracy_table(rows: Sequence[ResultRow], budgets: Sequence[int]) -> Table:
    shown = [(s, k) for s in (PASS, MAJORITY) for k in budgets if (s, k) != (MAJORITY, 1)]  # equals pass@1
    columns = {key: [row for row in rows if (row.selector, row.budget) == key] for key in shown}
    table = _table("Accuracy by level", _accuracy_caption(rows))
    for (selector, budget), cells in columns.items():
        mark = "*" if any(row.skipped for row in cells) else ""
        style = "cyan" if selector == PASS else "green"
        table.add_column(Text(f"{selector}\n@{budget}{mark}", style), justify="right", no_wrap=True)
    texts = zip(*(_accuracy_cells(cells) for cells in columns.values()), strict=True)
    for level, line in zip(dict.fromkeys(row.level for row in rows), texts, strict=True):
        _add_row(table, level, line)
    return table


def _accuracy_cells(rows: Sequence[ResultRow]) -> list[Text]:
    """A column: values aligned on the point, intervals dim beside them."""
    intervals = [_interval(row) for row in rows]
    room = max(map(len, intervals))
    return [
        Text(NOTHING, "dim")
        if row.value is None
        else Text.assemble(f"{100 * row.value:.1f}", (half.rjust(room), "dim"))
        for row, half in zip(rows, intervals, strict=True)
    ]


def _interval(row: ResultRow) -> str:
    """Larger side of the interval, since the other may be cut at 0 or 1; nothing where the problems agree."""
    if row.value is None or row.low is None or row.high is None or not row.std_error:
        return ""
    return f" ±{100 * max(row.high - row.value, row.value - row.low):.1f}"


def _accuracy_caption(rows: Sequence[ResultRow]) -> str:
    notes = ["Percent, ± half of the 95% interval over problems."]
    if any(row.skipped for row in rows):
        notes.append("* Without the problems that have fewer samples.")
    resampling = max((row.mc_error for row in rows), default=0.0)
    if resampling:
        notes.append(f"Votes partly resampled: Monte Carlo error up to {100 * resampling:.2f}.")
    return " ".join(notes)


def _counts_table(counts: Sequence[CountRow], number: Callable[[float | None], str]) -> Table:
    table = _table("Samples by level", _bounds_caption(counts))
    columns = [c for c in COUNT_COLUMNS if c.is_always_shown or any(getattr(row, c.field) for row in counts)]
    for column in columns:
        table.add_column(Text(column.header, column.style), justify="right", no_wrap=True)
    for row in counts:
        _add_row(table, row.level, (_count_cell(number(getattr(row, c.field)), c.style) for c in columns))
    return table


def _count_cell(text: str, style: str) -> Text:
    return Text(text, "dim" if text in ("0", NOTHING) else style)


def _whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _short(value: float | None) -> str:
    if value is None or value < 10_000:
        return _whole(value)
    return f"{value / 1e3:,.0f}k" if value < 1e6 else f"{value / 1e6:,.1f}M"


def _bounds_caption(counts: Sequence[CountRow]) -> str | None:
    """What accuracy could be at most and at least, where some samples say nothing about the model."""
    whole = counts[-1] if counts else None
    if whole is None or whole.accuracy_low is None or not whole.errors + whole.ungraded:
        return None
    bounds = f"{100 * whole.accuracy_low:.1f} and {100 * (whole.accuracy_high or 0.0):.1f}"
    return f"Were all errors and missing verdicts wrong, or all right, pass@1 would be {bounds}."


def _table(title: str, caption: str | None) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("\nlevel", no_wrap=True)
    return table


def _add_row(table: Table, level: str, cells: Iterable[Text]) -> None:
    if level == OVERALL:
        table.add_section()
    table.add_row(level, *cells, style="bold" if level == OVERALL else None)
