r"""Find the final answer in a solution. It knows text only: no gold, no grader, no problem.

Extraction and grading are stored apart, each with its version, so that a better grader never touches a
trajectory. An answer is what the model marked as one: the last `\boxed{...}`, or one of the named phrases
below. The last number of a text is never taken, and neither is anything from a text that the model did not
end by itself: both add junk votes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from workers.types import Outcome

EXTRACTOR_VERSION = "1"
MAX_ANSWER_CHARS = 1_000
"""A longer "answer" is none."""
TAIL_CHARS = 4_000
"""Phrases that announce an answer are looked for in this many characters at the end of a text."""
MAX_PLAIN_CHARS = 60
MAX_PLAIN_WORDS = 4
"""Limits of an announced answer outside of $...$: more than this is prose."""


class Method(StrEnum):
    """How an answer was found, in order of preference."""

    BOXED = "boxed"
    r"""The last `\boxed{...}` or `\fbox{...}`."""
    BOXED_TOKEN = "boxed_token"  # noqa: S105 - a name, not a secret
    r"""The word after the last `\boxed`, as in `\boxed 7`."""
    HASHES = "hashes"
    """The last line is `#### 42`, the convention of GSM8K."""
    FINAL_ANSWER = "final_answer"
    """`The final answer is $42$`."""
    ANSWER_IS = "answer_is"
    """`the answer is 42.`"""
    ANSWER_COLON = "answer_colon"
    """A line that begins with `Answer:`."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer as it stands in the text."""

    text: str
    method: Method
    start: int
    """Character offset (code points) of `text` in the solution."""


def extract(text: str, outcome: Outcome) -> Extraction | None:
    """The final answer of a solution, or None; linear in `len(text)`.

    Only a COMPLETE text has an answer: what a truncated text has boxed so far may be an intermediate result,
    and counting it makes a longer token limit look like a change of opinion. A last box that is not closed
    gives no answer, rather than an earlier box.
    """
    if outcome is not Outcome.COMPLETE:
        return None
    box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    return _boxed(text, box) if box >= 0 else _announced(text)


def _boxed(text: str, at: int) -> Extraction | None:
    begin = at + (6 if text.startswith("\\boxed", at) else 5)
    brace = _skip_spaces(text, begin)
    if text.startswith("{", brace):
        end = _closing_brace(text, brace)
        return None if end is None else _extraction(text, brace + 1, end, Method.BOXED)
    token = _TOKEN.match(text, begin)
    if token is None or token[1].count("{") != token[1].count("}"):
        return None
    return _extraction(text, token.start(1), token.end(1), Method.BOXED_TOKEN)


def _skip_spaces(text: str, at: int) -> int:
    end = min(len(text), at + MAX_ANSWER_CHARS)
    while at < end and text[at].isspace():
        at += 1
    return at


def _closing_brace(text: str, opening: int) -> int | None:
    """Offset of the brace that closes the one at `opening`, if it stands within the longest answer."""
    depth = 0
    for match in _BRACE.finditer(text, opening, opening + MAX_ANSWER_CHARS + 2):
        depth += _DEPTH.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _announced(text: str) -> Extraction | None:
    """The answer in the last phrase that announces one, the best kind of phrase first."""
    offset = max(0, len(text) - TAIL_CHARS)
    tail = text[offset:]
    found = _HASHES.search(tail)
    if found:
        return _extraction(text, offset + found.start(1), offset + found.end(1), Method.HASHES)
    if "answer" not in tail.lower():
        return None
    for method, phrase in _PHRASES:
        match = None
        for match in phrase.finditer(tail):  # noqa: B007 - the last one is wanted
            pass
        if match:
            return _after(text, offset + match.end(), method)
    return None


def _after(text: str, at: int, method: Method) -> Extraction | None:
    """The answer directly after a phrase: one piece of mathematics, or a few words up to a full stop."""
    math = _MATH.match(text, at, at + MAX_ANSWER_CHARS)
    if math:
        group = math.lastindex or 0
        return _extraction(text, math.start(group), math.end(group), method)
    plain = _PLAIN.match(text, at, at + MAX_ANSWER_CHARS)
    if plain is None or len(plain[1]) > MAX_PLAIN_CHARS or len(plain[1].split()) > MAX_PLAIN_WORDS:
        return None
    return _extraction(text, plain.start(1), plain.end(1), method)


def _extraction(text: str, begin: int, end: int, method: Method) -> Extraction | None:
    content = text[begin:end]
    answer = content.strip()
    if not answer or len(answer) > MAX_ANSWER_CHARS or "\0" in answer:
        return None
    return Extraction(answer, method, begin + len(content) - len(content.lstrip()))


# Every pattern is linear: no nested repeats, bounded windows.
_DEPTH = {"{": 1, "}": -1}
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TOKEN = re.compile(r"(?:\s+|(?![A-Za-z]))([^\s$]{1,1000}?)[.,;]?(?=[\s$]|\Z)")
_HASHES = re.compile(r"^####[ \t]*([-+]?\$?[-+]?[\d.,/]*\d%?)[ \t]*\.?\s*\Z", re.MULTILINE)
_LEAD = r"[ \t*]*:?[ \t*]*"
_PHRASES = (
    (Method.FINAL_ANSWER, re.compile(r"(?i)\bfinal answer is" + _LEAD)),
    (Method.ANSWER_IS, re.compile(r"(?i)\banswer is" + _LEAD)),
    (Method.ANSWER_COLON, re.compile(r"(?im)^[ \t*#]*(?:final )?answer[ \t*]*:" + _LEAD)),
)
_MATH = re.compile(r"\s*(?:\$\$([^$]+)\$\$|\$([^$]+)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)
_PLAIN = re.compile(r"[ \t]*([^\n]+?)[ \t*]*(?:\.(?=\s|\Z)[^\n]*)?(?=\n|\Z)")
