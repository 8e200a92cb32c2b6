"""A checksum depends on the rows, not on their order nor on the database that spells them."""

from __future__ import annotations

import hypothesis.strategies as st
import sqlalchemy as sa
from hypothesis import given, settings

from orchestrator.store.checksums import Checksum, flags_of, spelling
from orchestrator.store.facts import nodes, usage

ROWS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(), st.none() | st.floats(allow_nan=False))
)


def of(rows: list[tuple[object, ...]]) -> Checksum:
    checksum = Checksum()
    checksum.add(rows)
    return checksum


@settings(max_examples=30)
@given(ROWS, st.randoms())
def test_order_and_batches_do_not_matter(rows: list[tuple[object, ...]], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    batched = Checksum()
    for row in mixed:
        batched.add([row])
    assert (batched.rows, batched.text) == (len(rows), of(rows).text)


def test_a_value_a_row_and_a_place_do_matter() -> None:
    rows: list[tuple[object, ...]] = [(1, "a", None), (2, "b", 0.5)]
    others = [
        [(1, "a", None), (2, "b", 0.25)],
        [(1, "b", None), (2, "a", 0.5)],
        [(1, "a", ""), (2, "b", 0.5)],
        [*rows, rows[0]],
        rows[:1],
        [(1, "a", None), (2, "b", 0.5), (2, "b", 0.5)],
    ]
    found = {of([tuple(row) for row in each]).text for each in [rows, *others]}
    assert len(found) == 1 + len(others)


def test_flags_and_zeros_are_spelled_as_either_database_has_them() -> None:
    assert [nodes.columns[i].name for i in flags_of(nodes)] == ["is_greedy"]
    row = dict.fromkeys((column.name for column in nodes.columns), None)
    theirs = {**row, "is_greedy": True, "logprob_sum": -0.0}
    ours = {**row, "is_greedy": 1, "logprob_sum": 0.0}
    spelled = [spelling(nodes)([tuple(each.values())]) for each in (theirs, ours)]
    assert of(spelled[0]).text == of(spelled[1]).text
    assert [str(v) for v in spelled[0][0]] == [str(v) for v in spelled[1][0]]


def test_rows_without_such_columns_stay_as_they_are() -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer()), sa.Column("b", sa.Text()))
    assert spelling(table)([(1, "x")]) == [(1, "x")]
    assert flags_of(usage) == []
