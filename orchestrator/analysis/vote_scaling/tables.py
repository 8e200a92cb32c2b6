"""Vote scaling as terminal tables. Pure: rows in, tables out; must not compute what the rows do not hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.results_tables import NOTHING
from orchestrator.analysis.vote_scaling.model import Regime
from orchestrator.analysis.vote_scaling.pools import System
from orchestrator.analysis.vote_scaling.scaling import (
    PREDICTIONS,
    CurveRow,
    ErrorRow,
    ModelRow,
    Source,
    SplitRow,
    VoteScaling,
)

SYSTEM_NAMES = {System.VOTE: "vote", System.FILTER_VOTE: "filter-vote"}
SOURCE_NAMES = {Source.POOL: "all", Source.CALLS: "first"}
SPLIT_HEADERS = (
    "\nsamples",
    "\neasy",
    "\nhard",
    "\ntied",
    "un-\nsettled",
    "endless\ncalls",
    "\nfrom",
    "\nto",
)
MODEL_HEADERS = ("\nsamples", "\nrates", "easy\nshare", "\np1", "\np2", "\nshape", "\nK*", "best\nK")
CURVE_HEADERS = (
    "\nK",
    "\nmeasured",
    "binary\nmodel",
    "duel\nmodel",
    "fit,\nleaking",
    "fit,\nfair",
    "no\nfit",
)


def render(scaling: VoteScaling) -> list[Table]:
    """Three tables within 80 columns: easy and hard problems, the models, the curves with their errors."""
    return [_split_table(scaling.splits), _model_table(scaling.models), _curve_table(scaling)]


def _split_table(splits: Sequence[SplitRow]) -> Table:
    caption = (
        "Percent with endless calls, ± half of the 95% interval over problems; from, to: were all unsettled"
        " problems (each at 95%) hard, or all easy."
    )
    table = _table("Easy and hard problems", SPLIT_HEADERS, caption)
    for row in splits:
        found, limit = row.split, row.split.limit
        table.add_row(
            SYSTEM_NAMES[row.system],
            f"{SOURCE_NAMES[row.source]} {row.mean_samples:.0f}",
            *(str(count) for count in (found.easy, found.hard, found.tied, found.unsettled)),
            _with_interval(limit.value, limit.low, limit.high),
            _percent(found.limit_low),
            _percent(found.limit_high),
            end_section=row.source is Source.CALLS,
        )
    return table


def _model_table(models: Sequence[ModelRow]) -> Table:
    caption = "Binary: right or not. Duel: right against its strongest rival. K in calls."
    table = _table("Two-level models", MODEL_HEADERS, caption)
    for row in models:
        model = row.model
        table.add_row(
            SYSTEM_NAMES[row.system],
            SOURCE_NAMES[row.source],
            row.rates.value,
            _percent(model.easy_share),
            _percent(model.easy_rate) if model.easy_share > 0 else NOTHING,
            _percent(model.hard_rate) if model.easy_share < 1 else NOTHING,
            row.regime.value,
            NOTHING if row.k_star is None or row.regime is not Regime.RISE_THEN_FALL else f"{row.k_star:.1f}",
            "endless" if row.best_k is None else str(row.best_k),
        )
    return table


def _curve_table(scaling: VoteScaling) -> Table:
    table = _table("Accuracy by calls", CURVE_HEADERS, _curve_caption(scaling))
    for system in dict.fromkeys(row.system for row in scaling.curves):
        for row in scaling.curves:
            if row.system is system:
                _add_point(table, row)
        errors = [row for row in scaling.errors if row.system is system]
        if errors:
            table.add_section()
            squares = [math.sqrt(row.mean_squared_error) for row in errors]
            _add_errors(table, errors[0], "rms error", squares)
            _add_errors(table, errors[0], "worst", [row.worst_error for row in errors])
        table.add_section()
    return table


def _add_point(table: Table, row: CurveRow) -> None:
    measured = _with_interval(row.measured, row.low, row.high)
    predicted = [_percent(getattr(row, name)) for name in PREDICTIONS]
    table.add_row(SYSTEM_NAMES[row.system], f"{row.k}{'*' if row.is_training else ''}", measured, *predicted)


def _add_errors(table: Table, row: ErrorRow, name: str, values: Sequence[float]) -> None:
    cells = [f"{100 * value:.2f}" for value in values]
    table.add_row(SYSTEM_NAMES[row.system], "", name, *cells, style="dim")


def _curve_caption(scaling: VoteScaling) -> str:
    points = "exact" if scaling.resamples is None else f"means of {scaling.resamples} draws"
    return (
        "Percent, ± half of the 95% interval over problems. Predicted from the first calls of each problem, whose"
        f" accuracies are {points}; leaking: easy and hard as in the pool. * Fitted here, not in the errors."
    )


def _table(title: str, headers: Sequence[str], caption: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("\nsystem", no_wrap=True)
    words = {"\nsamples", "\nrates", "\nshape"}
    for header in headers:
        table.add_column(header, justify="left" if header in words else "right", no_wrap=True)
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _with_interval(value: float | None, low: float | None, high: float | None) -> Text:
    """The larger side of the interval, since the other may be cut at 0 or 1."""
    if value is None:
        return Text(NOTHING, "dim")
    if low is None or high is None or low == high:
        return Text(_percent(value))
    return Text.assemble(_percent(value), (f" ±{_percent(max(high - value, value - low)):>4}", "dim"))
