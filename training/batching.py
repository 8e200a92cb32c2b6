"""Batches of trees: in which order they come, how they are laid out as tensors, and what of them is labelled.

An epoch's order comes from its own seed, so a run that is resumed sees what it would have seen. Knows trees and
tensors; it must not know the network or the loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.labels import Tree, packed

PADDING_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Order:
    """What decides which batch comes at which step; `tokens` are those of a step, padding included."""

    steps: int
    seed: int
    tokens: int
    weight_power: float  # a label that n solutions share counts n ** weight_power times


@dataclass(frozen=True, slots=True)
class Batch:
    """Trees padded to one size; at (rows, places): targets and weights, (labels,) each."""

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor
    edges: Tensor
    """(row, node before, node) of every token that the policy wrote, (tokens, 3)."""
    rivals: Tensor
    """The same of digits that it might have written, but did not."""


def batches(order: Order, trees: Sequence[Tree], start: int) -> Iterator[Batch]:
    """Yield the batches of steps start, start+1, ..., epoch after epoch; an epoch has its own seed."""
    step, epoch, first = 0, 0, 0
    while step < order.steps:
        members = epoch_of(order, trees, epoch)
        for step in range(max(start, first), min(first + len(members), order.steps)):
            yield collate(members[step - first], order.weight_power)
        epoch, first = epoch + 1, first + len(members)
        step = first


def epoch_of(order: Order, trees: Sequence[Tree], epoch: int) -> list[list[Tree]]:
    """Shuffle the trees, and cut them into batches of rows that hold trees of all sizes."""
    shuffled = list(trees)
    random.Random(f"epoch:{order.seed}:{epoch}").shuffle(shuffled)
    return cut(packed(shuffled), order.tokens)


def cut(rows: Sequence[Tree], tokens: int) -> list[list[Tree]]:
    """Cut rows into batches of at most `tokens` tokens with padding, one row at least."""
    members: list[list[Tree]] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row.tokens))
        if not members or (len(members[-1]) + 1) * longest > tokens:
            members.append([])
            longest = len(row.tokens)
        members[-1].append(row)
    return members


def collate(members: Sequence[Tree], weight_power: float) -> Batch:
    """Lay trees out with their positions and masks; a node of padding sees itself alone."""
    longest = max(len(tree.tokens) for tree in members)
    longest += -longest % PADDING_MULTIPLE
    tokens = torch.zeros((len(members), longest), dtype=torch.long)
    positions = torch.zeros_like(tokens)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(members), 1, 1)
    for row, tree in enumerate(members):
        tokens[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                mask[row, node] |= mask[row, parent]
        positions[row] = mask[row].sum(-1) - 1
    labelled = [(row, place) for row, tree in enumerate(members) for place in tree.places]
    weights = [weight**weight_power for tree in members for weight in tree.weights]
    return Batch(
        tokens,
        positions,
        mask[:, None],
        torch.tensor([row for row, _ in labelled]),
        torch.tensor([place for _, place in labelled]),
        torch.tensor([target for tree in members for target in tree.targets]),
        torch.tensor(weights),
        _edges([(row, tree, tree.written) for row, tree in enumerate(members)]),
        _edges([(row, tree, tree.unwritten) for row, tree in enumerate(members)]),
    )


def _edges(nodes: Sequence[tuple[int, Tree, Sequence[int]]]) -> Tensor:
    found = [(row, tree.parents[node], node) for row, tree, some in nodes for node in some]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)
