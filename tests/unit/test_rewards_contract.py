"""The contract of scorers: one probability a step, found by its place; nothing wrong passes."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import MalformedReply
from workers.rewards.contract import BrokenContract, settled, sigmoid
from workers.rewards.records import Solution

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3))
ROWS = st.lists(st.one_of(CELLS, st.lists(CELLS, max_size=3)), max_size=4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([0.25, 1, 0], (0.25, 1.0, 0.0)),
        ([[0.25], [1.0]], (0.25, 1.0)),
        ([[0.75, 0.25], [0.0, 1.0], [1.0, 0.0]], (0.25, 1.0, 0.0)),
        ([1.0000001, -1e-7, 1.00001], (1.0, 0.0, 1.0)),
        ([0.123456789], (0.1234568,)),
        ([[0.0006361007690429688, 0.99951171875]], (0.9995117,)),
    ],
)
def test_rows_of_one_value_and_of_two_classes(rows: list[Any], expected: tuple[float, ...]) -> None:
    assert settled(rows, len(expected), is_logit=False) == expected


@pytest.mark.parametrize(
    ("rows", "count", "told"),
    [
        ([], 1, "no score came for 1 step"),
        ([], 3, "no score came for 3 steps"),
        ([0.5], 2, "1 score came for 2 steps"),
        ([0.5] * 380_160, 5, "380160 scores came for 5 steps"),
        ([0.5, 1.7], 2, "step 2: the score 1.7 is outside of [0, 1]"),
        ([-0.2], 1, "-0.2 is outside"),
        ([NESTED], 1, "step 1: the score [a list] is no finite number"),
        ([{"x": 1}], 1, "step 1: the score a dict is no finite number"),
        (["9" * 10_000], 1, "is no finite number"),
        ([1.0001], 1, "1.0001 is outside"),
        ([math.nan], 1, "nan is no finite number"),
        ([math.inf], 1, "inf is no finite number"),
        ([None], 1, "None is no finite number"),
        ([True], 1, "True is no finite number"),
        (["0.5"], 1, "'0.5' is no finite number"),
        ([10**400], 1, "is no finite number"),
        ([[]], 1, "0 values came where 1 or 2 are wanted"),
        ([[0.1] * 4096], 1, "4096 values came where 1 or 2 are wanted: is the model served with its head?"),
        ([[1.2, 0.3]], 1, "the two classes [1.2, 0.3] do not add up to 1: raw logits, or another head"),
        ([[-18.4, -0.09]], 1, "do not add up to 1"),
        ([[0.1, math.nan]], 1, "no finite number"),
    ],
)
def test_what_breaks_the_contract_is_named(rows: list[Any], count: int, told: str) -> None:
    with pytest.raises(BrokenContract) as caught:
        settled(rows, count, is_logit=False)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 250


def test_an_exact_zero_is_a_score_and_shifts_nothing() -> None:
    """The model card's snippet keeps `probs[probs != 0]`: one underflow, and every later score is another's."""
    rows = [[0.0, 1.0], [1.0, 0.0], [0.25, 0.75]]
    snippet = [value for row in rows for value in row if value != 0]
    assert snippet[1::2] != [1.0, 0.0, 0.75]
    assert settled(rows, 3, is_logit=False) == (1.0, 0.0, 0.75)


def test_raw_logits_are_taken_as_such_where_they_are_announced() -> None:
    assert settled([[-18.409692764282227, -0.09697936475276947]], 1, is_logit=True) == (1.0,)
    assert settled([0.0, [1.0, 1.0], [0.5344481468200684]], 3, is_logit=True) == (0.5, 0.5, 0.63052)
    with pytest.raises(BrokenContract):
        settled([[0.1, 0.2, 0.3]], 1, is_logit=True)


@given(FINITE)
def test_the_sigmoid_is_a_probability_and_symmetric(logit: float) -> None:
    assert 0.0 <= sigmoid(logit) <= 1.0
    assert sigmoid(logit) == pytest.approx(1.0 - sigmoid(-logit), abs=1e-15)


@given(ROWS, st.integers(1, 4), st.booleans())
def test_whatever_comes_only_probabilities_pass(rows: list[Any], count: int, is_logit: bool) -> None:
    try:
        values = settled(rows, count, is_logit=is_logit)
    except BrokenContract:
        return
    assert len(values) == count
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in values)


def test_a_broken_contract_is_a_malformed_reply_that_survives_pickle() -> None:
    error = BrokenContract("1 score came for 2 steps")
    assert isinstance(error, MalformedReply)
    assert (error.kind, error.retryable) == ("broken_contract", True)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("steps", [(), ("",), ("one\n\n", " \n")])
def test_a_solution_without_steps_or_with_a_blank_one_is_none(steps: tuple[str, ...]) -> None:
    """The empty last step of `"s1\\n\\ns2\\n\\n".split("\\n\\n")` would be scored as a step of its own."""
    with pytest.raises(ValueError, match="blank"):
        Solution(steps)
