"""REBASE by hand-written trees."""

from __future__ import annotations

from functools import partial

import pytest

from tests.search_world import FakeSearch, Step, run
from workers.strategies import Limits, Node, NodeEnd
from workers.strategies.allocation import RebaseRule
from workers.strategies.rebase import RebaseOptions, rebase

FIRST = [0.9, 0.8, 0.5, 0.2]


def first_scores(node: Node) -> float:
    """The scores of the worked example, four times over, for first steps; the rest is mediocre."""
    return FIRST[node.path[0]] if node.depth == 1 and node.path[0] < 4 else 0.0


def two_steps(parent: Node, index: int, _greedy: bool) -> Step:
    """Four good first steps and twelve empty ones, then the end."""
    if parent.depth == 0:
        return Step(f"{index}") if index < 4 else Step("", NodeEnd.EMPTY)
    return Step(f"{index}", NodeEnd.FINISHED)


@pytest.mark.parametrize(
    ("temperature", "rule", "widths"),
    [
        (0.1, RebaseRule.SEQUENTIAL, [12, 4]),
        (0.1, RebaseRule.ROUND, [12, 4]),
        (0.2, RebaseRule.SEQUENTIAL, [10, 5, 1]),
        (0.2, RebaseRule.ROUND, [9, 5, 1]),
    ],
)
async def test_the_worked_example(temperature: float, rule: RebaseRule, widths: list[int]) -> None:
    search = FakeSearch(two_steps, first_scores, budget=16)
    candidates = await run(lambda search: rebase(search, RebaseOptions(temperature, rule)), search)
    assert search.sample_calls == [((), 16), *(((index,), width) for index, width in enumerate(widths))]
    assert len(candidates) == sum(widths)
    starved = {(index,): "no share" for index in range(len(widths), 4)}
    assert search.pruned == starved


async def test_solutions_take_their_place_from_the_width() -> None:
    """Depth 1: two of eight are done; depth 2: all are."""

    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        is_done = parent.depth == 1 or index < 2
        return Step("step", NodeEnd.FINISHED if is_done else NodeEnd.STEP)

    search = FakeSearch(policy, budget=8)
    candidates = await run(rebase, search)
    assert search.sampled(greedy=False) == {1: 8, 2: 6}
    assert len(candidates) == 8
    assert search.sample_calls[1:] == [((index,), 1) for index in range(2, 8)]


async def test_a_cut_node_takes_its_place_from_the_width_too() -> None:
    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        return Step("step", NodeEnd.FINISHED if parent.depth else NodeEnd.STEP, 1 + index)

    search = FakeSearch(policy, budget=4, limits=Limits(max_depth=8, max_step_tokens=3))
    candidates = await run(rebase, search)
    assert search.sampled(greedy=False) == {1: 4, 2: 3}
    assert [candidate.node.end for candidate in candidates] == [NodeEnd.TRUNCATED, *[NodeEnd.FINISHED] * 3]
    assert candidates[0].score is None


async def test_the_paper_rule_may_overrun_the_budget_and_the_default_does_not() -> None:
    first = [0.95, 0.9, 0.9, 0.85, 0.6, 0.3]

    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        if parent.depth == 0:
            return Step(f"{index}") if index < 6 else Step("", NodeEnd.EMPTY)
        return Step(f"{index}", NodeEnd.FINISHED)

    returned = {}
    for rule in RebaseRule:
        options = RebaseOptions(0.2, rule)
        search = FakeSearch(policy, lambda node: first[node.path[0]], budget=16)
        returned[rule] = len(await run(partial(rebase, options=options), search))
    assert returned == {RebaseRule.SEQUENTIAL: 16, RebaseRule.ROUND: 17}


async def test_low_temperature_goes_all_in_and_high_temperature_spreads() -> None:
    cold, hot = (FakeSearch(two_steps, first_scores, budget=16) for _ in range(2))
    await run(lambda search: rebase(search, RebaseOptions(0.01)), cold)
    await run(lambda search: rebase(search, RebaseOptions(100.0)), hot)
    assert cold.sample_calls[1:] == [((0,), 16)]
    assert (
        hot.sample_calls[1:] == [((index,), 4) for index in range(4)]
        or sum(width for _, width in hot.sample_calls[1:]) == 16
    )


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_refuses_a_temperature_that_is_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        RebaseOptions(temperature)
