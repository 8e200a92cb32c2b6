r"""A generative step verifier, as ThinkPRM is one: it reasons, and marks every step \boxed{correct} or
\boxed{incorrect}.

It may stop at the first wrong step: what stands on that is wrong too. Any other number of marks than steps is no
verdict. Source: Khalifa 2504.16828; the prompt is in our words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workers.rewards.neutral import neutralise
from workers.rewards.outcome import fill
from workers.rewards.records import Solution
from workers.types import RewardOptions, ScorerKind

PROMPT = r"""A math problem and a solution in numbered steps follow.

[Math Problem]
{problem}

[Solution]
{solution}

Go through the steps in order. Criticise each one, and end its review with \boxed{correct} or \boxed{incorrect}.
Give exactly one such mark a step, and use them for nothing else. The solution may be unfinished: judge only the
steps that are there. You may stop after the first incorrect step."""
_THOUGHTS_END = "</think>"
_MARK = re.compile(
    r"\\boxed\s*\{\s*(?:\\(?:text|textbf|mathrm)\s*\{\s*)?(correct|incorrect)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class StepVerifier:
    """One value a step."""

    name: str = "generative"
    kind: ScorerKind = ScorerKind.PRM
    version: str = "1"
    wanted: str = r"one \boxed{correct} or \boxed{incorrect} a step"

    def prompt(self, options: RewardOptions, statement: str, solution: Solution) -> str:
        """The question to the verifier; {solution} holds the steps, numbered."""
        steps = "\n".join(
            f"Step {number}: {_unmarked(step).strip()}" for number, step in enumerate(solution.steps, 1)
        )
        return fill(options.prompt or PROMPT, {"problem": _unmarked(statement), "solution": steps})

    def read(self, reply: str, count: int) -> tuple[float, ...] | None:
        """1 for every step that is called correct, 0 for the others; None unless the marks fit the steps.

        Marks after the thoughts of a reasoning model count alone, if there are any.
        """
        marks = _marks(reply.rpartition(_THOUGHTS_END)[2]) or _marks(reply)
        if len(marks) < count and marks and marks[-1] == 0.0 and 0.0 not in marks[:-1]:
            return marks + (0.0,) * (count - len(marks))
        return marks if len(marks) == count else None


def _unmarked(text: str) -> str:
    """The text with its own marks broken, so that a reply that quotes them gains none."""
    return _MARK.sub(lambda match: "\\ " + match[0][1:], neutralise(text))


def _marks(text: str) -> tuple[float, ...]:
    return tuple(float(mark.lower() == "correct") for mark in _MARK.findall(text))
