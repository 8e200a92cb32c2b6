"""What makes a folder a reward model, and how a difference of logits becomes a probability."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.embedded_models import TAG, build_tokenizer, write_model
from workers.embedded import card, engine, model
from workers.embedded.catalog import resolve_model, weights_revision
from workers.embedded.model import UnsupportedModelError
from workers.embedded.reward import Reward, Role, probability


def load(folder: Path) -> Reward | None:
    return card.load(folder, model.load(folder).architecture).reward


@pytest.mark.parametrize("role", list(Role))
def test_the_file_names_role_tag_and_labels(tmp_path: Path, role: Role) -> None:
    folder = write_model(tmp_path / "reward", role=role)
    tokenizer = build_tokenizer(has_tag=True)
    ids = [tokenizer.token_to_id(token) for token in (TAG, "+", "-")]
    assert load(folder) == Reward(role, *ids, TAG)
    assert engine.load(folder, slots=1).card.vocabulary == build_tokenizer().get_vocab_size() + 1


def test_a_folder_without_the_file_is_a_policy(tmp_path: Path) -> None:
    assert load(write_model(tmp_path / "policy")) is None
    assert load(resolve_model("arithmetic")) is None


@pytest.mark.parametrize(
    "settings",
    [
        [],
        "prm",
        {},
        {"role": "judge", "tag": TAG, "labels": ["+", "-"]},
        {"role": "prm", "tag": "<nope>", "labels": ["+", "-"]},
        {"role": "prm", "tag": TAG, "labels": ["+"]},
        {"role": "prm", "tag": TAG, "labels": ["good", "bad"]},
        {"role": "prm", "tag": 4, "labels": ["+", "-"]},
        {"role": "prm", "tag": TAG, "labels": [1, None]},
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, settings: object) -> None:
    folder = write_model(tmp_path / "reward", role="prm")
    (folder / "reward.json").write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match=r"reward\.json"):
        load(folder)
    (folder / "reward.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match=r"reward\.json"):
        load(folder)


def test_weights_of_a_reward_model_have_a_revision(tmp_path: Path) -> None:
    single, half = (
        write_model(tmp_path / name, role="prm", is_half=name == "half") for name in ("single", "half")
    )
    assert weights_revision(single) != weights_revision(half)
    assert resolve_model(half) == half


@given(st.floats(-700, 700))
def test_the_probability_is_the_softmax_over_two_labels(margin: float) -> None:
    expected = math.exp(min(margin, 0)) / (math.exp(min(margin, 0)) + math.exp(min(-margin, 0)))
    assert probability(margin) == float(np.float32(expected))
    assert probability(margin) + probability(-margin) == pytest.approx(1, abs=1e-7)


def test_probabilities_of_recorded_logits() -> None:
    """l+ - l- and P(+) at the three steps that a real vLLM scored with this recipe (shepherd_step_classify)."""
    pairs = [(-4.500982761383057, -5.035431385040283), (-4.541592597961426, -4.917923927307129)]
    found = [probability(good - bad) for good, bad in pairs]
    assert found == pytest.approx([0.6305199861526489, 0.5929880142211914], abs=2e-7)
