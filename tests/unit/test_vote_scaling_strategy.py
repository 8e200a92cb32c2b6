"""Vote scaling of a strategy: which filter, which first calls, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import estimate
from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.analysis.results import StrategyResults, by_level
from orchestrator.analysis.vote_scaling.pools import System
from orchestrator.analysis.vote_scaling.strategy import scale_strategy
from orchestrator.errors import UsageError
from tests.pool_examples import large_pool

MAJORITY = Selector(Kind.MAJORITY)
FILTER, STRICTER = (Selector(Kind.FILTER_VOTE, "prm", threshold=at) for at in (0.5, 0.9))
TOP = Selector(Kind.FILTER_VOTE, "prm", share=0.5)


def found(pools: list[Ballots], *selectors: Selector) -> StrategyResults:
    curves = estimate(pools, selectors, [1], seed=0)
    levels = by_level([None] * len(pools))
    named = {selector.name: curve for selector, curve in curves.items()}
    return StrategyResults("parallel", 60, [], [], [], named, levels, dict.fromkeys(named, pools))


POOLS = [large_pool(i, 60, problem_id=i) for i in range(6)]


def test_without_a_filter_it_is_the_vote_alone() -> None:
    scaling = scale_strategy(found(POOLS, MAJORITY, TOP), None, 20, [2, 30])
    assert {row.system for row in scaling.curves} == {System.VOTE}
    assert {row.calls for row in scaling.problems} == {20}
    assert {row.samples for row in scaling.problems} == {60}


def test_the_first_filter_is_taken_and_another_can_be_named() -> None:
    results = found(POOLS, MAJORITY, FILTER, STRICTER)
    first = scale_strategy(results, None, 20, [2, 30])
    assert {row.system for row in first.curves} == {System.VOTE, System.FILTER_VOTE}
    assert first == scale_strategy(results, FILTER.name, 20, [2, 30])
    assert first != scale_strategy(results, STRICTER.name, 20, [2, 30])


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(UsageError, match="is no filter-vote with a threshold"):
        scale_strategy(found(POOLS, MAJORITY, TOP), TOP.name, 20, [2])


def test_problems_without_votes_are_left_out() -> None:
    empty = Ballots(9, None, np.array([], dtype=np.int64), np.array([], dtype=np.bool_))
    scaling = scale_strategy(found([*POOLS, empty], MAJORITY, FILTER), None, 20, [2])
    assert {row.problem_id for row in scaling.problems} == set(range(6))
    with pytest.raises(UsageError, match="no problem with samples"):
        scale_strategy(found([empty], MAJORITY), None, 20, [2])
