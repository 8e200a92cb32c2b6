"""How widths are shared out: conservation, order, ties, and the worked examples."""

from __future__ import annotations

import math
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.strategies.allocation import (
    RebaseRule,
    beam_widths,
    ranking,
    rebase_widths,
    spread,
    subtree_widths,
)

TIED = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5 + 2**-50, 0.9, 1.0])
SCORES = st.lists(st.floats(0, 1) | TIED, min_size=1, max_size=64)
WIDTHS = st.integers(0, 300)
TEMPERATURES = st.floats(0.01, 1.0)


@pytest.mark.parametrize(
    ("scores", "temperature", "paper", "code"),
    [
        ([0.9, 0.8, 0.5, 0.2], 0.1, [12, 4, 0, 0], [12, 4, 0, 0]),
        ([0.9, 0.8, 0.5, 0.2], 0.2, [9, 5, 1, 0], [10, 5, 1, 0]),
        ([0.95, 0.9, 0.9, 0.85, 0.6, 0.3], 0.1, [6, 4, 4, 2, 0, 0], [7, 4, 4, 1, 0, 0]),
        ([0.95, 0.9, 0.9, 0.85, 0.6, 0.3], 0.2, None, [5, 4, 4, 3, 0, 0]),
    ],
)
def test_worked_examples(
    scores: list[float], temperature: float, paper: list[int] | None, code: list[int]
) -> None:
    rounded = rebase_widths(scores, 16, temperature, RebaseRule.ROUND)
    assert rounded == paper or (paper is None and sum(rounded) == 17)
    assert rebase_widths(scores, 16, temperature) == code


def test_the_paper_rule_does_not_conserve() -> None:
    assert sum(rebase_widths([0.9, 0.8, 0.5, 0.2], 16, 0.2, RebaseRule.ROUND)) == 15
    assert rebase_widths([0.5] * 8, 3, 0.1, RebaseRule.ROUND) == [0] * 8


@pytest.mark.parametrize("score", [0.1, 0.3, 0.5, 0.7, 1 / 3])
def test_equal_scores_share_as_evenly_as_integers_allow(score: float) -> None:
    assert rebase_widths([score] * 3, 4, 0.1) == [2, 1, 1]
    assert rebase_widths([score] * 3, 6, 0.1) == [2, 2, 2]
    for count in range(1, 40):
        for width in range(80):
            assert rebase_widths([score] * count, width, 0.01) == spread(width, count)


@given(SCORES, WIDTHS, TEMPERATURES)
def test_sequential_conserves_and_follows_the_scores(
    scores: list[float], width: int, temperature: float
) -> None:
    widths = rebase_widths(scores, width, temperature)
    assert sum(widths) == width
    assert all(0 <= n <= width for n in widths)
    ranked = [widths[index] for index in ranking(scores)]
    assert all(better >= worse for better, worse in pairwise(ranked))


@given(SCORES, WIDTHS, TEMPERATURES)
def test_ties_differ_by_at_most_one(scores: list[float], width: int, temperature: float) -> None:
    pairs = sorted(zip(scores, rebase_widths(scores, width, temperature), strict=True))
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        shares = [share for _, share in group]
        assert max(shares) - min(shares) <= 1


@given(st.data(), SCORES, WIDTHS, TEMPERATURES, st.sampled_from(RebaseRule))
def test_the_order_given_decides_nothing_but_ties(
    data: st.DataObject, scores: list[float], width: int, temperature: float, rule: RebaseRule
) -> None:
    order = data.draw(st.permutations(range(len(scores))))
    widths = rebase_widths(scores, width, temperature, rule)
    shuffled = rebase_widths([scores[index] for index in order], width, temperature, rule)
    by_score = sorted(zip(scores, widths, strict=True))
    assert sorted(zip([scores[index] for index in order], shuffled, strict=True)) == by_score


@given(SCORES, WIDTHS, TEMPERATURES)
def test_a_share_is_never_less_than_what_rounding_up_leaves(
    scores: list[float], width: int, temperature: float
) -> None:
    best = max(scores)
    weights = [math.exp((score - best) / temperature) for score in scores]
    first = ranking(scores)[0]
    assert rebase_widths(scores, width, temperature)[first] == math.ceil(width / math.fsum(weights) - 1e-9)


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 0.001, 0.01, 1.0, 1e9, math.inf])
def test_no_temperature_is_too_cold_or_too_hot(temperature: float) -> None:
    scores = [1.0, 0.0, 1.0, 0.5, 1.0 - 2**-53]
    assert sum(rebase_widths(scores, 64, temperature)) == 64
    assert all(0 <= n <= 64 for n in rebase_widths(scores, 64, temperature, RebaseRule.ROUND))


@pytest.mark.parametrize("rule", RebaseRule)
def test_nothing_to_share_or_nobody_to_share_with(rule: RebaseRule) -> None:
    assert rebase_widths([], 16, 0.1, rule) == []
    assert rebase_widths([0.3, 0.9], 0, 0.1, rule) == [0, 0]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_refuses_scores_that_are_no_numbers(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        rebase_widths([0.5, score], 4, 0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        rebase_widths([0.5], 4, temperature)


def test_refuses_a_negative_width() -> None:
    with pytest.raises(ValueError, match="width"):
        rebase_widths([0.5], -1, 0.1)


@pytest.mark.parametrize(
    ("open_nodes", "width", "expansion", "widths"),
    [
        (16, 16, 4, [4, 4, 4, 4]),
        (4, 4, 4, [4]),
        (3, 3, 4, [3]),
        (10, 10, 4, [5, 5]),
        (11, 11, 4, [6, 5]),
        (7, 7, 4, [7]),
        (16, 15, 4, [5, 5, 5]),
        (2, 16, 4, [8, 8]),
        (3, 16, 4, [6, 5, 5]),
        (16, 16, 1, [1] * 16),
        (5, 1, 4, [1]),
        (0, 16, 4, []),
        (5, 0, 4, []),
    ],
)
def test_beam_keeps_the_best_and_spreads_the_rest(
    open_nodes: int, width: int, expansion: int, widths: list[int]
) -> None:
    assert beam_widths(open_nodes, width, expansion) == widths


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_beam_conserves(open_nodes: int, width: int, expansion: int) -> None:
    widths = beam_widths(open_nodes, width, expansion)
    assert sum(widths) == width
    assert 1 <= len(widths) <= open_nodes
    assert max(widths) - min(widths) <= 1
    assert sorted(widths, reverse=True) == widths
    if width % expansion == 0 and open_nodes >= width // expansion:
        assert widths == [expansion] * (width // expansion)


def test_beam_refuses_an_expansion_below_one() -> None:
    with pytest.raises(ValueError, match="expansion"):
        beam_widths(4, 4, 0)


@pytest.mark.parametrize(
    ("width", "expansion", "widths"),
    [(16, 4, [4, 4, 4, 4]), (4, 4, [4]), (2, 4, [2]), (10, 4, [5, 5]), (3, 1, [1, 1, 1])],
)
def test_dvts_deals_the_width_to_its_subtrees(width: int, expansion: int, widths: list[int]) -> None:
    assert subtree_widths(width, expansion) == widths
