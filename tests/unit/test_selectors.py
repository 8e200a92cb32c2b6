"""What each selector chooses, in small examples and in recorded votes of a published code."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.selectors import Kind, Selector, credit, first_k, kept_of, selection
from tests.pool_examples import SELECTORS, pool, pools

NAN = float("nan")
PASS, MAJORITY = Selector(Kind.PASS), Selector(Kind.MAJORITY)
BEST, WEIGHTED = Selector(Kind.BEST_OF_N, "prm"), Selector(Kind.WEIGHTED, "prm")
FILTER = Selector(Kind.FILTER_VOTE, "prm", threshold=0.5)
X, Y, Z = 0, 1, 2


def law(ballots: Ballots, selector: Selector) -> dict[int, Fraction]:
    return dict(selection(ballots, range(ballots.n), selector))


class TestSelector:
    def test_names_are_readable_and_differ(self) -> None:
        labels = [selector.name for selector in SELECTORS]
        assert labels[:4] == ["pass", "majority", "best-of-n:prm", "weighted:prm"]
        assert labels[4:6] == ["filter-vote:prm:from-0.5", "filter-vote:prm:top-0.5"]
        assert labels[7] == "hierarchical:prm:chain-2"
        assert len(set(labels)) == len(SELECTORS)

    @pytest.mark.parametrize(
        ("kind", "parts"),
        [
            (Kind.PASS, {"score": "prm"}),
            (Kind.MAJORITY, {"threshold": 0.5}),
            (Kind.BEST_OF_N, {}),
            (Kind.WEIGHTED, {"score": "prm", "chain": 2}),
            (Kind.FILTER_VOTE, {"score": "prm"}),
            (Kind.FILTER_VOTE, {"score": "prm", "threshold": 0.5, "share": 0.5}),
            (Kind.HIERARCHICAL, {"score": "prm"}),
        ],
    )
    def test_refuses_parts_of_another_kind(self, kind: Kind, parts: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="does not go with"):
            Selector(kind, **parts)

    @pytest.mark.parametrize(
        "parts", [{"threshold": 1.1}, {"threshold": -0.1}, {"share": 0.0}, {"share": 1.5}]
    )
    def test_refuses_what_no_score_reaches(self, parts: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="a threshold is in"):
            Selector(Kind.FILTER_VOTE, "prm", **parts)  # type: ignore[arg-type]

    def test_refuses_an_empty_chain(self) -> None:
        with pytest.raises(ValueError, match="at least one sample"):
            Selector(Kind.HIERARCHICAL, "prm", chain=0)


class TestSelection:
    def test_a_tie_of_answers_is_shared(self) -> None:
        assert law(pool([X, X, Y, Y, Z], [True, False, False]), MAJORITY) == {
            X: Fraction(1, 2),
            Y: Fraction(1, 2),
        }

    def test_silence_never_votes(self) -> None:
        assert law(pool([-1, -1, -1, X], [True], [1.0, 1.0, 1.0, 0.1]), MAJORITY) == {X: 1}
        assert law(pool([-1, -1, -1, X], [True], [1.0, 1.0, 1.0, 0.1]), BEST) == {X: 1}
        for selector in SELECTORS:
            assert law(pool([-1, -1], [True], [1.0, 1.0]), selector) == {}

    def test_best_of_n_shares_a_tie_of_samples(self) -> None:
        ballots = pool([X, X, Y, Z], [True, False, False], [0.9, 0.9, 0.9, 0.5])
        assert law(ballots, BEST) == {X: Fraction(2, 3), Y: Fraction(1, 3)}

    def test_weights_add_up(self) -> None:
        ballots = pool([X, Y, Y, Y], [True, False], [0.9, 0.3, 0.3, 0.2])
        assert law(ballots, WEIGHTED) == {X: 1}
        assert law(ballots, MAJORITY) == {Y: 1}

    def test_equal_sums_tie_in_any_order(self) -> None:
        """0.1 + 0.2 is not 0.3 in floats."""
        ballots = pool([X, Y, X], [True, False], [0.1, 0.3, 0.2])
        assert law(ballots, WEIGHTED) == {X: Fraction(1, 2), Y: Fraction(1, 2)}

    def test_without_a_score_there_is_no_candidate(self) -> None:
        ballots = pool([X, X, Y], [True, False], [NAN, NAN, 0.0])
        assert law(ballots, WEIGHTED) == {Y: 1}
        assert law(ballots, BEST) == {Y: 1}
        assert law(ballots, MAJORITY) == {X: 1}

    def test_weights_of_zero_tie(self) -> None:
        ballots = pool([X, X, Y, Z], [True, False, False], [0.0, 0.0, 0.0, NAN])
        assert law(ballots, WEIGHTED) == {X: Fraction(1, 2), Y: Fraction(1, 2)}

    def test_filter_vote_is_among_those_that_pass(self) -> None:
        ballots = pool([X, Y, Y, Y], [True, False], [0.5, 0.4, 0.4, NAN])
        assert law(ballots, FILTER) == {X: 1}

    def test_where_none_passes_all_vote(self) -> None:
        """A published simulator forgets this, and returns the first answer in the alphabet."""
        ballots = pool([X, Y, Y, -1], [False, True], [0.4, 0.1, NAN, 0.9])
        assert law(ballots, FILTER) == {Y: 1}
        assert credit(ballots, range(4), FILTER) == 1

    def test_a_threshold_is_compared_in_the_precision_of_the_score(self) -> None:
        scores = np.array([0.7, 0.2, 0.2], dtype=np.float32)
        assert float(scores[0]) < 0.7
        ballots = Ballots(7, None, np.array([X, Y, Y]), np.array([True, False]), {"prm": scores})
        assert law(ballots, Selector(Kind.FILTER_VOTE, "prm", threshold=0.7)) == {X: 1}

    def test_a_share_keeps_the_best(self) -> None:
        ballots = pool([X, X, Y, Y, Y, Y, -1], [True, False], [0.9, 0.8, 0.7, 0.6, 0.5, NAN, 1.0])
        assert law(ballots, Selector(Kind.FILTER_VOTE, "prm", share=0.4)) == {X: 1}
        assert law(ballots, Selector(Kind.FILTER_VOTE, "prm", share=0.01)) == {X: 1}
        assert law(ballots, Selector(Kind.FILTER_VOTE, "prm", share=1.0)) == {Y: 1}

    def test_a_share_keeps_who_ties_with_the_last(self) -> None:
        ballots = pool([X, Y, Y, Z], [True, False, False], [0.9, 0.8, 0.8, 0.1])
        assert law(ballots, Selector(Kind.FILTER_VOTE, "prm", share=0.5)) == {Y: 1}

    @pytest.mark.parametrize(
        ("scored", "share", "kept"),
        [(100, 0.29, 29), (10, 0.1, 1), (9, 0.1, 1), (19, 0.1, 1), (3, 1.0, 3), (0, 0.5, 1)],
    )
    def test_a_share_is_rounded_down(self, scored: int, share: float, kept: int) -> None:
        assert int(kept_of(scored, share)) == kept

    def test_hierarchical_and_flat_disagree(self) -> None:
        ballots = pool(
            [X, Y, Y, X, Z, Z, Y, X, X], [False, True, False], [0.9, 0.6, 0.6, 0.5, 0.7, 0.1, 0.55, 0.5, 0.04]
        )
        assert law(ballots, WEIGHTED) == {X: 1}
        assert law(ballots, MAJORITY) == {X: 1}
        hierarchical = Selector(Kind.HIERARCHICAL, "prm", chain=3)
        assert law(ballots, hierarchical) == {Y: 1}
        winners = [selection(ballots, range(3 * chain, 3 * chain + 3), hierarchical) for chain in range(3)]
        assert winners == [{Y: 1}, {Z: 1}, {Y: 1}]  # y .6 and .55 = 1.15 against z .7
        assert sum(ballots.scores["prm"][[0, 3, 7, 8]]) == pytest.approx(1.94)
        assert sum(ballots.scores["prm"][[1, 2, 6]]) == pytest.approx(1.75)

    def test_hierarchical_shares_the_tie_of_a_chain(self) -> None:
        ballots = pool([X, Y, Z, Z], [True, False, False], [0.5, 0.5, 0.4, 0.0])
        hierarchical = Selector(Kind.HIERARCHICAL, "prm", chain=2)
        assert law(ballots, hierarchical) == {X: Fraction(1, 2), Y: Fraction(1, 2)}
        ballots = pool([X, Y, X, Z], [True, False, False], [0.5, 0.5, 0.4, 0.4])
        # x against y, x against z: both x is x; x, z and y, x and y, z are won by the first chain
        assert law(ballots, hierarchical) == {X: Fraction(1, 2), Y: Fraction(1, 2)}

    @given(pools())
    @settings(max_examples=50, deadline=None)
    def test_is_a_law_over_answers_that_were_drawn(self, ballots: Ballots) -> None:
        for selector in SELECTORS:
            chances = selection(ballots, range(ballots.n), selector)
            assert sum(chances.values()) in (0, 1)
            assert set(chances) <= set(ballots.candidates.tolist()) - {-1}

    def test_refuses_a_score_that_the_pool_lacks(self) -> None:
        with pytest.raises(ValueError, match="no scores orm"):
            selection(pool([X], [True], [0.5]), [0], Selector(Kind.BEST_OF_N, "orm"))


class TestFirstK:
    def test_is_one_draw(self) -> None:
        ballots = pool([Y, X, X, Y], [True, False], [0.1, 0.2, 0.3, 0.9])
        assert [first_k(ballots, MAJORITY, k) for k in (1, 2, 3, 4)] == [0, Fraction(1, 2), 1, Fraction(1, 2)]
        assert [first_k(ballots, BEST, k) for k in (1, 2, 3, 4)] == [0, 1, 1, 0]

    @pytest.mark.parametrize("k", [0, 3])
    def test_refuses_what_the_pool_has_not(self, k: int) -> None:
        with pytest.raises(ValueError, match="the first"):
            first_k(pool([X, X], [True]), MAJORITY, k)


RECORDED = {
    "maj": MAJORITY,
    "weighted": Selector(Kind.WEIGHTED, "last"),
    "naive": Selector(Kind.BEST_OF_N, "last"),
}
"""Published predictions over the first n samples, and our selector for each; their step scores end in `last`."""
AGREEMENT = {
    ("maj", "same"): 769,
    ("maj", "tie, theirs comes first"): 774,
    ("weighted", "same"): 1517,
    ("weighted", "tie, theirs comes first"): 26,
    ("naive", "same"): 1497,
    ("naive", "tie, theirs comes first"): 46,
}
"""How often we agree: by one winner, or by a tie that their rule breaks as it says. No empty extraction ever won."""


class TestRecordedVotes:
    def test_all_differences_are_ties_that_their_rule_explains(self) -> None:
        folder = os.environ.get("TTC_TEST_DATA")
        if folder is None:
            pytest.skip("TTC_TEST_DATA is not set: no recorded votes")
        lines = (Path(folder) / "vectors" / "sal_votes.jsonl").read_text().splitlines()
        found = Counter(kind for line in lines for kind in compared(json.loads(line)))
        assert len(lines) == 367
        assert found == AGREEMENT


def compared(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """How each recorded prediction of a problem compares with ours."""
    forms: list[str] = row["canon"]
    answers = [form for form in dict.fromkeys(forms) if form]
    candidates = np.array([answers.index(form) if form else -1 for form in forms])
    ballots = Ballots(0, None, candidates, np.zeros(len(answers), bool), {"last": np.array(row["agg_last"])})
    form_of = dict(zip(row["answers"], forms, strict=True))
    for n, predictions in row["expected"].items():
        for name, selector in RECORDED.items():
            winners = {answers[cluster] for cluster in selection(ballots, range(int(n)), selector)}
            theirs = form_of[predictions[name]]
            yield name, explained(name, winners, theirs, forms[: int(n)], row["agg_last"])


def explained(
    name: str, winners: set[str], theirs: str, forms: Sequence[str], scores: Sequence[float]
) -> str:
    if winners == {theirs}:
        return "same"
    if not theirs:
        return "their empty extraction won"
    tied = [i for i, form in enumerate(forms) if form in winners]
    if name == "naive":
        tied = [i for i in tied if scores[i] == max(scores[: len(forms)])]
    return "tie, theirs comes first" if tied and theirs == forms[tied[0]] else "unexplained"
