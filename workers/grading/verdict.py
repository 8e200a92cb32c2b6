"""The words of grading: verdicts, grades, the graders there are. It knows no way to reach a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

MAX_ANSWER_CHARS = 1_000
"""A longer answer is not read; a longer gold neither."""


class Verdict(StrEnum):
    """What a grader says of a distinct answer string; only `CORRECT` counts as right."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    """The answer is no mathematics that this grader can read; not correct, but counted apart from wrong."""
    TIMEOUT = "timeout"
    """The comparison took longer than it may."""
    CRASHED = "crashed"
    """The comparison ended two grader processes (memory, or a fault in the library)."""
    GOLD_UNPARSABLE = "gold_unparsable"
    """The gold cannot be read, so this answer is unscored, not wrong."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict and how it was reached."""

    verdict: Verdict
    method: str
    """The stage that decided: exact, number, rounded, unit, text, structure, size, math_verify, strict."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Grader:
    """A set of rules; `version` is stored with every verdict and changes with the rules (invariant I8)."""

    name: str
    version: str
    meaning: str


MATH = Grader("math", "1+math-verify-0.9", "mathematical equality; units and percent signs are labels")
STRICT = Grader("strict", "1", "equality as written, after normalisation; nothing is evaluated")
GRADERS: Mapping[str, Grader] = MappingProxyType({grader.name: grader for grader in (MATH, STRICT)})
