"""Credits of many draws at once against the definition, draw by draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.selectors import Kind, Selector, credit
from orchestrator.analysis.estimation.tallies import Tally, chain_tally, share_tally, weighted_tally
from tests.pool_examples import large_pool, pool, pools

NAN = float("nan")
SHARES = (0.1, 0.5, 0.75, 1.0)


def orders(units: int, rows: int = 6) -> np.ndarray:
    rng = np.random.default_rng(units)
    return np.array([rng.permutation(units) for _ in range(rows)])


def by_definition(ballots: Ballots, selector: Selector, order: np.ndarray, budgets: list[int]) -> np.ndarray:
    """Credit of the first units of each row, drawn with all the samples of their chains."""
    chain = selector.chain or 1
    draws = [[[chain * u + i for u in row[:k] for i in range(chain)] for row in order] for k in budgets]
    return np.array([[float(credit(ballots, draw, selector)) for draw in some] for some in draws])


def credits_of(tally: Tally, order: np.ndarray, budgets: list[int]) -> np.ndarray:
    """Mean over the ways to break the ties within chains."""
    settled = tally.settled()
    assert settled
    return np.asarray(
        np.mean([each.credit(order, budgets, np.random.default_rng(0)) for each in settled], axis=0)
    )


@given(pools(12))
@settings(max_examples=60, deadline=None)
def test_weighted(ballots: Ballots) -> None:
    order, budgets = orders(ballots.n), list(range(1, ballots.n + 1))
    found = credits_of(weighted_tally(ballots, "prm"), order, budgets)
    assert found == pytest.approx(by_definition(ballots, Selector(Kind.WEIGHTED, "prm"), order, budgets))


@given(pools(12), st.sampled_from(SHARES))
@settings(max_examples=60, deadline=None)
def test_share(ballots: Ballots, share: float) -> None:
    order, budgets = orders(ballots.n), list(range(1, ballots.n + 1))
    found = credits_of(share_tally(ballots, "prm", share), order, budgets)
    selector = Selector(Kind.FILTER_VOTE, "prm", share=share)
    assert found == pytest.approx(by_definition(ballots, selector, order, budgets))


@given(pools(10), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_hierarchical(ballots: Ballots, chain: int) -> None:
    tally = chain_tally(ballots, "prm", chain)
    order, budgets = orders(tally.units), list(range(1, tally.units + 1))
    found = credits_of(tally, order, budgets)
    selector = Selector(Kind.HIERARCHICAL, "prm", chain=chain)
    assert found == pytest.approx(by_definition(ballots, selector, order, budgets))


def test_large_pools_too() -> None:
    ballots = large_pool(1, 300, clusters=40)
    order, budgets = orders(300, rows=4), [1, 2, 40, 41, 299, 300]
    for tally, selector in (
        (weighted_tally(ballots, "prm"), Selector(Kind.WEIGHTED, "prm")),
        (share_tally(ballots, "orm", 0.3), Selector(Kind.FILTER_VOTE, "orm", share=0.3)),
    ):
        assert credits_of(tally, order, budgets) == pytest.approx(
            by_definition(ballots, selector, order, budgets)
        )


def test_ties_within_chains_are_broken_at_random() -> None:
    ballots = pool([0, 1, 0, 2], [True, False, False], [0.5, 0.5, 0.4, 0.4])
    tally = chain_tally(ballots, "prm", 2)
    rows = 4000
    order = np.tile([0, 1], (rows, 1))
    values = tally.credit(order, [1, 2], np.random.default_rng(1)).mean(axis=1)
    assert np.abs(values - 0.5).max() < 4 * 0.5 / np.sqrt(rows)


def test_too_many_ties_are_not_settled() -> None:
    ballots = pool([0, 1] * 7, [True, False], [0.5] * 14)
    assert chain_tally(ballots, "prm", 2).settled() == ()
    assert len(chain_tally(pool([0, 1] * 6, [True, False], [0.5] * 12), "prm", 2).settled()) == 64


def test_a_broken_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="3 samples are no whole chains of 2"):
        chain_tally(pool([0, 0, 0], [True], [0.1, 0.2, 0.3]), "prm", 2)


@given(pools(10))
@settings(max_examples=40, deadline=None)
def test_what_is_known_without_a_draw_is_true(ballots: Ballots) -> None:
    for tally in (
        weighted_tally(ballots, "prm"),
        share_tally(ballots, "prm", 0.5),
        chain_tally(ballots, "prm", 2),
    ):
        for k in {1, (tally.units + 1) // 2, tally.units}:
            known = tally.known(k)
            if known is not None:
                subsets = np.array(list(combinations(range(tally.units), k)))
                assert known == pytest.approx(credits_of(tally, subsets, [k]).mean())
