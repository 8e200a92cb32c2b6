"""Errors fit on a screen, keep secrets, and survive pickle."""

from __future__ import annotations

import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import (
    DatasetError,
    EndpointProblem,
    Finding,
    Interrupted,
    SpecError,
    StoreError,
    SweepFailed,
    TtcError,
    UsageError,
    is_secret_field,
    looks_like_secret,
    mask_secrets,
    show_value,
)


def test_exit_codes() -> None:
    codes = {kind: kind.exit_code for kind in (UsageError, SpecError, DatasetError)}
    assert set(codes.values()) == {2}
    others = (TtcError, StoreError, EndpointProblem, SweepFailed, Interrupted)
    assert [kind.exit_code for kind in others] == [1, 3, 4, 5, 130]


def test_docstring_is_the_default_message() -> None:
    assert str(StoreError()) == "The database cannot be used."


def test_finding_names_everything() -> None:
    finding = Finding("is wrong", "write x", "f.yaml", 3, 4, "a.b", "5")
    assert str(SpecError(findings=[finding])) == "f.yaml:3:4: a.b: is wrong (found 5)\n    -> write x"


def test_twenty_lines_at_most() -> None:
    text = str(SpecError(findings=[Finding(f"wrong {i}\nreally", "do\nthis") for i in range(50)]))
    assert len(text.splitlines()) == 2 * errors.MAX_FINDINGS + 1 <= 20
    assert text.endswith("... and 41 more")


def test_pickle() -> None:
    error = DatasetError("broken", findings=[Finding("x", file="f")], remedy="mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DatasetError
    assert str(copy) == str(error)
    assert copy.findings == error.findings


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host/db",
        "postgresql://me:hun@ter2/hunter2@host/db",
        "see http://h/v1?api_key=hunter2&x=1",
        "Authorization: Bearer hunter2",
        "key sk-hunter2hunter2 refused",
        "hf_hunter2hunter2",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    assert "hunter2" not in mask_secrets(text)
    assert "***" in mask_secrets(text)
    assert "hunter2" not in str(TtcError(text))
    assert "hunter2" not in str(TtcError(findings=[Finding(text, text)]))
    assert "hunter2" not in show_value(text)


@pytest.mark.parametrize(
    "text", ["sqlite:///runs/a.db", "http://host:8000/v1", "risk-averse", "max_tokens=5"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_secrets(text) == text


def test_values_are_short_and_on_one_line() -> None:
    for value in ("x" * 1000, ["x" * 50] * 9, {"k" * 30: 1, "m" * 50: 2}, 10**200, "a\nb"):
        shown = show_value(value)
        assert len(shown) <= errors.MAX_VALUE_LENGTH
        assert "\n" not in shown
    assert [show_value(value) for value in (None, True, 1, 1.0, "a")] == ["null", "true", "1", "1.0", "'a'"]


def test_secret_fields() -> None:
    assert is_secret_field("models.policy.api_key_env")
    assert not is_secret_field("models.policy.sampling.max_tokens")
    assert show_value("anything", field="password") == "***"
    assert looks_like_secret("sk-abcdefghijkl")
    assert looks_like_secret("abcdefghijklmnopqrstuvwxyz0123456789")
    assert not looks_like_secret("OPENAI_API_KEY")
