"""Errors of means over problems, and of differences between two columns of the same problems."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.analysis.estimation.intervals import (
    mean_over_problems,
    paired_difference,
    student_t_quantile,
)


class TestMeanOverProblems:
    def test_standard_error_and_interval(self) -> None:
        mean = mean_over_problems([0.1, 0.4, 0.6, 0.7])
        assert mean.value == pytest.approx(0.45)
        assert mean.std_error == pytest.approx(math.sqrt(0.07) / 2)  # sample variance 0.21 / 3
        assert mean.low == pytest.approx(0.45 - 3.182446 * math.sqrt(0.07) / 2, abs=1e-6)
        assert mean.high == pytest.approx(0.45 + 3.182446 * math.sqrt(0.07) / 2, abs=1e-6)

    def test_500_problems_at_one_half_err_by_2_points(self) -> None:
        mean = mean_over_problems([0.0, 1.0] * 250)
        assert mean.std_error == pytest.approx(0.0224, abs=1e-4)

    def test_too_few_problems_have_no_error(self) -> None:
        assert mean_over_problems([]).value is None
        assert mean_over_problems([0.3]).value == 0.3
        assert mean_over_problems([0.3]).std_error is None

    def test_interval_stays_a_fraction(self) -> None:
        mean = mean_over_problems([0.0, 1.0])
        assert (mean.low, mean.high) == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("freedom", "expected"),
        [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (99, 1.9842), (499, 1.9647)],
    )
    def test_student_t_table(self, freedom: int, expected: float) -> None:
        assert student_t_quantile(freedom) == pytest.approx(expected, abs=5e-5)


class TestPairedDifference:
    def test_what_is_hard_for_both_drops_out(self) -> None:
        difficulty = np.linspace(0.0, 0.9, 50)
        wins = np.where(np.arange(50) % 2, 0.06, 0.04)
        difference = paired_difference(difficulty + wins, difficulty)
        assert difference.value == pytest.approx(0.05)
        assert difference.std_error == pytest.approx(0.01 * math.sqrt(50 / 49) / math.sqrt(50))
        assert difference.low == pytest.approx(0.05, abs=0.003)
        assert mean_over_problems(difficulty).std_error == pytest.approx(0.0379, abs=1e-3)

    def test_rests_on_the_problems_where_both_are_known(self) -> None:
        difference = paired_difference([0.5, math.nan, 0.7, 0.9], [0.4, 0.1, math.nan, 0.5])
        assert difference.problems == 2
        assert difference.value == pytest.approx((0.1 + 0.4) / 2)

    def test_a_loss_is_negative_and_its_interval_ends_at_minus_one(self) -> None:
        difference = paired_difference([0.0, 0.0], [1.0, 0.2])
        assert difference.value == pytest.approx(-0.6)
        assert (difference.low, difference.high) == (-1.0, 1.0)

    def test_exchanging_the_columns_changes_the_sign_only(self) -> None:
        one, other = [0.2, 0.9, 0.4], [0.3, 0.5, 0.1]
        forth, back = paired_difference(one, other), paired_difference(other, one)
        assert None not in (forth.value, back.value, forth.low, back.high)
        assert forth.value == pytest.approx(-(back.value or 0))
        assert forth.low == pytest.approx(-(back.high or 0))

    def test_refuses_columns_of_other_problems(self) -> None:
        with pytest.raises(ValueError, match="no pairs"):
            paired_difference([0.1, 0.2], [0.1])
