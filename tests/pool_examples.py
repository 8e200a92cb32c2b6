"""Pools for tests of estimators: drawn at random, with ties, missing scores and missing answers, and enumerated."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.selectors import Kind, Selector, credit

SELECTORS = (
    Selector(Kind.PASS),
    Selector(Kind.MAJORITY),
    Selector(Kind.BEST_OF_N, "prm"),
    Selector(Kind.WEIGHTED, "prm"),
    Selector(Kind.FILTER_VOTE, "prm", threshold=0.5),
    Selector(Kind.FILTER_VOTE, "prm", share=0.5),
    Selector(Kind.FILTER_VOTE, "prm", share=0.1),
    Selector(Kind.HIERARCHICAL, "prm", chain=2),
    Selector(Kind.HIERARCHICAL, "prm", chain=1),
)


def pool(
    candidates: list[int], is_correct: list[bool], prm: list[float] | None = None, problem_id: int = 7
) -> Ballots:
    """A pool with one score, `prm`; -1 is no answer."""
    scores = {} if prm is None else {"prm": np.array(prm)}
    return Ballots(problem_id, None, np.array(candidates, dtype=np.int64), np.array(is_correct, bool), scores)


@st.composite
def pools(draw: st.DrawFn, most: int = 8) -> Ballots:
    """Even numbers of samples, so that chains of two are whole; few scores, so that they tie."""
    n = 2 * draw(st.integers(1, most // 2))
    is_correct = draw(st.lists(st.booleans(), min_size=1, max_size=4))
    candidates = draw(st.lists(st.integers(-1, len(is_correct) - 1), min_size=n, max_size=n))
    some_scores = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, math.nan])
    return pool(candidates, is_correct, draw(st.lists(some_scores, min_size=n, max_size=n)))


def enumerated(ballots: Ballots, selector: Selector, k: int) -> float:
    """Mean credit over all draws of k; chains are drawn whole. NaN where there is no such draw."""
    chain = selector.chain or 1
    if k % chain or k > ballots.n:
        return math.nan
    chains = itertools.combinations(range(ballots.n // chain), k // chain)
    draws = [[chain * c + i for c in some for i in range(chain)] for some in chains]
    return float(sum(credit(ballots, draw, selector) for draw in draws) / len(draws))


def large_pool(seed: int, n: int, clusters: int = 12, problem_id: int = 7) -> Ballots:
    """Clusters of very unlike sizes, some samples without an answer or a score, scores that know a little."""
    rng = np.random.default_rng(seed)
    shares = 1.0 / np.arange(1, clusters + 1)
    candidates = rng.choice(clusters, size=n, p=shares / shares.sum())
    is_correct = np.zeros(clusters, dtype=np.bool_)
    is_correct[min(rng.geometric(0.5), clusters) - 1] = True
    logits = rng.normal(size=n) + is_correct[candidates]
    scores = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    scores[rng.random(n) < 0.05] = np.nan
    candidates[rng.random(n) < 0.1] = -1
    return Ballots(problem_id, None, candidates, is_correct, {"prm": scores, "orm": scores**0.8})
