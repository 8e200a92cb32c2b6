"""Random orders of a pool: unbiased, with honest errors, and the same whatever else is asked."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from orchestrator.analysis.estimation.resampling import Expectation, expectations, random_orders, trials_for
from orchestrator.analysis.estimation.tallies import Tally, chain_tally, share_tally, weighted_tally
from tests.pool_examples import large_pool, pool


def tallies(n: int = 20) -> list[Tally]:
    ballots = large_pool(4, n)
    return [weighted_tally(ballots, "prm"), share_tally(ballots, "prm", 0.3), chain_tally(ballots, "prm", 1)]


def by_enumeration(tally: Tally, k: int) -> float:
    subsets = np.array(list(combinations(range(tally.units), k)))
    return float(tally.credit(subsets, [k], np.random.default_rng(0)).mean())


def values(found: list[Expectation | None]) -> list[Expectation]:
    assert None not in found
    return [one for one in found if one is not None]


def test_agrees_with_enumeration_within_its_error() -> None:
    for tally, found in zip(
        tallies(), expectations(tallies(), [7, 10], seed=(3, 7), trials=4000), strict=True
    ):
        for k, one in zip((7, 10), values(found), strict=True):
            assert not one.is_exact
            assert 0 < one.mc_error < 0.01
            assert abs(one.value - by_enumeration(tally, k)) < 4 * one.mc_error


def test_errors_are_as_large_as_they_say() -> None:
    """Over many seeds, the estimate differs from the truth by its error, no more and no less."""
    tally = tallies()[0]
    truth = by_enumeration(tally, 10)
    runs = [values(expectations([tally], [10], seed=(s, 7), trials=100)[0])[0] for s in range(200)]
    deviations = np.array([(run.value - truth) / run.mc_error for run in runs])
    assert abs(deviations.mean()) < 4 / math.sqrt(200)
    assert 0.8 < deviations.std() < 1.2


def test_few_subsets_are_enumerated() -> None:
    for tally, found in zip(
        tallies(), expectations(tallies(), [1, 3, 17, 20], seed=(3, 7), trials=50), strict=True
    ):
        for k, one in zip((1, 3, 17, 20), values(found), strict=True):
            assert one.is_exact
            assert one.mc_error == 0.0
            assert one.value == pytest.approx(by_enumeration(tally, k))


def test_another_budget_or_selector_changes_no_number() -> None:
    some = tallies(200)
    together = expectations(some, [2, 5, 64, 90], seed=(3, 7), trials=300)
    for tally, row in zip(some, together, strict=True):
        for k, one in zip((2, 5, 64, 90), row, strict=True):
            assert expectations([tally], [k], seed=(3, 7), trials=300) == [[one]]


def test_another_problem_has_other_orders() -> None:
    tally = tallies(200)[0]
    one, other = (expectations([tally], [16, 32, 64], seed=(3, problem), trials=300) for problem in (7, 8))
    assert one != other


def test_fewer_kept_are_the_same_orders_cut() -> None:
    whole = np.concatenate(list(random_orders(50, 600, [1], 50)))
    some = np.concatenate(list(random_orders(50, 600, [1], 30)))
    assert (some == whole[:, :30]).all()
    assert (np.sort(whole, axis=1) == np.arange(50)).all()
    assert len(np.unique(whole, axis=0)) == 600  # no block repeats another


def test_every_order_is_as_likely() -> None:
    rows = np.concatenate(list(random_orders(4, 24_000, [2], 4)))
    counts = np.unique(rows @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)


def test_huge_pools_are_shuffled_in_small_blocks() -> None:
    blocks = list(random_orders(300_000, 3, [2], 5))
    assert [len(block) for block in blocks] == [1, 1, 1]
    assert all(len(set(block[0].tolist())) == 5 and block.max() < 300_000 for block in blocks)


def test_draws_of_whole_chains_only() -> None:
    tally = chain_tally(large_pool(4, 60), "prm", 3)
    found = expectations([tally], [1, 3, 7, 30, 60, 63], seed=(3, 7), trials=300)[0]
    assert [one is None for one in found] == [True, False, True, False, False, True]
    assert found[3] is not None
    # 184,756 ways to draw 10 of 20 chains
    assert abs(found[3].value - by_enumeration(tally.settled()[0], 10)) < 4 * found[3].mc_error


def test_ties_in_many_chains_are_resampled_even_in_the_whole_pool() -> None:
    tally = chain_tally(pool([0, 1] * 10, [True, False], [0.5] * 20), "prm", 2)
    one = values(expectations([tally], [20], seed=(3, 7), trials=1000)[0])[0]
    assert not one.is_exact
    assert abs(one.value - 0.5) < 4 * one.mc_error


@pytest.mark.parametrize(
    ("problems", "trials"), [(500, 262), (5000, 256), (30, 4096), (100, 1310), (0, 4096)]
)
def test_fewer_problems_get_more_trials(problems: int, trials: int) -> None:
    assert trials_for(problems) == trials
