"""The best of k by its rank, and pass@k, against exact fractions."""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.estimation.order_statistics import (
    chance_that_best_has_rank,
    credit_by_rank,
    pass_at_k,
)


class TestPassAtK:
    @pytest.mark.parametrize(
        ("n", "c", "k", "expected"),
        [
            (10, 3, 5, 0.916667),
            (16, 2, 8, 0.766667),
            (200, 1, 100, 0.5),
            (2048, 3, 256, 0.330218),
            (9, 4, 6, 1.0),
        ],
    )
    def test_published_values(self, n: int, c: int, k: int, expected: float) -> None:
        assert float(pass_at_k(n, c, k)) == pytest.approx(expected, abs=5e-7)

    def test_is_not_the_biased_plug_in(self) -> None:
        plug_in = 1 - (1 - 3 / 10) ** 5
        assert plug_in == pytest.approx(0.83193, abs=5e-6)
        assert float(pass_at_k(10, 3, 5)) > plug_in + 0.08

    def test_exact_fractions(self) -> None:
        folder = os.environ.get("TTC_TEST_DATA")
        if folder is None:
            pytest.skip("TTC_TEST_DATA is not set: no exact vectors")
        lines = (Path(folder) / "vectors" / "pass_at_k_exact.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        # fractions of hundreds of digits are stored as their nearest float only
        expected = [float(Fraction(row["exact"])) if row["exact"] else row["float"] for row in rows]
        found = pass_at_k([row["n"] for row in rows], [row["c"] for row in rows], [row["k"] for row in rows])
        assert len(rows) == 566
        assert np.abs(found - expected).max() < 1e-12

    @given(st.integers(1, 3000), st.data())
    @settings(max_examples=60, deadline=None)
    def test_equals_binomials(self, n: int, data: st.DataObject) -> None:
        c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
        expected = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert float(pass_at_k(n, c, k)) == pytest.approx(float(expected), abs=1e-12)

    def test_broadcasts_and_marks_what_the_pool_cannot_say(self) -> None:
        table = pass_at_k(np.array([4, 8])[:, None], 2, [1, 8])
        assert table[:, 0] == pytest.approx([0.5, 0.25])
        assert math.isnan(table[0, 1])
        assert table[1, 1] == 1.0

    @pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0)])
    def test_refuses_impossible_counts(self, n: int, c: int, k: int) -> None:
        with pytest.raises(ValueError, match="pass@k"):
            pass_at_k(n, c, k)


class TestRanks:
    @given(st.integers(1, 400), st.data())
    @settings(max_examples=40, deadline=None)
    def test_equals_binomials(self, n: int, data: st.DataObject) -> None:
        k, rank = data.draw(st.integers(1, n)), data.draw(st.integers(0, n - 1))
        expected = Fraction(math.comb(n - 1 - rank, k - 1), math.comb(n, k))
        assert chance_that_best_has_rank(n, [k])[0, rank] == pytest.approx(
            float(expected), rel=1e-11, abs=1e-300
        )

    @pytest.mark.parametrize("n", [1, 2, 2048, 300_000])
    def test_some_rank_is_the_best(self, n: int) -> None:
        budgets = sorted({1, min(2, n), (n + 1) // 2, n})
        error = np.abs(chance_that_best_has_rank(n, budgets).sum(axis=1) - 1.0).max()
        assert error < max(1e-12, n * 1e-16)

    def test_a_budget_beyond_the_pool_is_unknown(self) -> None:
        assert np.isnan(chance_that_best_has_rank(4, [4, 5])).tolist() == [[False] * 4, [True] * 4]

    def test_a_tie_is_as_right_as_its_members(self) -> None:
        keys = np.array([0.5, 0.9, 0.5, 0.1, 0.5], dtype=np.float32)
        is_right = np.array([True, False, False, True, True])
        assert credit_by_rank(keys, is_right, 7) == pytest.approx([0.0, 2 / 3, 2 / 3, 2 / 3, 1.0, 0.0, 0.0])
