"""What a sweep still needs: a set subtraction over keys. Pure; it reads no store and calls no model.

A sweep asks for samples 0..N-1 of every (problem, generator) pool. Tasks that exist cover ranges of a pool; the rest
becomes new tasks. Resuming after a crash, raising N and adding problems are therefore one operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MIN_TASK_SAMPLES = 64
MAX_TASK_SAMPLES = 256
REQUESTS_PER_TASK = 4


@dataclass(frozen=True, slots=True)
class Span:
    """Samples `start` to `start + count - 1` of a pool."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        """Index after the last sample."""
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task that does not exist yet."""

    pool_id: int
    span: Span


def task_samples(samples_per_request: int) -> int:
    """Samples a task: a few requests, so that it lasts seconds.

    Small enough that claims spread over workers, large enough that claiming and ending cost nothing beside drawing.
    Its facts stream up in micro-batches as they come, so what a lost task loses is its requests in flight only, and
    no message between processes carries a whole task.
    """
    return max(MIN_TASK_SAMPLES, min(MAX_TASK_SAMPLES, REQUESTS_PER_TASK * samples_per_request))


def missing_spans(wanted: int, covered: Iterable[Span]) -> list[Span]:
    """Parts of 0..wanted-1 that no span covers, ascending. Overlaps and spans beyond `wanted` are harmless."""
    gaps: list[Span] = []
    reached = 0
    for span in sorted(covered, key=lambda each: each.start):
        if span.start >= wanted:
            break
        if span.start > reached:
            gaps.append(Span(reached, span.start - reached))
        reached = max(reached, span.stop)
    if reached < wanted:
        gaps.append(Span(reached, wanted - reached))
    return gaps


def cut(span: Span, size: int) -> list[Span]:
    """Cut a span into pieces that end on multiples of `size`, so that a grown sweep keeps the grid of the first."""
    pieces: list[Span] = []
    start = span.start
    while start < span.stop:
        stop = min(span.stop, (start // size + 1) * size)
        pieces.append(Span(start, stop - start))
        start = stop
    return pieces


def plan(wanted: Mapping[int, int], covered: Mapping[int, Sequence[Span]], size: int) -> list[PlannedTask]:
    """New tasks that make every pool reach its wanted number of samples.

    `wanted` maps pool id to samples, `covered` maps pool id to the ranges of its existing tasks. Breadth first: all
    problems' first samples come before any problem's last ones: an interrupted sweep is an unbiased smaller one.
    """
    tasks = [
        PlannedTask(pool_id, piece)
        for pool_id, samples in wanted.items()
        for gap in missing_spans(samples, covered.get(pool_id, ()))
        for piece in cut(gap, size)
    ]
    return sorted(tasks, key=lambda task: (task.span.start, task.pool_id))
