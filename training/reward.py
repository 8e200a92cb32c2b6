"""Fine-tune the embedded policy into a reward model, on solutions that the system itself has labelled.

Run ``python -m training.reward LABELS --out DIR``; LABELS is an export in TRL's layout for process rewards, Parquet or
JSON lines. ``--outcome`` makes an outcome reward model, from the last label of each solution alone. The loss is binary
cross-entropy on sigmoid(l+ - l-) after every tag, for soft and hard labels alike (Wang et al., Math-Shepherd; Snell et
al. on process reward models). A tenth of the problems is held out; the export in ``DIR/best`` is the one with the least
loss there, and training ends when that has not come down for a while. Solutions of a problem are laid out as a tree, so
what they share is computed once. A run that was stopped goes on from its last checkpoint when started again with the
same arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from training import labels as data
from training import metrics
from training import model as network
from training import tokenizer as text
from training.batching import Batch, Order, batches, collate, cut, epoch_of
from training.labels import Tree
from training.objective import margins, policy_losses, states

POLICY = Path(__file__).parents[1] / "workers" / "embedded" / "models" / "arithmetic"
LABELS = ("+", "-")  # good, bad


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the outcome of a run; `rate` is the learning rate after `warmup` steps."""

    order: Order
    rate: float
    final_share: float  # the learning rate ends at this share of its peak
    warmup: int
    decay: float
    patience: int  # evaluations without a better loss before the run ends
    is_outcome: bool
    is_fresh: bool
    layers_added: int  # on top of the policy's, which change nothing at first
    language_weight: float  # of the policy's own loss, which keeps what it knows while it learns to judge
    surprise_weight: float  # of a guess at every token how likely the policy thought it


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the held-out problems say: `loss` in nats a label, and areas under curves for labels above 0.5.

    `auc_within` is the mean over trees, so over problems or parts of one: how hard a problem is does not help there.
    """

    step: int
    loss: float
    brier: float
    auc: float
    auc_within: float


def rate_at(plan: Plan, step: int) -> float:
    """Give the learning rate: linear warm-up, then a cosine down to `final_share` of the peak."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(plan.order.steps - plan.warmup, 1)
    return plan.rate * (plan.final_share + (1 - plan.final_share) * 0.5 * (1 + math.cos(math.pi * done)))


def optimiser_of(model: network.Decoder, plan: Plan) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.95), eps=1e-9, fused=True)


def from_policy(folder: Path, vocabulary: int, ids: tuple[int, int], plan: Plan) -> network.Decoder:
    """Take a policy's network, with more rows for tokens that it lacks (the mean of the others) and more layers.

    The good label begins as a copy of the bad one, so that every score begins at one half: a policy's own rows give
    differences of many nats, and what it knows is lost while they are unlearned. An added layer writes nothing at
    first, so what leaves the network is what the policy knows. A comparison of what was written with what was
    expected can only be made above the layers that expect.
    """
    shape = network.shape_of(folder)
    layers = shape.num_hidden_layers + plan.layers_added
    model = network.Decoder(replace(shape, vocab_size=vocabulary, num_hidden_layers=layers))
    if plan.is_fresh:
        return model
    state = network.load(folder).state_dict()
    known = state["embed_tokens.weight"]
    added = known.mean(0, keepdim=True).expand(vocabulary - len(known), -1)
    embedding = torch.cat((known, added))
    embedding[ids[0]] = embedding[ids[1]]
    model.load_state_dict({**state, "embed_tokens.weight": embedding}, strict=False)
    for index in range(shape.num_hidden_layers, layers):
        layer = cast(network.Layer, model.layers[index])
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


@dataclass(slots=True)
class Trainer:
    """One training run: the network, its optimiser, the step it has reached, and the best so far."""

    plan: Plan
    out: Path
    is_reduced_precision: bool
    targets: str
    tokenizer: Tokenizer
    model: network.Decoder
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0  # training time over all runs that this one continues
    best: Evaluation | None = None
    since_best: int = 0  # evaluations

    def train(
        self, trees: Sequence[Tree], held_out: Sequence[Tree], evaluate_every: int, log_every: int
    ) -> None:
        """Train to the last step, or until the held-out loss has not come down for `patience` evaluations."""
        started, before, first = time.monotonic(), self.seconds, self.step
        losses: list[tuple[float, float, float]] = []
        if self.step == 0:
            self._evaluate(held_out)
        for batch in batches(self.plan.order, trees, self.step):
            losses.append(self._update(batch))
            self.step += 1
            self.seconds = before + time.monotonic() - started
            if self.step % log_every == 0:
                means = [sum(each) / len(losses) for each in zip(*losses, strict=True)]
                self._report(means, (self.step - first) / (self.seconds - before))
                losses.clear()
            if self.step % evaluate_every == 0 or self.step == self.plan.order.steps:
                self._evaluate(held_out)
                self.save()
                if self.since_best >= self.plan.patience:
                    print(f"no better loss for {self.since_best} evaluations: stopped", flush=True)
                    return

    def save(self) -> None:
        """Write what a later run needs to go on from here."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": asdict(self.best) if self.best else None,
            "since_best": self.since_best,
        }
        fresh = self.out / "resume.pt.new"
        torch.save(state, fresh)
        os.replace(fresh, self.out / "resume.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one; log lines of steps that were lost go."""
        path = self.out / "resume.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.since_best = state["step"], state["seconds"], state["since_best"]
        self.best = Evaluation(**state["best"]) if state["best"] else None
        log = self._log
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        log.write_text(
            "".join(line for line in lines if json.loads(line)["step"] <= self.step), encoding="utf-8"
        )

    @property
    def _log(self) -> Path:
        return self.out / "training_log.jsonl"

    def _update(self, batch: Batch) -> tuple[float, float, float]:
        """Take a step; the losses of the labels, of the policy and of the guesses."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.plan, self.step)
        hidden = states(self.model, batch, is_reduced_precision=self.is_reduced_precision)
        found = margins(self.model, hidden, batch, label_ids(self.tokenizer))
        each = functional.binary_cross_entropy_with_logits(found, batch.targets, reduction="none")
        loss = (each * batch.weights).sum() / batch.weights.sum()
        language, surprise = policy_losses(self.model, hidden, batch, label_ids(self.tokenizer))
        whole = loss + self.plan.language_weight * language + self.plan.surprise_weight * surprise
        whole.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.item(), language.item(), surprise.item()

    @torch.inference_mode()
    def _evaluate(self, held_out: Sequence[Tree]) -> None:
        """Measure the held-out problems, each solution as often as it occurred; export what is better than before."""
        ordered = sorted(held_out, key=lambda tree: len(tree.tokens))
        laid_out = [collate(members, 1.0) for members in cut(ordered, self.plan.order.tokens)]
        found = [
            margins(
                self.model,
                states(self.model, batch, is_reduced_precision=False),
                batch,
                label_ids(self.tokenizer),
            )
            for batch in laid_out
        ]
        result = _measured(self.step, torch.cat(found), ordered)
        is_better = self.best is None or result.loss < self.best.loss
        self.since_best = 0 if is_better else self.since_best + 1
        if is_better:
            self.best = result
            self.export(self.out / "best")
        mark = "  best" if is_better else ""
        print(
            f"held out, step {self.step}: loss {result.loss:.4f}  Brier {result.brier:.4f}  AUC {result.auc:.4f}  "
            f"within problems {result.auc_within:.4f}{mark}",
            flush=True,
        )
        self._write({key: round(value, 5) for key, value in asdict(result).items()})

    def export(self, directory: Path) -> None:
        """Write a complete Hugging Face model directory, in float16, with what makes it a reward model."""
        text.save(directory, has_tag=True)
        pad, end = text.id_of(self.tokenizer, text.PAD), text.id_of(self.tokenizer, text.END)
        network.save(self.model, directory, pad=pad, end=end, dtype=torch.float16)
        role = "orm" if self.plan.is_outcome else "prm"
        settings = {"role": role, "tag": text.STEP, "labels": list(LABELS), "targets": self.targets}
        (directory / "reward.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _report(self, losses: Sequence[float], per_second: float) -> None:
        loss, language, surprise = losses
        left_s = (self.plan.order.steps - self.step) / per_second
        rate = rate_at(self.plan, self.step - 1)
        print(
            f"step {self.step}/{self.plan.order.steps}  loss {loss:.4f}  policy {language:.4f}  "
            f"guesses {surprise:.4f}  lr {rate:.2e}  "
            f"{per_second:.2f} steps/s  ETA {left_s / 60:.1f} min",
            flush=True,
        )
        named = {"train_loss": loss, "policy_loss": language, "guess_loss": surprise, "rate": rate}
        self._write({"step": self.step, **{key: round(value, 7) for key, value in named.items()}})

    def _write(self, line: dict[str, float]) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**line, "seconds": round(self.seconds, 1)}) + "\n")


def _measured(step: int, found: Tensor, trees: Sequence[Tree]) -> Evaluation:
    targets = torch.tensor([target for tree in trees for target in tree.targets])
    weights = torch.tensor([weight for tree in trees for weight in tree.weights])
    each = functional.binary_cross_entropy_with_logits(found, targets, reduction="none")
    scores, is_good = found.double().numpy(), targets.numpy() > metrics.GOOD_ABOVE
    cuts = np.cumsum([len(tree.places) for tree in trees])[:-1]
    pieces = (np.split(array, cuts) for array in (scores, is_good, weights.numpy()))
    within = [metrics.auc(*piece) for piece in zip(*pieces, strict=True)]
    return Evaluation(
        step=step,
        loss=float((each * weights).sum() / weights.sum()),
        brier=metrics.brier(torch.sigmoid(found.double()).numpy(), targets.numpy(), weights.numpy()),
        auc=metrics.auc(scores, is_good, weights.numpy()),
        auc_within=float(np.nanmean(within)) if not np.isnan(within).all() else math.nan,
    )


def label_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Give the token ids of the good and of the bad label."""
    return text.id_of(tokenizer, LABELS[0]), text.id_of(tokenizer, LABELS[1])


def trainer_of(plan: Plan, out: Path, policy: Path, targets: str, *, is_reduced_precision: bool) -> Trainer:
    """Set up a run from its plan: seeds first, then the network."""
    torch.manual_seed(plan.order.seed)
    tokenizer = text.build(has_tag=True)
    model = from_policy(policy, tokenizer.get_vocab_size(), label_ids(tokenizer), plan)
    return Trainer(plan, out, is_reduced_precision, targets, tokenizer, model, optimiser_of(model, plan))


def targets_of(solutions: Sequence[data.Solution], *, is_outcome: bool) -> str:
    """Say what kind of labels these are: outcome, hard (0 and 1 alone) or soft."""
    if is_outcome:
        return "outcome"
    is_hard = all(label in (0.0, 1.0) for solution in solutions for label in solution.labels)
    return "hard" if is_hard else "soft"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path, help="export in TRL's layout, .parquet or JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints, log and export")
    parser.add_argument(
        "--outcome", action="store_true", help="train an outcome reward model, on last labels alone"
    )
    parser.add_argument("--policy", type=Path, default=POLICY, help="model to start from")
    parser.add_argument(
        "--fresh", action="store_true", help="start from random weights of the policy's shape"
    )
    parser.add_argument("--add-layers", type=int, default=2, help="layers on top of the policy's")
    parser.add_argument(
        "--language-weight",
        type=float,
        default=0.3,
        help="weight of the policy's own loss beside the labels'",
    )
    parser.add_argument(
        "--surprise-weight", type=float, default=3.0, help="weight of guessing how likely each token was"
    )
    parser.add_argument("--steps", type=int, default=2500, help="at most")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the hold-out, of the order and of fresh weights"
    )
    parser.add_argument("--tokens", type=int, default=4096, help="a step, padding included")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument(
        "--final-share", type=float, default=0.02, help="rate at the end, as a share of the peak"
    )
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay on matrices")
    parser.add_argument(
        "--weight-power",
        type=float,
        default=1.0,
        help="a label that n solutions share counts n to this power",
    )
    parser.add_argument(
        "--patience", type=int, default=20, help="evaluations without a better loss before the end"
    )
    parser.add_argument(
        "--evaluate-every", type=int, default=125, help="steps; a checkpoint is written then too"
    )
    parser.add_argument("--log-every", type=int, default=20, help="steps between progress lines")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--bfloat16", action="store_true", help="multiply matrices in bfloat16 (weights stay float32)"
    )
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> Plan:
    """Take the plan from the command line."""
    return Plan(
        order=Order(options.steps, options.seed, options.tokens, options.weight_power),
        rate=options.rate,
        final_share=options.final_share,
        warmup=options.warmup,
        decay=options.decay,
        patience=options.patience,
        is_outcome=options.outcome,
        is_fresh=options.fresh,
        layers_added=options.add_layers,
        language_weight=options.language_weight,
        surprise_weight=options.surprise_weight,
    )


def main() -> None:
    """Train, or go on training."""
    options = arguments()
    torch.set_num_threads(options.threads)
    plan = plan_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    solutions = data.read(options.labels)
    targets = targets_of(solutions, is_outcome=plan.is_outcome)
    trainer = trainer_of(plan, options.out, options.policy, targets, is_reduced_precision=options.bfloat16)
    context = trainer.model.shape.max_position_embeddings
    made: list[list[Tree]] = []
    for name, side in zip(("training", "held out"), data.split(solutions, plan.order.seed), strict=True):
        made.append(data.trees(side, trainer.tokenizer, context, is_outcome=plan.is_outcome))
        print(data.summary(name, side, made[-1]), flush=True)
    print(f"targets: {targets}; {len(epoch_of(plan.order, made[0], 0))} steps an epoch", flush=True)
    trainer.resume()
    trainer.train(made[0], made[1], options.evaluate_every, options.log_every)
    if trainer.best is not None:
        shutil.copy(options.out / "training_log.jsonl", options.out / "best")
        print(
            f"best: step {trainer.best.step}, held-out loss {trainer.best.loss:.4f}, in {options.out / 'best'}"
        )


if __name__ == "__main__":
    main()
