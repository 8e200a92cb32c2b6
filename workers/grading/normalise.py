r"""Write a LaTeX answer in one conservative form, so that most equal answers become equal strings.

It evaluates nothing and knows no gold. Two forms: `clean` is still LaTeX that a parser can read (outer `$`,
`\boxed`, `\left`, spacing commands and the like are gone); `canonical` is for comparison only (spaces gone as
well, except where taking them out would join two words or two numbers: `3 1/2` is not `31/2`).
"""

from __future__ import annotations

import re
from functools import lru_cache

_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
_SYMBOLS = {
    0x2212: "-", 0xFF0D: "-", 0x00D7: "\\times ", 0x00B7: "\\cdot ", 0x22C5: "\\cdot ", 0x00F7: "/",
    0x03C0: "\\pi ", 0x00B0: "^\\circ ", 0x2264: "\\le ", 0x2265: "\\ge ", 0x2260: "\\ne ",
    0x221E: "\\infty ", 0x222A: "\\cup ", 0x2208: "\\in ", 0x00B1: "\\pm ",
    0x00B2: "^2", 0x00B3: "^3", 0x20AC: "", 0x00A3: "",
}  # fmt: skip
_TRANSLATION = {**_INVISIBLE, **_SYMBOLS}

_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_BOXES = ("\\boxed{", "\\fbox{")

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|,\s*\\!\s*|\\,|\\[ ]|~)\d{3})+(?!\d)")
_NOT_DIGIT = re.compile(r"\D")
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|thinspace(?![a-zA-Z]))|~", " "),
        (r"(?<!\\)\\(?:left|right)\s*\.", ""),
        (r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|displaystyle|limits)(?![a-zA-Z])\s*", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*([\da-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([\da-zA-Z])", r"\1{\2}"),
        (r"\\frac\s+\{", r"\\frac{"),
        (r"(?<![\\A-Za-z])sqrt(?![A-Za-z])", r"\\sqrt"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"\\mathrm\s*\{\s*([ei])\s*\}", r"\1"),
        (r"(^|[^\d}\s])(\s*)\\(?:mathrm|mathit|rm|text|textbf|mathbf)\s*\{\s*([a-zA-Z])\s*\}", r"\1\2\3"),
        (r"\\(?:textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)(?=\s*\{)", r"\\text"),
        (r"\\leq?(?![a-zA-Z])|<=", r"\\le "),
        (r"\\geq?(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\neq?(?![a-zA-Z])", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\degrees?(?![a-zA-Z])", r"^\\circ "),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2"),
        (r"\\?\$", ""),
        (r"\\%", "%"),
        (r"\s+", " "),
    )
)
_PLAIN = re.compile(r"-?[0-9]+")
"""Most answers: there is nothing to take off."""
_ESCAPED_TWICE = re.compile(r"\\\\(?=[a-zA-Z(\[{])")
_SPACE = re.compile(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9,]) |(?<=,) (?![0-9])")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def has_control_characters(text: str) -> bool:
    """Whether `text` holds characters (NUL, bidirectional overrides, ...) that no answer needs."""
    return _FORBIDDEN.search(text) is not None


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """`text` without wrappers and typography, still LaTeX; for bounded texts, since patterns rescan."""
    if _PLAIN.fullmatch(text):
        return text
    text = _unwrap(text.translate(_TRANSLATION))
    if "\\begin" not in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    text = _GROUPED.sub(lambda match: _NOT_DIGIT.sub("", match[0]), text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _unwrap(text)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The form in which equal answers are, mostly, equal strings."""
    return _SPACE.sub("", clean(text)).strip()


def _unwrap(text: str) -> str:
    """Take off outer white space, full stops, mathematics delimiters and boxes."""
    before = None
    while text != before:
        before = text
        text = _unwrap_once(text.strip())
    return text


def _unwrap_once(text: str) -> str:
    if text.endswith((".", ",", ";")) and not text.endswith(("\\,", "\\;")):
        return text[:-1]
    if text.endswith("\\"):
        return text.rstrip("\\")
    for opening, closing in _WRAPPERS:
        inner = text[len(opening) : -len(closing)]
        if _encloses(text, opening, closing) and opening not in inner and not inner.endswith("\\"):
            return inner
    for box in _BOXES:
        if text.startswith(box) and closing_at(text, len(box) - 1) == len(text) - 1:
            return text[len(box) : -1]
    return text


def _encloses(text: str, opening: str, closing: str) -> bool:
    return text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing)


def closing_at(text: str, opening: int) -> int | None:
    """Offset of the bracket that closes the one at `opening`; all kinds count alike, as in `[0, 1)`."""
    depth = 0
    at = opening
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1 : at + 2] not in ("{", "}"):
            at += 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None
