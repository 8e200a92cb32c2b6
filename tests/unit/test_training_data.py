"""Labels of steps, and the rows of training sets that hold them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.training_data import Census, LabelType, Layout, step_labels, training_rows
from orchestrator.store import LabelledSolution

SOLUTION = LabelledSolution(
    trajectory_id=1,
    dataset="toy",
    problem_id="p1",
    level="2",
    statement="What is 8 x 3?",
    steps=("We add 8 three times.\n\n", "8 + 8 = 16\nand 8 more.\n\n", "The answer is 24."),
    verdict="correct",
    rollouts=(3, 4),
    correct=(2, 0),
    is_whole=True,
)


def test_the_example_of_the_paper() -> None:
    """Answers 24, 24, 20 for a reference of 24: soft 2/3, hard 1 (Wang et al. 2023, figure 2)."""
    assert step_labels(SOLUTION, LabelType.SOFT) == [2 / 3, 0.0, 1.0]
    assert step_labels(SOLUTION, LabelType.HARD) == [1.0, 0.0, 1.0]
    wrong = replace(SOLUTION, verdict="wrong")
    assert step_labels(wrong, LabelType.SOFT)[-1] == step_labels(wrong, LabelType.HARD)[-1] == 0.0


def exact_hard(value: float, rollouts: int) -> float:
    """P(HE = 1) for a beginning that is completed right with chance `value`: 1 - (1 - q)^N."""
    return 1 - (1 - value) ** rollouts


@pytest.mark.parametrize(
    ("value", "rollouts", "wanted"),
    [
        *zip([0.05] * 6, [1, 2, 4, 8, 16, 64], [0.0500, 0.0975, 0.1855, 0.3366, 0.5599, 0.9625], strict=True),
        *zip([0.1] * 3, [4, 8, 16], [0.3439, 0.5695, 0.8147], strict=True),
        (0.3, 8, 0.9424),
        (0.5, 8, 0.9961),
    ],
)
def test_how_often_a_hard_label_is_one(value: float, rollouts: int, wanted: float) -> None:
    """The labels we give, weighted by the binomial law of what completions come to, against the closed form."""
    shares = binomial(value, rollouts)
    labels = [hard(rollouts, right) for right in range(rollouts + 1)]
    expected = sum(share * label for share, label in zip(shares, labels, strict=True))
    assert expected == pytest.approx(exact_hard(value, rollouts), abs=1e-12)
    assert expected == pytest.approx(wanted, abs=5e-5)


@given(st.floats(0.01, 0.99), st.integers(1, 32))
def test_a_soft_label_is_unbiased_with_the_variance_of_a_share(value: float, rollouts: int) -> None:
    shares = binomial(value, rollouts)
    labels = [soft(rollouts, right) for right in range(rollouts + 1)]
    mean = sum(share * label for share, label in zip(shares, labels, strict=True))
    variance = sum(share * (label - mean) ** 2 for share, label in zip(shares, labels, strict=True))
    assert mean == pytest.approx(value, abs=1e-9)
    assert variance == pytest.approx(value * (1 - value) / rollouts, abs=1e-9)


@pytest.mark.parametrize(
    ("rollouts", "wanted"),
    [(1, 0.702), (2, 0.825), (4, 0.889), (8, 0.891), (16, 0.859), (32, 0.819), (64, 0.786)],
)
def test_more_completions_make_hard_labels_better_and_then_worse(rollouts: int, wanted: float) -> None:
    """Wang et al. find the labels best at N = 4, since any lucky completion makes a bad step good.

    70 % good steps with values from Beta(3, 2), 30 % bad ones from Beta(.6, 9): the share of steps that the label
    names right, exactly; `wanted` was simulated, to about .002. The soft label's squared error falls as .1559 / N.
    """
    good, bad = beta_binomial(3, 2, rollouts), beta_binomial(0.6, 9, rollouts)
    labels = [hard(rollouts, right) for right in range(rollouts + 1)]
    right = 0.7 * np.dot(good, labels) + 0.3 * (1 - np.dot(bad, labels))
    assert right == pytest.approx(wanted, abs=2.5e-3)
    grid = (np.arange(20_000) + 0.5) / 20_000
    errors = {
        share: sum(
            chance * (soft(rollouts, k) - share) ** 2 for k, chance in enumerate(binomial(share, rollouts))
        )
        for share in (0.2, 0.6)
    }
    assert errors == pytest.approx({share: share * (1 - share) / rollouts for share in errors}, abs=1e-9)
    spread = [
        np.average(grid * (1 - grid), weights=grid ** (a - 1) * (1 - grid) ** (b - 1))
        for a, b in ((3, 2), (0.6, 9))
    ]
    assert 0.7 * spread[0] + 0.3 * spread[1] == pytest.approx(0.1555, abs=1e-3)


def beta_binomial(a: float, b: float, count: int) -> list[float]:
    """Law of the number of right completions where the value itself is drawn from a Beta law."""

    def beta(x: float, y: float) -> float:
        return math.exp(math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y))

    return [math.comb(count, k) * beta(a + k, b + count - k) / beta(a, b) for k in range(count + 1)]


def binomial(value: float, count: int) -> list[float]:
    """Law of the number of right completions, by multiplication."""
    law = [1.0]
    for _ in range(count):
        law = [
            (law[k] * (1 - value) if k < len(law) else 0.0) + (law[k - 1] * value if k else 0.0)
            for k in range(len(law) + 1)
        ]
    return law


def hard(rollouts: int, right: int) -> float:
    return step_labels(replace(SOLUTION, rollouts=(rollouts,), correct=(right,)), LabelType.HARD)[0]


def soft(rollouts: int, right: int) -> float:
    return step_labels(replace(SOLUTION, rollouts=(rollouts,), correct=(right,)), LabelType.SOFT)[0]


def rows(layout: Layout, label_type: LabelType, *solutions: LabelledSolution) -> tuple[list[dict], Census]:  # type: ignore[type-arg]
    census = Census()
    return list(training_rows(solutions, layout, label_type, census)), census


def test_the_layout_of_trl() -> None:
    ((row,), census) = rows(Layout.TRL, LabelType.HARD, SOLUTION)
    assert row["prompt"] == "What is 8 x 3?"
    assert row["completions"] == ["We add 8 three times.", "8 + 8 = 16\nand 8 more.", "The answer is 24."]
    assert row["labels"] == [True, False, True]
    assert [type(label) for label in row["labels"]] == [bool] * 3
    assert (census.solutions, census.steps) == (1, 3)
    ((row,), _) = rows(Layout.TRL, LabelType.SOFT, SOLUTION)
    assert row["labels"] == [2 / 3, 0.0, 1.0]


def test_the_layout_of_math_shepherd() -> None:
    ((row,), _) = rows(Layout.MATH_SHEPHERD, LabelType.HARD, SOLUTION)
    assert row["input"] == (
        "What is 8 x 3? Step 1: We add 8 three times. ки\nStep 2: 8 + 8 = 16 and 8 more. ки\n"
        "Step 3: The answer is 24. ки"
    )
    assert row["label"] == row["input"].replace("times. ки", "times. +").replace(
        "more. ки", "more. -"
    ).replace("24. ки", "24. +")
    assert row["task"] == "toy"


def test_what_is_left_out_is_counted() -> None:
    other = replace(SOLUTION, trajectory_id=2)
    found, census = rows(
        Layout.TRL,
        LabelType.SOFT,
        SOLUTION,
        other,
        replace(SOLUTION, is_whole=False),
        replace(SOLUTION, verdict="ungraded"),
        replace(other, problem_id="p2"),
    )
    assert [row["problem_id"] for row in found] == ["p1", "p2"]
    assert census == Census(solutions=2, steps=6, repeated=1, unfinished=1, undecided=1)


def test_repeated_solutions_are_kept_where_draws_are_to_count() -> None:
    census = Census()
    twice = [SOLUTION, replace(SOLUTION, trajectory_id=2)]
    found = list(training_rows(twice, Layout.TRL, LabelType.SOFT, census, keeps_repeated=True))
    assert found[0] == found[1]
    assert census == Census(solutions=2, steps=6)
