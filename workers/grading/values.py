r"""Read an answer as far as it can be read without computing: a rational, a word, a list or tuple of them.

What cannot be read stays `Opaque`. It evaluates no expression: numbers are `Fraction`s of digits that stand
in the text, so nothing in an answer can make it slow or run code. Conventions, all of them those of MATH and
of math-verify:
- a percent sign, a degree sign, a currency, a unit or a base (`204_5`) is a label of the number, not a
  factor. So 50\% equals 50 and not 0.5 ("equals both" is no equivalence, and votes would depend on the order
  of arrival);
- `7,425,000` has thousands separators; a comma followed by a space separates two numbers;
- a bare list (`3, 5, 7`) and a set have no order; what stands in brackets has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

from workers.grading.normalise import canonical, closing_at

MAX_EXPONENT = 300
MAX_DEPTH = 8
"""Brackets nested deeper than that are left to algebra."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational."""

    value: Fraction
    decimals: int | None
    """Digits after the point, where it is written as a decimal."""
    unit: str
    """Canonical name of a known unit, or empty."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word or a sentence: a name, a weekday, the letter of a choice."""

    text: str
    is_prose: bool
    """Certainly words; otherwise two or three bare letters that may also be a product of variables."""


@dataclass(frozen=True, slots=True)
class Items:
    """Several values; `brackets` is `{}`, or empty for a bare list, or a pair such as `(]`."""

    brackets: str
    items: tuple[Value, ...]

    @property
    def has_order(self) -> bool:
        """Whether (1, 2) and (2, 1) differ."""
        return self.brackets not in ("", "{}")


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that takes algebra to compare."""

    text: str


Value: TypeAlias = Number | Word | Items | Opaque


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as read: `x = 5` has the label `x` and the value 5."""

    label: str
    value: Value


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """What `text` (any LaTeX of bounded length) says, as far as that takes no algebra."""
    label, body = _split_label(canonical(text))
    return Reading(label, _value(_before_approximation(body)))


def read_as_list(text: str) -> Value | None:
    """`120,240` read as two numbers rather than one; None if it holds no such comma."""
    parts = list(_split_top_level(_split_label(canonical(text))[1]))
    return Items("", tuple(_value(part) for part in parts)) if len(parts) > 1 else None


_LABEL = re.compile(
    r"((?:\\angle )?[A-Za-z]{1,3}(?:_\w|_\{\w+\})?(?:\([A-Za-z]\))?"
    r"|\\[a-z]+|\([A-Za-z](?:, ?[A-Za-z])+\)|\|[A-Z]+\|)"
    r"(?:=|\\in(?![a-z]) ?)([^=<>]+)"
)
_RELATION = re.compile(r"\\(?:le|ge|ne|in)(?![a-zA-Z])")


def _split_label(body: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(body)
    if match is None or _RELATION.search(match[2]):
        return "", body
    return match[1], match[2]


def _before_approximation(body: str) -> str:
    """The exact side of `1/3 \\approx 0.33`."""
    exact, _, _ = body.partition("\\approx")
    return exact if len(exact) > 1 or exact.isdigit() else body


def _value(body: str, depth: int = 0) -> Value:
    return _number(body) or _word(body) or _items(body, depth) or Opaque(body)


# --- numbers

_DIGITS = r"(?:[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_SCALAR = re.compile(
    rf"(?P<sign>[-+]?)(?:"
    rf"(?P<whole>\d+) ?(?:\\frac\{{(?P<mn>\d+)\}}\{{(?P<md>\d+)\}}|(?<= )(?P<sn>\d+)/(?P<sd>\d+))"
    rf"|\\frac\{{(?P<fn>[-+]?{_DIGITS})\}}\{{(?P<fd>[-+]?{_DIGITS})\}}"
    rf"|(?P<num>{_DIGITS})/(?P<den>{_DIGITS})"
    rf"|(?P<mant>{_DIGITS})(?:\\times|\\cdot|\*) ?10\^(?:\{{(?P<exp>[-+]?\d{{1,4}})\}}|(?P<exp1>\d))"
    rf"|(?P<dec>{_DIGITS})"
    rf")"
)
_TEXT_UNIT = re.compile(r" ?\\text\{([A-Za-z .,/()'-]*)\}(?:\^[23])?")
_LAST_TEXT = re.compile(r"(?<=[\d}\w)])\s*(?:\\text\{[^{}]*\}(?:\^[23])?|\^\\circ)\s*$")
_PLAIN_UNIT = re.compile(r" ?([A-Za-z]{2,}(?: [A-Za-z]+){0,3})\.?(?:\^[23])?")
_BASE = re.compile(r"_(?:(\d)|\{(\d\d?)\}|\{?\\text\{([a-z]+)\}\}?)")
_SIGNS = {
    "%": "%",
    "^\\circ": "deg",
    "^\\circ\\text{C}": "deg",
    "^\\circ C": "deg",
    "^\\circ\\text{F}": "deg",
}

_SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
_UNITS = {
    name: unit
    for unit, names in {
        "%": "percent percentage pct",
        "deg": "degree degrees deg",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "mm": "mm millimeter millimeters",
        "in": "in inch inches",
        "ft": "ft foot feet",
        "yd": "yd yard yards",
        "mi": "mi mile miles",
        "s": "s sec second seconds",
        "min": "min minute minutes",
        "h": "h hr hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years",
        "g": "g gram grams",
        "kg": "kg kilogram kilograms",
        "dollar": "dollar dollars",
        "cent": "cent cents",
        "": "unit units square cubic mph people",
    }.items()
    for name in names.split()
}
_NOT_UNITS = frozenset(
    {
        "and",
        "or",
        "not",
        "no",
        "to",
        "more",
        "less",
        "least",
        "most",
        "than",
        "if",
        "for",
        "half",
        "is",
        "are",
    }
)
MAX_UNIT_WORDS = 4


def _number(body: str) -> Number | None:
    body = _without_parentheses(body)
    match = _SCALAR.match(body)
    unit = _unit(body[match.end() :]) if match else None
    return _scaled(match, *unit) if match and unit else None


def _scaled(match: re.Match[str], unit: str, scale: int) -> Number | None:
    value = _fraction(match)
    if value is None:
        return None
    digits = match["dec"]
    decimals = len(digits.partition(".")[2]) if digits and scale == 1 else None
    return Number(value * scale, decimals, unit)


def _fraction(match: re.Match[str]) -> Fraction | None:
    """The exact value of what `_SCALAR` matched; None for a zero denominator or an improper mixed number."""
    part = {name: _fraction_of(text) for name, text in match.groupdict().items() if text and name != "sign"}
    top = part.get("mn", part.get("sn"))
    bottom = part.get("md", part.get("sd"))
    if top is not None and bottom is not None:
        value = part["whole"] + top / bottom if 0 < top < bottom else None
    elif "fn" in part or "num" in part:
        top, bottom = part.get("fn", part.get("num")), part.get("fd", part.get("den"))
        value = top / bottom if top is not None and bottom else None
    elif "mant" in part:
        value = _shifted(part["mant"], int(part.get("exp", part.get("exp1", Fraction(0)))))
    else:
        value = part["dec"]
    return -value if value is not None and match["sign"] == "-" else value


def _fraction_of(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", "").rstrip("."))


def _shifted(mantissa: Fraction, exponent: int) -> Fraction | None:
    return mantissa * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None


def _unit(rest: str) -> tuple[str, int] | None:
    """(canonical unit, factor of a word such as million) of what follows a number; None for no unit."""
    if not rest:
        return "", 1
    if rest in _SIGNS:
        return _SIGNS[rest], 1
    base = _BASE.fullmatch(rest)
    if base:
        return "base " + str(base[1] or base[2] or _BASES.get(base[3], base[3])), 1
    text = _TEXT_UNIT.fullmatch(rest)
    if text:
        return _unit_of_words(text[1].lower().replace(".", "").split(), must_be_known=False)
    plain = _PLAIN_UNIT.fullmatch(rest)
    return _unit_of_words(plain[1].lower().split(), must_be_known=True) if plain else None


_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}


def _unit_of_words(words: list[str], *, must_be_known: bool) -> tuple[str, int] | None:
    scale = _SCALES.get(words[0], 1) if words else 1
    words = words[1:] if scale > 1 else words
    if len(words) > MAX_UNIT_WORDS or any(word in _NOT_UNITS or word in _SCALES for word in words):
        return None
    if must_be_known and not all(word in _UNITS for word in words):
        return None
    known = [_UNITS[word] for word in words if _UNITS.get(word)]
    return (known[0] if len(words) == 1 and known else ""), scale


def without_unit(text: str) -> str:
    r"""A cleaned answer without the unit at its end: `3\sqrt{2}\text{ cm}` is `3\sqrt{2}`."""
    match = _LAST_TEXT.search(text)
    unit = _unit(match[0].strip()) if match and match.start() else None
    return text[: match.start()] if match and unit and unit[1] == 1 else text


def _without_parentheses(body: str) -> str:
    while len(body) > 1 and body[0] + body[-1] in ("()", "{}") and closing_at(body, 0) == len(body) - 1:
        body = body[1:-1]
    return body


# --- words

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_LETTERS = re.compile(r"[A-Za-z]+(?:[ -][A-Za-z]+)*")
MIN_PROSE_LETTERS = 4


def _word(body: str) -> Word | None:
    body = _without_parentheses(body)
    match = _TEXT.fullmatch(body)
    if match:
        content = match[1].strip().strip("().").strip()
        return Word(_folded(content), is_prose=len(content) > 1) if content else None
    if _LETTERS.fullmatch(body):
        is_prose = len(body) >= MIN_PROSE_LETTERS
        return Word(_folded(body) if is_prose else body, is_prose)
    return None


def _folded(text: str) -> str:
    """Case does not matter in words, but does for single letters (variables, choices)."""
    return " ".join(text.casefold().split()) if len(text) > 1 else text


# --- several values

_AND = re.compile(r",? ?\\text\{,?(?:and|or),?\} ?|,? (?:and|or) ")


def _items(body: str, depth: int) -> Items | None:
    if depth >= MAX_DEPTH:
        return None
    inner, brackets = _inside(body)
    parts = list(_split_top_level(_AND.sub(",", inner)))
    if not all(parts) or (len(parts) < 2 and brackets != "{}"):
        return None
    return Items(brackets, tuple(_value(part, depth + 1) for part in parts))


def _inside(body: str) -> tuple[str, str]:
    """Content and kind of the brackets that enclose all of `body`; a bare list has none."""
    begin = 1 if body.startswith("\\{") else 0
    if body[begin : begin + 1] not in ("(", "[", "{") or closing_at(body, begin) != len(body) - 1:
        return body, ""
    if begin:
        return body[2:-2], "{}"
    return body[1:-1], "" if body[0] == "{" else body[0] + body[-1]


def _split_top_level(body: str) -> Iterator[str]:
    """The pieces between the commas that stand in no bracket."""
    depth = begin = 0
    for at, char in enumerate(body):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            yield body[begin:at].strip()
            begin = at + 1
    yield body[begin:].strip()
