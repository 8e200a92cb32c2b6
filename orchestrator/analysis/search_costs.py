"""What each strategy spends at each budget, beside how right it is: generations, tokens, FLOPs.

A search pays for every node that it draws, pruned ones and those of a lookahead included; independent samples pay for
themselves. FLOPs are 2 x parameters x tokens (Wu 2408.00724): `policy_flops` is the papers' rule, which charges the
policy's generated tokens alone; `all_flops` adds what policy and scorer read, and so can turn a ranking round. Seconds
are what one waits for an answer: a search to its end, independent samples for the slowest.

Pure: rows in, rows out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.analysis.results import OVERALL, StrategyResults
from orchestrator.spec.search_settings import search_name


class Spent(Protocol):
    """What the search for one problem has consumed."""

    @property
    def strategy(self) -> str:
        """With its budget."""

    @property
    def nodes(self) -> int:
        """Drawn."""

    @property
    def tokens(self) -> int:
        """Generated."""

    @property
    def discarded_tokens(self) -> int:
        """Of nodes that were given up."""

    @property
    def scorer_tokens(self) -> int:
        """Read by the scorer."""

    @property
    def prompt_tokens(self) -> int:
        """Read by the policy."""

    @property
    def cached_tokens(self) -> int:
        """Of those, the ones that its server had in its cache."""

    @property
    def seconds(self) -> float | None:
        """From beginning to end."""

    @property
    def policy_parameters(self) -> int | None:
        """Size of the policy."""

    @property
    def scorer_parameters(self) -> int | None:
        """Size of the scorer."""


class SamplesSpent(Protocol):
    """What all independent samples of a strategy have consumed."""

    @property
    def samples(self) -> int:
        """Drawn."""

    @property
    def requests(self) -> int:
        """Sent for them; the prompt of a request is read once for all its samples."""

    @property
    def prompt_tokens(self) -> int:
        """Read by the policy."""

    @property
    def policy_parameters(self) -> int | None:
        """Size of the policy."""

    @property
    def readings(self) -> Sequence[tuple[int, int | None]]:
        """Tokens read by each scorer that guides a search, and its size."""

    @property
    def seconds(self) -> Mapping[int, float]:
        """How long the slowest of the first N took, by N; mean over problems."""


class Axis(StrEnum):
    """What cost may be counted in."""

    GENERATIONS = "generations"
    TOKENS = "tokens"
    POLICY_FLOPS = "policy-flops"
    ALL_FLOPS = "all-flops"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a selector is right, over problems."""

    selector: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class CostRow:
    """A strategy at a budget: means a problem."""

    strategy: str
    budget: int
    problems: int
    generations: float
    """Nodes drawn (steps); of independent samples, whole solutions."""
    tokens: float
    """Generated."""
    discarded: float | None
    """Share of the generated tokens that was thrown away."""
    scorer_tokens: float | None
    """Read by the scorer that guides the search; None: nothing guides it."""
    cached: float | None
    """Share of the prompt tokens that the policy's servers had in their cache."""
    policy_flops: float | None
    all_flops: float | None
    seconds: float | None
    """From the first request to the answer, in the company of all that ran at the same time."""
    accuracies: Sequence[Accuracy]

    def cost(self, axis: Axis) -> float | None:
        """What it spends a problem, in one of the ways to count; None: not known."""
        return {
            Axis.GENERATIONS: self.generations,
            Axis.TOKENS: self.tokens,
            Axis.POLICY_FLOPS: self.policy_flops,
            Axis.ALL_FLOPS: self.all_flops,
            Axis.SECONDS: self.seconds,
        }[axis]

    def accuracy(self, selector: str) -> float | None:
        """How often a selector is right; None: it says nothing here."""
        return next((each.value for each in self.accuracies if each.selector == selector), None)


def search_budgets(strategies: Sequence[StrategyResults]) -> list[int]:
    """The budgets that there are searches of."""
    return sorted({budget for each in strategies if each.is_search for budget in _budgets(each)})


def cost_rows(
    strategies: Sequence[StrategyResults], costs: Sequence[Spent], sampled: Mapping[str, SamplesSpent]
) -> list[CostRow]:
    """Rows of all strategies at all budgets; independent samples at the budgets of the searches."""
    budgets = search_budgets(strategies)
    return [
        _search_row(each, budget, costs)
        if each.is_search
        else _sample_row(each, budget, sampled.get(each.strategy))
        for each in strategies
        for budget in _budgets(each)
        if each.is_search or budget in budgets
    ]


def by_cost(rows: Sequence[CostRow], axis: Axis) -> list[CostRow]:
    """Rows with a known cost, the cheapest first."""
    known = [row for row in rows if row.cost(axis) is not None]
    return sorted(known, key=lambda row: (row.cost(axis), row.strategy, row.budget))


def frontier(rows: Sequence[CostRow], axis: Axis, selector: str) -> set[tuple[str, int]]:
    """(Strategy, budget) of rows that are right more often, by a selector, than all that cost as much or less."""
    best, found = -1.0, set()
    for row in by_cost(rows, axis):
        value = row.accuracy(selector)
        if value is not None and value > best:
            best = value
            found.add((row.strategy, row.budget))
    return found


def _budgets(found: StrategyResults) -> list[int]:
    return sorted({row.budget for row in found.rows})


def _search_row(found: StrategyResults, budget: int, costs: Sequence[Spent]) -> CostRow:
    own = [cost for cost in costs if cost.strategy == search_name(found.strategy, budget)]
    count = max(1, len(own))
    tokens = sum(cost.tokens for cost in own)
    read = sum(cost.prompt_tokens for cost in own)
    scored = sum(cost.scorer_tokens for cost in own)
    waits = [cost.seconds for cost in own if cost.seconds is not None]
    policy = own[0].policy_parameters if own else None
    scorer = own[0].scorer_parameters if own else None
    return CostRow(
        strategy=found.strategy,
        budget=budget,
        problems=len(own),
        generations=sum(cost.nodes for cost in own) / count,
        tokens=tokens / count,
        discarded=sum(cost.discarded_tokens for cost in own) / tokens if tokens else None,
        scorer_tokens=scored / count,
        cached=sum(cost.cached_tokens for cost in own) / read if read else None,
        policy_flops=None if policy is None else 2.0 * policy * tokens / count,
        all_flops=None
        if policy is None or scorer is None
        else 2.0 * (policy * (tokens + read) + scorer * scored) / count,
        seconds=sum(waits) / len(waits) if waits else None,
        accuracies=_accuracies(found, budget),
    )


def _sample_row(found: StrategyResults, budget: int, spent: SamplesSpent | None) -> CostRow:
    overall = next(row for row in found.counts if row.level == OVERALL)
    tokens = budget * (overall.mean_tokens or 0.0)
    parameters = spent.policy_parameters if spent else None
    readings = [(budget * read / spent.samples, size) for read, size in spent.readings] if spent else []
    return CostRow(
        strategy=found.strategy,
        budget=budget,
        problems=overall.problems,
        generations=float(budget),
        tokens=tokens,
        discarded=0.0,
        scorer_tokens=sum(read for read, _ in readings) if readings else None,
        cached=None,
        policy_flops=None if parameters is None else 2.0 * parameters * tokens,
        all_flops=_sample_flops(spent, budget, tokens, readings) if spent else None,
        seconds=spent.seconds.get(budget) if spent else None,
        accuracies=_accuracies(found, budget),
    )


def _sample_flops(
    spent: SamplesSpent, budget: int, tokens: float, readings: Sequence[tuple[float, int | None]]
) -> float | None:
    """With what is read: a prompt for every request that the budget needs, and solutions by the scorers."""
    if spent.policy_parameters is None or not spent.requests:
        return None
    requests = math.ceil(budget * spent.requests / spent.samples)
    prompts = requests * spent.prompt_tokens / spent.requests
    scored = 0.0
    for read, size in readings:
        if size is None:
            return None
        scored += size * read
    return 2.0 * (spent.policy_parameters * (tokens + prompts) + scored)


def _accuracies(found: StrategyResults, budget: int) -> list[Accuracy]:
    return [
        Accuracy(row.selector, row.value, row.low, row.high)
        for row in found.rows
        if row.level == OVERALL and row.budget == budget and row.value is not None
    ]
