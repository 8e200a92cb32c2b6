r"""Labelled solutions: TRL's layout for process rewards, read, split by problem, and laid out as a reward model reads.

A row has `prompt` (the problem statement), `completions` (its steps, without separators), `labels` (one a step, 0 to 1:
the share of rollouts from there that were right, or whether any was) and `problem_id`. The last label is the outcome.
Laid out, every step ends in a tag: `{prompt}\n\n{step}<|step|>\n\n{step}<|step|>`. Knows text and numbers; it must not
know the network, so it needs no torch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from tokenizers import Tokenizer

from training.tokenizer import STEP, STEP_BREAK, id_of

TREE_TOKENS = 320  # attention over a tree costs the square of its size
OPEN_ROWS = 16  # rows that a tree may still be put into
DIGITS = "0123456789"
UNWRITTEN_SHARE = 0.5  # of the digits: those that have a rival
HELD_OUT_MODULUS = 10  # one problem in ten, as in Snell et al. (2024)


_Encoded = tuple[list[int], tuple[float, ...], int]  # token ids, a label for each tag, tokens of the problem


@dataclass(frozen=True, slots=True)
class Solution:
    """One labelled solution; `labels` are values of the prefixes that end with each step, between 0 and 1."""

    problem_id: str
    prompt: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]

    @property
    def outcome(self) -> float:
        """Label of the whole solution."""
        return self.labels[-1]

    @property
    def text(self) -> str:
        """The solution as a reward model reads it."""
        return (
            self.prompt.rstrip() + STEP_BREAK + STEP_BREAK.join(step.rstrip() + STEP for step in self.steps)
        )


@dataclass(frozen=True, slots=True)
class Tree:
    """Solutions of one problem that share beginnings: a node a token, each beginning once, parents before children."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    """Node before each node; -1 before the first."""
    places: tuple[int, ...]
    """Nodes of the tags that count."""
    targets: tuple[float, ...]
    """Mean label at each of them ..."""
    weights: tuple[float, ...]
    """... over so many solutions that pass there."""
    written: tuple[int, ...]
    """Nodes of tokens that the policy wrote after a token of its own or of the problem: no tag, none after a tag."""
    unwritten: tuple[int, ...]
    """Nodes of digits that it did not write, in the place of some of those that it did: leaves."""


def read(path: Path) -> list[Solution]:
    """Read a .parquet file, or JSON lines. Raises ValueError naming the row that is not as it should be."""
    rows = parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else list(_json_rows(path))
    return [_solution(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def split(solutions: Sequence[Solution], seed: int) -> tuple[list[Solution], list[Solution]]:
    """Give what is trained on, and what is held out: whole problems, chosen by a hash of their id and the seed."""
    is_held = {solution.problem_id: _is_held_out(solution.problem_id, seed) for solution in solutions}
    kept = [solution for solution in solutions if not is_held[solution.problem_id]]
    return kept, [solution for solution in solutions if is_held[solution.problem_id]]


def trees(
    solutions: Sequence[Solution], tokenizer: Tokenizer, context: int, *, is_outcome: bool
) -> list[Tree]:
    """Encode solutions and join those of a problem, up to `TREE_TOKENS` tokens a tree.

    Texts of more than `context` tokens, or with a tag of their own inside a step, are left out.
    """
    encoded = tokenizer.encode_batch([solution.text for solution in solutions])
    statements = tokenizer.encode_batch([solution.prompt.rstrip() + STEP_BREAK for solution in solutions])
    tag = id_of(tokenizer, STEP)
    by_problem: dict[str, list[_Encoded]] = {}
    for solution, encoding, statement in zip(solutions, encoded, statements, strict=True):
        ids: list[int] = encoding.ids
        if len(ids) <= context and ids.count(tag) == len(solution.labels):
            whole = (ids, solution.labels, len(statement.ids))
            by_problem.setdefault(solution.problem_id, []).append(whole)
    digits = tuple(id_of(tokenizer, digit) for digit in DIGITS)
    return [
        tree for each in by_problem.values() for tree in _joined(each, tag, digits, is_outcome=is_outcome)
    ]


def packed(trees: Sequence[Tree]) -> list[Tree]:
    """Put trees side by side, in their order, into rows of about `TREE_TOKENS` tokens: a row is a forest.

    So a batch needs little padding although its trees are of all sizes. Batches of one size would be of one difficulty,
    and the mean score would swing from one to the next.
    """
    rows: list[list[Tree]] = []
    room: list[int] = []
    for tree in trees:
        size = len(tree.tokens)
        first = max(0, len(rows) - OPEN_ROWS)
        place = next((index for index in range(first, len(rows)) if room[index] >= size), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(max(TREE_TOKENS, size))
        rows[place].append(tree)
        room[place] -= size
    return [_forest(row) for row in rows]


def _forest(trees: Sequence[Tree]) -> Tree:
    parents: list[int] = []
    places: list[int] = []
    written: list[int] = []
    unwritten: list[int] = []
    start = 0
    for tree in trees:
        parents += [parent if parent < 0 else parent + start for parent in tree.parents]
        places += [place + start for place in tree.places]
        written += [node + start for node in tree.written]
        unwritten += [node + start for node in tree.unwritten]
        start += len(tree.tokens)
    return Tree(
        tuple(token for tree in trees for token in tree.tokens),
        tuple(parents),
        tuple(places),
        tuple(target for tree in trees for target in tree.targets),
        tuple(weight for tree in trees for weight in tree.weights),
        tuple(written),
        tuple(unwritten),
    )


def summary(name: str, solutions: Sequence[Solution], made: Sequence[Tree]) -> str:
    """Say how much there is, in one line."""
    problems = len({solution.problem_id for solution in solutions})
    steps = sum(len(solution.steps) for solution in solutions)
    mean = sum(sum(solution.labels) for solution in solutions) / max(steps, 1)
    right = sum(solution.outcome > 0.5 for solution in solutions) / max(len(solutions), 1)
    tokens = sum(len(tree.tokens) for tree in made)
    return (
        f"{name}: {problems:,} problems, {len(solutions):,} solutions ({right:.1%} right), {steps:,} steps "
        f"(mean label {mean:.3f}); each beginning once: {len(made):,} trees, {tokens:,} tokens, "
        f"{sum(len(tree.places) for tree in made):,} labels"
    )


def _joined(texts: list[_Encoded], tag: int, digits: tuple[int, ...], *, is_outcome: bool) -> Iterator[Tree]:
    """Join texts in the order of their tokens, so that neighbours share most; begin a new tree when one is full."""
    builder = _Builder(tag, digits, is_outcome)
    for ids, labels, given in sorted(texts):
        if builder.tokens and len(builder.tokens) + len(ids) > TREE_TOKENS:
            yield builder.tree()
            builder = _Builder(tag, digits, is_outcome)
        builder.add(ids, labels, given)
    yield builder.tree()


class _Builder:
    """A tree that grows."""

    def __init__(self, tag: int, digits: tuple[int, ...], is_outcome: bool) -> None:
        self.tokens: list[int] = []
        self._tag, self._digits, self._is_outcome = tag, digits, is_outcome
        self._parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self._labels: dict[int, list[float]] = {}
        self._written: list[int] = []

    def add(self, ids: list[int], labels: Sequence[float], given: int) -> None:
        """Add a text that begins with a problem of `given` tokens, and its labels at its tags."""
        node, tags = -1, []
        for place, token in enumerate(ids):
            found = self._children.get((node, token))
            if found is None:
                found = self._children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self._parents.append(node)
                if place >= given and self._tag not in (token, ids[place - 1]):
                    self._written.append(found)
            node = found
            if token == self._tag:
                tags.append(node)
        pairs = list(zip(tags, labels, strict=True))
        for place, label in pairs[-1:] if self._is_outcome else pairs:
            self._labels.setdefault(place, []).append(label)

    def tree(self) -> Tree:
        """Give what there is, with digits that might have been written."""
        unwritten = tuple(self._unwritten())
        places = sorted(self._labels)
        means = tuple(sum(self._labels[place]) / len(self._labels[place]) for place in places)
        counts = tuple(float(len(self._labels[place])) for place in places)
        return Tree(
            tuple(self.tokens),
            tuple(self._parents),
            tuple(places),
            means,
            counts,
            tuple(self._written),
            unwritten,
        )

    def _unwritten(self) -> Iterator[int]:
        """Add another digit beside a share of the digits; the choice depends on the tree alone."""
        chance = random.Random(repr(self.tokens))
        for node in self._written:
            if self.tokens[node] in self._digits and chance.random() < UNWRITTEN_SHARE:
                token = chance.choice(self._digits)
                if (self._parents[node], token) not in self._children:
                    self.tokens.append(token)
                    self._parents.append(self._parents[node])
                    yield len(self.tokens) - 1


def _is_held_out(problem_id: str, seed: int) -> bool:
    digest = sha256(f"{seed}:{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_MODULUS == 0


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _solution(row: Any, place: str) -> Solution:
    try:
        steps, labels = tuple(row["completions"]), tuple(float(label) for label in row["labels"])
        solution = Solution(str(row["problem_id"]), row["prompt"], steps, labels)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{place}: wanted prompt, completions, labels and problem_id: {type(error).__name__} {error}"
        ) from None
    if not steps or len(steps) != len(labels):
        raise ValueError(f"{place}: {len(steps)} completions and {len(labels)} labels")
    if not all(0 <= label <= 1 for label in labels):
        raise ValueError(f"{place}: labels must be between 0 and 1, found {labels}")
    return solution
