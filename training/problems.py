"""Write problems to label: the training side of the arithmetic split, as JSON lines that a sweep reads.

Run ``python -m training.problems --per-level 400 > problems.jsonl``. Reward models are trained on the policy's
solutions to these, and measured on the other side of the split, so none of them is a held-out expression. Knows
the generator only; needs no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from workers.embedded import arithmetic


def records(seed: int, per_level: int, *, held_out: bool = False) -> Iterator[dict[str, str | int]]:
    """Yield `id`, `problem`, `answer` and `level`, level after level; the same for a seed on every machine."""
    for level in arithmetic.LEVELS:
        for problem in arithmetic.generate(seed, level, per_level, held_out=held_out):
            yield {"id": problem.id, "problem": problem.statement, "answer": problem.answer, "level": level}


def main() -> None:
    """Write the problems to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-level", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--held-out", action="store_true", help="the evaluation side instead, to measure on")
    options = parser.parse_args()
    for record in records(options.seed, options.per_level, held_out=options.held_out):
        sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
