"""A search in memory, for the tests of strategies: stub policies and scorers behind the real protocol.

It holds a strategy to the contract (nothing is expanded that ended, was dropped or is too deep), counts what was
spent, and can reply in a scrambled order.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from workers.strategies import Candidate, Limits, Node, NodeEnd, Strategy

LIMITS = Limits(max_depth=8)
ROOT = Node(path=(), depth=0, text="", tokens=0, total_tokens=0, end=NodeEnd.STEP)


@dataclass(frozen=True, slots=True)
class Step:
    """What a stub policy says next."""

    text: str
    end: NodeEnd = NodeEnd.STEP
    tokens: int = 1


Policy = Callable[[Node, int, bool], Step]
"""The next step after a node: the child's index, and whether it is drawn greedily."""
Scorer = Callable[[Node], float]


class FakeSearch:
    """A search over a stub policy and a stub scorer; `scramble` is the seed of the order in which replies come."""

    def __init__(
        self,
        policy: Policy,
        scorer: Scorer = lambda _: 0.5,
        *,
        budget: int = 4,
        limits: Limits = LIMITS,
        seed: int = 0,
        scramble: int | None = None,
    ) -> None:
        self.budget = budget
        self.limits = limits
        self.rng = random.Random(seed)
        self.root = ROOT
        self.nodes: dict[tuple[int, ...], Node] = {}
        self.greedy: set[tuple[int, ...]] = set()
        self.pruned: dict[tuple[int, ...], str] = {}
        self.scores: dict[tuple[int, ...], float] = {}
        self.tokens = 0
        self.sample_calls: list[tuple[tuple[int, ...], int]] = []
        self.score_calls: list[int] = []
        self._policy = policy
        self._scorer = scorer
        self._order = None if scramble is None else random.Random(scramble)
        self._families: Counter[tuple[int, ...]] = Counter()
        self._under_way: set[tuple[int, ...]] = set()

    async def sample(self, node: Node, n: int, *, greedy: bool = False) -> Sequence[Node]:
        """Children in the order of their index, whenever the replies come."""
        assert n >= 1
        assert node.end is NodeEnd.STEP, f"{node.path} ended and was expanded"
        assert node.depth < self.limits.max_depth, f"{node.path} is too deep to be expanded"
        assert node.path not in self._under_way, f"two calls for {node.path} at once"
        assert greedy or node.path not in self.pruned or self.pruned[node.path] == "lookahead"
        assert node.path not in self.pruned or node.path in self.greedy, (
            f"{node.path} was dropped, then expanded"
        )
        self._under_way.add(node.path)
        await self._wait()
        self._under_way.discard(node.path)
        self.sample_calls.append((node.path, n))
        start = self._families[node.path]
        self._families[node.path] += n
        return [self._child(node, index, greedy=greedy) for index in range(start, start + n)]

    async def score(self, nodes: Sequence[Node]) -> Sequence[float]:
        """Each beginning is scored once."""
        assert nodes, "nothing to score"
        await self._wait()
        self.score_calls.append(len(nodes))
        for node in nodes:
            assert node.end in (NodeEnd.STEP, NodeEnd.FINISHED), f"{node.path} is not worth a score"
            if node.path not in self.scores:
                self.scores[node.path] = self._scorer(node)
        return [self.scores[node.path] for node in nodes]

    def prune(self, nodes: Iterable[Node], why: str) -> None:
        for node in nodes:
            assert node.path not in self.pruned, f"{node.path} was dropped twice"
            self.pruned[node.path] = why

    def sampled(self, *, greedy: bool) -> Counter[int]:
        """Nodes sampled at each depth, those drawn greedily or the others."""
        return Counter(node.depth for path, node in self.nodes.items() if (path in self.greedy) is greedy)

    def children(self, path: tuple[int, ...]) -> list[Node]:
        return [self.nodes[(*path, index)] for index in range(self._families[path])]

    def beginning(self, node: Node) -> list[str]:
        """Texts of the steps from the first one to the node."""
        return [self.nodes[node.path[:length]].text for length in range(1, node.depth + 1)]

    def _child(self, parent: Node, index: int, *, greedy: bool) -> Node:
        step = self._policy(parent, index, greedy)
        node = Node(
            (*parent.path, index),
            parent.depth + 1,
            step.text,
            step.tokens,
            parent.total_tokens + step.tokens,
            step.end,
        )
        if node.tokens > self.limits.max_step_tokens or node.total_tokens > self.limits.max_tokens:
            node = replace(node, end=NodeEnd.TRUNCATED)
        self.nodes[node.path] = node
        self.tokens += node.tokens
        if greedy:
            self.greedy.add(node.path)
        return node

    async def _wait(self) -> None:
        if self._order is not None:
            for _ in range(self._order.randrange(4)):
                await asyncio.sleep(0)


async def run(strategy: Strategy, search: FakeSearch) -> list[Candidate]:
    """The candidates, after a check that the strategy accounts for every node that it has sampled."""
    candidates = list(await strategy(search))
    returned = [candidate.node.path for candidate in candidates]
    assert len(set(returned)) == len(returned), "a candidate is returned twice"
    for candidate in candidates:
        node = candidate.node
        assert search.nodes[node.path] == node
        assert node.path not in search.pruned
        assert candidate.score in (None, search.scores.get(node.path))
    silent = {NodeEnd.EMPTY, NodeEnd.ERROR}
    for path, node in search.nodes.items():
        is_leaf = not search.children(path)
        is_told = path in search.pruned or path in returned or node.end in silent
        assert is_told or not is_leaf, f"{path} vanished without a trace"
    return candidates


def tree(steps: dict[tuple[int, ...], Step]) -> Policy:
    """A policy that says what is written down for a path."""
    return lambda parent, index, _greedy: steps[(*parent.path, index)]


def written_scores(scores: dict[tuple[int, ...], float]) -> Scorer:
    """A scorer that says what is written down for a path."""
    return lambda node: scores[node.path]


def random_policy(seed: int, weights: dict[NodeEnd, float]) -> Policy:
    """A policy whose steps depend on the seed and the path alone."""

    def step(parent: Node, index: int, greedy: bool) -> Step:
        rng = random.Random(f"{seed} {parent.path} {index} {greedy}")
        (end,) = rng.choices(list(weights), list(weights.values()))
        return Step(text=rng.choice("abcdef"), end=end, tokens=rng.randint(1, 5))

    return step


def random_scorer(seed: int) -> Scorer:
    """Scores that depend on the seed and the path alone."""
    return lambda node: random.Random(f"{seed} {node.path}").random()
