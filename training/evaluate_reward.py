"""Measure a reward model on labelled solutions that it has not seen, as a server would score them.

Run ``python -m training.evaluate_reward MODEL LABELS``; prints Markdown for the model's card. Scores come from the
embedded engine, so what is measured is what is served, float16 weights included. Every solution counts as often as it
was drawn. A process model is compared step by step with the values that rollouts gave; every model is asked whether
it tells right solutions from wrong ones, over all problems and within each, since selection happens within one. Needs
no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training import labels as data
from training import metrics
from training.labels import Solution
from workers.embedded import card as cards
from workers.embedded import model as network
from workers.embedded.blas import limit_threads
from workers.embedded.counters import Counters
from workers.embedded.reward import Role, probability
from workers.embedded.scores import Scorer, Texts
from workers.steps import Aggregation, aggregate

CACHED_TOKENS = 16_384
TEXTS_A_JOB = 256
AGGREGATIONS = (Aggregation.LAST, Aggregation.MIN, Aggregation.PROD, Aggregation.MEAN)

Margins = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """How one way to make a solution's score out of its steps tells right from wrong."""

    name: str
    auc: float
    auc_within: float
    """Mean over the problems that have both right and wrong solutions."""
    chosen: float
    """Share of problems whose best-scored solution is right; ties count their mean."""


def scored(folder: Path, solutions: Sequence[Solution]) -> tuple[Role, list[Margins]]:
    """Score solutions with a reward model; l+ - l- at every step, in nats."""
    net = network.load(folder)
    card = cards.load(folder, net.architecture)
    if card.reward is None:
        raise SystemExit(f"{folder} is not a reward model: it has no reward.json")
    scorer = Scorer(net, card.reward, Counters(), cached_tokens=CACHED_TOKENS)
    tokens = [tuple(card.text.encode(solution.text)) for solution in solutions]
    jobs = [
        scorer.submit(Texts(tuple(tokens[at : at + TEXTS_A_JOB])))
        for at in range(0, len(tokens), TEXTS_A_JOB)
    ]
    while not scorer.is_idle:
        scorer.step()
    return card.reward.role, [margins for job in jobs for margins in job.result().margins]


def selections(solutions: Sequence[Solution], found: Sequence[Margins], role: Role) -> list[Selection]:
    """Measure each aggregation; of an outcome model there is but one, its last score."""
    if role is Role.ORM:
        return [_selection("outcome", solutions, [margins[-1] for margins in found])]
    chances = [[probability(margin) for margin in margins] for margins in found]
    return [
        _selection(how.value, solutions, [aggregate(values, how) for values in chances])
        for how in AGGREGATIONS
    ]


def _selection(name: str, solutions: Sequence[Solution], scores: Sequence[float]) -> Selection:
    right = np.array([solution.outcome > metrics.GOOD_ABOVE for solution in solutions])
    values = np.array(scores)
    _, groups = np.unique([solution.problem_id for solution in solutions], return_inverse=True)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    within = [metrics.auc(values[each], right[each]) for each in members if 0 < right[each].sum() < len(each)]
    best = [right[each][values[each] == values[each].max()].mean() for each in members]
    return Selection(name, metrics.auc(values, right), _mean(within), _mean(best))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def report(role: Role, solutions: Sequence[Solution], found: Sequence[Margins]) -> str:
    """Write the tables of the card."""
    right = [solution.outcome > metrics.GOOD_ABOVE for solution in solutions]
    problems = len({solution.problem_id for solution in solutions})
    lines = [
        f"{len(solutions):,} solutions of {problems:,} problems, {np.mean(right):.1%} right; "
        f"{sum(len(solution.steps) for solution in solutions):,} steps.",
        "",
    ]
    if role is Role.PRM:
        lines += [*_steps_table(solutions, found), ""]
    lines += [*_selection_table(selections(solutions, found, role), float(np.mean(right))), ""]
    return "\n".join([*lines, *_calibration_table(*_pairs(solutions, found, role))])


def _steps_table(solutions: Sequence[Solution], found: Sequence[Margins]) -> list[str]:
    """Compare steps with the values of their prefixes: all, and those that do not end the solution."""
    sides: list[tuple[str, Callable[[int, int], bool]]] = [
        ("all", lambda place, count: True),
        ("before the last", lambda place, count: place < count - 1),
        ("last", lambda place, count: place == count - 1),
    ]
    lines = [
        "| steps | number | good | accuracy | AUC | Brier | Brier of the mean | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, wanted in sides:
        chosen = [
            (margin, label)
            for solution, margins in zip(solutions, found, strict=True)
            for place, (margin, label) in enumerate(zip(margins, solution.labels, strict=True))
            if wanted(place, len(margins))
        ]
        if chosen:
            lines.append(_steps_row(name, chosen))
    return lines


def _steps_row(name: str, chosen: Sequence[tuple[float, float]]) -> str:
    margins, values = np.array(chosen).T
    chances = np.array([probability(margin) for margin in margins])
    good = values > metrics.GOOD_ABOVE
    error = metrics.calibration_error(metrics.reliability(chances, values))
    shares = f"{good.mean():.3f} | {metrics.accuracy(chances, good):.3f} | {metrics.auc(margins, good):.3f}"
    brier = f"{metrics.brier(chances, values):.4f} | {values.var():.4f}"
    return f"| {name} | {len(chosen):,} | {shares} | {brier} | {error:.4f} |"


def _selection_table(rows: Sequence[Selection], share_right: float) -> list[str]:
    lines = [
        "| score of a solution | AUC | AUC within a problem | best-scored is right |",
        "|---|---|---|---|",
        f"| none (a random one) | 0.500 | 0.500 | {share_right:.3f} |",
    ]
    return lines + [
        f"| {row.name} | {row.auc:.3f} | {row.auc_within:.3f} | {row.chosen:.3f} |" for row in rows
    ]


def _pairs(
    solutions: Sequence[Solution], found: Sequence[Margins], role: Role
) -> tuple[list[float], list[float]]:
    """Give probabilities and labels where the model is read."""
    first = -1 if role is Role.ORM else 0
    chances = [probability(margin) for margins in found for margin in margins[first:]]
    return chances, [label for solution in solutions for label in solution.labels[first:]]


def _calibration_table(chances: Sequence[float], values: Sequence[float]) -> list[str]:
    bins = metrics.reliability(chances, values)
    lines = ["| score | share | mean score | mean label |", "|---|---|---|---|"]
    lines += [
        f"| {each.low:.1f} to {each.high:.1f} | {each.share:.3f} | {each.score:.3f} | {each.observed:.3f} |"
        for each in bins
    ]
    return [*lines, "", f"Expected calibration error: {metrics.calibration_error(bins):.4f}."]


def main() -> None:
    """Measure one model and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a reward model")
    parser.add_argument(
        "labels", type=Path, help="labelled solutions in TRL's layout, .parquet or JSON lines"
    )
    options = parser.parse_args()
    limit_threads(1)
    solutions = data.read(options.labels)
    role, found = scored(options.model, solutions)
    print(report(role, solutions, found))


if __name__ == "__main__":
    main()
