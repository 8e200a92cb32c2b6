"""What a view is, and the rules that several views share.

Views hold no data, so migrations drop them all first and make them again at head (`migrations/env.py`); a
change here needs no revision. A sample counts for a sweep when its index is below the number of samples
the sweep wants of the pool. Its verdict is one of: correct, wrong (by the sweep's grader), ungraded, or
the grader's own word if it could not decide; and without an answer: truncated (cut or timed out),
no_answer, error (invariant I7). This module must not know how views are queried.
"""

from __future__ import annotations

from dataclasses import dataclass

UNFINISHED = "('truncated', 'overflow', 'timed_out')"


GRADE = """CASE WHEN p.gold_status = 'gold_unparsable' THEN 'gold_unparsable'
                 WHEN g.verdict = 'unparsable' THEN 'wrong'
                 ELSE COALESCE(g.verdict, 'ungraded') END"""
"""SQL of the verdict on an answer; `p` must name its problem and `g` its grade."""


def verdict(outcome: str, answer_id: str) -> str:
    """SQL of the verdict of a sample; `p` must name its problem and `g` the grade of its answer."""
    return f"""CASE WHEN {outcome} = 'error' THEN 'error'
        WHEN {answer_id} IS NOT NULL THEN
            {GRADE}
        WHEN {outcome} IN {UNFINISHED} THEN 'truncated'
        ELSE 'no_answer' END"""


PG_ELEMENTS = "jsonb_array_elements_text(CAST({array} AS jsonb)) WITH ORDINALITY e(v, n)"
"""Elements of a JSON array on PostgreSQL: value v, number n from 1."""


@dataclass(frozen=True, slots=True)
class View:
    """A view: its SELECT, what it means, and what its columns mean (`name: comment` lines)."""

    name: str
    comment: str
    columns: str
    select: str
    postgres: str | None = None
    """SELECT on PostgreSQL, where it differs."""

    def select_for(self, dialect: str) -> str:
        """SELECT of the view in the SQL of `dialect`."""
        return self.postgres if self.postgres is not None and dialect == "postgresql" else self.select

    def column_comments(self) -> dict[str, str]:
        """Comment of each column, in order."""
        pairs = (line.split(":", 1) for line in self.columns.strip().splitlines())
        return {name.strip(): comment.strip() for name, comment in pairs}
