"""The trainer of reward models: trees say what texts say, runs resume, and the export is a model that serves.

Needs torch, which only those who train install.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_training_labels import TOKENIZER, drawn
from training import labels
from workers.embedded import engine
from workers.embedded.reward import Role

torch = pytest.importorskip("torch")

from training import evaluate_reward, reward  # noqa: E402 - after torch is known to be there
from training import model as network  # noqa: E402
from training.batching import Order, collate  # noqa: E402
from training.objective import margins as margins_of  # noqa: E402
from training.objective import policy_losses  # noqa: E402
from training.objective import states as states_of  # noqa: E402

PLAN = reward.Plan(
    order=Order(steps=6, seed=1, tokens=1024, weight_power=1.0),
    rate=1e-3,
    final_share=0.1,
    warmup=2,
    decay=0.05,
    patience=9,
    is_outcome=False,
    is_fresh=False,
    layers_added=0,
    language_weight=0.0,
    surprise_weight=0.0,
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    from training import policy as trainer
    from training import tokenizer

    torch.manual_seed(0)
    shape = network.Shape(
        vocab_size=111, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16
    )
    trainer.export(network.Decoder(shape), tokenizer.build(), tmp_path / "policy")
    return tmp_path / "policy"


def run(plan: reward.Plan, out: Path, policy: Path) -> reward.Trainer:
    out.mkdir(exist_ok=True)
    trainer = reward.trainer_of(plan, out, policy, "soft", is_reduced_precision=False)
    trees = labels.trees(drawn(80), TOKENIZER, 1024, is_outcome=plan.is_outcome)
    held_out = labels.trees(drawn(30, seed=5), TOKENIZER, 1024, is_outcome=plan.is_outcome)
    trainer.resume()
    trainer.train(trees, held_out, evaluate_every=2, log_every=1)
    return trainer


def test_a_tree_gives_what_each_text_gives(policy: Path) -> None:
    solutions = drawn(20)
    model = network.load(policy)
    model.embed_tokens.weight.data = torch.cat([model.embed_tokens.weight.data, torch.randn(1, 32)])
    trees = labels.trees(solutions, TOKENIZER, 1024, is_outcome=False)
    batch = collate(trees, 1.0)
    with torch.inference_mode():
        found = states_of(model, batch, is_reduced_precision=False)[batch.rows, batch.places]
        at = 0
        for tree in trees:
            for place in tree.places:
                tokens, node = [], place
                while node >= 0:
                    tokens.append(tree.tokens[node])
                    node = tree.parents[node]
                hidden, _ = model(torch.tensor([tokens[::-1]]))
                assert torch.allclose(found[at], hidden[0, -1], atol=1e-5)
                at += 1
    assert at == len(found)


@pytest.mark.parametrize("layers", [0, 2])
def test_it_begins_with_what_the_policy_knows_and_scores_of_one_half(policy: Path, layers: int) -> None:
    plan = replace(PLAN, layers_added=layers)
    trainer = reward.trainer_of(plan, policy, policy, "soft", is_reduced_precision=False)
    tokens = torch.tensor([TOKENIZER.encode("Compute $2 - (-3)$.\n\nFirst, $2").ids])
    with torch.inference_mode():
        hidden, _ = trainer.model(tokens)
        before, _ = network.load(policy)(tokens)
        assert torch.allclose(hidden, before, atol=1e-6)
        batch = collate(labels.trees(drawn(5), TOKENIZER, 1024, is_outcome=False), 1.0)
        states = states_of(trainer.model, batch, is_reduced_precision=False)
        assert not margins_of(trainer.model, states, batch, reward.label_ids(TOKENIZER)).any()


def test_the_policys_losses_are_those_of_its_texts(policy: Path) -> None:
    """Cross-entropy of what it wrote, token by token; and at scores of one half, a guess costs ln 2."""
    solutions = drawn(3)
    trainer = reward.trainer_of(PLAN, policy, policy, "soft", is_reduced_precision=False)
    trees = labels.trees(solutions, TOKENIZER, 1024, is_outcome=False)
    batch, ids = collate(trees, 1.0), reward.label_ids(TOKENIZER)
    each: dict[tuple[int, ...], float] = {}
    with torch.inference_mode():
        states = states_of(trainer.model, batch, is_reduced_precision=False)
        language, surprise = policy_losses(trainer.model, states, batch, ids)
        for solution in solutions:
            tokens = TOKENIZER.encode(solution.text).ids
            given = len(TOKENIZER.encode(solution.prompt + "\n\n").ids)
            hidden, _ = trainer.model(torch.tensor([tokens]))
            costs = torch.nn.functional.cross_entropy(
                trainer.model.logits(hidden[0, :-1]), torch.tensor(tokens[1:]), reduction="none"
            )
            for end in range(given, len(tokens)):
                if ids_of_tag() not in tokens[end - 1 : end + 1]:
                    each[tuple(tokens[: end + 1])] = costs[end - 1].item()
    assert language.item() == pytest.approx(sum(each.values()) / len(each), rel=1e-5)
    assert surprise.item() == pytest.approx(math.log(2))


def ids_of_tag() -> int:
    found: int = TOKENIZER.token_to_id("<|step|>")
    return found


def test_it_learns_and_exports_the_best(policy: Path, tmp_path: Path) -> None:
    trainer = run(PLAN, tmp_path / "run", policy)
    assert trainer.best is not None
    assert trainer.best.loss < math.log(2)  # where it begins
    lines = read_log(tmp_path / "run")
    assert [line["step"] for line in lines if "train_loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "auc" in line] == [0, 2, 4, 6]
    best = min((line for line in lines if "auc" in line), key=lambda line: line["loss"])
    assert best["step"] == trainer.best.step
    assert not (tmp_path / "run/resume.pt.new").exists()


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(PLAN, tmp_path / "whole", policy)
    written = reward.Trainer._report

    def stop_in_step_5(trainer: reward.Trainer, loss: float, per_second: float) -> None:
        written(trainer, loss, per_second)
        if trainer.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(reward.Trainer, "_report", stop_in_step_5)
    with pytest.raises(KeyboardInterrupt):
        run(PLAN, tmp_path / "parts", policy)
    monkeypatch.undo()
    parts = run(PLAN, tmp_path / "parts", policy)  # from the checkpoint of step 4
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name
    assert parts.best == whole.best
    logs = [read_log(tmp_path / name) for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def read_log(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_it_stops_when_the_held_out_loss_stays(policy: Path, tmp_path: Path) -> None:
    trainer = run(
        replace(PLAN, order=replace(PLAN.order, steps=40), rate=0.0, patience=3), tmp_path / "run", policy
    )
    assert trainer.step == 6  # three evaluations, two steps apart, none better than the first


def test_the_policys_losses_are_learned_too(policy: Path, tmp_path: Path) -> None:
    trainer = run(replace(PLAN, language_weight=0.3, surprise_weight=0.5), tmp_path / "run", policy)
    assert trainer.step == 6
    assert not math.isnan(read_log(tmp_path / "run")[-1]["auc_within"])


@pytest.mark.parametrize("is_outcome", [False, True])
def test_the_export_serves_and_scores_as_the_trainer_does(
    policy: Path, tmp_path: Path, is_outcome: bool
) -> None:
    trainer = run(replace(PLAN, is_outcome=is_outcome, layers_added=1), tmp_path / "run", policy)
    best = tmp_path / "run" / "best"
    assert (best / "model.safetensors").stat().st_mode & 0o777 == 0o644
    card = engine.load(best, slots=1).card
    assert card.reward is not None
    assert card.reward.role == (Role.ORM if is_outcome else Role.PRM)
    assert (card.vocabulary, card.reward.tag) == (112, 111)
    solutions = drawn(30, seed=5)
    _, found = evaluate_reward.scored(best, solutions)
    model = network.load(best)
    for solution, margins in zip(solutions, found, strict=True):
        (tree,) = labels.trees([solution], TOKENIZER, 1024, is_outcome=False)
        batch = collate([tree], 1.0)
        with torch.inference_mode():
            states = states_of(model, batch, is_reduced_precision=False)
            expected = margins_of(model, states, batch, reward.label_ids(TOKENIZER)).numpy()
        assert np.allclose(margins, expected, atol=1e-4)
    assert trainer.best is not None
    text = evaluate_reward.report(card.reward.role, solutions, found)
    assert "| AUC within a problem |" in text
