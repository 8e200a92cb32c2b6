"""Counts of a pool: a partition that is checked, and what errors may hide."""

from __future__ import annotations

import pytest

from orchestrator.analysis.estimation.counts import ClusterCount, PoolCounts, accuracy_bounds, mean_tokens


def pool(right: list[int], wrong: list[int], silent: int = 0, errors: int = 0, **more: object) -> PoolCounts:
    """A pool with clusters of these sizes and `silent` samples without an answer."""
    clusters = [ClusterCount(i, size, i < len(right)) for i, size in enumerate([*right, *wrong])]
    return PoolCounts(
        problem_id=7,
        level="3",
        samples=sum(right) + sum(wrong) + silent + errors,
        correct=sum(right),
        wrong=sum(wrong),
        no_answer=silent,
        truncated=0,
        errors=errors,
        clusters=tuple(clusters),
        **more,  # type: ignore[arg-type]
    )


def test_partition_is_checked() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        PoolCounts(1, None, 10, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="in votes"):
        PoolCounts(1, None, 2, 1, 1, 0, 0, 0, clusters=(ClusterCount(1, 2, True),))


def test_errors_are_not_samples() -> None:
    assert pool([3], [2], errors=5).n == 5


def test_bounds_enclose_what_errors_hide() -> None:
    pools = [pool([4], [4], errors=2), pool([], [5], errors=5), pool([], [])]
    assert accuracy_bounds(pools) == pytest.approx(((0.4 + 0.0) / 2, (0.6 + 0.5) / 2))
    assert accuracy_bounds([pool([], [])]) is None


def test_mean_tokens_over_known_counts_only() -> None:
    pools = [
        pool([2], [2], completion_tokens=300, samples_with_tokens=3),
        pool([1], [], completion_tokens=100, samples_with_tokens=1),
    ]
    assert mean_tokens(pools) == 100.0
    assert mean_tokens([pool([2], [])]) is None
