"""When to commit, and what together: the writer's decisions. Does no I/O and knows no store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.types import FactBatch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How the writer groups batches, how much it holds, and how long it tries."""

    commit_rows: int = 500
    """Commit without waiting for more once this many rows are queued."""
    linger_s: float = 0.03
    """Commit what there is once the oldest batch has waited this long."""
    group_rows: int = 5_000
    """Rows of one transaction, at most (a single batch may be larger)."""
    held_rows: int = 20_000
    """Rows accepted and not yet acknowledged, at most; then `put` waits."""
    held_bytes: int = 64 << 20
    """Text accepted and not yet acknowledged, in characters, at most; then `put` waits."""
    retry_first_s: float = 0.1
    retry_most_s: float = 5.0
    give_up_s: float = 600.0
    """How long an unreachable database is tried before the writer fails."""

    def retry_delay_s(self, failures: int) -> float:
        """Pause after the given number of failures in a row: doubling."""
        return min(self.retry_first_s * 2.0 ** min(failures - 1, 30), self.retry_most_s)


@dataclass(frozen=True, slots=True)
class Queued(Generic[T]):
    """A batch with what it weighs, when it came, and the caller's own `tag`."""

    batch: FactBatch
    rows: int
    size: int
    at_s: float
    tag: T


def weigh(batch: FactBatch) -> tuple[int, int]:
    """(rows, characters of text) of a batch."""
    rows = sum(map(len, _tables(batch)))
    texts = sum(len(t.text) for t in batch.trajectories) + sum(len(n.text) for n in batch.nodes)
    return rows, texts


def _tables(batch: FactBatch) -> tuple[tuple[object, ...], ...]:
    return (
        batch.trajectories, batch.nodes, batch.node_scores, batch.prunings, batch.scores, batch.usage, batch.ends,
    )  # fmt: skip


def merged(batches: Iterable[FactBatch]) -> FactBatch:
    """One batch with the facts of all, in order."""
    every = list(batches)
    if len(every) == 1:
        return every[0]
    return FactBatch(
        tuple(fact for batch in every for fact in batch.trajectories),
        tuple(fact for batch in every for fact in batch.nodes),
        tuple(fact for batch in every for fact in batch.node_scores),
        tuple(fact for batch in every for fact in batch.prunings),
        tuple(fact for batch in every for fact in batch.scores),
        tuple(fact for batch in every for fact in batch.usage),
        tuple(fact for batch in every for fact in batch.ends),
    )


class GroupQueue(Generic[T]):
    """First in, first out; bounded; says when a group is due. Taken groups weigh until they are released."""

    def __init__(self, limits: WriterLimits) -> None:
        self._limits = limits
        self._items: deque[Queued[T]] = deque()
        self._queued_rows = 0
        self.held_rows = 0
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def oldest_at_s(self) -> float | None:
        """When the oldest queued batch came; None: nothing is queued."""
        return self._items[0].at_s if self._items else None

    def has_room(self, rows: int, size: int) -> bool:
        """Whether such a batch may be added now; anything fits into an empty queue."""
        if self.held_rows == 0:
            return True
        limits = self._limits
        return self.held_rows + rows <= limits.held_rows and self.held_bytes + size <= limits.held_bytes

    def add(self, item: Queued[T]) -> None:
        """Append a batch."""
        self._items.append(item)
        self._queued_rows += item.rows
        self.held_rows += item.rows
        self.held_bytes += item.size

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until a group is due: 0 is now, None is never (empty)."""
        if not self._items:
            return None
        if self._queued_rows >= self._limits.commit_rows:
            return 0.0
        return max(0.0, self._items[0].at_s + self._limits.linger_s - now_s)

    def take(self) -> list[Queued[T]]:
        """The next group, oldest first."""
        group: list[Queued[T]] = []
        rows = 0
        while self._items and (not group or rows + self._items[0].rows <= self._limits.group_rows):
            item = self._items.popleft()
            rows += item.rows
            group.append(item)
        self._queued_rows -= rows
        return group

    def take_all(self) -> list[Queued[T]]:
        """Everything that is queued."""
        items = list(self._items)
        self._items.clear()
        self._queued_rows = 0
        return items

    def release(self, group: Iterable[Queued[T]]) -> None:
        """Forget the weight of a group that was taken."""
        for item in group:
            self.held_rows -= item.rows
            self.held_bytes -= item.size
