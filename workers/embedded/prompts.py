"""Prefill: each distinct prompt is computed once, and what it shares with recent prompts is not recomputed.

Whole chunks of `CHUNK_TOKENS` tokens are shared between prompts that begin alike; since their keys and values
are the same bits either way (`attention.py`), a hit can never change a sample. Knows the model; it must not
know samples or requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.embedded.attention import CHUNK_TOKENS, PrefillAttention, PromptCache, chunk_rows, chunks_from
from workers.embedded.blas import Floats
from workers.embedded.model import Ints, Model


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt after prefill: its keys and values, and the logits of the next token, (vocabulary,)."""

    cache: PromptCache
    next_logits: Floats


@dataclass(frozen=True, slots=True)
class Prefill:
    """What the prefill of one prompt gave; `cached_tokens` were not computed this time."""

    prompt: Prompt
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class _Work:
    tokens: Ints
    cache: PromptCache
    start: int


class Prompts:
    """Computes prompts, several at once, and remembers recent ones, up to `capacity` tokens of room."""

    def __init__(self, model: Model, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._held = 0
        self._recent: OrderedDict[bytes, Prompt] = OrderedDict()
        self._by_prefix: dict[bytes, bytes] = {}
        """First k chunks of tokens -> key of the latest prompt that begins with them."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prefill]:
        """Compute prompts (each of at least one token), in one pass for all that are new."""
        keyed = [np.array(prompt, np.int64) for prompt in prompts]
        work = {
            tokens.tobytes(): self._plan(tokens) for tokens in keyed if tokens.tobytes() not in self._recent
        }
        fresh = dict(zip(work, self._compute(list(work.values())), strict=True))
        results = [self._result(tokens, work, fresh) for tokens in keyed]
        for key, prompt in fresh.items():
            self._remember(key, prompt)
        return results

    def log_rows(self, prompt: Sequence[int]) -> Floats:
        """Give the logits after every token of a prompt, (tokens, vocabulary); nothing is shared."""
        cache = PromptCache(self._model.architecture, np.array(prompt, np.int64))
        hidden = self._pass([cache] * len(chunks_from(cache, 0)), list(chunks_from(cache, 0)))
        return self._model.logits(hidden[: cache.length])

    def _plan(self, tokens: Ints) -> _Work:
        """Find the longest known beginning in whole chunks; the last token is never part of it."""
        cache = PromptCache(self._model.architecture, tokens)
        for start in range((len(tokens) - 1) // CHUNK_TOKENS * CHUNK_TOKENS, 0, -CHUNK_TOKENS):
            key = self._by_prefix.get(tokens[:start].tobytes())
            if key is not None:
                cache.copy_prefix(self._recent[key].cache, start)
                self._recent.move_to_end(key)
                return _Work(tokens, cache, start)
        return _Work(tokens, cache, 0)

    def _compute(self, work: list[_Work]) -> list[Prompt]:
        if not work:
            return []
        blocks = [(item.cache, chunk) for item in work for chunk in chunks_from(item.cache, item.start)]
        hidden = self._pass([cache for cache, _ in blocks], [chunk for _, chunk in blocks])
        ends = np.cumsum([len(chunks_from(item.cache, item.start)) for item in work]) * CHUNK_TOKENS
        last = [
            end - CHUNK_TOKENS + (len(item.tokens) - 1) % CHUNK_TOKENS
            for end, item in zip(ends, work, strict=True)
        ]
        logits = self._model.logits(hidden[last])
        return [Prompt(item.cache, row) for item, row in zip(work, logits, strict=True)]

    def _pass(self, caches: list[PromptCache], chunks: list[int]) -> Floats:
        tokens, positions = chunk_rows(caches, chunks)
        return self._model.forward(tokens, positions, PrefillAttention(caches, chunks))

    def _result(self, tokens: Ints, work: dict[bytes, _Work], fresh: dict[bytes, Prompt]) -> Prefill:
        key = tokens.tobytes()
        if key in fresh:
            return Prefill(fresh[key], work[key].start)
        self._recent.move_to_end(key)
        return Prefill(self._recent[key], len(tokens))

    def _remember(self, key: bytes, prompt: Prompt) -> None:
        self._recent[key] = prompt
        self._held += prompt.cache.held_tokens
        for prefix in _prefixes(prompt):
            self._by_prefix[prefix] = key
        while self._held > self._capacity and len(self._recent) > 1:
            self._forget(*self._recent.popitem(last=False))

    def _forget(self, key: bytes, prompt: Prompt) -> None:
        self._held -= prompt.cache.held_tokens
        for prefix in _prefixes(prompt):
            if self._by_prefix.get(prefix) == key:
                del self._by_prefix[prefix]


def _prefixes(prompt: Prompt) -> list[bytes]:
    tokens = prompt.cache.tokens
    return [tokens[:end].tobytes() for end in range(CHUNK_TOKENS, len(tokens) + 1, CHUNK_TOKENS)]
