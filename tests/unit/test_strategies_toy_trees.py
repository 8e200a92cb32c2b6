"""Toy trees with known accuracies through the real strategies: one where search shines, one where it is misled.

A solution has six steps. A right beginning stays right with probability a, a wrong one stays wrong, and a PRM reads
the state through noise. In the second tree 4% of right beginnings turn at every step into something wrong that the
PRM likes better than what is right: the systematic error that makes search harmful on easy problems.

The second table does not say how much the PRM dislikes plain wrong steps, nor which answer the liked ones lead to.
Both were fitted to its rows of parallel sampling and of beam search: -1.3, and the second of the wrong answers. Its
rows of REBASE were not used for that.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from tests.search_world import FakeSearch, Step
from workers.strategies import Candidate, Limits, Node, NodeEnd, Strategy
from workers.strategies.allocation import RebaseRule
from workers.strategies.beam import beam
from workers.strategies.parallel import parallel
from workers.strategies.rebase import RebaseOptions, rebase

DEPTH = 6
TABLE_ITEMS = 4000
ITEMS = {4: 1200, 16: 400, 64: 120}
OK, WRONG, LIKED = "ok", "wrong", "liked"


@dataclass(frozen=True, slots=True)
class World:
    """A toy tree: its name, how often a right step follows a right one, and what the PRM makes of each state."""

    name: str
    stays_right: Callable[[random.Random], float]
    means: dict[str, float]
    noise: float
    turns_liked: float = 0.0


INDEPENDENT = World("independent", lambda rng: rng.uniform(0.5, 0.95), {OK: 1.2, WRONG: -1.2}, noise=2.0)
SYSTEMATIC = {OK: 1.0, WRONG: -1.3, LIKED: 2.0}
EASY = World("easy", lambda _: 0.97, SYSTEMATIC, noise=1.0, turns_liked=0.04)
MEDIUM = World("medium", lambda _: 0.75, SYSTEMATIC, noise=1.0, turns_liked=0.04)


def toy_search(world: World, budget: int, rng: random.Random) -> FakeSearch:
    stays_right = world.stays_right(rng)

    def policy(parent: Node, _index: int, _greedy: bool) -> Step:
        state = parent.text or OK
        if state == OK:
            state = OK if rng.random() < stays_right else WRONG
            if parent.text in ("", OK) and rng.random() < world.turns_liked:
                state = LIKED
        return Step(state, NodeEnd.FINISHED if parent.depth + 1 == DEPTH else NodeEnd.STEP)

    def scorer(node: Node) -> float:
        return 1 / (1 + math.exp(-world.means[node.text] - world.noise * rng.gauss()))

    return FakeSearch(policy, scorer, budget=budget, limits=Limits(max_depth=40))


def weighted_vote(candidates: list[Candidate], rng: random.Random) -> str:
    totals: defaultdict[str, float] = defaultdict(float)
    for candidate in candidates:
        assert candidate.score is not None
        answer = {OK: "right", LIKED: "b"}.get(candidate.node.text)
        totals[answer or rng.choices("abc", (0.5, 0.3, 0.2))[0]] += candidate.score
    return max(totals, key=lambda answer: totals[answer])


async def accuracy(strategy: Strategy, world: World, budget: int) -> float:
    rng = random.Random(budget)
    right = 0
    for _ in range(ITEMS[budget]):
        candidates = list(await strategy(toy_search(world, budget, rng)))
        assert len(candidates) == budget
        right += weighted_vote(candidates, rng) == "right"
    return right / ITEMS[budget]


def tolerance(expected: float, budget: int) -> float:
    """Three standard errors of the difference, and half a digit of the table."""
    spread = max(expected * (1 - expected), 0.001)
    return 3 * math.sqrt(spread * (1 / TABLE_ITEMS + 1 / ITEMS[budget])) + 0.0005


@pytest.mark.parametrize(
    ("strategy", "budget", "expected"),
    [
        (parallel, 4, 0.363),
        (parallel, 16, 0.410),
        (parallel, 64, 0.426),
        (rebase, 4, 0.625),
        (rebase, 16, 0.954),
        (rebase, 64, 1.000),
        (beam, 4, 0.586),
        (beam, 16, 0.931),
        (beam, 64, 0.997),
    ],
)
async def test_search_shines_where_the_noise_is_independent(
    strategy: Strategy, budget: int, expected: float
) -> None:
    measured = await accuracy(strategy, INDEPENDENT, budget)
    print(f"measured {measured:.4f}, table {expected:.3f}, tolerance {tolerance(expected, budget):.4f}")
    assert measured == pytest.approx(expected, abs=tolerance(expected, budget))


@pytest.mark.parametrize(
    ("world", "strategy", "budget", "expected"),
    [
        (EASY, parallel, 4, 0.789),
        (EASY, parallel, 16, 0.949),
        (EASY, parallel, 64, 0.999),
        (EASY, beam, 4, 0.631),
        (EASY, beam, 16, 0.232),
        (EASY, beam, 64, 0.017),
        (EASY, rebase, 4, 0.577),
        (EASY, rebase, 16, 0.195),
        (EASY, rebase, 64, 0.011),
        (MEDIUM, parallel, 4, 0.282),
        (MEDIUM, parallel, 16, 0.212),
        (MEDIUM, beam, 4, 0.527),
        (MEDIUM, beam, 16, 0.171),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_search_is_misled_where_the_scorer_errs_systematically(
    world: World, strategy: Strategy, budget: int, expected: float
) -> None:
    measured = await accuracy(strategy, world, budget)
    print(f"measured {measured:.4f}, table {expected:.3f}, tolerance {tolerance(expected, budget):.4f}")
    assert measured == pytest.approx(expected, abs=tolerance(expected, budget))


async def test_the_paper_rule_of_rebase_searches_about_as_well() -> None:
    rng = random.Random(5)
    strategy = partial(rebase, options=RebaseOptions(rule=RebaseRule.ROUND))
    right = 0
    for _ in range(ITEMS[16]):
        candidates = list(await strategy(toy_search(INDEPENDENT, 16, rng)))
        right += bool(candidates) and weighted_vote(candidates, rng) == "right"
    assert right / ITEMS[16] > 0.9
