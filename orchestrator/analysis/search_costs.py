"""What each strategy spends at each budget, beside how right it is: generations, tokens, FLOPs.

A search pays for every node that it draws, pruned ones and those of a lookahead included; independent samples pay for
themselves. FLOPs are 2 x parameters x tokens (Wu 2408.00724): `policy_flops` is the papers' rule, which charges the
policy's generated tokens alone; `all_flops` adds what policy and scorer read, and so can turn a ranking round.

Pure: rows in, rows out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    def policy_parameters(self) -> int | None:
        """Size of the policy."""

    @property
    def scorer_parameters(self) -> int | None:
        """Size of the scorer."""


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
    policy_flops: float | None
    all_flops: float | None
    accuracies: Sequence[Accuracy]


def cost_rows(strategies: Sequence[StrategyResults], costs: Sequence[Spent]) -> list[CostRow]:
    """Rows of all strategies at all budgets; independent samples at the budgets of the searches."""
    budgets = {budget for each in strategies if each.is_search for budget in _budgets(each)}
    size = next((cost.policy_parameters for cost in costs), None)
    return [
        _search_row(each, budget, costs) if each.is_search else _sample_row(each, budget, size)
        for each in strategies
        for budget in _budgets(each)
        if each.is_search or budget in budgets
    ]


def _budgets(found: StrategyResults) -> list[int]:
    return sorted({row.budget for row in found.rows})


def _search_row(found: StrategyResults, budget: int, costs: Sequence[Spent]) -> CostRow:
    own = [cost for cost in costs if cost.strategy == search_name(found.strategy, budget)]
    count = max(1, len(own))
    tokens = sum(cost.tokens for cost in own)
    read = sum(cost.prompt_tokens for cost in own)
    scored = sum(cost.scorer_tokens for cost in own)
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
        policy_flops=None if policy is None else 2.0 * policy * tokens / count,
        all_flops=None
        if policy is None or scorer is None
        else 2.0 * (policy * (tokens + read) + scorer * scored) / count,
        accuracies=_accuracies(found, budget),
    )


def _sample_row(found: StrategyResults, budget: int, parameters: int | None) -> CostRow:
    overall = next(row for row in found.counts if row.level == OVERALL)
    tokens = budget * (overall.mean_tokens or 0.0)
    return CostRow(
        strategy=found.strategy,
        budget=budget,
        problems=overall.problems,
        generations=float(budget),
        tokens=tokens,
        discarded=0.0,
        scorer_tokens=None,
        policy_flops=None if parameters is None else 2.0 * parameters * tokens,
        all_flops=None,
        accuracies=_accuracies(found, budget),
    )


def _accuracies(found: StrategyResults, budget: int) -> list[Accuracy]:
    return [
        Accuracy(row.selector, row.value, row.low, row.high)
        for row in found.rows
        if row.level == OVERALL and row.budget == budget and row.value is not None
    ]
