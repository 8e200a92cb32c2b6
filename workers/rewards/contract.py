"""What a scorer owes: a probability for every step, and nothing else passes. Pure.

Known ways to break this, each seen in the wild: another number of scores than steps, padded with zeros or shifted
(thinkbooster#214); the values of a wrong head, one for every token (ReasonFlux#20); an exact zero taken for "no
score" (the snippet of Qwen's model card); raw logits taken for probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workers.errors import MalformedReply

OVERSHOOT = 1e-5
"""By so much floating-point noise may leave [0, 1]; it is clipped."""
SUM_TOLERANCE = 0.02
"""Two class probabilities in half precision add up to 1 within this."""
DECIMALS = 7
_SHOWN = 80


class BrokenContract(MalformedReply):
    """The scorer gave something other than one probability a step."""


def settled(rows: Sequence[Any], count: int, *, is_logit: bool) -> tuple[float, ...]:
    """The probabilities of `count` steps, rounded to 7 decimals, from one row a step.

    A row is a value, a list of one value, or a list of two classes of which the second is the good one. With
    `is_logit` rows hold raw logits, to which the sigmoid (one value) or the softmax (two) is applied here. Raises
    `BrokenContract`, which names what came.
    """
    if len(rows) != count:
        raise BrokenContract(f"{_scores(len(rows))} came for {_steps(count)}")
    return tuple(_probability(row, index, is_logit=is_logit) for index, row in enumerate(rows))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def number(cell: Any) -> float:
    """The cell of a reply as a float; NaN where it is none."""
    try:
        return float(cell) if type(cell) in (int, float) else math.nan
    except OverflowError:
        return math.nan


def _probability(row: Any, index: int, *, is_logit: bool) -> float:
    numbers = _numbers(row, index)
    if is_logit:
        return round(sigmoid(numbers[0] if len(numbers) == 1 else numbers[1] - numbers[0]), DECIMALS)
    if len(numbers) == 2 and abs(math.fsum(numbers) - 1.0) > SUM_TOLERANCE:
        raise BrokenContract(
            f"step {index + 1}: the two classes {_shown(row)} do not add up to 1: raw logits, or another head"
        )
    value = numbers[-1]
    if not -OVERSHOOT <= value <= 1.0 + OVERSHOOT:
        raise BrokenContract(f"step {index + 1}: the score {value!r} is outside of [0, 1]")
    return round(min(1.0, max(0.0, value)), DECIMALS)


def _numbers(row: Any, index: int) -> list[float]:
    cells = row if isinstance(row, list) else [row]
    if not 1 <= len(cells) <= 2:
        raise BrokenContract(
            f"step {index + 1}: {len(cells)} values came where 1 or 2 are wanted: is the model served with its head?"
        )
    numbers = [number(cell) for cell in cells]
    if not all(map(math.isfinite, numbers)):
        raise BrokenContract(f"step {index + 1}: the score {_shown(row)} is no finite number")
    return numbers


def _shown(row: Any) -> str:
    """The row in a few words; what is nested in it is not looked at, for it may be nested without end."""
    if isinstance(row, list):
        return f"[{', '.join(_cell(cell) for cell in row)}]"
    return _cell(row)


def _cell(cell: Any) -> str:
    is_plain = cell is None or isinstance(cell, str | int | float)
    text = repr(cell[:_SHOWN] if isinstance(cell, str) else cell) if is_plain else f"a {type(cell).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _scores(count: int) -> str:
    return "no score" if count == 0 else f"{count} score{'s' if count > 1 else ''}"


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"
