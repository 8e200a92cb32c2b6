r"""Extraction: the last closed box or a named phrase of a finished text, never a guess, never slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.answers import MAX_ANSWER_CHARS, Method, extract
from workers.types import Outcome


def answer(text: str, outcome: Outcome = Outcome.COMPLETE) -> tuple[str, str] | None:
    found = extract(text, outcome)
    if found is None:
        return None
    assert text[found.start : found.start + len(found.text)] == found.text
    return found.text, found.method


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{7} then \boxed{8}", "8"),
        (r"the answer is 3, no: \boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        (r"\boxed{\left\{1,2\right\}}", r"\left\{1,2\right\}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\fbox{4}", "4"),
        (r"\boxed {5}", "5"),
        ("\\boxed\n{5}", "5"),
        (r"\boxed{32,\!349}", r"32,\!349"),
    ],
)
def test_the_last_box(text: str, expected: str) -> None:
    assert answer(text) == (expected, Method.BOXED)


@pytest.mark.parametrize(
    ("text", "expected"), [(r"$\boxed 7$", "7"), (r"\boxed 12 .", "12"), (r"\boxed7.", "7")]
)
def test_a_box_without_braces_holds_one_word(text: str, expected: str) -> None:
    assert answer(text) == (expected, Method.BOXED_TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{5",
        r"\boxed{7} and \boxed{5",
        r"the answer is 7, \boxed{5",
        r"\boxed{}",
        r"\boxed{  }",
        r"\boxed",
        r"\boxedfoo",
        r"\boxed 5}",
        "\\boxed{1\0}",
        "\\boxed{" + "1" * (MAX_ANSWER_CHARS + 1) + "}",
    ],
)
def test_a_box_that_is_broken_empty_or_endless_gives_no_answer(text: str) -> None:
    assert answer(text) is None


def test_the_longest_answer() -> None:
    longest = "1" * MAX_ANSWER_CHARS
    assert answer("\\boxed{" + longest + "}") == (longest, Method.BOXED)


@pytest.mark.parametrize(
    ("text", "expected", "method"),
    [
        ("She has 5.\n#### 1,234", "1,234", Method.HASHES),
        ("#### 3\nmore\n#### -42\n", "-42", Method.HASHES),
        ("The final answer is $x+1$. I hope it is correct.", "x+1", Method.FINAL_ANSWER),
        ("The answer is 4.\nThe final answer is: 5.", "5", Method.FINAL_ANSWER),
        ("The final answer is 3.\nWait. The final answer is 4.", "4", Method.FINAL_ANSWER),
        (r"So the answer is \(\frac{1}{2}\).", r"\frac{1}{2}", Method.ANSWER_IS),
        ("So the answer is 3.5. Done", "3.5", Method.ANSWER_IS),
        ("So the answer is **42**", "42", Method.ANSWER_IS),
        ("The answer is $18 a day.", "$18 a day", Method.ANSWER_IS),
        ("work\n**Answer:** 42", "42", Method.ANSWER_COLON),
        ("Final Answer: $$7$$", "7", Method.ANSWER_COLON),
    ],
)
def test_named_phrases(text: str, expected: str, method: Method) -> None:
    assert answer(text) == (expected, method)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "First 3, then 4, so 12.",
        "#### 4. Conclusion",
        "#### Final thoughts",
        "#### 42\nand so on",
        "The answer is that there is no way to know which of them is right.",
        "an answer in 3 parts",
    ],
)
def test_no_guessing(text: str) -> None:
    assert answer(text) is None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.COMPLETE])
def test_only_a_finished_text_has_an_answer(outcome: Outcome) -> None:
    assert answer(r"first \boxed{7}, and the answer is 8", outcome) is None


@given(st.text(alphabet="\\boxed{}fran$()[]#*answeri:.1 \n\0", max_size=300), st.sampled_from(Outcome))
def test_whatever_the_text_the_answer_stands_in_it(text: str, outcome: Outcome) -> None:
    answer(text, outcome)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 1_500_000,
        "\\boxed{" + "{" * 10_000_000,
        "\\boxed" + " " * 10_000_000,
        "answer is " * 1_000_000,
        "#### " * 2_000_000,
        "####" + "1" * 10_000_000,
        "final answer is $" + "\\(" * 5_000_000,
        "$" * 10_000_000,
        "\n" * 10_000_000,
    ],
    ids=lambda text: repr(text[:20]),
)
@pytest.mark.timeout(20)
def test_ten_hostile_megabytes_are_linear(text: str) -> None:
    assert answer(text) is None
