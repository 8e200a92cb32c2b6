"""Steps: the spans give back the text, none is blank, and scores aggregate as the papers do it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.steps import Aggregation, aggregate, spans, step_ends

TEXTS = st.text(alphabet="ab \n\t#ки", max_size=60)
SEPARATORS = st.sampled_from(["\n\n", "\n", "##", "ки\n", " "])


def pieces(text: str, separator: str = "\n\n") -> list[str]:
    return [text[begin:end] for begin, end in spans(step_ends(text, separator))]


@given(TEXTS, SEPARATORS)
def test_spans_concatenate_to_the_text_and_none_is_blank(text: str, separator: str) -> None:
    ends = step_ends(text, separator)
    steps = pieces(text, separator)
    assert "".join(steps) == text
    assert list(ends) == sorted(set(ends))
    assert (ends[-1] == len(text)) if text else not ends
    if text.strip():
        assert all(step.strip() for step in steps)


@given(TEXTS, SEPARATORS)
def test_a_separator_stands_only_at_the_end_of_a_step_or_before_the_first(text: str, separator: str) -> None:
    steps = pieces(text, separator)
    if separator.isspace():
        assert all(separator not in step.strip() for step in steps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("one", ["one"]),
        ("one\n\ntwo", ["one\n\n", "two"]),
        ("one\n\ntwo\n\n", ["one\n\n", "two\n\n"]),
        ("one\n\n\n \n\ntwo", ["one\n\n\n \n\n", "two"]),
        ("\n\none\n\ntwo", ["\n\none\n\n", "two"]),
        ("one\ntwo", ["one\ntwo"]),
        (" \n\n ", [" \n\n "]),
    ],
)
def test_runs_of_separators_belong_to_the_step_before(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_runs_of_a_visible_separator_make_no_blank_step() -> None:
    assert pieces("a ки\nки\n b ки\n", "ки\n") == ["a ки\nки\n ", "b ки\n"]


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(ValueError, match="separator"):
        step_ends("text", "")


def test_ten_megabytes_are_linear() -> None:
    assert len(step_ends("a\n\n" * 100_000)) == 100_000
    assert step_ends("\n" * 10_000_000) == (10_000_000,)


@pytest.mark.parametrize(
    ("how", "expected"), [("last", 0.25), ("min", 0.25), ("max", 1.0), ("prod", 0.125), ("mean", 1.75 / 3)]
)
def test_aggregates(how: str, expected: float) -> None:
    assert aggregate((1.0, 0.5, 0.25), how) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_aggregates_of_probabilities_are_ordered(values: list[float]) -> None:
    result = {how.value: aggregate(values, how) for how in Aggregation}
    assert result["prod"] <= result["min"] <= result["mean"] + 1e-12
    assert result["mean"] <= result["max"] + 1e-12
    assert min(values) <= result["last"] <= max(values)
    assert result["mean"] == pytest.approx(math.fsum(values) / len(values))


def test_no_scores_and_unknown_ways_are_errors() -> None:
    with pytest.raises(ValueError, match="no step scores"):
        aggregate((), "min")
    with pytest.raises(ValueError, match="median"):
        aggregate((1.0,), "median")
