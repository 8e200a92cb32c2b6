"""A database that is away is waited for; any other error is not."""

from __future__ import annotations

import pytest

from orchestrator.store import StoreRefused, StoreUnavailable, patience
from orchestrator.store.patience import patiently


async def test_the_call_is_tried_until_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    failures = [StoreUnavailable("gone"), StoreUnavailable("still gone")]
    notes: list[str] = []

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert await patiently(call, notes.append) == "answer"
    assert len(notes) == 1
    assert "still gone" in notes[0]


async def test_other_errors_are_raised_at_once() -> None:
    async def call() -> None:
        raise StoreRefused("not at head")

    with pytest.raises(StoreRefused):
        await patiently(call, lambda _: None)
