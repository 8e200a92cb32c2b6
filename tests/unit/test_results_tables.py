"""Tables of results: all numbers there, none cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from orchestrator.analysis.comparison import compare, parse_way
from orchestrator.analysis.results import OVERALL, CountRow, StrategyResults, first_k
from orchestrator.analysis.results_tables import difference_table, first_k_table, render
from tests.unit.test_results import POOLS, ballots, find, found


def printed(tables: Sequence[Table], width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def line_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [start]]
    return line.split()[1:]


def test_every_selector_has_a_row_and_every_budget_a_column() -> None:
    text = printed(render(found(POOLS, [1, 2])))
    accuracy, rest = text.split("Accuracy by level")
    assert line_of(accuracy, "selector") == ["@1*", "@2"] or line_of(accuracy, "selector") == ["@1", "@2"]
    row = find(found(POOLS, [1, 2]).rows, OVERALL, "pass", 2)
    assert row.value is not None
    assert line_of(accuracy, "pass")[2] == f"{100 * row.value:.1f}"
    by_level, rest = rest.split("More accurate than majority")
    assert line_of(by_level, "selector") == ["1", "2", "10", "all"]
    assert [line.split()[0] for line in by_level.splitlines() if "@" in line] == [
        "pass@1", "pass@2", "majority@2", "best-of-n:prm@2",
    ]  # fmt: skip
    differences, _ = rest.split("Samples by level")
    assert [line.split()[0] for line in differences.splitlines() if ":" in line] == ["best-of-n:prm"]


def test_problems_with_too_few_samples_are_marked() -> None:
    assert "@4*" in printed(render(found(POOLS, [1, 4])))


def test_one_level_needs_no_table_of_levels() -> None:
    text = printed(render(found([ballots(1, None, 1, 1), ballots(2, None, 1, 1)], [1])))
    assert "Accuracy by level" not in text


def test_nothing_stored_is_shown_as_that() -> None:
    assert OVERALL in printed(render(found([], [1, 4])))


def test_problems_of_which_nothing_can_be_said_are_marked_and_counted() -> None:
    text = printed(render(found([ballots(1, "1", 0, 0), ballots(2, "2", 0, 0)], [1, 4])))
    assert "@1*" in text
    assert "Accuracy by level" not in text
    assert line_of(text.split("Samples by level")[1], OVERALL)[0] == "2"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_table_fits_and_cuts_nothing(width: int) -> None:
    pools = [ballots(i, str(i % 5 + 1), 900 + 7 * i, 1148 - 7 * i) for i in range(40)]
    text = printed(render(found(pools, [2**i for i in range(12)]), width), width)
    tables = text.split("Samples by level")[0]
    assert "…" not in tables
    assert max(map(len, tables.splitlines())) <= width
    assert "@1 " in tables
    assert tables.count("@2048") >= 2


def _with_counts(counts: list[CountRow]) -> StrategyResults:
    return replace(found(POOLS, [1]), counts=counts)


def test_millions_of_samples_fit_100_columns() -> None:
    counts = (1_024_000_000, 912_345_600, 912_312_300, 112_312_300, 112_345_600, 91_234_500, 92_345_600)
    huge = [CountRow(level, 500, *counts, 1234.5, 0.3, 0.5) for level in ("1", OVERALL)]
    text = printed(render(_with_counts(huge)))
    assert "…" not in text
    assert "1,024.0M" in text
    assert "pass@1 would be 30.0 and 50.0" in " ".join(text.split())


def test_a_comparison_shows_both_ends() -> None:
    rows = compare([found(POOLS, [1, 2])], parse_way("pass@2"), parse_way("pass@1"))
    text = printed([difference_table(rows)])
    assert "pass at 2 minus pass at 1" in text
    assert line_of(text, OVERALL)[0] == "+12.5"
    assert line_of(text, OVERALL)[-1] == "4"


def test_the_first_k_are_called_what_they_are() -> None:
    text = printed([first_k_table(first_k(found(POOLS, [1, 2])), 100)])
    assert "not an estimate" in " ".join(text.split())
    assert line_of(text, "pass") == ["75.0", "75.0"]
