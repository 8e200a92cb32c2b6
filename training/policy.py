"""Train the embedded policy model on held-in arithmetic, from nothing, on a CPU, in about an hour.

Run ``python -m training.policy --steps N --out DIR``. The same seed and steps give the same data in the same
order; a run that was stopped goes on from its last checkpoint when started again with the same arguments. The
loss counts completion tokens only (the prompt is random and teaches nothing). It must not see the evaluation
side of the split.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from training import model as network
from training import tokenizer as text
from workers.embedded import arithmetic

EASY_MIX = (0.34, 0.24, 0.18, 0.13, 0.11)  # share of each level at the start ...
FINAL_MIX = (0.14, 0.17, 0.20, 0.23, 0.26)  # ... and once CURRICULUM_SHARE of the steps are done
CURRICULUM_SHARE = 0.35
POOL_BATCHES = 16  # batches cut from one pool sorted by length, so that padding is small
PADDING_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the outcome of a run; `rate` is the learning rate after `warmup` steps."""

    steps: int
    seed: int
    batch: int
    rate: float
    final_share: float  # the learning rate ends at this share of its peak
    warmup: int
    decay: float
    layers: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids (batch, tokens) and targets of the same shape; -100 marks what the loss leaves out."""

    tokens: Tensor
    targets: Tensor


def mixture(progress: float) -> list[float]:
    """Give the share of each level once `progress` (0 to 1) of the run is done: easy first, then harder."""
    done = min(progress / CURRICULUM_SHARE, 1.0)
    return [easy + (final - easy) * done for easy, final in zip(EASY_MIX, FINAL_MIX, strict=True)]


def rate_at(plan: Plan, step: int) -> float:
    """Give the learning rate: linear warm-up, then a cosine down to `final_share` of the peak."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(plan.steps - plan.warmup, 1)
    return plan.rate * (plan.final_share + (1 - plan.final_share) * 0.5 * (1 + math.cos(math.pi * done)))


def batches(plan: Plan, tokenizer: Tokenizer, start: int) -> Iterator[Batch]:
    """Yield the batches of steps start, start+1, ...; a pool has its own seed, so a resumed run agrees."""
    step = start
    while step < plan.steps:
        number, skipped = divmod(step, POOL_BATCHES)
        for batch in _pool(plan, tokenizer, number)[skipped : skipped + plan.steps - step]:
            yield batch
            step += 1


def _pool(plan: Plan, tokenizer: Tokenizer, number: int) -> list[Batch]:
    """Draw one pool, sort it by length, cut it into batches and shuffle these."""
    draw = random.Random(f"pool:{plan.seed}:{number}")
    weights = mixture(number * POOL_BATCHES / plan.steps)
    levels = draw.choices(arithmetic.LEVELS, weights, k=plan.batch * POOL_BATCHES)
    streams = {
        level: arithmetic.problems(plan.seed * 1_000_000 + number, level, held_out=False)
        for level in arithmetic.LEVELS
    }
    chosen = [next(streams[level]) for level in levels]
    prompts = [
        encoding.ids
        for encoding in tokenizer.encode_batch([problem.statement + text.STEP_BREAK for problem in chosen])
    ]
    bodies = [
        encoding.ids
        for encoding in tokenizer.encode_batch([problem.solution + text.END for problem in chosen])
    ]
    pairs = sorted(zip(prompts, bodies, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
    cut = [_collate(pairs[at : at + plan.batch]) for at in range(0, len(pairs), plan.batch)]
    draw.shuffle(cut)
    return cut


def _collate(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    """Pad prompt + completion pairs to one length; targets are the next tokens, completion tokens only."""
    longest = max(len(prompt) + len(body) for prompt, body in pairs) - 1
    longest += -longest % PADDING_MULTIPLE
    tokens = torch.zeros((len(pairs), longest), dtype=torch.long)
    targets = torch.full((len(pairs), longest), -100, dtype=torch.long)
    for row, (prompt, body) in enumerate(pairs):
        whole = torch.tensor(prompt + body)
        tokens[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    return Batch(tokens, targets)


def loss_of(model: network.Decoder, batch: Batch, *, is_reduced_precision: bool) -> Tensor:
    """Mean cross-entropy in nats over the completion tokens of a batch."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_reduced_precision):
        hidden, _ = model(batch.tokens)
        kept = batch.targets >= 0
        logits = model.logits(hidden[kept])
    return functional.cross_entropy(logits.float(), batch.targets[kept])


def optimiser_of(model: network.Decoder, plan: Plan) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


@dataclass(slots=True)
class Trainer:
    """One training run: the network, its optimiser, and the step it has reached."""

    plan: Plan
    out: Path
    is_reduced_precision: bool
    tokenizer: Tokenizer
    model: network.Decoder
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0  # training time over all runs that this one continues

    def train(self, save_every: int, log_every: int) -> None:
        """Train to the last step; progress every `log_every` steps, a checkpoint every `save_every`."""
        started, before, first = time.monotonic(), self.seconds, self.step
        losses: list[float] = []
        for batch in batches(self.plan, self.tokenizer, self.step):
            losses.append(self._update(batch))
            self.step += 1
            self.seconds = before + time.monotonic() - started
            if self.step % log_every == 0:
                per_second = (self.step - first) / (self.seconds - before)
                self._report(sum(losses) / len(losses), per_second)
                losses.clear()
            if self.step % save_every == 0 or self.step == self.plan.steps:
                self.save()

    def save(self) -> None:
        """Write the weights of this step for evaluation, and what a later run needs to go on from here."""
        export(self.model, self.tokenizer, self.out / f"step-{self.step:06d}")
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        fresh = self.out / "resume.pt.new"
        torch.save(state, fresh)
        os.replace(fresh, self.out / "resume.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        path = self.out / "resume.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self._cut_log()

    def _cut_log(self) -> None:
        """Drop log lines of steps that were lost with the stopped run and are now done again."""
        path = self.out / "training_log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        path.write_text(
            "".join(line for line in lines if json.loads(line)["step"] <= self.step), encoding="utf-8"
        )

    def _update(self, batch: Batch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.plan, self.step)
        loss = loss_of(self.model, batch, is_reduced_precision=self.is_reduced_precision)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.item()

    def _report(self, loss: float, per_second: float) -> None:
        """Print a progress line and add it to training_log.jsonl."""
        left_s = (self.plan.steps - self.step) / per_second
        rate = rate_at(self.plan, self.step - 1)
        print(
            f"step {self.step}/{self.plan.steps}  loss {loss:.4f}  lr {rate:.2e}  "
            f"{per_second:.2f} steps/s  ETA {left_s / 60:.1f} min",
            flush=True,
        )
        line = {
            "step": self.step,
            "loss": round(loss, 5),
            "rate": round(rate, 7),
            "seconds": round(self.seconds, 1),
        }
        with (self.out / "training_log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def export(model: network.Decoder, tokenizer: Tokenizer, directory: Path) -> None:
    """Write a complete Hugging Face model directory."""
    text.save(directory)
    network.save(model, directory, pad=text.id_of(tokenizer, text.PAD), end=text.id_of(tokenizer, text.END))


def trainer_of(plan: Plan, out: Path, *, is_reduced_precision: bool) -> Trainer:
    """Set up a run from its plan: seeds first, then the network."""
    torch.manual_seed(plan.seed)
    tokenizer = text.build()
    shape = network.Shape(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=plan.layers)
    model = network.Decoder(shape)
    return Trainer(plan, out, is_reduced_precision, tokenizer, model, optimiser_of(model, plan))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints and the log")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64, help="problems a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument(
        "--final-share", type=float, default=0.02, help="learning rate at the end, as a share of the peak"
    )
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay on matrices")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--log-every", type=int, default=20, help="steps between progress lines")
    parser.add_argument(
        "--bfloat16", action="store_true", help="multiply matrices in bfloat16 (weights stay float32)"
    )
    return parser.parse_args()


def main() -> None:
    """Train, or go on training."""
    options = arguments()
    torch.set_num_threads(options.threads)
    plan = Plan(
        options.steps,
        options.seed,
        options.batch,
        options.rate,
        options.final_share,
        options.warmup,
        options.decay,
        options.layers,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = trainer_of(plan, options.out, is_reduced_precision=options.bfloat16)
    trainer.resume()
    trainer.train(options.save_every, options.log_every)


if __name__ == "__main__":
    main()
