"""A pool as arrays: small, checked, and convertible from counts."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.estimation.ballots import NO_ANSWER, Ballots
from orchestrator.analysis.estimation.plurality import Tier


def test_takes_two_bytes_a_sample_and_four_a_score() -> None:
    n = 2048
    scores = {key: np.zeros(n, dtype=np.float32) for key in ("orm", "prm")}
    pool = Ballots(1, None, np.zeros(n, dtype=np.int64), np.array([True]), scores)
    arrays = (pool.candidates, pool.is_correct, *pool.scores.values())
    assert sum(array.nbytes for array in arrays) == n * (2 + 4 + 4) + 1


def test_what_a_sample_says() -> None:
    pool = Ballots(
        1,
        "5",
        np.array([0, NO_ANSWER, 1, 1]),
        np.array([False, True]),
        {"prm": np.array([0.5, 0.9, np.nan, 0.1])},
    )
    assert pool.n == 4
    assert pool.has_answer.tolist() == [True, False, True, True]
    assert pool.is_right.tolist() == [False, False, True, True]
    assert pool.is_selectable("prm").tolist() == [True, False, False, True]
    assert pool.tier(np.array([True, True, True, False])) == Tier([1], [1])


@pytest.mark.parametrize("candidates", [[0, 2], [-2, 0], [[0, 1]]])
def test_refuses_unknown_answers(candidates: list[int]) -> None:
    with pytest.raises(ValueError, match="not among 2 answers"):
        Ballots(1, None, np.array(candidates), np.array([True, False]))


@pytest.mark.parametrize("scores", [[0.1], [0.1, 1.5], [-0.1, 0.5]])
def test_refuses_scores_that_are_none(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="prm is not one score"):
        Ballots(1, None, np.array([0, 0]), np.array([True]), {"prm": np.array(scores)})
