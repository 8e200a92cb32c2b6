"""Samples that others recorded: imported, scored, voted on, and equal to what is known of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestrator.analysis.estimation.arrays import BoolArray, FloatArray
from orchestrator.analysis.pool_reading import ScoreColumn, read_pool
from orchestrator.cli import app
from orchestrator.registration import recall
from orchestrator.store import Store
from workers.steps import Aggregation


def recorded(name: str) -> Path:
    folder = os.environ.get("TTC_TEST_DATA")
    if folder is None:
        pytest.skip("TTC_TEST_DATA is not set: no recorded samples")
    return Path(folder, "samples", f"{name}.jsonl")


def ttc(database: Path, *arguments: object) -> Any:
    """What a command answers, as JSON."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json", "--db", str(database)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def accuracy(answer: Any, selector: str, budget: int, level: str = "all") -> float:
    (row,) = [
        row
        for row in answer["strategies"]["imported"]["results"]
        if (row["selector"], row["budget"], row["level"]) == (selector, budget, level)
    ]
    return float(row["value"])


def auc(scores: FloatArray, is_right: BoolArray) -> float:
    """Chance that a right sample scores above a wrong one, a tie counting a half."""
    right, wrong = scores[is_right], scores[~is_right]
    above = (right[:, None] > wrong[None, :]).sum() + 0.5 * (right[:, None] == wrong[None, :]).sum()
    return float(above / (len(right) * len(wrong)))


async def columns(database: Path, name: str, *how: Aggregation) -> tuple[dict[str, FloatArray], BoolArray]:
    """Scores of all samples of an import, by aggregation, and their verdicts."""
    async with await Store.open(f"sqlite:///{database}", create=False) as store:
        _, registered = await recall(name, store)
        (scorer_id,) = registered.scorers
        wanted = [ScoreColumn(each, scorer_id, each) for each in how]
        pools = await store.sample_pools(registered.sweep_id)
        answers = await store.sweep_answers(registered.sweep_id, registered.rules.primary_id)
        samples = await store.pool_samples(pools, [scorer_id], registered.rules.extractor_id)
    records = [
        read_pool(pool, its, answers.get(pool.problem_id, []), wanted)
        for pool, its in zip(pools, samples, strict=True)
    ]
    scores = {each: np.concatenate([r.ballots.scores[each] for r in records]) for each in how}
    is_right = np.concatenate([record.ballots.is_right for record in records])
    is_scored = ~np.isnan(scores[how[0]])
    return {each: values[is_scored] for each, values in scores.items()}, is_right[is_scored]


async def test_step_scores_of_a_prm_tell_right_from_wrong(tmp_path: Path) -> None:
    """AUC of last, min and prod of Skywork's PRM on 500 solutions; verdicts are those of the file."""
    database = tmp_path / "t.db"
    source = recorded("bon1_llama31_8b_awq_math500")
    answer = await _import(database, source, "bon1", "--label-type", "soft", "--field", "verdict=correct")
    assert (answer["problems"], answer["samples"], answer["scored"]) == (500, 500, 500)
    assert accuracy(answer, "pass", 1) == pytest.approx(0.406, abs=1e-9)
    how = (Aggregation.LAST, Aggregation.MIN, Aggregation.PROD)
    scores, is_right = await columns(database, "bon1", *how)
    assert [auc(scores[each], is_right) for each in how] == pytest.approx([0.861, 0.885, 0.904], abs=5e-4)


async def test_logits_of_an_orm_tell_right_from_wrong(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    source = recorded("bon8_qwen25math_orm")
    answer = await _import(database, source, "bon8", "--logits", "--field", "verdict=correct")
    assert (answer["problems"], answer["samples"], answer["scored"]) == (100, 800, 800)
    scores, is_right = await columns(database, "bon8", Aggregation.LAST)
    assert auc(scores[Aggregation.LAST], is_right) == pytest.approx(0.974, abs=5e-4)
    selectors = {row["selector"] for row in answer["strategies"]["imported"]["results"]}
    assert selectors == {"pass", "majority", "best-of-n:scorer", "weighted:scorer"}


async def test_a_pool_of_41_has_its_published_curve(tmp_path: Path) -> None:
    """Verdicts are ours: they may differ from the recorded ones on a few answers in a thousand."""
    answer = await _import(
        tmp_path / "t.db", recorded("bon41_llama31_8b_awq"), "bon41", "--label-type", "soft"
    )
    assert (answer["problems"], answer["samples"], answer["scored"]) == (100, 4100, 292)
    for budget, published in ((1, 0.445), (4, 0.648), (16, 0.811), (41, 0.890)):
        assert accuracy(answer, "pass", budget) == pytest.approx(published, abs=0.01)
    assert accuracy(answer, "majority", 41) == pytest.approx(0.63, abs=0.01)
    assert not answer["scramble_alarm"]
    scored = [
        row
        for row in answer["strategies"]["imported"]["results"]
        if row["selector"] == "weighted:scorer.last" and row["level"] == "all"
    ]
    # a problem has 1 to 5 scored samples: more than that nobody can say of the scorer
    assert [row["problems"] for row in scored if row["budget"] in (1, 2, 4, 8)] == [100, 80, 16, 0]


async def test_answers_that_only_their_checker_can_judge(tmp_path: Path) -> None:
    mapping = ("--field", "problem=idx", "--field", "verdict=correct", "--answer-after", "Answer:")
    answer = await _import(tmp_path / "t.db", recorded("game24_gpt4_cot_100x100"), "game24", *mapping)
    assert (answer["problems"], answer["samples"]) == (100, 10_000)
    assert accuracy(answer, "pass", 1) == pytest.approx(0.040, abs=5e-4)
    assert accuracy(answer, "pass", 100) == pytest.approx(0.49, abs=1e-9)


async def test_scrambled_samples_raise_the_alarm(tmp_path: Path) -> None:
    answer = await _import(tmp_path / "t.db", recorded("scrambled_llama31_8b_a4"), "scrambled")
    assert answer["scramble_alarm"]


async def _import(database: Path, source: Path, name: str, *options: str) -> Any:
    import asyncio

    return await asyncio.to_thread(ttc, database, "import", source, "--name", name, *options)
