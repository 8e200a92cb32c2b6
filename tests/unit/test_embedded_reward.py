"""What makes a folder a reward model, and how a difference of logits becomes a probability."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.embedded_models import TAG, build_tokenizer, write_model
from workers.embedded import card, engine, model
from workers.embedded.catalog import built_in_models, resolve_model, role_of, weights_revision
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


def test_the_catalogue_tells_roles_apart(tmp_path: Path) -> None:
    folders = {role: write_model(tmp_path / role, role=role) for role in ("prm", "orm")}
    assert {role: role_of(folder) for role, folder in folders.items()} == {"prm": "prm", "orm": "orm"}
    assert role_of(write_model(tmp_path / "plain")) == role_of("arithmetic") == "policy"
    assert "arithmetic" in built_in_models("policy")
    assert "arithmetic" not in built_in_models("prm") + built_in_models("orm")
    assert set(built_in_models()) == {
        name for role in ("policy", "prm", "orm") for name in built_in_models(role)
    }


def test_a_revision_covers_weights_and_how_they_are_read(tmp_path: Path) -> None:
    single, half = (
        write_model(tmp_path / name, role="prm", is_half=name == "half") for name in ("single", "half")
    )
    before = weights_revision(single)
    assert before != weights_revision(half)
    assert resolve_model(half) == half
    (single / "reward.json").write_text(json.dumps({"role": "prm", "tag": TAG, "labels": ["-", "+"]}))
    assert weights_revision(single) != before


def test_the_revision_of_the_shipped_policy_stays_what_it_was() -> None:
    weights = (resolve_model("arithmetic") / "model.safetensors").read_bytes()
    assert weights_revision("arithmetic") == hashlib.sha256(weights).hexdigest()[:12]


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
