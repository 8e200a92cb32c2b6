"""Keys and values of running sequences and prompts, and attention over them.

A sequence attends over its own keys padded to a multiple of `BUCKET_TOKENS` that depends on its own length
only; sequences of one bucket share a call, in which BLAS still sees one sequence at a time. A prompt is
processed in chunks of `CHUNK_TOKENS` rows at absolute positions, so the keys and values of a prefix are the
same bits in every prompt that begins with it. Knows neither weights, sampling nor text.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from workers.embedded.blas import BLOCK_CHOICES, Floats
from workers.embedded.model import Architecture, Ints

BUCKET_TOKENS = 64
CHUNK_TOKENS = BLOCK_CHOICES[0]  # a multiple of every possible block of rows


class Slots:
    """Room for the keys and values of a fixed number of running sequences; memory is touched as they grow."""

    def __init__(self, shape: Architecture, count: int) -> None:
        self.count = count
        size = (shape.layers, count, shape.kv_heads, bucket(shape.context), shape.head_dim)
        self.keys: Floats = untouched(size)
        self.values: Floats = untouched(size)

    def put(self, slot: int, prompt: PromptCache) -> None:
        """Copy the keys and values of a prompt into a slot."""
        length = prompt.length
        self.keys[:, slot, :, :length] = prompt.keys[:, :, :length]
        self.values[:, slot, :, :length] = prompt.values[:, :, :length]


class PromptCache:
    """Keys and values of one prompt, (layers, kv_heads, whole buckets of tokens, head_dim) each."""

    def __init__(self, shape: Architecture, tokens: Ints) -> None:
        self.tokens = tokens
        self.length = len(tokens)
        size = (shape.layers, shape.kv_heads, bucket(self.length), shape.head_dim)
        self.keys: Floats = np.zeros(size, np.float32)
        self.values: Floats = np.zeros(size, np.float32)

    @property
    def held_tokens(self) -> int:
        """Tokens there is room for: what the memory it takes is proportional to."""
        return int(self.keys.shape[2])

    def copy_prefix(self, other: PromptCache, length: int) -> None:
        """Take the first `length` tokens from a prompt that begins with the same ones."""
        self.keys[:, :, :length] = other.keys[:, :, :length]
        self.values[:, :, :length] = other.values[:, :, :length]


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring rows of the batch that are neighbouring slots too."""

    row: int
    slot: int
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rows start..stop-1, whose sequences all fill the same bucket of `length` tokens."""

    start: int
    stop: int
    length: int
    runs: tuple[Run, ...]
    mask: Floats
    """(rows, 1, 1, BUCKET_TOKENS): minus infinity on the places of the last bucket that hold no token yet."""


class DecodeAttention:
    """Attention of one new token a sequence; rows come ordered by (bucket, slot)."""

    def __init__(self, slots: Slots, rows: Ints, positions: Ints) -> None:
        """Take the slot and the position of the new token of each row, (rows,) each."""
        self._slots, self._rows, self._positions = slots, rows, positions
        self._groups = _groups(rows, positions)

    def __call__(self, layer: int, query: Floats, key: Floats, value: Floats) -> Floats:
        """Store the new keys and values, then attend; rows beyond the batch (padding) give zeros."""
        keys, values = self._slots.keys[layer], self._slots.values[layer]
        count = len(self._rows)
        keys[self._rows, :, self._positions] = key[:count]
        values[self._rows, :, self._positions] = value[:count]
        padded, heads, head_dim = query.shape
        kv_heads = key.shape[1]
        grouped = query.reshape(padded, kv_heads, heads // kv_heads, head_dim)
        mixed = np.zeros(grouped.shape, np.float32)
        for group in self._groups:
            _attend_group(group, grouped, keys, values, mixed)
        return mixed.reshape(padded, heads * head_dim)


class PrefillAttention:
    """Causal attention of chunks of prompts; block i of the rows is chunk `chunks[i]` of `prompts[i]`."""

    def __init__(self, prompts: list[PromptCache], chunks: list[int]) -> None:
        self._work = list(zip(prompts, chunks, strict=True))
        self._masks = [causal_mask(chunk) for chunk in chunks]

    def __call__(self, layer: int, query: Floats, key: Floats, value: Floats) -> Floats:
        """Store all keys and values first: later chunks of a prompt attend to earlier ones in this pass."""
        for block, (prompt, chunk) in enumerate(self._work):
            rows, places = _span(block), _span(chunk)
            prompt.keys[layer, :, places] = key[rows].swapaxes(0, 1)
            prompt.values[layer, :, places] = value[rows].swapaxes(0, 1)
        padded, heads, head_dim = query.shape
        mixed = np.empty((padded, heads, head_dim), np.float32)
        for block, (prompt, chunk) in enumerate(self._work):
            rows = _span(block)
            mixed[rows] = _attend_chunk(query[rows], prompt, layer, chunk, self._masks[block])
        return mixed.reshape(padded, heads * head_dim)


def untouched(size: tuple[int, ...]) -> Floats:
    """Make an array of zeros that takes memory only where it is written, which huge pages would spoil."""
    memory = mmap.mmap(-1, math.prod(size) * np.dtype(np.float32).itemsize)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(size)


def bucket(length: int) -> int:
    """Round a number of tokens up to whole buckets."""
    return -(-length // BUCKET_TOKENS) * BUCKET_TOKENS


def chunk_rows(prompts: list[PromptCache], chunks: list[int]) -> tuple[Ints, Ints]:
    """Give token ids and positions, (rows,) each, of chunks of prompts; padding has token 0 at position 0."""
    tokens = np.zeros(len(chunks) * CHUNK_TOKENS, np.int64)
    positions = np.zeros_like(tokens)
    for block, (prompt, chunk) in enumerate(zip(prompts, chunks, strict=True)):
        piece = prompt.tokens[_span(chunk)]
        start = block * CHUNK_TOKENS
        tokens[start : start + len(piece)] = piece
        positions[start : start + len(piece)] = np.arange(len(piece)) + chunk * CHUNK_TOKENS
    return tokens, positions


def chunks_from(prompt: PromptCache, start: int) -> range:
    """List the chunks that are left when the first `start` tokens (whole chunks) are known."""
    return range(start // CHUNK_TOKENS, -(-prompt.length // CHUNK_TOKENS))


def _attend_group(group: Group, query: Floats, keys: Floats, values: Floats, mixed: Floats) -> None:
    """Fill the rows of `mixed`; shapes are (rows, kv_heads, query heads a kv head, head_dim)."""
    length = group.length
    count, (_, kv_heads, share, _) = group.stop - group.start, query.shape
    weights = np.empty((count, kv_heads, share, length), np.float32)
    for run in group.runs:
        stored = keys[run.slot : run.slot + run.count, :, :length]
        start = run.row - group.start
        np.matmul(
            query[run.row : run.row + run.count],
            stored.swapaxes(2, 3),
            out=weights[start : start + run.count],
        )
    weights[..., length - BUCKET_TOKENS :] += group.mask
    total = exponentials(weights)
    for run in group.runs:
        stored = values[run.slot : run.slot + run.count, :, :length]
        start = run.row - group.start
        np.matmul(weights[start : start + run.count], stored, out=mixed[run.row : run.row + run.count])
    mixed[group.start : group.stop] /= total


def _attend_chunk(query: Floats, prompt: PromptCache, layer: int, chunk: int, mask: Floats) -> Floats:
    """Attend with CHUNK_TOKENS queries (rows, heads, head_dim) over everything up to the end of their chunk."""
    rows, heads, head_dim = query.shape
    length = mask.shape[1]
    keys, values = prompt.keys[layer, :, :length], prompt.values[layer, :, :length]
    kv_heads = len(keys)
    grouped = query.swapaxes(0, 1).reshape(kv_heads, heads // kv_heads, rows, head_dim)
    weights = np.matmul(grouped, keys[:, None].swapaxes(2, 3))
    weights += mask
    total = exponentials(weights)
    mixed: Floats = np.matmul(weights, values[:, None]) / total
    return mixed.reshape(heads, rows, head_dim).swapaxes(0, 1)


def exponentials(weights: Floats) -> Floats:
    """Turn scores into unnormalised softmax weights in place; give their sums over the last axis, kept."""
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    total: Floats = weights.sum(axis=-1, keepdims=True)
    return total


def _groups(rows: Ints, positions: Ints) -> list[Group]:
    """Cut the rows where the bucket changes, and each group into runs of neighbouring slots."""
    groups: list[Group] = []
    start = 0
    for length, members in groupby((positions // BUCKET_TOKENS).tolist()):
        stop = start + len(list(members))
        within = positions[start:stop, None] % BUCKET_TOKENS
        mask = np.where(np.arange(BUCKET_TOKENS) > within, np.float32(-np.inf), np.float32(0))
        runs = tuple(_runs(rows, start, stop))
        groups.append(Group(start, stop, (length + 1) * BUCKET_TOKENS, runs, mask[:, None, None]))
        start = stop
    return groups


def _runs(rows: Ints, start: int, stop: int) -> list[Run]:
    breaks = (np.flatnonzero(np.diff(rows[start:stop]) != 1) + start + 1).tolist()
    edges = [start, *breaks, stop]
    return [Run(a, int(rows[a]), b - a) for a, b in pairwise(edges)]


def causal_mask(chunk: int) -> Floats:
    """Give (CHUNK_TOKENS, keys): minus infinity on keys that come after the query."""
    queries = np.arange(CHUNK_TOKENS) + chunk * CHUNK_TOKENS
    keys = np.arange(bucket((chunk + 1) * CHUNK_TOKENS))
    return np.where(keys > queries[:, None], np.float32(-np.inf), np.float32(0))


def _span(chunk: int) -> slice:
    return slice(chunk * CHUNK_TOKENS, (chunk + 1) * CHUNK_TOKENS)
