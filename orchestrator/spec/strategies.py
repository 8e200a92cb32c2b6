"""The `strategies` section of a sweep file: how compute is spent.

Adding a kind of strategy is one class and one name in the union below. It must not know models' servers or scorers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.spec.fields import Count, Name, Section, Text
from workers.identity import MAX_SAMPLES_PER_POOL


class ParallelStrategy(Section):
    """Independent samples; every smaller budget is a part of them."""

    kind: Literal["parallel"]
    """Independent samples."""
    name: Name
    """Name in results."""
    policy: Name
    """Name of the model that draws."""
    samples: Annotated[int, Field(ge=1, lt=MAX_SAMPLES_PER_POOL)]
    """Samples drawn for every problem."""


class RolloutsStrategy(Section):
    """Monte Carlo labels of steps: every beginning of a solution is completed several times (Math-Shepherd)."""

    kind: Literal["rollouts"]
    """Monte Carlo labels of the steps of stored solutions."""
    name: Name
    """Name of the labels."""
    source: Name
    """Name of the strategy whose solutions are labelled."""
    completer: Name
    """Name of the model that completes them; it may be the one that wrote them."""
    solutions: Annotated[int, Field(ge=1, lt=MAX_SAMPLES_PER_POOL)]
    """Solutions of every problem that are labelled, the first in order; of equal beginnings one is completed."""
    rollouts: Annotated[int, Field(ge=1, le=4096)] = 8
    """Completions of every beginning (Wang 2312.08935 uses 8, Snell 2408.03314 16)."""
    label: Literal["hard", "soft"] = "soft"
    """Which label is exported by default: hard (any completion is right) or soft (the share that is)."""


Expansion = Annotated[int, Field(ge=1, le=1024)] | None


class SearchStrategy(Section):
    """What all searches have; a scorer guides them, and every budget is a search of its own."""

    name: Name
    """Name in results, followed by @ and the budget."""
    policy: Name
    """Name of the model that draws the steps."""
    scorer: Name
    """Name of the process reward model that guides it."""
    budgets: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)]
    """Budgets N, in generations a round (mcts: expansions); each is a search of its own."""
    max_depth: Annotated[int, Field(ge=1, le=1000)] = 40
    """Steps of a solution at most (rounds of a search)."""
    max_step_tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens of a step at most; a longer one is cut, and counts as truncated."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Tokens of a solution at most, from its beginning; a longer one is cut, and counts as truncated."""

    @property
    def algorithm(self) -> str:
        """What workers know it by."""
        return str(getattr(self, "kind"))  # noqa: B009 -- every concrete class has one

    @property
    def options(self) -> dict[str, Any]:
        """The options of the algorithm."""
        shared = {*SearchStrategy.model_fields, "kind"}
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in shared}

    @property
    def limits(self) -> dict[str, int]:
        """How far it may go."""
        return {
            "max_depth": self.max_depth,
            "max_step_tokens": self.max_step_tokens,
            "max_tokens": self.max_tokens,
        }

    @property
    def most_tokens(self) -> int:
        """The most tokens that it may generate for each generation of its budget."""
        return self.max_depth * self.max_step_tokens

    def most_solutions(self, budget: int) -> int:
        """The most solutions that a search of a budget may find."""
        return budget

    def first_steps(self, budget: int) -> int:
        """Steps of its first expansion, which every search for the problem draws alike; 0: not known before."""
        return budget


class BeamStrategy(SearchStrategy):
    """Beam search: N nodes a round, the best N/M survive and get M children each (Snell 2408.03314, 5.2)."""

    kind: Literal["beam"]
    """Beam search."""
    expansion: Expansion = 4
    """M, children of a survivor; null: the square root of the budget."""
    dedupe_siblings: bool = False
    """Let only the first of siblings with the same text compete."""


class LookaheadStrategy(SearchStrategy):
    """Beam search that values a node by where greedy steps from it lead; costs N(k+1) generations a round."""

    kind: Literal["lookahead"]
    """Lookahead search."""
    steps: Annotated[int, Field(ge=0, le=100)] = 3
    """k, greedy steps looked ahead."""
    expansion: Expansion = 4
    """M, children of a survivor; null: the square root of the budget."""
    dedupe_siblings: bool = False
    """Let only the first of siblings with the same text compete."""

    @property
    def most_tokens(self) -> int:
        """A node costs its own step and those that are looked ahead."""
        return self.max_depth * self.max_step_tokens * (self.steps + 1)


class DvtsStrategy(SearchStrategy):
    """Diverse verifier tree search: N/M beams of one survivor that never compete."""

    kind: Literal["dvts"]
    """Diverse verifier tree search."""
    expansion: Expansion = 4
    """M, width of a subtree; null: the square root of the budget."""
    dedupe_siblings: bool = False
    """Let only the first of siblings with the same text compete."""


class RebaseStrategy(SearchStrategy):
    """REBASE: the width of a round is shared by the softmax of the scores (Wu 2408.00724, 3.1.2)."""

    kind: Literal["rebase"]
    """REBASE."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the softmax: 0.1 in the paper, 0.2 in the authors' shipped configuration."""
    rule: Literal["sequential", "round"] = "sequential"
    """How shares become whole numbers: as the authors' code does (the sum is exact), or as the paper says."""
    dedupe_siblings: bool = False
    """Let only the first of siblings with the same text have a share."""


class MctsStrategy(SearchStrategy):
    """Monte Carlo tree search by UCT over the scorer's values (Wu 2408.00724, appendix B); budgets are expansions."""

    kind: Literal["mcts"]
    """Monte Carlo tree search."""
    exploration: Annotated[float, Field(ge=0)] = 1.0
    """C of UCT."""
    root_children: Expansion = None
    """Children of the root; null: an eighth of the budget."""
    children: Annotated[int, Field(ge=1, le=1024)] = 2
    """Children of any other node."""
    dedupe_siblings: bool = False
    """Let only the first of siblings with the same text be selected."""

    @property
    def most_tokens(self) -> int:
        """An expansion draws as many steps as it gives children."""
        return self.max_step_tokens * max(self.children, self.root_children or 0)

    def most_solutions(self, budget: int) -> int:
        """Every expansion may end as many solutions as it has children."""
        return budget * max(self.children, self.first_steps(budget))

    def first_steps(self, budget: int) -> int:
        """Children of the root."""
        return self.root_children or max(self.children, budget // 8)


class GreedyStrategy(SearchStrategy):
    """One solution at temperature 0, step by step, whatever the budget."""

    kind: Literal["greedy"]
    """Greedy decoding."""

    def first_steps(self, budget: int) -> int:
        """None is sampled."""
        return 0


class CustomStrategy(SearchStrategy):
    """A strategy of your own: an async function of a search."""

    kind: Literal["custom"]
    """A strategy of your own."""
    function: Text
    """`module:function`, or the name of an entry point of the group ttc.strategies; workers import it."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def algorithm(self) -> str:
        """What workers know it by."""
        return self.function

    @property
    def options(self) -> dict[str, Any]:
        """The options of the function."""
        return self.parameters

    def first_steps(self, budget: int) -> int:
        """Nobody knows."""
        return 0


AnySearch = (
    BeamStrategy
    | LookaheadStrategy
    | DvtsStrategy
    | RebaseStrategy
    | MctsStrategy
    | GreedyStrategy
    | CustomStrategy
)
AnyStrategy = Annotated[ParallelStrategy | RolloutsStrategy | AnySearch, Field(discriminator="kind")]
