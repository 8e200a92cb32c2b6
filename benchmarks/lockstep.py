"""What searches make of a server's slots where they wait for each other, or are too few: arithmetic, no clock.

A round of a search is a few calls at once and then one call of its scorer; the next round needs them all.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Round:
    """The times that a round's calls take."""

    calls_s: tuple[float, ...]
    scoring_s: float

    @property
    def seconds(self) -> float:
        """From the first call to the scores."""
        return max(self.calls_s) + self.scoring_s


Searches = Sequence[Sequence[Round]]


def batched(searches: Searches, at_once: int, slots: int) -> float:
    """Utilisation if a batch advances together: each round waits for its last call of all, then for all scores."""
    batches = [searches[start : start + at_once] for start in range(0, len(searches), at_once)]
    return _busy_s(searches) / (slots * sum(_batch_s(batch, slots) for batch in batches))


def side_by_side(searches: Searches, at_once: int, slots: int) -> float:
    """Utilisation if as many are under way at once, the next one starts where one ends, and no call finds a queue."""
    free_at = [0.0] * at_once
    for search in searches:
        heapq.heapreplace(free_at, free_at[0] + sum(each.seconds for each in search))
    return _busy_s(searches) / (slots * max(free_at))


def _batch_s(batch: Searches, slots: int) -> float:
    total_s = 0.0
    for depth in range(max(map(len, batch))):
        rounds = [search[depth] for search in batch if depth < len(search)]
        calls_s = [call_s for each in rounds for call_s in each.calls_s]
        total_s += _served_s(calls_s, slots) + max(each.scoring_s for each in rounds)
    return total_s


def _served_s(calls_s: Iterable[float], slots: int) -> float:
    """When the last of calls ends that are sent together and taken up in order, a slot each."""
    free_at = [0.0] * slots
    for call_s in calls_s:
        heapq.heapreplace(free_at, free_at[0] + call_s)
    return max(free_at)


def _busy_s(searches: Searches) -> float:
    return sum(sum(each.calls_s) for search in searches for each in search)
