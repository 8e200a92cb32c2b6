"""Monte Carlo tree search: backup and UCT by hand, the plan of expansions, what is closed and what counts."""

from __future__ import annotations

import math

import pytest

from tests.search_world import FakeSearch, Step, run, tree, written_scores
from workers.strategies import Candidate, Limits, Node, NodeEnd
from workers.strategies.mcts import Branch, MctsOptions, expand, mcts, select
from workers.strategies.rounds import Judged

DONE = NodeEnd.FINISHED
STEPS = {
    (0,): Step("A"),
    (1,): Step("B"),
    (0, 0): Step("AA"),
    (0, 1): Step("AB"),
    (1, 0): Step("BA"),
    (1, 1): Step("BB"),
    (0, 0, 0): Step("AAA", DONE),
    (0, 0, 1): Step("AAB", DONE),
    (1, 1, 0): Step("BBA", DONE),
    (1, 1, 1): Step("BBB", DONE),
}
SCORES = {
    (0,): 0.6,
    (1,): 0.4,
    (0, 0): 0.9,
    (0, 1): 0.3,
    (1, 0): 0.2,
    (1, 1): 0.5,
    (0, 0, 0): 0.8,
    (0, 0, 1): 0.1,
    (1, 1, 0): 0.7,
    (1, 1, 1): 0.6,
}


def node(*path: int, end: NodeEnd = NodeEnd.STEP) -> Node:
    return Node(path, len(path), "", 1, len(path), end)


def opened(paths: list[tuple[int, ...]], *values: float) -> Judged:
    return Judged(tuple(node(*path) for path in paths), values, ())


def learnt(branch: Branch) -> tuple[float, float]:
    return branch.visits, branch.mean


def test_backup_and_uct_of_a_tree_worked_by_hand() -> None:
    """C = 1. UCT of A and B (of their children) before each selection, to four digits:

    2: A .6 + sqrt(ln 2 / 1) = 1.4326, B .4 + .8326 = 1.2326 -> A
    3: A .6 + sqrt(ln 4 / 3) = 1.2798, B .4 + sqrt(ln 4 / 1) = 1.5774 -> B
    4: A .6 + sqrt(ln 6 / 3) = 1.3728, B .3667 + .7728 = 1.1395 -> A; AA .9 + sqrt(ln 3 / 1) -> AA
    5: A .54 + sqrt(ln 8 / 5) = 1.1849, B .3667 + sqrt(ln 8 / 3) = 1.1992 -> B; BB .5 + sqrt(ln 3 / 1) -> BB
    """
    root = Branch(node())
    assert select(root, 1.0) is root
    expand(root, opened([(0,), (1,)], 0.6, 0.4))
    a, b = root.children
    assert learnt(root) == pytest.approx((2, 0.5))
    assert (a.visits, a.mean, b.visits, b.mean) == (1, 0.6, 1, 0.4)

    assert select(root, 1.0) is a
    expand(a, opened([(0, 0), (0, 1)], 0.9, 0.3))
    assert learnt(a) == pytest.approx((3, 0.6))
    assert learnt(root) == pytest.approx((4, 0.55))

    assert select(root, 1.0) is b
    expand(b, opened([(1, 0), (1, 1)], 0.2, 0.5))
    assert learnt(b) == pytest.approx((3, 1.1 / 3))
    assert learnt(root) == pytest.approx((6, 2.9 / 6))

    aa = a.children[0]
    assert select(root, 1.0) is aa
    ends = tuple(Candidate(node(0, 0, index, end=DONE), value) for index, value in enumerate((0.8, 0.1)))
    expand(aa, Judged((), (), ends))
    assert learnt(aa) == pytest.approx((3, 0.6))
    assert not aa.is_open
    assert learnt(a) == pytest.approx((5, 0.54))
    assert a.is_open
    assert learnt(root) == pytest.approx((8, 0.475))
    assert 0.54 + math.sqrt(math.log(8) / 5) < 1.1 / 3 + math.sqrt(math.log(8) / 3)
    assert select(root, 1.0) is b.children[1]


async def test_the_same_tree_through_the_search() -> None:
    search = FakeSearch(tree(STEPS), written_scores(SCORES), budget=5)
    candidates = await run(mcts, search)
    assert search.sample_calls == [((), 2), ((0,), 2), ((1,), 2), ((0, 0), 2), ((1, 1), 2)]
    assert [(candidate.node.text, candidate.score) for candidate in candidates] == [
        ("AAA", 0.8),
        ("AAB", 0.1),
        ("BBA", 0.7),
        ("BBB", 0.6),
    ]
    assert search.pruned == {(0, 1): "expansions spent", (1, 0): "expansions spent"}


async def test_without_exploration_it_follows_the_best_mean() -> None:
    search = FakeSearch(tree(STEPS), written_scores(SCORES), budget=3)
    await run(lambda search: mcts(search, MctsOptions(exploration=0.0)), search)
    assert search.sample_calls == [((), 2), ((0,), 2), ((0, 0), 2)]


@pytest.mark.parametrize(("budget", "root_children"), [(32, 4), (64, 8), (128, 16), (8, 2), (1, 2)])
async def test_the_plan_of_the_paper(budget: int, root_children: int) -> None:
    search = FakeSearch(lambda *_: Step("step"), budget=budget, limits=Limits(max_depth=40))
    await run(mcts, search)
    assert len(search.sample_calls) == budget
    assert search.sample_calls[0] == ((), root_children)
    assert {width for _, width in search.sample_calls[1:]} <= {2}


async def test_the_width_of_the_root_is_an_option() -> None:
    search = FakeSearch(lambda *_: Step("step"), budget=4)
    await run(lambda search: mcts(search, MctsOptions(root_children=6, children=3)), search)
    assert [width for _, width in search.sample_calls] == [6, 3, 3, 3]


async def test_it_stops_when_nothing_is_open() -> None:
    search = FakeSearch(lambda *_: Step("step"), budget=100, limits=Limits(max_depth=2))
    options = MctsOptions(root_children=2)
    candidates = await run(lambda search: mcts(search, options), search)
    assert len(search.sample_calls) == 3
    assert len(candidates) == 4


async def test_a_finished_node_is_never_selected_however_good_it_is() -> None:
    def policy(parent: Node, index: int, _greedy: bool) -> Step:
        return Step("end" if index == 0 else "step", DONE if index == 0 else NodeEnd.STEP)

    search = FakeSearch(policy, lambda node: 1.0 if node.end is DONE else 0.0, budget=5)
    candidates = await run(mcts, search)
    assert [path for path, _ in search.sample_calls] == [(1,) * depth for depth in range(5)]
    assert len(candidates) == 5


@pytest.mark.parametrize("end", [NodeEnd.ERROR, NodeEnd.EMPTY, NodeEnd.TRUNCATED])
async def test_a_node_without_a_value_moves_no_mean_and_closes_a_dead_end(end: NodeEnd) -> None:
    steps = {**STEPS, (0, 0): Step("", end), (0, 1): Step("", end)}
    search = FakeSearch(tree(steps), written_scores(SCORES), budget=3)
    candidates = await run(mcts, search)
    assert search.sample_calls == [((), 2), ((0,), 2), ((1,), 2)]
    assert [candidate.node.path for candidate in candidates] == (
        [(0, 0), (0, 1)] if end is NodeEnd.TRUNCATED else []
    )


def test_a_dead_end_keeps_its_own_value() -> None:
    root = Branch(node())
    expand(root, opened([(0,)], 0.8))
    expand(root.children[0], Judged((), (), ()))
    assert (root.visits, root.mean, root.is_open) == (1, 0.8, False)


def test_equal_values_select_the_child_sampled_first() -> None:
    root = Branch(node())
    expand(root, opened([(0,), (1,), (2,)], 0.5, 0.5, 0.5))
    assert select(root, 1.0) is root.children[0]


@pytest.mark.parametrize("wrong", [{"exploration": -1.0}, {"children": 0}, {"root_children": 0}])
def test_refuses_options_without_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        MctsOptions(**wrong)  # type: ignore[arg-type]
