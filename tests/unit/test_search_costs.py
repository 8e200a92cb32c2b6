"""Costs by hand: what searches and independent samples spend, and who is right more often than all that is cheaper."""

from __future__ import annotations

import pytest

from orchestrator.analysis.results import OVERALL, CountRow, ResultRow, StrategyResults
from orchestrator.analysis.search_costs import Axis, by_cost, cost_rows, frontier
from orchestrator.store import SampleCost, SearchCost

POLICY, SCORER = 1000, 10


def results_of(
    name: str, values: dict[int, float], *, is_search: bool, mean_tokens: float = 0.0
) -> StrategyResults:
    rows = [
        ResultRow(OVERALL, "majority", budget, value, None, None, None, 0.0, 2, 0)
        for budget, value in values.items()
    ]
    counts = [CountRow(OVERALL, 2, 2, 2, 0, 0, 0, 0, 0, mean_tokens, 1.0, 1.0)]
    return StrategyResults(name, max(values), rows, [], counts, {}, levels=[], pools={}, is_search=is_search)


def search(budget: int, problem: int, tokens: int) -> SearchCost:
    return SearchCost(
        strategy=f"beam@{budget}", problem_id=problem, nodes=budget, tokens=tokens, discarded_tokens=tokens // 2,
        scorer_tokens=50, prompt_tokens=20, cached_tokens=5, policy_parameters=POLICY, scorer_parameters=SCORER,
        seconds=3.0 + problem,
    )  # fmt: skip


SAMPLES = SampleCost(
    samples=40, requests=10, prompt_tokens=70, policy_parameters=POLICY, readings=((400, SCORER),),
    seconds={4: 1.5},
)  # fmt: skip


def test_a_search_pays_for_all_it_drew_and_read() -> None:
    (row,) = cost_rows(
        [results_of("beam", {4: 0.5}, is_search=True)], [search(4, 1, 100), search(4, 2, 60)], {}
    )
    assert (row.generations, row.tokens, row.discarded, row.scorer_tokens) == (4.0, 80.0, 0.5, 50.0)
    assert row.policy_flops == 2 * POLICY * 80
    assert row.all_flops == 2 * (POLICY * (80 + 20) + SCORER * 50)
    assert (row.seconds, row.cached) == (4.5, 0.25)


def test_independent_samples_pay_for_prompts_and_for_the_scorer_that_guides_the_searches() -> None:
    _, row = cost_rows(
        [
            results_of("beam", {4: 0.5}, is_search=True),
            results_of("sampling", {4: 0.6, 64: 0.7}, is_search=False, mean_tokens=12.0),
        ],
        [search(4, 1, 100)],
        {"sampling": SAMPLES},
    )
    assert (row.budget, row.tokens, row.scorer_tokens) == (4, 48.0, 40.0)
    assert row.policy_flops == 2 * POLICY * 48
    # Four samples are one request, whose prompt of 7 tokens is read once.
    assert row.all_flops == pytest.approx(2 * (POLICY * (48 + 7) + SCORER * 40))
    assert row.seconds == 1.5


def test_what_is_not_known_is_not_made_up() -> None:
    _, row = cost_rows(
        [results_of("beam", {4: 0.5}, is_search=True), results_of("sampling", {4: 0.6}, is_search=False)],
        [search(4, 1, 100)],
        {},
    )
    assert (row.policy_flops, row.all_flops, row.seconds, row.scorer_tokens) == (None, None, None, None)


def test_the_frontier_turns_with_the_axis() -> None:
    rows = cost_rows(
        [
            results_of("beam", {4: 0.5, 8: 0.55}, is_search=True),
            results_of("sampling", {4: 0.52, 8: 0.5}, is_search=False, mean_tokens=30.0),
        ],
        [search(4, 1, 60), search(8, 1, 200)],
        {"sampling": SAMPLES},
    )
    assert [(row.strategy, row.budget) for row in by_cost(rows, Axis.TOKENS)] == [
        ("beam", 4), ("sampling", 4), ("beam", 8), ("sampling", 8),
    ]  # fmt: skip
    assert frontier(rows, Axis.TOKENS, "majority") == {("beam", 4), ("sampling", 4), ("beam", 8)}
    assert frontier(rows, Axis.SECONDS, "majority") == {("sampling", 4), ("beam", 8)}
    assert frontier(rows, Axis.TOKENS, "no such selector") == set()
