"""Attention for texts that share beginnings: keys and values lie in a pool, a row a distinct beginning.

The new rows of many texts are packed together for the dense part of the network. For attention they are laid out
again as chunks of `CHUNK_TOKENS` queries at absolute positions over the keys of their own text, gathered from the
pool: the very products that a prompt of its own would make (`attention.py`), so the bits are the same too. Knows
neither weights, tokens nor what the rows are computed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.embedded.attention import CHUNK_TOKENS, causal_mask, exponentials, untouched
from workers.embedded.blas import Floats
from workers.embedded.model import Architecture, Ints


class Pool:
    """Keys and values of every row, (layers, rows, kv_heads, head_dim) each; row 0 stays zero, for padding."""

    def __init__(self, shape: Architecture, rows: int) -> None:
        size = (shape.layers, rows, shape.kv_heads, shape.head_dim)
        self.keys: Floats = untouched(size)
        self.values: Floats = untouched(size)


@dataclass(frozen=True, slots=True)
class Path:
    """The rows of a text from its first token, of which those from `start` on are new in this pass."""

    rows: Ints
    start: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Chunks of one number, hence of one shape. (chunks, CHUNK_TOKENS) and (chunks, keys) index arrays."""

    mask: Floats
    keys: Ints
    queries: Ints
    """Packed row of each query; one past the last where there is none."""
    places: tuple[Ints, Ints]
    """(chunk, query) of the packed rows that are wanted ..."""
    targets: Ints
    """... and where each goes in the result."""


class PathAttention:
    """Causal attention of the new rows of paths, packed in the order of the paths."""

    def __init__(self, pool: Pool, paths: Sequence[Path], kept: Ints) -> None:
        """Make ready for one pass; the last layer gives the packed rows `kept` alone, in that order, padded."""
        self._pool = pool
        self._new = np.concatenate([path.rows[path.start :] for path in paths])
        count = len(self._new)
        targets = np.full(count, -1)
        targets[kept] = np.arange(len(kept))
        self._all = _groups(paths, np.arange(count), count)
        self._last = _groups(paths, targets, count)
        self._kept_rows = padded(len(kept))

    def __call__(self, layer: int, query: Floats, key: Floats, value: Floats) -> Floats:
        """Store the new keys and values, then attend; rows of padding give zeros."""
        count = len(self._new)
        self._pool.keys[layer][self._new] = key[:count]
        self._pool.values[layer][self._new] = value[:count]
        is_last = layer == len(self._pool.keys) - 1
        rows = self._kept_rows if is_last else len(query)
        _, heads, head_dim = query.shape
        mixed = np.zeros((rows, heads, head_dim), np.float32)
        asked = np.concatenate([query[:count], np.zeros((1, heads, head_dim), np.float32)])
        for group in self._last if is_last else self._all:
            self._attend(layer, group, asked, mixed)
        return mixed.reshape(rows, heads * head_dim)

    def _attend(self, layer: int, group: _Group, query: Floats, mixed: Floats) -> None:
        keys = self._pool.keys[layer].take(group.keys, axis=0).swapaxes(1, 2)  # (chunks, kv_heads, keys, dim)
        values = self._pool.values[layer].take(group.keys, axis=0).swapaxes(1, 2)
        chunks, kv_heads, _, head_dim = keys.shape
        heads = query.shape[1]
        asked = query.take(group.queries, axis=0).swapaxes(1, 2)
        grouped = asked.reshape(chunks, kv_heads, heads // kv_heads, CHUNK_TOKENS, head_dim)
        weights = np.matmul(grouped, keys[:, :, None].swapaxes(3, 4))
        chunk, place = group.places
        wanted = weights[chunk, :, :, place]  # (rows, kv_heads, query heads a kv head, keys)
        wanted += group.mask[place][:, None, None]
        total = exponentials(wanted)
        weights[chunk, :, :, place] = wanted  # in their places again, where the product treats them as ever
        result = np.matmul(weights, values[:, :, None])[chunk, :, :, place] / total
        mixed[group.targets] = result.reshape(len(chunk), heads, head_dim)


def padded(rows: int) -> int:
    """Round a number of rows up to a multiple of every possible block, and to one of them at least."""
    return max(1, -(-rows // CHUNK_TOKENS)) * CHUNK_TOKENS


def _groups(paths: Sequence[Path], targets: Ints, none: int) -> list[_Group]:
    """Cut the new rows of all paths into chunks, those of one number together; chunks without a target go."""
    by_chunk: dict[int, list[tuple[Path, int]]] = {}
    offset = 0
    for path in paths:
        for chunk in range(path.start // CHUNK_TOKENS, -(-len(path.rows) // CHUNK_TOKENS)):
            first, last = _span(path, chunk)
            at = offset + first - path.start
            if (targets[at : at + last - first] >= 0).any():
                by_chunk.setdefault(chunk, []).append((path, at))
        offset += len(path.rows) - path.start
    return [_group(chunk, members, targets, none) for chunk, members in sorted(by_chunk.items())]


def _group(chunk: int, members: list[tuple[Path, int]], targets: Ints, none: int) -> _Group:
    mask = causal_mask(chunk)
    keys = np.zeros((len(members), mask.shape[1]), np.int64)
    queries = np.full((len(members), CHUNK_TOKENS), none)
    for index, (path, at) in enumerate(members):
        first, last = _span(path, chunk)
        keys[index, :last] = path.rows[:last]
        place = first - chunk * CHUNK_TOKENS
        queries[index, place : place + last - first] = np.arange(at, at + last - first)
    goals = np.append(targets, -1)[queries]
    places = np.nonzero(goals >= 0)
    return _Group(mask, keys, queries, (places[0], places[1]), goals[places])


def _span(path: Path, chunk: int) -> tuple[int, int]:
    """Give the positions [first, last) of the new rows in a chunk."""
    return max(path.start, chunk * CHUNK_TOKENS), min(len(path.rows), (chunk + 1) * CHUNK_TOKENS)
