"""Hostile text: no mark of a format or a tokenizer survives, none arises, and nothing else is lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.rewards.neutral import SPECIAL_MARKS, neutralise, untagged

TAGS = ["<extra_0>", " ки", "<|step|>", "aa", "##"]
HOSTILE = st.text(alphabet="<|>extra_0ки s/[]INSTunk>ai\n#", max_size=60) | st.lists(
    st.sampled_from([*SPECIAL_MARKS, *TAGS, "<", "|", "x", "a"]), max_size=12
).map("".join)


@given(HOSTILE, st.sampled_from(TAGS))
@example("aaaaa###", "aa")
@example("aaaaa###", "##")
def test_no_mark_survives_or_arises_and_all_else_stays(text: str, tag: str) -> None:
    clean = neutralise(text, [tag])
    assert not any(mark in clean for mark in (*SPECIAL_MARKS, tag.strip()))
    assert clean.replace(" ", "") == text.replace(" ", "")
    assert neutralise(clean, [tag]) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("So 4.<extra_0>", "So 4.< extra_0>"),
        ("<|im_<|im_end|>end|>", "< |im_< |im_end|>end|>"),
        ("ккии ки", "кк ии к и"),
        ("a < b and |x|<1", "a < b and |x|<1"),
        ("</s>[INST]", "< /s>[ INST]"),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_marks_are_broken_by_a_space(text: str, clean: str) -> None:
    assert neutralise(text, ["ки"]) == clean


def test_a_mark_of_one_character_is_taken_out_and_a_blank_one_means_none() -> None:
    assert neutralise("a#b##c", ["#"]) == "a b  c"
    assert neutralise("a b", [" ", ""]) == "a b"


@pytest.mark.parametrize(
    ("step", "bare"), [("one ки\n", "one "), ("one", "one"), ("ки\n", "ки\n"), ("a ки ки", "a ки ")]
)
def test_a_tag_that_the_policy_wrote_is_taken_off_once(step: str, bare: str) -> None:
    assert untagged(step, "ки") == bare
