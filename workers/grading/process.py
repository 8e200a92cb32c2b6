r"""A grader process: compare LaTeX answers with math-verify, one request a line, until standard input ends.

Run as `python -P -m workers.grading.process TIMEOUT_S MEMORY_BYTES`. math-verify has no hard timeout of its
own and wants the main thread, so it lives in a process that its parent may kill at any moment; nothing here
is worth saving. Should the parent die in the middle of a comparison, an alarm that no handler catches ends
this process too. Only the LaTeX grammar of math-verify reads answers (never its expression mode, which is
`eval` underneath).
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

ORPHAN_GRACE_S = 10.0
"""On top of the timeout that the parent enforces: what a comparison may last once there is no parent."""
CLEARLY_DIFFERENT = 1e-5
"""Relative difference of two values above which no rounding makes them equal."""
NOISE = 1e-10
"""Values below may be zeros that arithmetic has not cancelled exactly."""


def main(arguments: list[str]) -> int:
    """Serve standard input; the exit status is 0 at its end."""
    timeout_s, memory_bytes = float(arguments[0]), int(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    requests, replies = _private_streams()
    logging.disable(logging.CRITICAL)
    _reply(replies, {"ready": _library_version()})
    _silence()
    for request in _lines(requests):
        signal.setitimer(signal.ITIMER_REAL, timeout_s + ORPHAN_GRACE_S)
        reply = _answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, reply)
    return 0


def _limit(what: int, amount: int) -> None:
    """Lower a limit of this process; some systems know no such limit, or have a lower one already."""
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (amount, amount))


def _private_streams() -> tuple[TextIO, TextIO]:
    """The two pipes, out of reach of anything that reads or prints."""
    requests, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return requests, replies


def _silence() -> None:
    """Errors of the start reach the user; what the library prints afterwards does not."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _lines(requests: TextIO) -> Iterator[dict[str, Any]]:
    for line in requests:
        yield json.loads(line)


def _reply(replies: TextIO, reply: dict[str, str]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _library_version() -> str:
    """Version of math-verify, after a self-test: where its parser is broken, every answer would look unreadable."""
    from importlib.metadata import version

    for answer, expected in (("\\frac{2}{\\sqrt{2}}", "equal"), ("\\sqrt{3}", "different")):
        result = _compare("\\sqrt{2}", answer, in_both_directions=True)["result"]
        if result != expected:
            raise RuntimeError(f"math-verify does not work here: {answer} is {result}, not {expected}")
    return version("math-verify")


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        return _compare(request["gold"], request["answer"], in_both_directions=request["both"])
    except MemoryError:
        os._exit(3)  # the state of the library is unknown: the parent starts another process


def _compare(gold: str, answer: str, *, in_both_directions: bool) -> dict[str, str]:
    """`equal`, `different`, `unparsable` or `gold_unparsable`."""
    parsed_gold = _parse(gold)
    if parsed_gold is None:
        return {"result": "gold_unparsable"}
    parsed = _parse(answer)
    if parsed is None:
        return {"result": "unparsable"}
    if _clearly_different(parsed_gold, parsed) and "%" not in gold + answer:
        return {"result": "different"}
    equal = _verify(parsed_gold, parsed) and (not in_both_directions or _verify(parsed, parsed_gold))
    return {"result": "equal" if equal else "different"}


@lru_cache(maxsize=512)
def _parse(text: str) -> Any:
    """The SymPy object that `text` denotes, None if the LaTeX grammar cannot read all of it."""
    from math_verify import parse

    found = _guarded(
        lambda: parse(
            f"$\\boxed{{{text}}}$",
            extraction_config=[_extraction()],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
        )
    )
    return found[0] if found else None


@lru_cache(maxsize=1)
def _extraction() -> Any:
    """All of the box, and no units taken off: math-verify takes the m of `5m` for one. `values` has done so."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    rules = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    return LatexExtractionConfig(boxed_match_priority=0, normalization_config=rules)


def _verify(gold: Any, answer: Any) -> bool:
    from math_verify import verify

    return bool(_guarded(lambda: verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True)))


def _clearly_different(gold: Any, answer: Any) -> bool:
    """Whether both are expressions whose values differ, at one point if they have variables.

    It spares `simplify`, which takes longest on what is not equal, and keeps math-verify's rounding to 6
    decimals off small numbers. A lone symbol has no value: math-verify also compares it as a word.
    """
    a, b = _guarded(lambda: _value(gold)), _guarded(lambda: _value(answer))
    if a is None or b is None:
        return False
    size = max(abs(a), abs(b))
    return bool(size > NOISE and abs(a - b) > CLEARLY_DIFFERENT * size)


def _value(expression: Any) -> complex | None:
    from sympy import Expr, Symbol  # type: ignore[import-untyped]

    if not isinstance(expression, Expr) or isinstance(expression, Symbol):
        return None
    point = {symbol: 0.3 + zlib.crc32(symbol.name.encode()) / 2**32 for symbol in expression.free_symbols}
    value = complex(expression.evalf(15, subs=point))
    return value if math.isfinite(abs(value)) else None


def _guarded(call: Callable[[], Any]) -> Any:
    """None for whatever the library raises on strange input."""
    try:
        return call()
    except MemoryError:
        raise
    except Exception:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
