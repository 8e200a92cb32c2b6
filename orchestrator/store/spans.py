"""Arithmetic of sample spans, as (start, count). Pure."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]


def missing(start: int, count: int, present: Iterable[int]) -> tuple[Span, ...]:
    """Spans of start .. start+count-1 that hold none of `present` (ascending), ascending."""
    spans: list[Span] = []
    cursor = start
    for index in present:
        if index > cursor:
            spans.append((cursor, index - cursor))
        cursor = index + 1
    if cursor < start + count:
        spans.append((cursor, start + count - cursor))
    return tuple(spans)
