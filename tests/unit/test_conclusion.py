"""From what the store counted to what the estimators need: four counts that never mix, votes by cluster."""

from __future__ import annotations

from orchestrator.analysis.conclusion import pool_counts, scramble_check
from orchestrator.analysis.estimators import ClusterCount
from orchestrator.store import AnswerCount
from orchestrator.store import PoolCounts as StoredCounts


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


def test_every_sample_belongs_to_exactly_one_count() -> None:
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


def test_votes_are_counted_by_cluster_and_a_mixed_cluster_is_split() -> None:
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


def test_samples_filed_under_the_next_problem_raise_the_alarm() -> None:
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
