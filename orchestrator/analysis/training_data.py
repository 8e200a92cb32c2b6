"""Labelled solutions as training sets of process reward models. Pure: solutions in, rows out.

A step's label is the value of the beginning that ends with it: of all but the last step what its completions came to,
of the last step the verdict of the solution itself (Wang et al. 2023, arXiv:2312.08935, section 3.2). It must not know
stores nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.store import LabelledSolution


class LabelType(StrEnum):
    """How the completions of a beginning become its label."""

    HARD = "hard"
    """1 if any is right (HE of Wang et al.)."""
    SOFT = "soft"
    """The share that is right (SE of Wang et al.; Snell et al. 2024, arXiv:2408.03314, appendix D)."""


class Layout(StrEnum):
    """Whose files the rows look like."""

    TRL = "trl"
    """TRL's stepwise supervision: prompt, completions, labels; booleans for hard labels, numbers for soft ones."""
    MATH_SHEPHERD = "math-shepherd"
    """The data set of Math-Shepherd: input with the tag after every step, label with + or - in its place."""


TAG = "ки"
"""Tag of Math-Shepherd's files."""


@dataclass(slots=True)
class Census:
    """What became of the solutions."""

    solutions: int = 0
    steps: int = 0
    repeated: int = 0
    """Left out: the same text as another solution of its problem."""
    unfinished: int = 0
    """Left out: completions are missing."""
    undecided: int = 0
    """Left out: the solution itself has no verdict."""


def training_rows(
    solutions: Iterable[LabelledSolution],
    layout: Layout,
    label_type: LabelType,
    census: Census,
    *,
    keeps_repeated: bool = False,
) -> Iterator[dict[str, Any]]:
    """One row a distinct, completely labelled solution, or one a draw of it; `census` counts what is left out.

    Solutions of one problem must come together: repeated ones are known by the texts of their own problem.
    """
    write = _WRITERS[layout]
    problem: str | None = None
    seen: set[tuple[str, ...]] = set()
    for solution in solutions:
        if solution.problem_id != problem:
            problem, seen = solution.problem_id, set()
        if not _is_usable(solution, seen, census):
            continue
        if not keeps_repeated:
            seen.add(solution.steps)
        census.solutions += 1
        census.steps += len(solution.steps)
        yield write(solution, step_labels(solution, label_type), label_type)


def step_labels(solution: LabelledSolution, label_type: LabelType) -> list[float]:
    """One label a step, between 0 and 1."""
    is_right = float(solution.verdict == "correct")
    shares = [right / drawn for right, drawn in zip(solution.correct, solution.rollouts, strict=True)]
    if label_type is LabelType.SOFT:
        return [*shares, is_right]
    return [*(float(share > 0) for share in shares), is_right]


def _is_usable(solution: LabelledSolution, seen: set[tuple[str, ...]], census: Census) -> bool:
    if not solution.is_whole:
        census.unfinished += 1
    elif solution.verdict not in ("correct", "wrong"):
        census.undecided += 1
    elif solution.steps in seen:
        census.repeated += 1
    else:
        return True
    return False


def _trl(solution: LabelledSolution, labels: list[float], label_type: LabelType) -> dict[str, Any]:
    return {
        "problem_id": solution.problem_id,
        "level": solution.level,
        "prompt": solution.statement,
        "completions": [step.strip() for step in solution.steps],
        "labels": [bool(label) for label in labels] if label_type is LabelType.HARD else labels,
        "rollouts": [*solution.rollouts, 0],
    }


def _math_shepherd(solution: LabelledSolution, labels: list[float], label_type: LabelType) -> dict[str, Any]:
    """A step is good if its label is above one half, which for hard labels means 1."""
    steps = [
        f"Step {number}: {' '.join(step.split())}" for number, step in enumerate(solution.steps, start=1)
    ]
    signs = ["+" if label > 0.5 else "-" for label in labels]
    return {
        "input": f"{solution.statement} " + "\n".join(f"{step} {TAG}" for step in steps),
        "label": f"{solution.statement} "
        + "\n".join(f"{step} {sign}" for step, sign in zip(steps, signs, strict=True)),
        "task": solution.dataset,
    }


_Writer = Callable[[LabelledSolution, list[float], LabelType], dict[str, Any]]
_WRITERS: dict[Layout, _Writer] = {Layout.TRL: _trl, Layout.MATH_SHEPHERD: _math_shepherd}
