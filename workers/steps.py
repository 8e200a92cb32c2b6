"""Where the steps of a solution end, and how their scores become one: pure text and arithmetic, it knows no
scorer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

DEFAULT_SEPARATOR = "\n\n"


class Aggregation(StrEnum):
    """How the scores of the steps of a trajectory become one score."""

    LAST = "last"
    MIN = "min"
    PROD = "prod"
    MEAN = "mean"
    MAX = "max"


def step_ends(text: str, separator: str = DEFAULT_SEPARATOR) -> tuple[int, ...]:
    r"""Character offset (code points) of the end of each step of `text`, its separator included.

    No step is blank: runs of separators and whitespace belong to the step before (at the start of the text:
    to the first one), so a PRM never sees the empty step that `"a\n\nb\n\n".split("\n\n")` makes. The spans
    concatenate to the text and the last end is `len(text)`; empty text has no steps, blank text has one.
    Linear in `len(text)`.
    """
    if not separator:
        raise ValueError("a step separator may not be empty")
    ends: list[int] = []
    begin = 0
    for match in _boundary(separator).finditer(text):
        _close(ends, match.end(), is_blank=not text[begin : match.start()].strip())
        begin = match.end()
    if begin < len(text):
        _close(ends, len(text), is_blank=not text[begin:].strip())
    if text and not ends:
        return (len(text),)
    return tuple(ends)


@lru_cache(maxsize=8)
def _boundary(separator: str) -> re.Pattern[str]:
    """A separator and the white space after it; the few separators of a run are compiled once."""
    return re.compile(re.escape(separator) + r"\s*")


def spans(ends: Sequence[int]) -> list[tuple[int, int]]:
    """(start, end) of each step, from the ends."""
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def aggregate(values: Sequence[float], how: str) -> float:
    """One score out of the scores of the steps; `how` is one of `Aggregation`. No values: ValueError."""
    if not values:
        raise ValueError("no step scores to aggregate")
    return _AGGREGATORS[Aggregation(how)](values)


def _close(ends: list[int], end: int, *, is_blank: bool) -> None:
    """End a step at `end`; a blank piece joins the step before it, or waits for the first one."""
    if not is_blank:
        ends.append(end)
    elif ends:
        ends[-1] = end


def _last(values: Sequence[float]) -> float:
    return values[-1]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_AGGREGATORS: Mapping[Aggregation, Callable[[Sequence[float]], float]] = MappingProxyType(
    {
        Aggregation.LAST: _last,
        Aggregation.MIN: min,
        Aggregation.PROD: math.prod,
        Aggregation.MEAN: _mean,
        Aggregation.MAX: max,
    }
)
