"""The planner subtracts what exists from what is wanted, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.planner import PlannedTask, Span, cut, missing_spans, plan, task_samples

spans = st.lists(st.builds(Span, st.integers(0, 60), st.integers(1, 30)), max_size=8)


def indices(parts: list[Span]) -> list[int]:
    return [index for part in parts for index in range(part.start, part.stop)]


@given(st.integers(0, 80), spans)
def test_missing_spans_are_the_set_difference(wanted: int, covered: list[Span]) -> None:
    have = {index for span in covered for index in range(span.start, span.stop)}
    assert indices(missing_spans(wanted, covered)) == [index for index in range(wanted) if index not in have]


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 17))
def test_cut_keeps_every_sample_and_the_grid(start: int, count: int, size: int) -> None:
    pieces = cut(Span(start, count), size)
    assert indices(pieces) == list(range(start, start + count))
    assert all(piece.count <= size for piece in pieces)
    assert all(piece.stop % size == 0 for piece in pieces[:-1])


def test_first_samples_of_all_problems_come_before_last_samples_of_any() -> None:
    tasks = plan({1: 64, 2: 64}, {}, 32)
    assert [(task.pool_id, task.span.start) for task in tasks] == [(1, 0), (2, 0), (1, 32), (2, 32)]


def test_planning_again_after_adding_the_tasks_plans_nothing() -> None:
    wanted = {1: 100, 2: 7}
    tasks = plan(wanted, {}, 16)
    covered: dict[int, list[Span]] = {}
    for task in tasks:
        covered.setdefault(task.pool_id, []).append(task.span)
    assert plan(wanted, covered, 16) == []


def test_raising_the_samples_plans_only_the_new_ones() -> None:
    assert plan({1: 96}, {1: [Span(0, 64)]}, 64) == [PlannedTask(1, Span(64, 32))]


def test_lowering_the_samples_plans_nothing() -> None:
    assert plan({1: 8}, {1: [Span(0, 64)]}, 64) == []


def test_a_task_is_a_few_requests_within_bounds() -> None:
    assert [task_samples(n) for n in (1, 4, 16, 64, 128)] == [64, 64, 64, 256, 256]
