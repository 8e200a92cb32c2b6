"""The trie of the scorer: rows stand for beginnings, equal beginnings for equal rows, and old branches go first."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.embedded.trie import Trie

VOCABULARY = 5
texts = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), max_size=60)


def insert(trie: Trie, text: list[int], now: int) -> list[int]:
    known = trie.walk(text)
    trie.touch(known, now)
    trie.forget(len(text) - len(known), now)
    fresh = trie.extend(known, text[len(known) :])
    trie.touch(fresh, now)
    return known + fresh


@given(texts)
def test_a_row_stands_for_a_beginning(many: list[list[int]]) -> None:
    trie = Trie(1000, VOCABULARY)
    row_of: dict[tuple[int, ...], int] = {}
    for now, text in enumerate(many, 1):
        beginnings = [tuple(text[: end + 1]) for end in range(len(text))]
        expected = [row_of[beginning] for beginning in beginnings if beginning in row_of]
        assert trie.walk(text) == expected
        rows = insert(trie, text, now)
        assert rows[: len(expected)] == expected
        row_of |= zip(beginnings, rows, strict=True)
    assert len(set(row_of.values())) == len(row_of)
    assert 0 not in row_of.values()
    assert trie.free == 1000 - len(row_of)


@settings(deadline=None)
@given(texts, st.integers(12, 40))
def test_what_is_still_known_is_what_it_was_and_rows_are_never_lost(
    many: list[list[int]], capacity: int
) -> None:
    trie = Trie(capacity, VOCABULARY)
    beginning_of: dict[int, tuple[int, ...]] = {}
    for now, text in enumerate(many, 1):
        for end, row in enumerate(trie.walk(text)):
            assert beginning_of[row] == tuple(text[: end + 1])
        rows = insert(trie, text, now)
        assert len(rows) == len(set(rows)) == len(text)  # there was room: 12 tokens at most
        beginning_of |= {row: tuple(text[: end + 1]) for end, row in enumerate(rows)}
    known = {row for text in many for row in trie.walk(text)}
    assert trie.free == capacity - len(known)


def test_the_branch_unused_for_longest_goes_and_what_it_shares_stays() -> None:
    trie = Trie(8, VOCABULARY)
    insert(trie, [1, 1, 1, 1], 1)
    insert(trie, [1, 1, 2, 2], 2)
    insert(trie, [3, 3, 3], 3)  # one row short: the tail of the first text goes
    assert [len(trie.walk(text)) for text in ([1, 1, 1, 1], [1, 1, 2, 2], [3, 3, 3])] == [2, 4, 3]


def test_nothing_of_the_present_step_is_forgotten() -> None:
    trie = Trie(6, VOCABULARY)
    insert(trie, [1, 2, 3], 1)
    insert(trie, [4, 4, 4], 1)
    trie.forget(2, 1)
    assert trie.free == 0
    trie.forget(2, 2)
    assert trie.free == 6


def test_a_long_life_keeps_the_books_balanced() -> None:
    draw, trie = random.Random(1), Trie(50, 3)
    for now in range(1, 3000):
        text = draw.choices(range(3), k=draw.randint(1, 30))
        assert len(insert(trie, text, now)) == len(text)
        assert len(trie.walk(text)) == len(text)
