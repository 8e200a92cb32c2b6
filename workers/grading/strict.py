r"""The second, stricter grader: equality as written. Pure, it evaluates nothing; the foil of the first one.

In the spirit of the normalisation of MATH (Hendrycks et al. 2021) and of PRM800K's grader: units, percent and
currency signs go, `1/2` is `\frac{1}{2}`, then strings must be equal, tuples element by element. 1/2 is
neither 2/4 nor 0.5. The rate at which both graders disagree tells how much of an accuracy hangs on the
reading of answers.
"""

from __future__ import annotations

import re

from workers.grading.fast import is_readable
from workers.grading.normalise import canonical
from workers.grading.verdict import Grade, Verdict

_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"%|\^\\circ", ""),
        (r"(?<=[\d}]) ?\\text\{[^{}]*\}(?:\^[23])?$", ""),
        (r"\\text\{([^{}]*)\}", r"\1"),
        (r"^[A-Za-z](?:_\w)?(?:=|\\in ?)", ""),
        (r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda match: match[0].replace(",", "")),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"(?<=\d)(\.\d*?)0+(?!\d)", r"\1"),
        (r"(?<=\d)\.(?!\d)", ""),
        (r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}"),
        (r"^\\frac\{-(\d+)\}\{(\d+)\}$", r"-\\frac{\1}{\2}"),
        (r"\s+", ""),
    )
)


def grade_strict(gold: str, answer: str) -> Grade:
    """CORRECT if both are written alike after normalisation; never None, never another process."""
    if not is_readable(gold):
        return Grade(Verdict.GOLD_UNPARSABLE, "strict")
    if not is_readable(answer):
        return Grade(Verdict.UNPARSABLE, "strict")
    equal = strict_form(gold) == strict_form(answer)
    return Grade(Verdict.CORRECT if equal else Verdict.WRONG, "strict")


def strict_form(text: str) -> str:
    """The string that the strict grader compares."""
    form = canonical(text)
    if len(form) > 2 and form[0] in "([" and form[-1] in ")]":
        return form[0] + ",".join(map(_rewritten, re.split(r", ?", form[1:-1]))) + form[-1]
    return _rewritten(form)


def _rewritten(form: str) -> str:
    for pattern, replacement in _REWRITES:
        form = pattern.sub(replacement, form)
    return form
