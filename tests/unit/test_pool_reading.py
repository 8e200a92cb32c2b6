"""From what the store holds to what the estimators need: four counts that never mix, ballots, scores made one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.conclusion import scramble_check
from orchestrator.analysis.estimation.ballots import NO_ANSWER
from orchestrator.analysis.estimation.counts import ClusterCount
from orchestrator.analysis.pool_reading import PoolRecord, ScoreColumn, aggregated, read_pool
from orchestrator.store import AnswerRecord, PoolSamples, SampleTexts, ScoreTexts, SweepPool
from workers.steps import Aggregation, aggregate

PRM = 5
LAST, LEAST = ScoreColumn("prm.last", PRM, Aggregation.LAST), ScoreColumn("prm.min", PRM, Aggregation.MIN)
POOL = SweepPool(1, 1, 1, "2", "4", 64)

Row = tuple[int, str, int | None, int | None]


def sample(index: int, outcome: str, answer: int | None = None, tokens: int | None = 10) -> Row:
    return index, outcome, answer, tokens


def answer(number: int, verdict: str | None, cluster: int | None = None, text: str = "") -> AnswerRecord:
    return AnswerRecord(number, text or str(number), verdict, cluster)


def read(
    rows: list[Row],
    answers: list[AnswerRecord],
    scores: list[tuple[int, str, str]] | None = None,
    columns: tuple[ScoreColumn, ...] = (),
    pool: SweepPool = POOL,
) -> PoolRecord:
    held = {} if scores is None else {PRM: gathered(scores)}
    columns_of = (
        [str(value) if value is not None else "null" for value in column]
        for column in zip(*rows, strict=True)
    )
    texts = SampleTexts(*map(",".join, columns_of)) if rows else SampleTexts("", "", "", "")
    return read_pool(pool, PoolSamples(pool.pool_id, texts, held), answers, columns)


def gathered(rows: Sequence[tuple[int, str, str]]) -> ScoreTexts:
    """Scores as the database joins them."""
    indices, statuses, values = zip(*rows, strict=True) if rows else ((), (), ())
    return ScoreTexts(",".join(map(str, indices)), ",".join(statuses), ",".join(values))


class TestCounts:
    def test_an_answer_that_came_since_answers_were_read_is_ungraded(self) -> None:
        record = read([sample(0, "complete", 1), sample(1, "complete", 8)], [answer(1, "correct")])
        assert (record.counts.samples, record.counts.correct, record.counts.ungraded) == (2, 1, 1)
        assert record.answers == {"1": 1}
        assert record.ballots.n == 1

    def test_every_sample_belongs_to_exactly_one_count(self) -> None:
        groups: list[tuple[str, int | None, int]] = [
            ("complete", 1, 5), ("complete", 2, 4), ("complete", 3, 3), ("complete", 4, 2), ("complete", 5, 1),
            ("complete", None, 6), ("truncated", None, 7), ("overflow", None, 1), ("refused", None, 2),
            ("empty", None, 1), ("timed_out", None, 1), ("error", None, 9),
        ]  # fmt: skip
        kinds = [(outcome, number) for outcome, number, count in groups for _ in range(count)]
        verdicts = ["correct", "wrong", "unparsable", "timeout", None]
        answers = [answer(number, verdict) for number, verdict in enumerate(verdicts, start=1)]
        record = read([sample(i, outcome, number) for i, (outcome, number) in enumerate(kinds)], answers)
        counts = record.counts
        assert (counts.correct, counts.wrong, counts.no_answer, counts.truncated) == (5, 7, 9, 9)
        assert (counts.errors, counts.ungraded) == (9, 3)
        assert counts.samples == 42
        assert counts.n == record.ballots.n == 42 - 9 - 3

    def test_votes_are_counted_by_cluster_and_a_mixed_cluster_is_split(self) -> None:
        answers = [
            answer(1, "correct", 1), answer(2, "correct", 1), answer(3, "wrong", 1), answer(4, "wrong", 4),
            answer(5, "wrong", None),
        ]  # fmt: skip
        numbers = [1] * 5 + [2] * 2 + [3] + [4] * 3 + [5] * 2
        record = read([sample(i, "complete", number) for i, number in enumerate(numbers)], answers)
        assert set(record.counts.clusters) == {
            ClusterCount(1, 7, True),
            ClusterCount(1, 1, False),
            ClusterCount(4, 3, False),
            ClusterCount(5, 2, False),
        }
        assert sorted(np.bincount(record.ballots.candidates).tolist()) == [1, 2, 3, 7]

    def test_tokens_are_summed_where_they_are_known(self) -> None:
        record = read([sample(0, "complete", 1, 30), sample(1, "complete", 1, None)], [answer(1, "correct")])
        assert (record.counts.completion_tokens, record.counts.samples_with_tokens) == (30, 1)

    def test_samples_filed_under_the_next_problem_raise_the_alarm(self) -> None:
        def records(shift: int) -> list[PoolRecord]:
            return [
                read(
                    [sample(i, "complete", 1) for i in range(4)],
                    [answer(1, "wrong", text=f"${(number + shift) % 30}$.")],
                    pool=SweepPool(number, number, 1, None, str(number), 4),
                )
                for number in range(30)
            ]

        assert scramble_check(records(1)).is_alarm
        assert not scramble_check(records(0)).is_alarm


ANSWERS = [answer(10, "correct", 10), answer(11, "wrong", 11), answer(12, None, 12)]
ROWS = [
    sample(0, "complete", 10),
    sample(1, "error"),
    sample(2, "complete", 12),
    sample(3, "truncated"),
    sample(5, "complete", 11),
    sample(6, "complete", 10),
]


class TestRecord:
    def test_what_says_nothing_is_left_out_and_the_rest_stays_in_order(self) -> None:
        record = read(ROWS, ANSWERS)
        assert record.indices.tolist() == [0, 3, 5, 6]
        assert record.ballots.candidates.tolist() == [0, NO_ANSWER, 1, 0]
        assert record.ballots.is_correct.tolist() == [True, False]

    def test_scores_stand_where_their_samples_do(self) -> None:
        scores = [
            (0, "ok", "[0.25,0.5]"), (2, "ok", "[0.1]"), (5, "too_long", "[]"), (6, "truncated", "[1,0.75]"),
            (9, "ok", "[0.3]"),
        ]  # fmt: skip
        record = read(ROWS, ANSWERS, scores, (LAST, LEAST))
        last, least = record.ballots.scores["prm.last"], record.ballots.scores["prm.min"]
        assert last.tolist() == pytest.approx([0.5, math.nan, math.nan, 0.75], nan_ok=True)
        assert least.tolist() == pytest.approx([0.25, math.nan, math.nan, 0.75], nan_ok=True)
        assert record.is_complete("prm.last")  # a scorer that could not tell has seen the sample
        assert record.view("prm.last", None) is record.ballots
        assert record.statuses == {PRM: {"ok": 3, "too_long": 1, "truncated": 1}}

    def test_a_sample_that_was_not_scored_says_nothing_of_the_scorer(self) -> None:
        scores = [(0, "ok", "[0.5]"), (5, "invalid", "[]"), (6, "ok", "[0.25]")]
        record = read(ROWS, ANSWERS, scores, (LAST,))
        assert not record.is_complete("prm.last")
        view = record.view("prm.last", None)
        # two of three finished samples are scored, so of one unfinished sample 2/3 are kept, which is one
        assert view.candidates.tolist() == [0, NO_ANSWER, 0]
        assert record.view(None, None).n == 4

    def test_unfinished_samples_are_kept_in_proportion(self) -> None:
        rows = [sample(i, "complete", 10) if i % 3 else sample(i, "truncated") for i in range(60)]
        seen = [(i, "ok", "[0.5]") for i in range(30) if i % 3]
        view = read(rows, ANSWERS, seen, (LAST,)).view("prm.last", None)
        assert (view.n, int(view.has_answer.sum())) == (30, 20)
        assert read(rows, ANSWERS, [], (LAST,)).view("prm.last", None).n == 0

    def test_only_whole_chains_are_kept(self) -> None:
        record = read(ROWS, ANSWERS)
        assert record.view(None, 1).candidates.tolist() == [0, NO_ANSWER, 1, 0]
        assert record.view(None, 2).n == 0  # 0 lost 1, 3 lost 2, 5 is without 4, 6 without 7
        assert read([sample(i, "complete", 10) for i in range(7)], ANSWERS).view(None, 3).n == 6

    def test_an_empty_pool_has_no_ballots(self) -> None:
        record = read([], [], [], (LAST,))
        assert record.ballots.n == 0
        assert record.view("prm.last", 4).n == 0


step_scores = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), max_size=20)


@given(step_scores, st.sampled_from(list(Aggregation)))
def test_aggregation_of_many_is_that_of_each(lists: list[list[float]], how: Aggregation) -> None:
    values = np.array([value for each in lists for value in json.loads(json.dumps(each))], dtype=np.float64)
    lengths = np.array([len(each) for each in lists], dtype=np.int64)
    expected = [aggregate(each, how) for each in lists]
    assert aggregated(values, lengths, how).tolist() == pytest.approx(expected, rel=1e-14)
