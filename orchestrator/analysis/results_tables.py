"""Results as terminal tables. Pure: rows in, tables out; must not compute what the rows do not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.estimation.selectors import Kind
from orchestrator.analysis.results import OVERALL, CountRow, DifferenceRow, ResultRow, StrategyResults
from orchestrator.analysis.search_costs import Axis, CostRow, by_cost, frontier

NOTHING = "–"
STYLES = {Kind.PASS: "cyan", Kind.MAJORITY: "green"}


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


def render(found: StrategyResults, width: int = 100) -> list[Table]:
    """Tables for a terminal of `width` columns: accuracy by budget and by level, differences, counts.

    Where not all budgets fit, the first, the last and budgets evenly spaced between them (in the order of the
    list, so powers stay powers) are shown; no number is ever wrapped.
    """
    exact = _counts_table(found.counts, _whole)
    overall = [row for row in found.rows if row.level == OVERALL]
    compared = {row.selector for row in found.differences if row.value is not None} - {Kind.PASS}
    against = [row for row in found.differences if row.level == OVERALL and row.selector in compared]
    tables = [_budget_table("Accuracy", overall, _accuracy_caption(overall), _accuracy, width)]
    if len(found.levels) > 1 and any(row.value is not None for row in overall):
        tables.append(_level_table(found.rows, width))
    if against:
        caption = "Points, ± half of the 95% interval of the paired difference on the same problems."
        tables.append(
            _budget_table(f"More accurate than {against[0].other}", against, caption, _points, width)
        )
    return [*tables, exact if _fits(exact, width) else _counts_table(found.counts, _short)]


def first_k_table(rows: Sequence[ResultRow], width: int) -> Table:
    """What the first k samples come to."""
    overall = [row for row in rows if row.level == OVERALL]
    caption = "One draw, not an estimate: percent of problems that the first k samples of each answer right."
    return _budget_table("The first k samples", overall, caption, _bare_accuracy, width)


def difference_table(rows: Sequence[DifferenceRow]) -> Table:
    """One paired comparison, by level."""
    first = rows[0]
    title = f"{first.selector} at {first.budget} minus {first.other} at {first.other_budget}"
    caption = "Points, ± half of the 95% interval of the paired difference on the same problems."
    table = _table(title, "level", caption)
    for header in ("difference", "low", "high", "problems"):
        table.add_column(Text(header), justify="right", no_wrap=True)
    for row in rows:
        ends = (NOTHING if end is None else f"{100 * end:+.1f}" for end in (row.low, row.high))
        _add_row(table, row.level, (_points(row, 0), *map(Text, ends), Text(f"{row.problems:,}")))
    return table


def cost_table(rows: Sequence[CostRow], width: int = 100, axis: Axis | None = None) -> Table:
    """What each strategy spends a problem at each budget, beside its accuracy by as many selectors as fit.

    With an axis the cheapest comes first, and what is right more often than all that is cheaper is marked.
    """
    rows = list(rows) if axis is None else by_cost(rows, axis)
    selectors = list(dict.fromkeys(each.selector for row in rows for each in row.accuracies))
    tables = (_costs_across(rows, selectors[:count], axis) for count in range(len(selectors), 0, -1))
    return next((table for table in tables if _fits(table, width)), _costs_across(rows, selectors[:1], axis))


def _costs_across(rows: Sequence[CostRow], selectors: Sequence[str], axis: Axis | None) -> Table:
    caption = (
        "Means a problem. Drawn: steps, and of independent samples whole solutions. FLOPs: of the tokens that the "
        "policy generated; in all: with what policy and scorer read. Then the percent of problems answered right."
    )
    best = {each: frontier(rows, axis, each) if axis else set() for each in selectors}
    if axis is not None:
        caption += f" The cheapest first, by {axis}; *: right more often than all that is cheaper."
    table = _table("Accuracy and cost", "\nstrategy", caption)
    headers = ["\ndrawn", "\ntokens", "dis-\ncarded", "scorer\ntokens", "\nFLOPs", "\nin all", "\nseconds"]
    headers += [each.replace(":", ":\n", 1) if ":" in each else f"\n{each}" for each in selectors]
    for header in headers:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for row in rows:
        _add_row(
            table,
            f"{row.strategy}@{row.budget}",
            (
                Text(f"{row.generations:,.0f}"),
                Text(f"{row.tokens:,.0f}"),
                _or_nothing(row.discarded, ".0%"),
                _or_nothing(row.scorer_tokens, ",.0f"),
                _or_nothing(row.policy_flops, ".1e"),
                _or_nothing(row.all_flops, ".1e"),
                _or_nothing(row.seconds, ".1f"),
                *(_share(row, each, best[each], is_marked=axis is not None) for each in selectors),
            ),
        )
    return table


def _share(row: CostRow, selector: str, best: AbstractSet[tuple[str, int]], *, is_marked: bool) -> Text:
    value = row.accuracy(selector)
    if value is None:
        return Text(NOTHING, "dim")
    is_best = (row.strategy, row.budget) in best
    mark = ("*" if is_best else " ") if is_marked else ""
    return Text(f"{100 * value:.1f}{mark}", "bold" if is_best else "")


def _or_nothing(value: float | None, form: str) -> Text:
    return Text(NOTHING, "dim") if value is None else Text(format(value, form))


Cell = Callable[..., Text]
"""Makes the text of a row; the second argument is the width its interval is padded to."""


def _budget_table(
    title: str,
    rows: Sequence[ResultRow | DifferenceRow],
    caption: str,
    cell: Cell,
    width: int,
) -> Table:
    """Selectors down, budgets across, as many as fit."""
    budgets = sorted({row.budget for row in rows if row.value is not None}) or [1]
    for count in range(len(budgets), 1, -1):
        table = _budgets_across(title, rows, _spaced(budgets, count), caption, cell)
        if _fits(table, width):
            return table
    return _budgets_across(title, rows, budgets[-1:], caption, cell)


def _budgets_across(
    title: str,
    rows: Sequence[ResultRow | DifferenceRow],
    budgets: Sequence[int],
    caption: str,
    cell: Cell,
) -> Table:
    cells = {(row.selector, row.budget): row for row in rows}
    selectors = list(dict.fromkeys(row.selector for row in rows))
    table = _table(title, "selector", caption)
    columns = []
    for budget in budgets:
        column = [cells[selector, budget] for selector in selectors]
        mark = "*" if any(getattr(row, "skipped", 0) for row in column) else ""
        table.add_column(Text(f"@{budget}{mark}"), justify="right", no_wrap=True)
        columns.append(_column(column, cell))
    for selector, line in zip(selectors, zip(*columns, strict=True), strict=True):
        table.add_row(Text(selector, _style(selector)), *line)
    return table


def _level_table(rows: Sequence[ResultRow], width: int) -> Table:
    """Selectors down, levels across, each at its largest budget; with intervals, or decimals, if they fit."""
    known = [row for row in rows if row.level == OVERALL and row.value is not None]
    largest = {row.selector: row.budget for row in known}
    ways = list(largest.items())
    if (Kind.PASS, 1) not in ways and any((row.selector, row.budget) == (Kind.PASS, 1) for row in known):
        ways.insert(0, (Kind.PASS, 1))
    tables = [_levels_across(rows, ways, cell) for cell in (_accuracy, _bare_accuracy, _whole_accuracy)]
    return next((table for table in tables if _fits(table, width)), tables[-1])


def _levels_across(rows: Sequence[ResultRow], ways: Sequence[tuple[str, int]], cell: Cell) -> Table:
    cells = {(row.selector, row.budget, row.level): row for row in rows}
    table = _table("Accuracy by level", "selector", None)
    columns = []
    for level in dict.fromkeys(row.level for row in rows):
        column = [cells[selector, budget, level] for selector, budget in ways]
        mark = "*" if any(row.skipped for row in column) else ""
        table.add_column(
            Text(f"{level}{mark}", "bold" if level == OVERALL else ""), justify="right", no_wrap=True
        )
        columns.append(_column(column, cell))
    for (selector, budget), line in zip(ways, zip(*columns, strict=True), strict=True):
        table.add_row(Text(f"{selector}@{budget}", _style(selector)), *line)
    return table


def _column(rows: Sequence[ResultRow | DifferenceRow], cell: Cell) -> list[Text]:
    """A column: values aligned on the point, intervals dim beside them."""
    room = max(len(_interval(row)) for row in rows)
    return [cell(row, room) for row in rows]


def _accuracy(row: ResultRow, room: int) -> Text:
    if row.value is None:
        return Text(NOTHING, "dim")
    return Text.assemble(f"{100 * row.value:.1f}", (_interval(row).rjust(room), "dim"))


def _bare_accuracy(row: ResultRow, room: int) -> Text:
    return Text(NOTHING, "dim") if row.value is None else Text(f"{100 * row.value:.1f}")


def _whole_accuracy(row: ResultRow, room: int) -> Text:
    return Text(NOTHING, "dim") if row.value is None else Text(f"{100 * row.value:.0f}")


def _points(row: DifferenceRow, room: int) -> Text:
    if row.value is None:
        return Text(NOTHING, "dim")
    is_sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
    style = ("green" if row.value > 0 else "red") if is_sure else ""
    return Text.assemble((f"{100 * row.value:+.1f}", style), (_interval(row).rjust(room), "dim"))


def _interval(row: ResultRow | DifferenceRow) -> str:
    """Larger side of the interval, since the other may be cut; nothing where the problems agree."""
    if row.value is None or row.low is None or row.high is None or not row.std_error:
        return ""
    return f" ±{100 * max(row.high - row.value, row.value - row.low):.1f}"


def _accuracy_caption(rows: Sequence[ResultRow]) -> str:
    notes = ["Percent of problems, ± half of the 95% interval over problems."]
    if any(row.skipped for row in rows):
        notes.append("* Without the problems that have fewer samples, or no scores.")
    resampling = max((row.mc_error for row in rows), default=0.0)
    if resampling:
        notes.append(f"Partly resampled: Monte Carlo error up to {100 * resampling:.2f}.")
    return " ".join(notes)


def _counts_table(counts: Sequence[CountRow], number: Callable[[float | None], str]) -> Table:
    table = _table("Samples by level", "\nlevel", _bounds_caption(counts))
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


def _style(selector: str) -> str:
    return next((style for kind, style in STYLES.items() if selector == kind), "")


def _fits(table: Table, width: int) -> bool:
    ruler = Console(width=10 * width)
    return Measurement.get(ruler, ruler.options, table).maximum <= width


def _spaced(values: Sequence[int], count: int) -> list[int]:
    """`count` >= 2 of the values, evenly spaced, both ends included."""
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _table(title: str, first: str, caption: str | None) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column(first, no_wrap=True)
    return table


def _add_row(table: Table, level: str, cells: Iterable[Text]) -> None:
    if level == OVERALL:
        table.add_section()
    table.add_row(level, *cells, style="bold" if level == OVERALL else None)
