"""Measures of scores against their definitions, by counting pairs and items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import metrics

items = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans(), st.integers(1, 4)),
    min_size=1,
    max_size=20,
)


@given(items)
def test_auc_is_the_share_of_pairs_in_the_right_order(chosen: list[tuple[float, bool, int]]) -> None:
    scores, good, weights = zip(*chosen, strict=True)
    pairs, won = 0.0, 0.0
    for one, is_good, weight in chosen:
        for other, is_other_good, other_weight in chosen:
            if is_good and not is_other_good:
                pairs += weight * other_weight
                won += weight * other_weight * ((one > other) + (one == other) / 2)
    found = metrics.auc(scores, good, weights)
    assert math.isnan(found) if not pairs else found == pytest.approx(won / pairs)


@given(items)
def test_a_weight_is_a_repetition(chosen: list[tuple[float, bool, int]]) -> None:
    scores, good, weights = map(np.array, zip(*chosen, strict=True))
    for measure in (metrics.auc, metrics.accuracy, metrics.brier):
        repeated = measure(np.repeat(scores, weights), np.repeat(good, weights))
        assert measure(scores, good, weights) == pytest.approx(repeated, nan_ok=True)
    bins = metrics.reliability(scores, good, weights)
    again = metrics.reliability(np.repeat(scores, weights), np.repeat(good, weights))
    assert metrics.calibration_error(bins) == pytest.approx(metrics.calibration_error(again))


def test_exact_values() -> None:
    scores, targets = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    assert metrics.auc(scores, targets) == 0.75
    assert metrics.accuracy(scores, targets) == 0.75
    assert metrics.brier(scores, targets) == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)


def test_bins_hold_their_scores_and_say_what_came() -> None:
    bins = metrics.reliability([0.0, 0.05, 0.1, 0.95, 1.0], [0, 1, 0, 1, 0.5])
    assert [(each.low, each.high, each.share) for each in bins] == [
        (0, 0.1, 0.4),
        (0.1, 0.2, 0.2),
        (0.9, 1, 0.4),
    ]
    assert [each.score for each in bins] == pytest.approx([0.025, 0.1, 0.975])
    assert [each.observed for each in bins] == pytest.approx([0.5, 0, 0.75])
    expected = 0.4 * 0.475 + 0.2 * 0.1 + 0.4 * 0.225
    assert metrics.calibration_error(bins) == pytest.approx(expected)


def test_perfect_probabilities_have_no_calibration_error() -> None:
    bins = metrics.reliability([0.5, 0.5, 1.0], [0, 1, 1])
    assert metrics.calibration_error(bins) == 0
