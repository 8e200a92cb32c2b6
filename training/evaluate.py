"""Measure a policy checkpoint on held-out problems as a sweep would use it: many samples, temperature 1.

Run ``python -m training.evaluate DIR``. Prints one row a level: pass@1 and pass@n (the unbiased estimate of
Chen et al. 2021), majority vote over n samples, mean completion tokens and the share cut off at the token
limit. It must not see the training side of the split.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training import model as network
from training import tokenizer as text
from workers.embedded import arithmetic

ANSWER = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion: text without the end token, length in tokens with it, and whether it was cut off."""

    text: str
    tokens: int
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the problems of one level; shares are between 0 and 1."""

    level: int
    problems: int
    pass_at_1: float
    pass_at_8: float
    pass_at_n: float
    majority: float
    tokens: float
    truncated: float


@torch.inference_mode()
def sample(
    model: network.Decoder, prompt: list[int], count: int, limit: int, end: int, draw: torch.Generator
) -> list[list[int]]:
    """Draw `count` completions of one prompt at temperature 1, at most `limit` tokens each with `end`."""
    hidden, cache = model(torch.tensor([prompt]))
    cache = [(key.expand(count, -1, -1, -1), value.expand(count, -1, -1, -1)) for key, value in cache]
    logits = model.logits(hidden[:, -1]).expand(count, -1)
    drawn: list[torch.Tensor] = []
    is_open = torch.ones(count, dtype=torch.bool)
    for _ in range(limit):
        drawn.append(torch.multinomial(logits.softmax(-1), 1, generator=draw))
        is_open &= drawn[-1][:, 0] != end
        if not is_open.any():
            break
        hidden, cache = model(drawn[-1], cache)
        logits = model.logits(hidden[:, -1])
    return [_until(row, end) for row in torch.cat(drawn, dim=1).tolist()]


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def answer_of(completion: str) -> str | None:
    """Give the last boxed integer, or None."""
    found = ANSWER.findall(completion)
    return found[-1] if found else None


def pass_at(correct: int, drawn: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is correct, from `correct` of `drawn`."""
    return 1.0 - math.comb(drawn - correct, k) / math.comb(drawn, k)


def majority_of(answers: list[str | None]) -> str | None:
    """Give the commonest answer, the first drawn among equals; samples without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def measure(
    model: network.Decoder,
    tokenizer: Tokenizer,
    problems: list[arithmetic.Problem],
    count: int,
    limit: int,
    seed: int,
) -> Row:
    """Sample every problem of one level `count` times and average."""
    draw = torch.Generator().manual_seed(seed)
    end = text.id_of(tokenizer, text.END)
    hits: list[int] = []
    votes: list[bool] = []
    samples: list[Sample] = []
    for problem in problems:
        prompt = tokenizer.encode(problem.statement + text.STEP_BREAK).ids
        drawn = [
            _sample_of(tokens, tokenizer, end) for tokens in sample(model, prompt, count, limit, end, draw)
        ]
        answers = [None if each.is_truncated else answer_of(each.text) for each in drawn]
        hits.append(answers.count(problem.answer))
        votes.append(majority_of(answers) == problem.answer)
        samples.extend(drawn)
    return _row(problems[0].level, hits, votes, samples, count)


def _sample_of(tokens: list[int], tokenizer: Tokenizer, end: int) -> Sample:
    return Sample(tokenizer.decode(tokens), len(tokens), tokens[-1] != end)


def _row(level: int, hits: list[int], votes: list[bool], samples: list[Sample], count: int) -> Row:
    def mean_pass(k: int) -> float:
        return sum(pass_at(hit, count, k) for hit in hits) / len(hits)

    return Row(
        level=level,
        problems=len(hits),
        pass_at_1=mean_pass(1),
        pass_at_8=mean_pass(min(8, count)),
        pass_at_n=mean_pass(count),
        majority=sum(votes) / len(votes),
        tokens=sum(each.tokens for each in samples) / len(samples),
        truncated=sum(each.is_truncated for each in samples) / len(samples),
    )


def table(rows: list[Row], count: int) -> str:
    """Write rows as a Markdown table."""
    lines = [
        f"| level | problems | pass@1 | pass@8 | pass@{count} | majority@{count} | mean tokens | truncated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = f"{row.pass_at_1:.3f} | {row.pass_at_8:.3f} | {row.pass_at_n:.3f} | {row.majority:.3f}"
        lines.append(f"| {row.level} | {row.problems} | {shares} | {row.tokens:.1f} | {row.truncated:.4f} |")
    return "\n".join(lines)


def held_out(seed: int | None, level: int, count: int) -> list[arithmetic.Problem]:
    """Give the first `count` shipped problems of a level, or with a seed as many fresh held-out ones."""
    if seed is not None:
        return arithmetic.generate(seed, level, count)
    records = map(json.loads, arithmetic.problem_set().read_text(encoding="utf-8").splitlines())
    chosen = [record for record in records if record["level"] == level][:count]
    return [
        arithmetic.Problem(record["id"], record["problem"], record["answer"], level, record["solution"])
        for record in chosen
    ]


def main() -> None:
    """Measure one checkpoint and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--problems", type=int, default=40, help="problems a level")
    parser.add_argument("--samples", type=int, default=64, help="samples a problem")
    parser.add_argument("--limit", type=int, default=256, help="completion tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument(
        "--problem-seed", type=int, help="draw fresh held-out problems instead of the shipped ones"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = network.load(options.directory)
    tokenizer = Tokenizer.from_file(str(options.directory / "tokenizer.json"))
    rows = [
        measure(
            model,
            tokenizer,
            held_out(options.problem_seed, level, options.problems),
            options.samples,
            options.limit,
            options.seed,
        )
        for level in arithmetic.LEVELS
    ]
    print(table(rows, options.samples))


if __name__ == "__main__":
    main()
