"""Beam search, lookahead and DVTS by hand-written trees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.search_world import FakeSearch, Step, run
from workers.strategies import Limits, Node, NodeEnd
from workers.strategies.beam import BeamOptions, beam
from workers.strategies.dvts import DvtsOptions, dvts
from workers.strategies.lookahead import LookaheadOptions, lookahead

Path = tuple[int, ...]


def steady(length: int) -> Callable[[Node, int, bool], Step]:
    """Solutions of `length` steps; the text is the path."""

    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        end = NodeEnd.FINISHED if parent.depth + 1 == length else NodeEnd.STEP
        return Step(".".join(map(str, (*parent.path, index))), end)

    return policy


def last_index(node: Node) -> float:
    """Later children are better."""
    return node.path[-1] / 100


async def test_beam_keeps_the_best_n_over_m_and_expands_each_m_times() -> None:
    search = FakeSearch(steady(3), last_index, budget=8)
    candidates = await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sample_calls == [((), 8), ((7,), 4), ((6,), 4), ((7, 3), 4), ((6, 3), 4)]
    assert search.sampled(greedy=False) == {1: 8, 2: 8, 3: 8}
    assert [candidate.node.path for candidate in candidates] == [
        *((7, 3, index) for index in range(4)),
        *((6, 3, index) for index in range(4)),
    ]
    assert search.pruned[(5,)] == "beaten"


async def test_beam_at_n_equal_to_m_follows_the_single_best() -> None:
    search = FakeSearch(steady(3), last_index, budget=4)
    candidates = await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sample_calls == [((), 4), ((3,), 4), ((3, 3), 4)]
    assert len(candidates) == 4


@pytest.mark.parametrize("budget", [1, 2, 3])
async def test_beam_below_m_keeps_one_and_samples_no_more_than_the_budget(budget: int) -> None:
    search = FakeSearch(steady(3), last_index, budget=budget)
    candidates = await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sampled(greedy=False) == {1: budget, 2: budget, 3: budget}
    assert len(candidates) == budget


async def test_beam_takes_the_square_root_of_the_budget() -> None:
    search = FakeSearch(steady(2), last_index, budget=16)
    await run(lambda search: beam(search, BeamOptions(None)), search)
    assert search.sample_calls == [((), 16), ((15,), 4), ((14,), 4), ((13,), 4), ((12,), 4)]
    assert [BeamOptions(None).expansion_at(budget) for budget in (1, 2, 16, 64, 256)] == [1, 1, 4, 8, 16]


async def test_a_finished_node_is_a_candidate_whatever_its_rank_and_narrows_the_beam() -> None:
    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        if parent.depth == 0:
            return Step(f"{index}", NodeEnd.FINISHED if index == 0 else NodeEnd.STEP)
        return Step("end", NodeEnd.FINISHED)

    search = FakeSearch(policy, last_index, budget=8)
    candidates = await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sample_calls == [((), 8), ((7,), 7)]
    assert [candidate.node.path for candidate in candidates] == [(0,), *((7, index) for index in range(7))]
    assert candidates[0].score == 0.0


async def test_equal_scores_keep_the_nodes_sampled_first() -> None:
    search = FakeSearch(steady(2), budget=8)
    await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sample_calls[1:] == [((0,), 4), ((1,), 4)]


async def test_the_depth_limit_is_the_number_of_rounds() -> None:
    search = FakeSearch(steady(100), last_index, budget=8, limits=Limits(max_depth=5))
    candidates = await run(lambda search: beam(search, BeamOptions(4)), search)
    assert search.sampled(greedy=False) == dict.fromkeys(range(1, 6), 8)
    assert search.score_calls == [8, 8, 8, 8]
    assert len(candidates) == 8


@pytest.mark.parametrize("k", [0, 1, 3])
async def test_lookahead_costs_k_plus_one_times_the_beam(k: int) -> None:
    limits = Limits(max_depth=20)
    search = FakeSearch(steady(15), last_index, budget=8, limits=limits)
    await run(lambda search: lookahead(search, LookaheadOptions(k, 4)), search)
    assert sum(search.sampled(greedy=False).values()) == 15 * 8
    per_round = [min(k, 15 - depth) for depth in range(1, 16)]
    assert sum(search.sampled(greedy=True).values()) == 8 * sum(per_round)
    rounds_of_full_cost = [sampled for sampled in per_round if sampled == k]
    assert len(rounds_of_full_cost) == (15 if k == 0 else 15 - k)


async def test_lookahead_of_no_steps_is_beam_search() -> None:
    ahead, plain = FakeSearch(steady(4), last_index, budget=8), FakeSearch(steady(4), last_index, budget=8)
    candidates = await run(lambda search: lookahead(search, LookaheadOptions(0, 4)), ahead)
    assert candidates == await run(lambda search: beam(search, BeamOptions(4)), plain)
    assert ahead.nodes == plain.nodes


async def test_lookahead_values_a_node_by_the_end_of_its_greedy_steps() -> None:
    """Node 0 looks bad and leads to something good; node 1 looks good and leads to something bad."""

    def scorer(node: Node) -> float:
        looks_good, leads_to_good = (0.1, 0.9) if node.path[0] == 0 else (0.8, 0.2)
        return looks_good if node.depth == 1 else leads_to_good

    ahead, plain = FakeSearch(steady(3), scorer, budget=2), FakeSearch(steady(3), scorer, budget=2)
    await run(lambda search: beam(search, BeamOptions(2)), plain)
    candidates = await run(lambda search: lookahead(search, LookaheadOptions(1, 2)), ahead)
    assert plain.pruned[(0,)] == "beaten"
    assert ahead.pruned[(1,)] == "beaten"
    assert {candidate.node.path[0] for candidate in candidates} == {0}


async def test_what_was_looked_at_is_neither_expanded_nor_returned_and_keeps_its_index() -> None:
    search = FakeSearch(steady(3), lambda node: node.path[0] / 10 + node.path[-1] / 100, budget=4)
    candidates = await run(lambda search: lookahead(search, LookaheadOptions(1, 4)), search)
    assert search.pruned[(3, 0)] == "lookahead"
    assert [node.path for node in search.children((3,))] == [(3, index) for index in range(5)]
    assert (3, 0) in search.greedy
    assert {candidate.node.path for candidate in candidates}.isdisjoint(search.greedy)
    assert [candidate.node.path for candidate in candidates] == [(3, 1, index) for index in range(1, 5)]


@pytest.mark.parametrize("end", [NodeEnd.EMPTY, NodeEnd.ERROR, NodeEnd.TRUNCATED])
async def test_a_look_that_fails_falls_back_to_the_last_whole_step(end: NodeEnd) -> None:
    def policy(parent: Node, index: int, greedy: bool) -> Step:
        if greedy and parent.depth == 2:
            return Step("", end)
        return steady(5)(parent, index, greedy)

    search = FakeSearch(policy, last_index, budget=2)
    await run(lambda search: lookahead(search, LookaheadOptions(3, 2)), search)
    assert {(0, 0), (1, 0)} <= set(search.scores)
    assert (0, 0, 0) not in search.scores


async def test_a_finished_node_is_not_looked_beyond() -> None:
    search = FakeSearch(steady(1), last_index, budget=4)
    candidates = await run(lambda search: lookahead(search, LookaheadOptions(3, 4)), search)
    assert search.greedy == set()
    assert [candidate.score for candidate in candidates] == [0.0, 0.01, 0.02, 0.03]


async def test_dvts_keeps_the_best_of_every_subtree() -> None:
    search = FakeSearch(steady(3), last_index, budget=8)
    candidates = await run(lambda search: dvts(search, DvtsOptions(4)), search)
    assert search.sample_calls[0] == ((), 8)
    assert sorted(search.sample_calls[1:]) == [((3,), 4), ((3, 3), 4), ((7,), 4), ((7, 3), 4)]
    assert search.sampled(greedy=False) == {1: 8, 2: 8, 3: 8}
    assert [candidate.node.path for candidate in candidates] == [
        *((3, 3, index) for index in range(4)),
        *((7, 3, index) for index in range(4)),
    ]


@pytest.mark.parametrize("favourite", [0, 1])
async def test_no_subtree_of_dvts_depends_on_the_scores_of_another(favourite: int) -> None:
    def scorer(node: Node) -> float:
        bonus = 0.5 if node.path[0] // 4 == favourite else 0.0
        return bonus + last_index(node)

    search, unbiased = FakeSearch(steady(4), scorer, budget=8), FakeSearch(steady(4), last_index, budget=8)
    await run(lambda search: dvts(search, DvtsOptions(4)), search)
    await run(lambda search: dvts(search, DvtsOptions(4)), unbiased)
    assert search.nodes == unbiased.nodes
    single = FakeSearch(steady(4), scorer, budget=8)
    await run(lambda search: beam(search, BeamOptions(4)), single)
    assert {path[0] // 4 for path in single.nodes if len(path) > 1} == {favourite}


async def test_a_subtree_of_dvts_does_not_wait_for_another() -> None:
    """The first subtree ends after one step, the second after eight, on replies in any order."""

    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        first = (*parent.path, index)[0]
        is_last = first < 2 or parent.depth == 7
        return Step("step", NodeEnd.FINISHED if is_last else NodeEnd.STEP)

    search = FakeSearch(policy, last_index, budget=4, scramble=3)
    candidates = await run(lambda search: dvts(search, DvtsOptions(2)), search)
    assert [candidate.node.depth for candidate in candidates] == [1, 1, 8, 8]


async def test_a_solution_in_a_subtree_narrows_that_subtree_alone() -> None:
    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        is_done = parent.depth == 1 or (parent.depth == 0 and index == 0)
        return Step("step", NodeEnd.FINISHED if is_done else NodeEnd.STEP)

    search = FakeSearch(policy, last_index, budget=8)
    candidates = await run(lambda search: dvts(search, DvtsOptions(4)), search)
    assert sorted(search.sample_calls) == [((), 8), ((3,), 3), ((7,), 4)]
    assert len(candidates) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: BeamOptions(0),
        lambda: LookaheadOptions(3, 0),
        lambda: LookaheadOptions(-1),
        lambda: DvtsOptions(-4),
    ],
)
def test_refuses_options_without_sense(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must"):
        make()
