"""Which beginnings of texts are known, one row of a pool for each: texts that begin alike share rows token by token.

A row stands for a token after all those before it, so what was computed for it holds wherever the same beginning
comes again. Knows rows and when they were last used; it must not know what is stored in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workers.embedded.model import Ints

FORGOTTEN_SHARE = 0.25  # of all rows, at a time: finding the oldest ones costs more than dropping them
ROOT = 0  # the row before every first token; it is never handed out


class Trie:
    """A tree of tokens in one dictionary, (parent row, token) -> row, over rows 1..capacity."""

    def __init__(self, capacity: int, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._children: dict[int, int] = {}
        self._key = [0] * (capacity + 1)
        self._used: Ints = np.zeros(capacity + 1, np.int64)
        self._free = list(range(capacity, 0, -1))

    @property
    def free(self) -> int:
        """Rows that stand for nothing."""
        return len(self._free)

    def walk(self, tokens: Sequence[int]) -> list[int]:
        """Give the rows of the longest known beginning of a text."""
        rows: list[int] = []
        row, vocabulary, find = ROOT, self._vocabulary, self._children.get
        for token in tokens:
            found = find(row * vocabulary + token)
            if found is None:
                break
            rows.append(found)
            row = found
        return rows

    def extend(self, rows: list[int], tokens: Sequence[int]) -> list[int]:
        """Add tokens after the beginning that ends in `rows`; give their new rows, which must be free."""
        row = rows[-1] if rows else ROOT
        added: list[int] = []
        for token in tokens:
            key = row * self._vocabulary + token
            row = self._free.pop()
            self._children[key] = row
            self._key[row] = key
            added.append(row)
        return added

    def touch(self, rows: Sequence[int], now: int) -> None:
        """Note that rows are used in step `now` (1, 2, ...); a row is always touched with all those before it."""
        self._used[rows] = now

    def forget(self, wanted: int, now: int) -> None:
        """If fewer than `wanted` rows are free, free those unused for longest: a share of all, none of step `now`.

        A row is used whenever one after it is, so whole branches go.
        """
        if wanted <= self.free:
            return
        in_use = np.sort(self._used[self._used > 0])
        missing = max(wanted - self.free, int(FORGOTTEN_SHARE * len(self._key)))
        last = int(in_use[min(missing, len(in_use)) - 1])
        gone = np.flatnonzero((self._used > 0) & (self._used <= min(last, now - 1)))
        for row in gone.tolist():
            del self._children[self._key[row]]
        self._used[gone] = 0
        self._free.extend(gone.tolist())
