"""The estimators against enumeration of every subset, published curves, and each other."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import least_squares
from scipy.special import betainc, expit, ndtr

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import Curve, estimate
from orchestrator.analysis.estimation.intervals import mean_over_problems
from orchestrator.analysis.estimation.plurality import plurality_with_replacement
from orchestrator.analysis.estimation.selectors import Kind, Selector
from tests.pool_examples import SELECTORS, enumerated, large_pool, pool, pools

PASS, MAJORITY = Selector(Kind.PASS), Selector(Kind.MAJORITY)
BEST, WEIGHTED = Selector(Kind.BEST_OF_N, "prm"), Selector(Kind.WEIGHTED, "prm")
FILTER = Selector(Kind.FILTER_VOTE, "prm", threshold=0.5)
TOP = Selector(Kind.FILTER_VOTE, "prm", share=0.3)
CHAINS = Selector(Kind.HIERARCHICAL, "prm", chain=2)
ALONE = Selector(Kind.HIERARCHICAL, "prm", chain=1)


def curve_of(ballots: Sequence[Ballots], selector: Selector, budgets: Sequence[int]) -> Curve:
    return estimate(ballots, [selector], budgets, seed=3)[selector]


def data_file(*parts: str) -> Path:
    folder = os.environ.get("TTC_TEST_DATA")
    if folder is None:
        pytest.skip(f"TTC_TEST_DATA is not set: no {parts[-1]}")
    return Path(folder, *parts)


class TestEnumeration:
    """Every selector at every budget equals the mean of its definition over all subsets."""

    @given(pools())
    @settings(max_examples=80, deadline=None)
    def test_every_selector_at_every_budget(self, ballots: Ballots) -> None:
        budgets = list(range(1, ballots.n + 2))
        for selector, curve in estimate([ballots], SELECTORS, budgets, seed=0).items():
            expected = [enumerated(ballots, selector, k) for k in budgets]
            assert curve.values[0] == pytest.approx(expected, abs=1e-12, nan_ok=True), selector.name
            assert curve.is_exact.all()
            assert (curve.mc_errors == 0).all()

    def test_where_none_passes_all_vote(self) -> None:
        """Filter-vote falls back to a vote over all that are drawn, which a published simulator forgets."""
        ballots = pool([0, 0, 0, 1], [True, False], [0.1, 0.2, 0.3, 0.9])
        # without the one that passes, a pair is right; with it, wrong: 3 of 6 pairs each
        assert curve_of([ballots], FILTER, [2]).values[0, 0] == pytest.approx(0.5)
        nobody = pool([0, 0, 1], [True, False], [0.1, 0.2, 0.3])
        assert curve_of([nobody], FILTER, [3]).values[0, 0] == 1.0

    @pytest.mark.parametrize("score", [0.0, 0.2, 1.0])
    @pytest.mark.parametrize(("candidate", "value"), [(0, 1.0), (1, 0.0), (-1, 0.0)])
    def test_a_single_sample_is_chosen_whatever_its_score(
        self, candidate: int, value: float, score: float
    ) -> None:
        alone = pool([candidate], [True, False], [score])
        for selector in (PASS, MAJORITY, BEST, WEIGHTED, FILTER, TOP, ALONE):
            assert curve_of([alone], selector, [1]).values[0, 0] == value, selector.name

    def test_ties_count_as_their_expectation(self) -> None:
        assert curve_of([pool([0, 1, 2], [True, False, False])], MAJORITY, [3]).values[0, 0] == pytest.approx(
            1 / 3
        )

    def test_what_a_pool_cannot_say_is_unknown(self) -> None:
        some = [pool([0, 0, 0, 1], [True, False], [0.5] * 4), pool([], [], []), pool([0, 0], [True])]
        for selector in (PASS, MAJORITY):
            known = ~np.isnan(curve_of(some, selector, [1, 2, 4]).values)
            assert known.tolist() == [[True, True, True], [False, False, False], [True, True, False]]
        for selector in (BEST, WEIGHTED, FILTER, TOP):
            known = ~np.isnan(curve_of(some, selector, [1, 2, 4]).values)
            assert known.tolist() == [[True, True, True], [False, False, False], [False, False, False]]
        assert np.isnan(curve_of(some[:1], CHAINS, [1, 2, 3, 4]).values).tolist() == [
            [True, False, True, False]
        ]

    def test_refuses_what_is_no_draw(self) -> None:
        with pytest.raises(ValueError, match="a budget is at least 1"):
            curve_of([pool([0], [True])], PASS, [0, 1])
        with pytest.raises(ValueError, match="trials at least 2"):
            estimate([], [PASS], [1], seed=0, trials=1)
        with pytest.raises(ValueError, match="no whole chains of 2"):
            curve_of([pool([0, 0, 0], [True], [0.1, 0.2, 0.3])], CHAINS, [2])

    def test_nothing_to_estimate(self) -> None:
        assert estimate([pool([0], [True])], [], [1], seed=0) == {}
        assert curve_of([], WEIGHTED, [1, 2]).values.shape == (0, 2)
        assert curve_of([pool([0], [True])], MAJORITY, []).values.shape == (1, 0)


class TestLargePools:
    def test_each_pool_alone_gets_the_same(self) -> None:
        sizes = (300, 256, 290, 40, 300)
        some = [large_pool(i, n, clusters=5 + 7 * i, problem_id=i) for i, n in enumerate(sizes)]
        selectors = [PASS, MAJORITY, BEST, WEIGHTED, FILTER, TOP, CHAINS]
        budgets = [1, 2, 16, 40, 100, 256]
        together = estimate(some, selectors, budgets, seed=5, trials=200)
        for i, one in enumerate(some):
            for selector in selectors:
                alone = estimate([one], [selector], budgets[::2], seed=5, trials=200)[selector]
                same = together[selector].values[i, ::2]
                assert alone.values[0] == pytest.approx(same, abs=1e-12, nan_ok=True), selector.name

    def test_resampled_values_agree_with_their_limits(self) -> None:
        """A share of all that are drawn is a vote; chains of one are weighted; equal scores are votes."""
        flat = large_pool(9, 200)
        scored = Ballots(
            9, None, flat.candidates, flat.is_correct, {"prm": np.full(200, 0.5, dtype=np.float32)}
        )
        budgets = [10, 60, 150]
        vote = curve_of([scored], MAJORITY, budgets)
        for selector in (Selector(Kind.FILTER_VOTE, "prm", share=1.0), WEIGHTED, TOP):
            curve = curve_of([scored], selector, budgets)
            assert not curve.is_exact.any()
            assert (np.abs(curve.values - vote.values) < 4.5 * curve.mc_errors).all(), selector.name
        one = curve_of([flat], Selector(Kind.HIERARCHICAL, "prm", chain=1), budgets)
        assert (one.values == curve_of([flat], WEIGHTED, budgets).values).all()

    def test_common_draws_make_differences_sharp(self) -> None:
        """The noise of a difference is far below that of differences between runs of two seeds."""
        some = [large_pool(i, 120, clusters=20, problem_id=i) for i in range(8)]
        selectors = [Selector(Kind.WEIGHTED, score) for score in ("prm", "orm")]
        runs = [estimate(some, selectors, [30], seed=seed, trials=64) for seed in range(20)]
        one, other = ([run[selector].at(30) for run in runs] for selector in selectors)
        together = np.std([np.mean(a - b) for a, b in zip(one, other, strict=True)])
        apart = np.std([np.mean(a - b) for a, b in zip(one, other[1:] + other[:1], strict=True)])
        assert 0 < together < 0.7 * apart

    def test_monte_carlo_errors_are_small_beside_sampling_errors(self) -> None:
        some = [large_pool(i, 128, clusters=20, problem_id=i) for i in range(40)]
        for selector in (WEIGHTED, TOP):
            curve = curve_of(some, selector, [2, 8, 32, 100])
            for k in curve.budgets:
                sampling = mean_over_problems(curve.at(k)).std_error
                assert sampling is not None
                resampling = math.hypot(*curve.mc_errors[:, curve.budgets.index(k)]) / len(some)
                assert 0 < resampling < 0.1 * sampling, (selector.name, k)

    def test_a_huge_pool_is_resampled_with_its_error(self) -> None:
        candidates = np.repeat([0, 1, 2], [200_000, 199_000, 5])
        huge = Ballots(
            7, None, candidates, np.array([True, False, False]), {"prm": np.ones(len(candidates), np.float32)}
        )
        for selector in (MAJORITY, FILTER):
            curve = curve_of([huge], selector, [200_000])
            assert not curve.is_exact[0, 0]
            assert 0 < curve.mc_errors[0, 0] < 0.01
            # the lead in the draw is close to normal: mean 501, sd sqrt(100,000)
            assert abs(curve.values[0, 0] - ndtr(501 / math.sqrt(99_751))) < 5 * curve.mc_errors[0, 0]


def best_of_gaussians(p: float, d: float, n: int) -> float:
    """P(the best of n is correct), scores N(d, 1) where correct (chance p) and N(0, 1) where not, by quadrature."""
    x = np.linspace(-12.0, 12.0 + d, 200_001)
    below = p * ndtr(x - d) + (1 - p) * ndtr(x)
    density = np.exp(-((x - d) ** 2) / 2) / math.sqrt(2 * math.pi)
    return float((n * p * density * below ** (n - 1)).sum() * (x[1] - x[0]))


GAUSSIANS = [
    (0.3, 1.0, (1, 2, 4, 8, 16, 64, 256), (0.3, 0.40930, 0.51872, 0.61758, 0.70019, 0.81626, 0.88421)),
    (0.1, 2.0, (2, 4, 8, 16, 64, 256), (0.17584, 0.29008, 0.44135, 0.61039, 0.87195, 0.96597)),
]


class TestBestOfNWithAGaussianVerifier:
    @pytest.mark.parametrize(("p", "d", "budgets", "expected"), GAUSSIANS)
    def test_published_values(
        self, p: float, d: float, budgets: Sequence[int], expected: Sequence[float]
    ) -> None:
        assert [best_of_gaussians(p, d, n) for n in budgets] == pytest.approx(expected, abs=6e-6)

    @pytest.mark.parametrize(("p", "d", "budgets", "expected"), GAUSSIANS)
    def test_simulated_pools_agree(
        self, p: float, d: float, budgets: Sequence[int], expected: Sequence[float]
    ) -> None:
        rng = np.random.default_rng(11)
        some = []
        for i in range(200):
            is_right = rng.random(512) < p
            scores = expit(rng.normal(size=512) + d * is_right)
            some.append(
                Ballots(i, None, 1 - is_right.astype(np.int64), np.array([True, False]), {"prm": scores})
            )
        curve = curve_of(some, BEST, budgets)
        for k, value in zip(budgets, expected, strict=True):
            mean = mean_over_problems(curve.at(k))
            assert mean.value is not None
            assert mean.std_error is not None
            assert abs(mean.value - value) < 4 * mean.std_error
            assert mean.std_error < 0.02


class TestRealPools:
    def test_curves_of_a_hundred_problems(self) -> None:
        lines = data_file("samples", "bon41_llama31_8b_awq.jsonl").read_text().splitlines()
        some = [recorded_pool(i, json.loads(line)) for i, line in enumerate(lines)]
        budgets = [1, 2, 4, 8, 16, 32, 41]
        curves = estimate(some, [PASS, MAJORITY], budgets, seed=0)
        passing, majority = (curves[selector].values.mean(axis=0) for selector in (PASS, MAJORITY))
        assert passing[[0, 2, 4, 6]] == pytest.approx([0.445, 0.648, 0.811, 0.890], abs=5e-4)
        assert majority[-1] == pytest.approx(0.63)
        assert (passing >= majority).all()
        assert majority[1] == pytest.approx(majority[0])  # a vote of two is a vote of one
        gains = np.diff(majority[1:-1])  # per doubling
        assert (gains > 0).all()
        assert (np.diff(gains) < 0).all()

    def test_a_published_curve_has_that_shape(self) -> None:
        """A vote model fitted to N = 2, 4, 8 predicts N = 16 within what their trials vary."""
        lines = data_file("vectors", "prm800k_bon_curves_llama2.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row["metric"] == "majority_voting"]
        budgets = [row["num_samples_per_problem"] for row in rows]
        means, deviations = (np.array([row[key] for row in rows]) for key in ("mean", "std"))
        assert budgets == [2, 4, 8, 16]
        assert (np.diff(means) > 0).all()
        assert (np.diff(np.diff(means)) < 0).all()
        model = VoteModel(budgets)
        fit = least_squares(lambda x: ((model.curve(x) - means) / deviations)[:3], [0.0, 0.0])
        assert fit.cost < 0.1
        # the trials at 16 exhaust the pool, so they vary less than the point that the fit leans on, at 8
        assert abs(model.curve(fit.x)[3] - means[3]) < math.hypot(deviations[2], deviations[3])


class VoteModel:
    """Problems whose chance of a correct sample is Beta distributed, with many wrong answers, each rarer by 5%."""

    def __init__(self, budgets: Sequence[int]) -> None:
        wrong = 0.95 ** np.arange(30)
        wrong /= wrong.sum()
        self.edges = np.linspace(0.0, 1.0, 21)
        chances = (self.edges[1:] + self.edges[:-1]) / 2
        self.table = np.array(
            [
                [plurality_with_replacement([p], ((1 - p) * wrong).tolist(), k) for k in budgets]
                for p in chances
            ]
        )

    def curve(self, x: np.ndarray) -> np.ndarray:
        """Accuracy at each budget; parameters are the logit of the mean and the logarithm of the concentration."""
        mean, concentration = expit(x[0]), math.exp(x[1])
        law = np.diff(betainc(mean * concentration, (1 - mean) * concentration, self.edges))
        return np.asarray(law @ self.table)


def recorded_pool(problem_id: int, row: dict[str, list[dict[str, object]]]) -> Ballots:
    """Answers of one canonical form and verdict are a cluster."""
    answers = [(sample["canon"], sample["correct"]) for sample in row["samples"]]
    clusters = list(dict.fromkeys(answers))
    candidates = np.array([clusters.index(answer) for answer in answers])
    return Ballots(problem_id, None, candidates, np.array([bool(correct) for _, correct in clusters]))
