"""Is an answer equal to the gold, and which answers are equal? It knows no problem, no model, no database.

Stages, cheapest first: equal strings after normalisation, exact rationals and lists of them (`fast`,
in-process), then math-verify in processes that are killed when they take too long (`pool`). Nothing evaluates
text of a model.
"""

from __future__ import annotations

from workers.grading.fast import grade_fast
from workers.grading.pool import GraderPool, GraderSettings
from workers.grading.strict import grade_strict
from workers.grading.verdict import GRADERS, MATH, STRICT, Grade, Grader, Verdict

__all__ = [
    "GRADERS",
    "MATH",
    "STRICT",
    "Grade",
    "Grader",
    "GraderPool",
    "GraderSettings",
    "Verdict",
    "grade_fast",
    "grade_strict",
]
