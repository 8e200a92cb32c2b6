"""Tables of vote scaling: all numbers there, none cut, within eighty columns."""

from __future__ import annotations

from io import StringIO

import numpy as np
from rich.console import Console
from rich.measure import Measurement

from orchestrator.analysis.vote_scaling.pools import VotePool
from orchestrator.analysis.vote_scaling.scaling import VoteScaling, scale_votes
from orchestrator.analysis.vote_scaling.tables import render

KS = (2, 3, 20, 101, 1000)


def scaled(is_filtered: bool, problems: int = 12, training: tuple[int, ...] = (2, 20, 100)) -> VoteScaling:
    rng = np.random.default_rng(8)
    samples = rng.integers(0, 3, size=(problems, 1000)).tolist()
    passed = (rng.random((problems, 1000)) < 0.5).tolist() if is_filtered else [None] * problems
    pools = [VotePool.of_votes(i, v, {0}, p) for i, (v, p) in enumerate(zip(samples, passed, strict=True))]
    few = [
        VotePool.of_votes(i, v[:30], {0}, p and p[:30])
        for i, (v, p) in enumerate(zip(samples, passed, strict=True))
    ]
    return scale_votes(pools, few, ks=KS, training_ks=training)


def printed(scaling: VoteScaling, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    for table in render(scaling):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_nothing_is_cut_in_eighty_columns() -> None:
    scaling = scaled(is_filtered=True)
    assert "…" not in printed(scaling)
    ruler = Console(width=1000)
    for table in render(scaling):
        table.caption = None  # wraps
        assert Measurement.get(ruler, ruler.options, table).maximum <= 80


def test_every_row_is_shown() -> None:
    scaling = scaled(is_filtered=True)
    lines = printed(scaling).splitlines()
    for system in ("vote", "filter-vote"):
        rows = [line.split() for line in lines if line.split()[:1] == [system]]
        assert len(rows) == 2 + 4 + len(KS) + 2
        assert [row[1] for row in rows if row[1].rstrip("*").isdigit()] == ["2*", "3", "20*", "101", "1000"]


def test_numbers_are_percent_and_errors_are_points() -> None:
    scaling = scaled(is_filtered=False)
    text = printed(scaling)
    (row,) = [row for row in scaling.curves if row.k == 101]
    (line,) = [line for line in text.splitlines() if line.split()[:2] == ["vote", "101"]]
    shown = [float(cell) for cell in line.replace("±", " ").split()[2:]]
    values = [
        row.measured,
        (row.high or 0) - row.measured,
        row.binary_model,
        row.duel_model,
        row.leaking,
        row.fair,
    ]
    assert shown[0] == round(100 * values[0], 1)
    assert [shown[i] for i in range(2, 7)] == [round(100 * v, 1) for v in (*values[2:], row.unfitted)]
    (line,) = [line for line in text.splitlines() if "rms error" in line]
    wanted = [round(100 * row.mean_squared_error**0.5, 2) for row in scaling.errors]
    assert [float(cell) for cell in line.split()[3:]] == wanted


def test_the_caption_says_where_the_training_points_come_from() -> None:
    scaling = scaled(is_filtered=False)
    assert "accuracies are exact" in " ".join(printed(scaling).split())


def test_a_single_problem_and_no_error_have_their_tables_too() -> None:
    text = printed(scaled(is_filtered=False, problems=1, training=KS))
    assert "rms error" not in text
    assert "–" in text  # one of the two kinds of problem is missing, so is its rate
