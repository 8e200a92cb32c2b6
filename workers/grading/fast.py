r"""Decide what takes no algebra: equal strings, rationals, words, lists and tuples of them. Pure.

Most answers of a sweep are integers and fractions, so most verdicts come from here, in microseconds, and no
grader process is ever started. It says None where it cannot tell; it never says CORRECT of two things that
may differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from fractions import Fraction

from workers.grading.normalise import canonical, has_control_characters
from workers.grading.values import Items, Number, Opaque, Reading, Value, Word, read, read_as_list
from workers.grading.verdict import MAX_ANSWER_CHARS, Grade, Verdict

MIN_ROUNDED_DECIMALS = 6
"""A decimal with as many digits may stand for the fraction it rounds (0.333333), as for math-verify."""


def grade_fast(gold: str, answer: str) -> Grade | None:
    """The grade of `answer`, or None if it takes algebra. Symmetric in CORRECT and WRONG."""
    if gold == answer:
        return Grade(Verdict.CORRECT, "exact")
    refused = _refuse(gold, answer)
    if refused is not None:
        return refused
    if canonical(gold) == canonical(answer):
        return Grade(Verdict.CORRECT, "exact")
    return _compare_readings(gold, answer)


def cluster_key(answer: str) -> Hashable | None:
    """Equal for surely equal answers, different for surely different ones; None if it takes algebra."""
    if not is_readable(answer):
        return ("unreadable", answer)
    return _key(read(answer).value)


def is_readable(answer: str) -> bool:
    """Whether an answer is of a length and of characters that a grader looks at."""
    return bool(answer.strip()) and len(answer) <= MAX_ANSWER_CHARS and not has_control_characters(answer)


def brackets_differ(gold: str, answer: str) -> bool:
    """Whether one is a tuple or interval, the other a list or set: equality must then hold both ways."""
    g, a = read(gold).value, read(answer).value
    return isinstance(g, Items) and isinstance(a, Items) and g.has_order != a.has_order


def _refuse(gold: str, answer: str) -> Grade | None:
    if not is_readable(gold):
        return Grade(Verdict.GOLD_UNPARSABLE, "size")
    return None if is_readable(answer) else Grade(Verdict.UNPARSABLE, "size")


def _compare_readings(gold: str, answer: str) -> Grade | None:
    g, a = read(gold), read(answer)
    if isinstance(g.value, Number) and isinstance(a.value, Items):
        g = Reading(g.label, read_as_list(gold) or g.value)
    elif isinstance(g.value, Items) and isinstance(a.value, Number):
        a = Reading(a.label, read_as_list(answer) or a.value)
    grade = _compare(g.value, a.value)
    if grade is not None and grade.verdict is Verdict.CORRECT and g.label and a.label and g.label != a.label:
        return None
    return grade


def _compare(gold: Value, answer: Value) -> Grade | None:
    if isinstance(gold, Number) and isinstance(answer, Number):
        return _compare_numbers(gold, answer)
    if isinstance(gold, Word) and isinstance(answer, Word):
        return _compare_words(gold, answer)
    if isinstance(gold, Items) and isinstance(answer, Items):
        return _compare_items(gold, answer)
    if isinstance(gold, Opaque) and isinstance(answer, Opaque):
        return Grade(Verdict.CORRECT, "exact") if gold.text == answer.text else None
    return _compare_kinds(gold, answer)


def _compare_numbers(gold: Number, answer: Number) -> Grade:
    if gold.value == answer.value:
        if gold.unit and answer.unit and gold.unit != answer.unit:
            return Grade(Verdict.WRONG, "unit", f"{gold.unit} is not {answer.unit}")
        return Grade(Verdict.CORRECT, "number")
    if _rounds(gold.value, answer) or _rounds(answer.value, gold):
        return Grade(Verdict.CORRECT, "rounded")
    return Grade(Verdict.WRONG, "number")


def _rounds(exact: Fraction, decimal: Number) -> bool:
    digits = decimal.decimals
    if digits is None or digits < MIN_ROUNDED_DECIMALS or not decimal.value:
        return False
    return bool(abs(exact - decimal.value) * 2 * 10**digits <= 1)


def _compare_words(gold: Word, answer: Word) -> Grade | None:
    if gold.text == answer.text or (
        (gold.is_prose or answer.is_prose) and gold.text.casefold() == answer.text.casefold()
    ):
        return Grade(Verdict.CORRECT, "text")
    is_letters = not gold.is_prose and not answer.is_prose and len(gold.text) > 1 and len(answer.text) > 1
    return None if is_letters else Grade(Verdict.WRONG, "text")


def _compare_items(gold: Items, answer: Items) -> Grade | None:
    if not gold.has_order and not answer.has_order:
        return _compare_unordered(gold, answer)
    if gold.has_order != answer.has_order and "{}" in (gold.brackets, answer.brackets):
        return Grade(Verdict.WRONG, "structure", "a set is no tuple")
    if gold.has_order == answer.has_order and gold.brackets != answer.brackets:
        return Grade(Verdict.WRONG, "structure", "the brackets differ")
    if len(gold.items) != len(answer.items):
        return _wrong_if_plain(gold, answer)
    return _all_of([_compare(g, a) for g, a in zip(gold.items, answer.items, strict=True)])


def _all_of(grades: Sequence[Grade | None]) -> Grade | None:
    if any(grade is not None and grade.verdict is not Verdict.CORRECT for grade in grades):
        return Grade(Verdict.WRONG, "structure")
    return None if None in grades else Grade(Verdict.CORRECT, "structure")


def _compare_unordered(gold: Items, answer: Items) -> Grade | None:
    return (
        Grade(Verdict.CORRECT, "structure") if _form(gold) == _form(answer) else _wrong_if_plain(gold, answer)
    )


def _wrong_if_plain(gold: Value, answer: Value) -> Grade | None:
    return Grade(Verdict.WRONG, "structure") if _is_plain(gold) and _is_plain(answer) else None


def _compare_kinds(gold: Value, answer: Value) -> Grade | None:
    """Two things of different kinds: prose is no mathematics, a number is no list; the rest takes algebra."""
    if any(isinstance(value, Word) and value.is_prose for value in (gold, answer)):
        return Grade(Verdict.WRONG, "text")
    return None if _is_letter(gold) or _is_letter(answer) else _wrong_if_plain(gold, answer)


def _is_letter(value: Value) -> bool:
    return isinstance(value, Word) and not value.is_prose


def _is_plain(value: Value) -> bool:
    """Whether nothing in it takes algebra."""
    if isinstance(value, Items):
        return all(map(_is_plain, value.items))
    return not isinstance(value, Opaque)


def _key(value: Value) -> Hashable | None:
    return (
        repr(_form(value))
        if _is_plain(value) and not (_is_letter(value) and len(_letters(value)) > 1)
        else None
    )


def _letters(value: Value) -> str:
    return value.text if isinstance(value, Word) else ""


def _form(value: Value) -> tuple[object, ...]:
    """Units left out, sets and lists sorted and without repetitions: equal forms are equal values."""
    if isinstance(value, Number):
        return ("number", str(value.value))
    if isinstance(value, Items):
        forms = [_form(item) for item in value.items]
        return (value.brackets, *forms) if value.has_order else ("set", *sorted(set(forms), key=repr))
    return ("text" if isinstance(value, Word) else "opaque", value.text)
