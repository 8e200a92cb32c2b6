"""Estimates that are kept: what still holds is not made again, and what does not hold is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.analysis.estimation import kept_estimates
from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import estimate
from orchestrator.analysis.estimation.kept_estimates import Estimation, Kept, Key, Renewal, renew
from orchestrator.analysis.estimation.resampling import trials_for
from orchestrator.analysis.estimation.selectors import Kind, Selector
from tests.pool_examples import large_pool, pool

PASS, MAJORITY = Selector(Kind.PASS), Selector(Kind.MAJORITY)
WEIGHTED = Selector(Kind.WEIGHTED, "prm")
SELECTORS = (PASS, MAJORITY, WEIGHTED)
BUDGETS = (1, 4, 16, 64)


@pytest.fixture(scope="module")
def pools() -> list[Ballots]:
    return [large_pool(i, 60 + 10 * i, problem_id=i) for i in range(4)]


def renewed(
    pools: Sequence[Ballots],
    kept: Mapping[Key, Kept],
    selectors: Sequence[Selector] = SELECTORS,
    budgets: Sequence[int] = BUDGETS,
    seed: int = 1,
) -> Renewal:
    return renew(pools, Estimation(selectors, budgets, seed), kept, lambda done, total: None)


def test_equals_estimating_everything_at_once(pools: list[Ballots]) -> None:
    found = renewed(pools, {})
    expected = estimate(pools, SELECTORS, BUDGETS, seed=1, trials=trials_for(len(pools)))
    for selector in SELECTORS:
        np.testing.assert_allclose(found.curves[selector].values, expected[selector].values, atol=1e-10)
        np.testing.assert_allclose(found.curves[selector].mc_errors, expected[selector].mc_errors, atol=1e-12)
    known = sum(int((~np.isnan(expected[selector].values)).sum()) for selector in SELECTORS)
    assert len(found.made) == known  # the smallest pool has no estimate at 64


def test_nothing_is_made_twice(pools: list[Ballots], monkeypatch: pytest.MonkeyPatch) -> None:
    first = renewed(pools, {})
    monkeypatch.setattr(kept_estimates, "estimate", lambda *args, **options: pytest.fail("estimated again"))
    again = renewed(pools, first.made)
    assert again.made == {}
    for selector in SELECTORS:
        assert np.array_equal(again.curves[selector].values, first.curves[selector].values, equal_nan=True)
        assert np.array_equal(again.curves[selector].mc_errors, first.curves[selector].mc_errors)


def test_an_estimate_does_not_depend_on_the_company(pools: list[Ballots]) -> None:
    together = renewed(pools, {}, budgets=(32,)).made
    alone = {key: kept for each in pools for key, kept in renewed([each], {}, budgets=(32,)).made.items()}
    votes = {key for key in together if key[0] in (PASS.name, MAJORITY.name)}
    assert votes
    assert {key: alone[key] for key in votes} == {key: together[key] for key in votes}


def test_a_new_budget_selector_or_problem_costs_no_more_than_itself(pools: list[Ballots]) -> None:
    kept = renewed(pools[:3], {}, (PASS, MAJORITY), (1, 4)).made
    budget = renewed(pools[:3], kept, (PASS, MAJORITY), (1, 2, 4))
    assert {key[1] for key in budget.made} == {2}
    selector = renewed(pools[:3], kept, (PASS, MAJORITY, WEIGHTED), (1, 4))
    assert {key[0] for key in selector.made} == {WEIGHTED.name}
    problem = renewed(pools, kept, (PASS, MAJORITY), (1, 4))
    assert {key[2] for key in problem.made} == {3}


def test_what_has_changed_is_made_again(pools: list[Ballots]) -> None:
    kept = renewed(pools, {}).made
    votes = pools[1].candidates.copy()
    votes[0] = (votes[0] + 1) % len(pools[1].is_correct)
    verdicts = ~pools[2].is_correct
    scores = {**pools[3].scores, "prm": np.asarray(pools[3].scores["prm"]) * np.float32(0.5)}
    changed = [
        pools[0],
        replace(pools[1], candidates=votes),
        replace(pools[2], is_correct=verdicts),
        replace(pools[3], scores=scores),
    ]
    made = renewed(changed, kept).made
    assert {key[2] for key in made} == {1, 2, 3}
    assert {key[0] for key in made if key[2] == 3} == {WEIGHTED.name}
    reseeded = renewed(pools, kept, seed=2).made
    assert {key[2] for key in reseeded} == {0, 1, 2, 3}


def test_a_pool_without_the_score_is_not_estimated_again_and_again() -> None:
    some = [pool([0, 0, 1], [True, False])]
    found = renewed(some, {}, (WEIGHTED,), (1, 2))
    assert found.made == {}
    assert np.isnan(found.curves[WEIGHTED].values).all()


def test_progress_ends_at_all_problems(pools: list[Ballots]) -> None:
    seen: list[tuple[int, int]] = []
    renew(pools, Estimation(SELECTORS, BUDGETS, 1), {}, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
