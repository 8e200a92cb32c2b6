"""The whole record: rows that agree with one another, honest errors, and predictions on recorded samples."""

from __future__ import annotations

import json
from dataclasses import asdict
from os import environ
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis.vote_scaling.curves import accuracies
from orchestrator.analysis.vote_scaling.model import Regime, TwoLevelModel
from orchestrator.analysis.vote_scaling.pools import Family, System, VotePool
from orchestrator.analysis.vote_scaling.scaling import (
    DEFAULT_KS,
    PREDICTIONS,
    ModelRow,
    Rates,
    Source,
    VoteScaling,
    scale_votes,
    to_json,
)

VOTE, FILTER = System.VOTE, System.FILTER_VOTE
KS = (1, 2, 3, 8, 20, 60, 200)
RIGHT, WRONG = 0, 1


def votes(right: int, wrong: int, first: list[int] | None = None) -> list[int]:
    """So many votes for the right and for one wrong answer, beginning with `first`."""
    begun = first or []
    rest = [RIGHT] * (right - begun.count(RIGHT)) + [WRONG] * (wrong - begun.count(WRONG))
    return [*begun, *rest]


def pools_of(samples: list[list[int]], calls: int | None = None) -> list[VotePool]:
    return [VotePool.of_votes(i, each[:calls], {RIGHT}) for i, each in enumerate(samples)]


def judged(samples: list[list[int]], accepts: float, seed: int, calls: int | None = None) -> list[VotePool]:
    rng = np.random.default_rng(seed)
    verdicts = [
        [bool(rng.random() < (accepts if vote == RIGHT else 1 - accepts)) for vote in each]
        for each in samples
    ]
    return [
        VotePool.of_votes(i, each[:calls], {RIGHT}, passed[:calls])
        for i, (each, passed) in enumerate(zip(samples, verdicts, strict=True))
    ]


def two_level(model: TwoLevelModel, problems: int, samples: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    rates = np.where(rng.random(problems) < model.easy_share, model.easy_rate, model.hard_rate)
    return [(rng.random(samples) >= rate).astype(int).tolist() for rate in rates]


def curve(scaling: VoteScaling, system: System, name: str) -> list[float]:
    return [float(getattr(row, name)) for row in scaling.curves if row.system is system]


def model(scaling: VoteScaling, system: System, source: Source, rates: Rates) -> ModelRow:
    (row,) = [m for m in scaling.models if (m.system, m.source, m.rates) == (system, source, rates)]
    return row


SAMPLES = [votes(30, 10), votes(9, 31), votes(20, 20), votes(25, 15), votes(0, 40), votes(38, 2)]


def test_without_verdicts_there_is_the_vote_alone() -> None:
    scaling = scale_votes(pools_of(SAMPLES), pools_of(SAMPLES, 12), ks=KS)
    assert {row.system for row in scaling.problems} == {row.system for row in scaling.splits} == {VOTE}
    assert {row.system for row in scaling.models} == {row.system for row in scaling.curves} == {VOTE}
    assert {row.system for row in scaling.errors} == {VOTE}
    assert len(scaling.problems) == len(SAMPLES)
    assert [row.k for row in scaling.curves] == list(KS)


def test_verdicts_bring_the_filter_vote() -> None:
    scaling = scale_votes(judged(SAMPLES, 0.8, 1), judged(SAMPLES, 0.8, 1, 12), ks=KS)
    for systems in (
        [row.system for row in scaling.problems],
        [row.system for row in scaling.splits],
        [row.system for row in scaling.models],
        [row.system for row in scaling.curves],
        [row.system for row in scaling.errors],
    ):
        assert systems == [VOTE] * (len(systems) // 2) + [FILTER] * (len(systems) // 2)
    vote = scale_votes(pools_of(SAMPLES), pools_of(SAMPLES, 12), ks=KS)
    assert [row for row in scaling.curves if row.system is VOTE] == vote.curves


def test_rows_agree_with_the_pools() -> None:
    pools, few = pools_of(SAMPLES), pools_of(SAMPLES, 12)
    scaling = scale_votes(pools, few, ks=KS)
    assert curve(scaling, VOTE, "measured") == pytest.approx(accuracies(pools, VOTE, KS).mean(axis=0))
    assert curve(scaling, VOTE, "unfitted") == pytest.approx(accuracies(few, VOTE, KS).mean(axis=0))
    families = [row.pool.family for row in scaling.problems]
    assert families == [Family.EASY, Family.HARD, Family.TIED, Family.EASY, Family.HARD, Family.EASY]
    assert [(row.samples, row.calls) for row in scaling.problems] == [(40, 12)] * 6
    whole, first = scaling.splits
    assert (whole.source, whole.mean_samples, whole.split.easy) == (Source.POOL, 40, 3)
    assert (first.source, first.mean_samples, first.split.easy) == (Source.CALLS, 12, 5)


def test_errors_are_those_of_the_points_that_were_not_fitted() -> None:
    scaling = scale_votes(pools_of(SAMPLES), pools_of(SAMPLES, 12), ks=KS, training_ks=(2, 8, 60))
    held_out = [row for row in scaling.curves if row.k in (1, 3, 20, 200)]
    assert [row for row in scaling.curves if not row.is_training] == held_out
    assert [row.prediction for row in scaling.errors] == list(PREDICTIONS)
    for error in scaling.errors:
        differences = np.array([getattr(row, error.prediction) - row.measured for row in held_out])
        assert error.points == 4
        assert error.mean_squared_error == pytest.approx(np.mean(differences**2))
        assert error.worst_error == pytest.approx(np.abs(differences).max())
    assert scale_votes(pools_of(SAMPLES), ks=(2, 5)).errors == []


def test_a_near_tie_tells_leaking_from_fair() -> None:
    """Easy in the pool, hard in its first calls: only who peeks at the pool lets the curve rise."""
    samples = [votes(52, 48, first=[WRONG] * 6 + [RIGHT] * 4)]
    scaling = scale_votes(pools_of(samples), pools_of(samples, 10), ks=DEFAULT_KS)
    (row,) = scaling.problems
    assert (row.pool.family, row.from_calls.family) == (Family.EASY, Family.HARD)
    assert not row.pool.is_settled
    leaking, fair = curve(scaling, VOTE, "leaking"), curve(scaling, VOTE, "fair")
    assert leaking[-1] >= leaking[0]
    assert fair[-1] < 0.01 < fair[0] < 0.5
    errors = {row.prediction: row.mean_squared_error for row in scaling.errors}
    assert errors["leaking"] < errors["fair"]


def test_the_pool_as_its_own_calls_leaks_nothing() -> None:
    scaling = scale_votes(pools_of(SAMPLES), ks=KS)
    assert curve(scaling, VOTE, "leaking") == curve(scaling, VOTE, "fair")
    assert curve(scaling, VOTE, "unfitted") == curve(scaling, VOTE, "measured")


def test_training_points_may_be_resampled_as_the_authors_do() -> None:
    pools, few = pools_of(SAMPLES), pools_of(SAMPLES, 12)
    exact = scale_votes(pools, few, ks=KS)
    drawn = scale_votes(pools, few, ks=KS, resamples=2000, seed=3)
    assert drawn.resamples == 2000
    assert curve(drawn, VOTE, "fair") != curve(exact, VOTE, "fair")
    assert curve(drawn, VOTE, "fair") == pytest.approx(curve(exact, VOTE, "fair"), abs=0.02)
    assert curve(drawn, VOTE, "measured") == curve(exact, VOTE, "measured")
    assert drawn == scale_votes(pools, few, ks=KS, resamples=2000, seed=3)


def test_one_call_of_the_filter_vote_is_predicted_to_elect_nothing() -> None:
    scaling = scale_votes(judged(SAMPLES, 0.8, 1), ks=(1, 2))
    (first, second) = [row for row in scaling.curves if row.system is FILTER]
    for name in ("measured", *PREDICTIONS):
        assert getattr(first, name) == 0 < getattr(second, name)


@pytest.mark.parametrize("truth", [TwoLevelModel(0.6, 0.8, 0.4), TwoLevelModel(0.5, 0.65, 0.1)])
def test_problems_of_a_two_level_model_are_recognised(truth: TwoLevelModel) -> None:
    samples = two_level(truth, problems=400, samples=300, seed=2)
    scaling = scale_votes(pools_of(samples), pools_of(samples, 150), ks=(1, 3, 5, 9, 15, 25, 101))
    found = model(scaling, VOTE, Source.POOL, Rates.BINARY)
    assert found.model == model(scaling, VOTE, Source.POOL, Rates.DUEL).model  # two answers, no other
    assert found.model.easy_share == pytest.approx(truth.easy_share, abs=0.06)
    assert found.model.easy_rate == pytest.approx(truth.easy_rate, abs=0.01)
    assert found.model.hard_rate == pytest.approx(truth.hard_rate, abs=0.01)
    assert found.regime is truth.regime
    if truth.regime is Regime.RISE_THEN_FALL:
        assert found.k_star == pytest.approx(truth.k_star, abs=1.5)
        assert found.best_k == found.model.best_odd_k
    errors = {row.prediction: row.mean_squared_error for row in scaling.errors}
    assert errors["binary_model"] < 1e-3


def test_a_candidate_is_worth_less_than_a_vote() -> None:
    """Of each two candidates one passes; of each five, three vote for the right answer or its strongest rival."""
    half = [VotePool.of_votes(1, [0, 0, 0, 1], {0}, [True, True, False, False])]
    scaling = scale_votes(half, ks=KS)
    assert model(scaling, FILTER, Source.POOL, Rates.BINARY).votes_per_candidate == 0.5
    assert model(scaling, VOTE, Source.POOL, Rates.BINARY).votes_per_candidate == 1
    silent = scale_votes([VotePool.of_votes(1, [0, 0, 1, 2, None], {0})], ks=KS)
    assert model(silent, VOTE, Source.POOL, Rates.DUEL).votes_per_candidate == 0.6
    assert model(silent, VOTE, Source.POOL, Rates.BINARY).votes_per_candidate == 1


def test_models_are_paid_in_calls() -> None:
    """Six problems of rate .85 and four of .4: K* = 5.243, best 5; 40 of 80 samples pass, so a vote is four calls."""
    passed = [True] * 40 + [False] * 40
    pools = [VotePool.of_votes(i, [0] * 34 + [1] * 46, {0}, passed) for i in range(6)]
    pools += [VotePool.of_votes(i, [0] * 16 + [1] * 64, {0}, passed) for i in range(6, 10)]
    ks = (1, 2, 4, 7, 11, 12, 20, 22, 36)
    scaling = scale_votes(pools, ks=ks)
    row = model(scaling, FILTER, Source.POOL, Rates.BINARY)
    assert row.regime is Regime.RISE_THEN_FALL
    assert row.k_star == pytest.approx(5.243 * 4, abs=2e-3)
    assert row.best_k == 20
    expected = [0, *TwoLevelModel(0.6, 0.85, 0.4).accuracy([1, 1, 1, 2, 3, 5, 5, 9])]
    assert curve(scaling, FILTER, "binary_model") == pytest.approx(expected)


def test_one_vote_is_one_candidate_however_few_pass() -> None:
    pools = [VotePool.of_votes(i, [0, 1, 1, 1, 0, 1], {0}, [True] * 3 + [False] * 3) for i in range(2)]
    row = model(scale_votes(pools, ks=KS), FILTER, Source.POOL, Rates.BINARY)
    assert (row.regime, row.votes_per_candidate, row.best_k) == (Regime.DECREASE, 0.5, 2)


def test_models_predict_from_the_first_calls() -> None:
    scaling = scale_votes(pools_of(SAMPLES), pools_of(SAMPLES, 12), ks=KS)
    for rates in Rates:
        first = model(scaling, VOTE, Source.CALLS, rates).model
        assert first != model(scaling, VOTE, Source.POOL, rates).model
        assert curve(scaling, VOTE, f"{rates.value}_model") == pytest.approx(first.accuracy(KS))


def test_the_record_is_plain_json() -> None:
    scaling = scale_votes(judged(SAMPLES, 0.8, 1), judged(SAMPLES, 0.8, 1, 12), ks=KS)
    plain = json.loads(json.dumps(to_json(scaling), allow_nan=False))
    assert plain["vote_scaling_version"] == 1
    assert len(plain["curves"]) == 2 * len(KS)
    assert plain["problems"][0]["pool"] == asdict(scaling.problems[0].pool)
    assert set(plain["models"][0]["model"]) == {"easy_share", "easy_rate", "hard_rate"}


def test_what_does_not_belong_together_is_refused() -> None:
    pools = pools_of(SAMPLES)
    with pytest.raises(ValueError, match="same problems"):
        scale_votes([])
    with pytest.raises(ValueError, match="same problems"):
        scale_votes(pools, pools[::-1])
    with pytest.raises(ValueError, match="for all pools, or for none"):
        scale_votes(pools, judged(SAMPLES, 0.5, 1))
    with pytest.raises(ValueError, match="0 calls"):
        scale_votes(pools, ks=(0, 1))


def recorded(name: str) -> list[tuple[list[int | None], set[int]]]:
    """Votes of each problem in the order of the samples, and its correct clusters."""
    folder = environ.get("TTC_TEST_DATA")
    if not folder:
        pytest.skip("TTC_TEST_DATA is not set")
    problems = []
    for line in (Path(folder) / "samples" / name).read_text(encoding="utf-8").splitlines():
        clusters: dict[tuple[str, bool], int] = {}
        found: list[int | None] = []
        for sample in json.loads(line)["samples"]:
            answer = sample["canon"] if "canon" in sample else sample["text"].rpartition("Answer:")[2].strip()
            key = answer, bool(sample["correct"])
            found.append(clusters.setdefault(key, len(clusters)) if answer else None)
        problems.append((found, {cluster for (_, is_correct), cluster in clusters.items() if is_correct}))
    return problems


@pytest.mark.parametrize(
    (
        "name",
        "calls",
        "bounds",
    ),  # root mean squared errors, in points: fitted leaking, fitted fair, not fitted
    [
        ("bon41_llama31_8b_awq.jsonl", 10, (4.9, 5.1, 5.1)),
        ("bon41_llama31_8b_awq.jsonl", 20, (1.5, 1.8, 1.9)),
        ("game24_gpt4_cot_100x100.jsonl", 20, (2.3, 2.2, 2.2)),
    ],
)
def test_few_calls_predict_a_recorded_curve(
    name: str, calls: int, bounds: tuple[float, float, float]
) -> None:
    """The curve from 3 to 1000 calls of all 41 or 100 samples of 100 problems, from the first calls of each."""
    problems = recorded(name)
    pools = [VotePool.of_votes(i, votes, correct) for i, (votes, correct) in enumerate(problems)]
    few = [VotePool.of_votes(i, votes[:calls], correct) for i, (votes, correct) in enumerate(problems)]
    scaling = scale_votes(pools, few, ks=(3, 7, 14, 27, 53, 101, 270, 1000))
    errors = {row.prediction: 100 * row.mean_squared_error**0.5 for row in scaling.errors}
    assert errors["leaking"] < bounds[0]
    assert errors["fair"] < bounds[1]
    assert errors["unfitted"] < bounds[2]
    measured = np.array(curve(scaling, VOTE, "measured"))
    assert np.all(np.diff(measured) > 0)  # on both, the vote helps
    unmoved = 100 * np.sqrt(np.mean((measured - curve(scaling, VOTE, "unfitted")[0]) ** 2))
    assert errors["fair"] < 0.75 * unmoved  # what one gets by taking the accuracy of three calls for all
    easy = [row for row in scaling.problems if row.pool.family is Family.EASY]
    assert len(easy) == (62 if name.startswith("bon41") else 8)
