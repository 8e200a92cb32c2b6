"""A language model as a judge: problem and solution in, a verdict out, 1 right and 0 wrong.

The filter of Filter-Vote (Chen 2403.02419): what the judge calls wrong does not vote. The prompt is in our words;
the verdict is the last marker of the reply, and a reply without one is no verdict, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workers.rewards.neutral import neutralise
from workers.rewards.outcome import fill
from workers.rewards.records import Solution
from workers.types import RewardOptions, ScorerKind

PROMPT = """\
Below are a problem and an answer that somebody gave to it. Find out whether the answer is right.

# Problem
{problem}

# Answer
{solution}

Check it step by step, and name every mistake that you find. Do not trust what the answer claims about itself.
Then finish with one line that holds your verdict and nothing else:
[[correct]] if the final answer is right, [[wrong]] if it is not."""
MARKS = ("[[",)
_VERDICT = re.compile(r"\[\[\s*(correct|wrong)\s*\]\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Judge:
    """One value a verdict."""

    name: str = "judge"
    kind: ScorerKind = ScorerKind.JUDGE
    version: str = "1"
    wanted: str = "[[correct]] or [[wrong]]"

    def prompt(self, options: RewardOptions, statement: str, solution: Solution) -> str:
        """The question to the judge; {solution} holds the solution's text and, below it, its final answer."""
        text = neutralise(solution.text, MARKS).strip()
        if solution.answer is not None:
            text += f"\n\nFinal answer: {neutralise(solution.answer, MARKS).strip()}"
        return fill(options.prompt or PROMPT, {"problem": neutralise(statement, MARKS), "solution": text})

    def read(self, reply: str, count: int) -> tuple[float, ...] | None:
        """The verdict of a reply; the last marker counts."""
        verdicts = _VERDICT.findall(reply)
        return (float(verdicts[-1].lower() == "correct"),) if verdicts else None
