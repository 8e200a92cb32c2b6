"""From what the store holds to what the estimators need: four counts that never mix, ballots, scores made one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.conclusion import scramble_check
from orchestrator.analysis.estimation.ballots import NO_ANSWER
from orchestrator.analysis.estimation.counts import ClusterCount
from orchestrator.analysis.pool_reading import ScoreColumn, aggregated, pool_counts, pool_record
from orchestrator.store import AnswerCount, PoolSamples
from orchestrator.store import PoolCounts as StoredCounts
from workers.steps import Aggregation, aggregate

PRM = 5
LAST, LEAST = ScoreColumn("prm.last", PRM, Aggregation.LAST), ScoreColumn("prm.min", PRM, Aggregation.MIN)


def stored(*answers: AnswerCount, problem_id: int = 1, gold: str = "4") -> StoredCounts:
    return StoredCounts(problem_id, problem_id, 1, "2", gold, "ok", answers)


def count(
    outcome: str,
    answer_id: int | None,
    verdict: str | None,
    samples: int,
    *,
    cluster: int | None = None,
    text: str = "",
) -> AnswerCount:
    return AnswerCount(outcome, answer_id, text or None, cluster, verdict, samples, samples * 10)


class TestCounts:
    def test_every_sample_belongs_to_exactly_one_count(self) -> None:
        counted = pool_counts(
            stored(
                count("complete", 1, "correct", 5),
                count("complete", 2, "wrong", 4),
                count("complete", 3, "unparsable", 3),
                count("complete", 4, "timeout", 2),
                count("complete", 5, None, 1),
                count("complete", None, None, 6),
                count("truncated", None, None, 7),
                count("overflow", None, None, 1),
                count("refused", None, None, 2),
                count("empty", None, None, 1),
                count("timed_out", None, None, 1),
                count("error", None, None, 9),
            )
        )
        assert (counted.correct, counted.wrong, counted.no_answer, counted.truncated) == (5, 7, 9, 9)
        assert (counted.errors, counted.ungraded) == (9, 3)
        assert counted.samples == 42
        assert counted.n == 42 - 9 - 3

    def test_votes_are_counted_by_cluster_and_a_mixed_cluster_is_split(self) -> None:
        counted = pool_counts(
            stored(
                count("complete", 1, "correct", 5, cluster=1),
                count("complete", 2, "correct", 2, cluster=1),
                count("complete", 3, "wrong", 1, cluster=1),
                count("complete", 4, "wrong", 3, cluster=4),
                count("complete", 5, "wrong", 2, cluster=None),
            )
        )
        assert set(counted.clusters) == {
            ClusterCount(1, 7, True),
            ClusterCount(1, 1, False),
            ClusterCount(4, 3, False),
            ClusterCount(5, 2, False),
        }

    def test_samples_filed_under_the_next_problem_raise_the_alarm(self) -> None:
        def pools(shift: int) -> list[StoredCounts]:
            return [
                stored(
                    count("complete", 1, "wrong", 4, text=f"${(number + shift) % 30}$."),
                    problem_id=number,
                    gold=str(number),
                )
                for number in range(30)
            ]

        assert scramble_check(pools(1)).is_alarm
        assert not scramble_check(pools(0)).is_alarm


COUNTS = stored(
    count("complete", 10, "correct", 2, cluster=10),
    count("complete", 11, "wrong", 1, cluster=11),
    count("complete", 12, None, 1, cluster=12),
    count("truncated", None, None, 1),
    count("error", None, None, 1),
)
ROWS = [
    (0, "complete", 10),
    (1, "error", None),
    (2, "complete", 12),
    (3, "truncated", None),
    (5, "complete", 11),
    (6, "complete", 10),
]


class TestRecord:
    def test_what_says_nothing_is_left_out_and_the_rest_stays_in_order(self) -> None:
        record = pool_record(COUNTS, PoolSamples(1, ROWS, {}), [])
        assert record.indices.tolist() == [0, 3, 5, 6]
        assert record.ballots.candidates.tolist() == [0, NO_ANSWER, 1, 0]
        assert record.ballots.is_correct.tolist() == [True, False]
        assert record.ballots.n == pool_counts(COUNTS).n

    def test_samples_that_the_sweep_does_not_ask_for_are_left_out(self) -> None:
        more = [*ROWS, (7, "complete", 10), (8, "complete", 99)]
        assert pool_record(COUNTS, PoolSamples(1, more, {}), []).indices.tolist() == [0, 3, 5, 6]

    def test_scores_stand_where_their_samples_do(self) -> None:
        scores = [(0, "[0.25,0.5]"), (2, "[0.1]"), (5, "[]"), (6, "[1,0.75]"), (9, "[0.3]")]
        record = pool_record(COUNTS, PoolSamples(1, ROWS, {PRM: scores}), [LAST, LEAST])
        assert record.ballots.scores["prm.last"].tolist() == pytest.approx(
            [0.5, math.nan, math.nan, 0.75], nan_ok=True
        )
        assert record.ballots.scores["prm.min"].tolist() == pytest.approx(
            [0.25, math.nan, math.nan, 0.75], nan_ok=True
        )
        assert record.is_complete("prm.last")  # a scorer that could not tell has seen the sample
        assert record.view("prm.last", None) is record.ballots

    def test_a_sample_that_was_not_scored_says_nothing_of_the_scorer(self) -> None:
        record = pool_record(COUNTS, PoolSamples(1, ROWS, {PRM: [(0, "[0.5]"), (6, "[0.25]")]}), [LAST])
        assert not record.is_complete("prm.last")
        view = record.view("prm.last", None)
        # two of three finished samples are scored, so of one unfinished sample 2/3 are kept, which is one
        assert view.candidates.tolist() == [0, NO_ANSWER, 0]
        assert record.view(None, None).n == 4

    def test_unfinished_samples_are_kept_in_proportion(self) -> None:
        counts = stored(count("complete", 10, "correct", 40), count("truncated", None, None, 20))
        rows = [(i, "complete", 10) if i % 3 else (i, "truncated", None) for i in range(60)]
        seen = [(i, "[0.5]") for i in range(30) if i % 3]
        record = pool_record(counts, PoolSamples(1, rows, {PRM: seen}), [LAST])
        view = record.view("prm.last", None)
        assert (view.n, int(view.has_answer.sum())) == (30, 20)
        unseen = pool_record(counts, PoolSamples(1, rows, {PRM: []}), [LAST])
        assert unseen.view("prm.last", None).n == 0

    def test_only_whole_chains_are_kept(self) -> None:
        record = pool_record(COUNTS, PoolSamples(1, ROWS, {}), [])
        assert record.view(None, 1).candidates.tolist() == [0, NO_ANSWER, 1, 0]
        assert record.view(None, 2).n == 0  # 0 lost 1, 3 lost 2, 5 is without 4, 6 without 7
        whole = [(i, "complete", 10) for i in range(7)]
        many = pool_record(stored(count("complete", 10, "correct", 7)), PoolSamples(1, whole, {}), [])
        assert many.view(None, 3).n == 6

    def test_an_empty_pool_has_no_ballots(self) -> None:
        record = pool_record(stored(), PoolSamples(1, [], {PRM: []}), [LAST])
        assert record.ballots.n == 0
        assert record.view("prm.last", 4).n == 0


step_scores = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), max_size=20)


@given(step_scores, st.sampled_from(list(Aggregation)))
def test_aggregation_of_many_is_that_of_each(lists: list[list[float]], how: Aggregation) -> None:
    values = np.array([value for each in lists for value in json.loads(json.dumps(each))], dtype=np.float64)
    lengths = np.array([len(each) for each in lists], dtype=np.int64)
    expected = [aggregate(each, how) for each in lists]
    assert aggregated(values, lengths, how).tolist() == pytest.approx(expected, rel=1e-14)
