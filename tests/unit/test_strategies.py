"""What holds for every built-in strategy, on random trees: accounting, budgets, depth, determinism, bad ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search_world import LIMITS, FakeSearch, Step, random_policy, random_scorer, run
from workers.strategies import Limits, Node, NodeEnd, build
from workers.strategies.base import Candidate, together

ALL: Mapping[str, tuple[str, dict[str, object]]] = {
    "greedy": ("greedy", {}),
    "parallel": ("parallel", {}),
    "parallel-unscored": ("parallel", {"is_scored": False}),
    "beam": ("beam", {}),
    "beam-root": ("beam", {"expansion": None}),
    "beam-deduped": ("beam", {"expansion": 2, "dedupe_siblings": True}),
    "lookahead": ("lookahead", {"steps": 2}),
    "dvts": ("dvts", {}),
    "dvts-deduped": ("dvts", {"expansion": 3, "dedupe_siblings": True}),
    "rebase": ("rebase", {}),
    "rebase-round": ("rebase", {"rule": "round", "temperature": 0.2}),
    "rebase-deduped": ("rebase", {"dedupe_siblings": True}),
    "mcts": ("mcts", {}),
    "mcts-deduped": ("mcts", {"children": 3, "dedupe_siblings": True}),
}
CONSERVING = [name for name in ALL if name not in ("greedy", "mcts", "mcts-deduped", "rebase-round")]
WEIGHTS = st.fixed_dictionaries(
    {
        NodeEnd.STEP: st.just(1.0),
        NodeEnd.FINISHED: st.floats(0, 1),
        NodeEnd.TRUNCATED: st.floats(0, 0.3),
        NodeEnd.EMPTY: st.floats(0, 0.3),
        NodeEnd.ERROR: st.floats(0, 0.3),
    }
)


def searched(
    name: str, seed: int, weights: dict[NodeEnd, float], budget: int, scramble: int | None = None
) -> tuple[FakeSearch, list[Candidate]]:
    kind, options = ALL[name]
    search = FakeSearch(
        random_policy(seed, weights), random_scorer(seed), budget=budget, limits=LIMITS, scramble=scramble
    )
    return search, asyncio.run(run(build(kind, options), search))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), weights=WEIGHTS, budget=st.integers(1, 20))
def test_every_node_is_accounted_for_and_no_budget_is_overrun(
    name: str, seed: int, weights: dict[NodeEnd, float], budget: int
) -> None:
    search, candidates = searched(name, seed, weights, budget)
    assert all(node.depth <= LIMITS.max_depth for node in search.nodes.values())
    assert all(
        candidate.node.end in (NodeEnd.FINISHED, NodeEnd.TRUNCATED)
        or candidate.node.depth == LIMITS.max_depth
        for candidate in candidates
    )
    assert all(
        (candidate.score is None) or candidate.node.end is NodeEnd.FINISHED for candidate in candidates
    )
    assert search.tokens == sum(node.tokens for node in search.nodes.values())
    if name in CONSERVING:
        assert max(search.sampled(greedy=False).values()) <= budget
        assert len(candidates) <= budget


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), weights=WEIGHTS, scramble=st.integers(0, 10**6))
def test_the_order_of_replies_changes_nothing(
    name: str, seed: int, weights: dict[NodeEnd, float], scramble: int
) -> None:
    search, candidates = searched(name, seed, weights, 12)
    scrambled, others = searched(name, seed, weights, 12, scramble)
    assert others == candidates
    assert scrambled.nodes == search.nodes
    assert scrambled.pruned == search.pruned
    assert scrambled.scores == search.scores


@pytest.mark.parametrize("name", ALL)
async def test_all_finished_in_round_one(name: str) -> None:
    kind, options = ALL[name]
    search = FakeSearch(lambda _, index, _greedy: Step(f"answer {index}", NodeEnd.FINISHED), budget=8)
    candidates = await run(build(kind, options), search)
    first_round = {"greedy": 1, "mcts": 2, "mcts-deduped": 3}.get(name, 8)
    assert [candidate.node.path for candidate in candidates] == [(index,) for index in range(first_round)]
    assert len(search.sample_calls) == 1


@pytest.mark.parametrize("end", [NodeEnd.EMPTY, NodeEnd.ERROR])
@pytest.mark.parametrize("name", ALL)
async def test_all_empty_or_failed_gives_no_candidate_and_no_score(name: str, end: NodeEnd) -> None:
    kind, options = ALL[name]
    search = FakeSearch(lambda *_: Step("", end, tokens=0), budget=8)
    assert await run(build(kind, options), search) == []
    assert search.score_calls == []
    assert len(search.sample_calls) == 1


@pytest.mark.parametrize("name", ALL)
async def test_all_cut_are_candidates_without_a_score(name: str) -> None:
    kind, options = ALL[name]
    limits = Limits(max_depth=8, max_step_tokens=10)
    search = FakeSearch(lambda *_: Step("long", tokens=11), budget=8, limits=limits)
    candidates = await run(build(kind, options), search)
    assert candidates
    assert {(candidate.node.end, candidate.score) for candidate in candidates} == {(NodeEnd.TRUNCATED, None)}
    assert search.score_calls == []


@pytest.mark.parametrize("name", ALL)
async def test_solutions_that_never_end_are_returned_at_the_depth_limit(name: str) -> None:
    kind, options = ALL[name]
    search = FakeSearch(
        lambda _, index, _greedy: Step(f"on and on {index}"), budget=64, limits=Limits(max_depth=3)
    )
    candidates = await run(build(kind, options), search)
    assert candidates
    for candidate in candidates:
        assert (candidate.node.depth, candidate.node.end, candidate.score) == (3, NodeEnd.STEP, None)


@pytest.mark.parametrize("name", ["beam", "dvts", "rebase", "parallel"])
async def test_the_token_limit_binds_over_the_whole_solution(name: str) -> None:
    limits = Limits(max_depth=40, max_step_tokens=256, max_tokens=1024)
    search = FakeSearch(lambda *_: Step("step", tokens=256), budget=4, limits=limits)
    candidates = await run(build(name), search)
    assert {(candidate.node.depth, candidate.node.end) for candidate in candidates} == {
        (5, NodeEnd.TRUNCATED)
    }


@pytest.mark.parametrize("name", ["beam", "dvts", "rebase"])
async def test_the_slot_of_a_failed_node_is_sampled_again_in_the_next_round(name: str) -> None:
    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        is_bad = parent.depth == 0 and index > 0
        end = NodeEnd.FINISHED if parent.depth == 1 else NodeEnd.STEP
        return Step("", NodeEnd.ERROR) if is_bad else Step("step", end)

    search = FakeSearch(policy, budget=4)
    candidates = await run(build(name), search)
    assert search.sample_calls == [((), 4), ((0,), 4)]
    assert len(candidates) == 4


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts", "rebase", "mcts"])
@pytest.mark.parametrize("is_deduped", [False, True])
async def test_open_siblings_of_the_same_text_are_dropped_only_on_request(
    name: str, is_deduped: bool
) -> None:
    search = FakeSearch(lambda *_: Step("the same"), budget=4, limits=Limits(max_depth=2))
    await run(build(name, {"dedupe_siblings": is_deduped}), search)
    assert ("duplicate" in search.pruned.values()) is is_deduped
    if is_deduped:
        assert search.pruned[(1,)] == "duplicate"
        assert (0,) not in search.pruned


async def test_finished_siblings_of_the_same_text_are_as_many_votes() -> None:
    search = FakeSearch(lambda *_: Step("42", NodeEnd.FINISHED), budget=4)
    assert len(await run(build("beam", {"dedupe_siblings": True}), search)) == 4


async def test_an_empty_last_step_may_still_finish_a_solution() -> None:
    search = FakeSearch(lambda *_: Step("", NodeEnd.FINISHED), budget=2)
    assert len(await run(build("beam"), search)) == 2


@pytest.mark.parametrize("name", ALL)
async def test_an_error_of_the_search_comes_out_as_it_is(name: str) -> None:
    kind, options = ALL[name]

    def policy(parent: Node, _index: int, _greedy: bool) -> Step:
        if parent.depth == 1:
            raise ConnectionError("gone")
        return Step("step")

    with pytest.raises(ConnectionError, match="gone"):
        await build(kind, options)(FakeSearch(policy, budget=8, scramble=1))


async def test_together_ends_the_others_at_the_first_error() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await together([waits(), fails()])
    assert ended == ["waits"]


async def test_greedy_takes_the_likeliest_way_and_one_solution_whatever_the_budget() -> None:
    def policy(parent: Node, _index: int, greedy: bool) -> Step:
        assert greedy
        return Step("step", NodeEnd.FINISHED if parent.depth == 2 else NodeEnd.STEP)

    search = FakeSearch(policy, lambda _: 0.7, budget=16)
    (candidate,) = await run(build("greedy"), search)
    assert candidate == Candidate(search.nodes[(0, 0, 0)], None)
    search = FakeSearch(policy, lambda _: 0.7, budget=16)
    assert (await run(build("greedy", {"is_scored": True}), search))[0].score == 0.7


async def test_parallel_solutions_do_not_wait_for_each_other_and_only_ends_are_scored() -> None:
    lengths = [1, 2, 5, 8]

    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        length = lengths[(*parent.path, index)[0]]
        return Step("step", NodeEnd.FINISHED if parent.depth + 1 == length else NodeEnd.STEP)

    search = FakeSearch(policy, lambda node: node.depth / 10, budget=4)
    candidates = await run(build("parallel"), search)
    assert [(candidate.node.depth, candidate.score) for candidate in candidates] == [
        (1, 0.1),
        (2, 0.2),
        (5, 0.5),
        (8, 0.8),
    ]
    assert search.score_calls == [4]
    assert len(search.nodes) == sum(lengths)


def test_a_node_is_a_frozen_record() -> None:
    node = FakeSearch(lambda *_: Step("x")).root
    assert (node.path, node.depth, node.end, node.logprob) == ((), 0, NodeEnd.STEP, None)
    assert replace(node, logprob=-1.0).logprob == -1.0
    with pytest.raises(AttributeError):
        node.text = "other"  # type: ignore[misc]
