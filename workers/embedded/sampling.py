"""Turn logits into tokens: temperature, top-k, top-p, and a random stream that belongs to the sample alone.

Token t of a sample uses number t of the counter-based generator keyed by the sample's seed, so a sample does
not depend on what it is batched with nor on when it was drawn. Pure functions on rows; knows neither the
model nor sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.embedded.blas import Floats
from workers.embedded.model import Ints

GREEDY_BELOW = 1e-5  # temperatures below this mean greedy, as in vLLM
NUMBERS_A_DRAW = 64

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one sample are chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""

    @property
    def is_greedy(self) -> bool:
        """True when the most likely token is taken, the lowest id on ties."""
        return self.temperature < GREEDY_BELOW

    @property
    def is_filtered(self) -> bool:
        """True when top-k or top-p can remove tokens."""
        return self.top_p < 1 or self.top_k > 0


def uniforms(seed: int) -> Iterator[float]:
    """Yield the random numbers in [0, 1) of the sample with this seed (Philox, Salmon et al. 2011)."""
    generator = np.random.Generator(np.random.Philox(key=seed % (1 << 64)))
    while True:
        yield from generator.random(NUMBERS_A_DRAW).tolist()


def choose(logits: Floats, samplings: list[Sampling], numbers: Doubles) -> list[int]:
    """Choose one token a row from logits (rows, vocabulary), inverting the cumulative distribution."""
    greedy = np.array([sampling.is_greedy for sampling in samplings])
    tokens = np.argmax(logits, axis=-1)
    if not greedy.all():
        drawn = _draw(probabilities(logits, samplings), numbers)
        tokens = np.where(greedy, tokens, drawn)
    chosen: list[int] = tokens.tolist()
    return chosen


def probabilities(logits: Floats, samplings: list[Sampling]) -> Doubles:
    """Give what each row is drawn from, (rows, vocabulary), not normalised; greedy rows mean nothing."""
    temperatures = np.array([1.0 if s.is_greedy else s.temperature for s in samplings])
    scaled = logits.astype(np.float64) / temperatures[:, None]
    weights: Doubles = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    for row, sampling in enumerate(samplings):
        if sampling.is_filtered and not sampling.is_greedy:
            weights[row] = _filtered(weights[row], sampling)
    return weights


def log_probabilities(logits: Floats) -> Doubles:
    """Give log-softmax (rows, vocabulary) of the raw logits, before temperature and filters, as vLLM does."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def most_likely(log_probs: Doubles, count: int) -> Ints:
    """Give the ids of the `count` most likely tokens of one row, best first, lowest id first on ties."""
    best: Ints = np.argsort(-log_probs, kind="stable")[:count]
    return best


def _draw(weights: Doubles, numbers: Doubles) -> Ints:
    """Take the first token whose cumulative weight exceeds the number times the total."""
    cumulative = np.cumsum(weights, axis=-1)
    targets = numbers * cumulative[:, -1]
    # `>`, so that a token of weight zero can never be drawn, not even by the number 0
    drawn: Ints = np.argmax(cumulative > targets[:, None], axis=-1)
    return drawn


def _filtered(weights: Doubles, sampling: Sampling) -> Doubles:
    """Keep the top k (and ties with the last one), then the smallest set that holds `top_p` of the rest."""
    kept = weights
    if 0 < sampling.top_k < len(weights):
        kept = np.where(weights >= np.partition(weights, -sampling.top_k)[-sampling.top_k], weights, 0.0)
    if sampling.top_p >= 1:
        return kept
    order = np.argsort(-kept, kind="stable")
    cumulative = np.cumsum(kept[order])
    more_likely = np.concatenate(([0.0], cumulative[:-1]))
    result = kept.copy()
    result[order[more_likely >= sampling.top_p * cumulative[-1]]] = 0.0  # never the first: top_p > 0
    return result
