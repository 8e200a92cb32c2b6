"""Everything that can stop `ttc`, split by who has to act; each class says the exit code of the command.

    TtcError                      exit 1   ttc itself failed
    ├── UsageError                exit 2   the user's turn: arguments, environment
    │   ├── SpecError             exit 2   the sweep file
    │   └── DatasetError          exit 2   the problems: file, rows, download
    ├── StoreError                exit 3   the database is missing, locked, not at head, or refused a write
    ├── EndpointProblem           exit 4   no model server will serve what the sweep asks for
    ├── SweepFailed               exit 5   the sweep ended with tasks that failed; what it stored is kept
    └── Interrupted               exit 130 Ctrl-C or SIGTERM; nothing is lost, the same command goes on

An error carries findings: where (file, line, column, field), what was found, what is wanted. Its text is one
screen at most, has its values shortened, and never shows a secret. It survives pickle. Nothing here knows a
sweep, a row or a table, and nothing prints: the command line shows `str(error)` and exits with `exit_code`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

MAX_FINDINGS = 9
"""Findings shown by one error: two lines each and one line for the rest stay within twenty lines."""
MAX_VALUE_LENGTH = 60
MAX_TEXT_LENGTH = 300
MASK = "***"

_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):\S*@")
_QUERY_SECRET = re.compile(
    r"(?i)([?&;](?:password|passwd|pwd|token|secret|api_?key|key|sslpassword)=)[^&;\s'\"]+"
)
_KEY_LIKE = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|ghp|gho|hf|xai|nvapi|r8|glpat|github_pat)[-_][A-Za-z0-9_\-]{8,}"
    r"|AKIA[A-Z0-9]{12,}|AIza[A-Za-z0-9_\-]{16,}|eyJ[A-Za-z0-9_\-]{16,}\S*)"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)\S+")
_SECRET_FIELD = re.compile(r"(?i)(key|token|secret|passw|credential)")
_INNOCENT_FIELDS = frozenset({"tokens", "max_tokens", "tokens_per_minute", "tokens_per_second_floor"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do about it."""

    message: str
    """What is wrong, in one sentence without a full stop."""
    remedy: str | None = None
    """What the reader can do, as an imperative."""
    file: str | None = None
    line: int | None = None
    """Counted from 1."""
    column: int | None = None
    """Counted from 1, in characters."""
    field: str | None = None
    """Dotted path in the sweep file, or the column of a problem file."""
    value: str | None = None
    """What was found, already shortened and masked by `show_value`."""

    def render(self) -> str:
        """`FILE:LINE:COLUMN: FIELD: MESSAGE (found VALUE)`, and the remedy on a second line."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        head = ": ".join(part for part in (place, self.field, self.message) if part)
        found = f" (found {self.value})" if self.value is not None else ""
        first = _clip(_one_line(mask_secrets(head))) + found
        return first if not self.remedy else f"{first}\n    -> {_clip(_one_line(mask_secrets(self.remedy)))}"


class TtcError(Exception):
    """ttc failed."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str = "", *, findings: Sequence[Finding] = (), remedy: str | None = None
    ) -> None:
        self.message = mask_secrets(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.findings = tuple(findings)
        self.remedy = remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        """Text for a person: the message, then one finding after the other, `MAX_FINDINGS` at most."""
        lines = [_clip(self.message)] if self.message and not self._is_told_by_finding() else []
        lines += [finding.render() for finding in self.findings[:MAX_FINDINGS]]
        if self.remedy:
            lines.append(f"    -> {_clip(_one_line(mask_secrets(self.remedy)))}")
        hidden = len(self.findings) - MAX_FINDINGS
        return "\n".join([*lines, f"... and {hidden} more"] if hidden > 0 else lines)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from plain values."""
        return type(self), (self.message,), {"findings": self.findings, "remedy": self.remedy}

    @classmethod
    def of(cls, message: str, **where: Any) -> Self:
        """Error with the single finding that `message` and `where` (fields of `Finding`) describe."""
        return cls(findings=[Finding(message, **where)])

    def _is_told_by_finding(self) -> bool:
        default = (type(self).__doc__ or "").strip().splitlines()[0]
        return bool(self.findings) and self.message == default


class UsageError(TtcError):
    """What was asked for cannot be done."""

    exit_code = 2


class SpecError(UsageError):
    """The sweep file is not valid."""


class DatasetError(UsageError):
    """The problems cannot be read."""


class StoreError(TtcError):
    """The database cannot be used."""

    exit_code = 3


class EndpointProblem(TtcError):
    """No model server serves what the sweep asks for."""

    exit_code = 4


class SweepFailed(TtcError):
    """The sweep ended with failed tasks; what it stored is kept, and running it again tries them again."""

    exit_code = 5


class Interrupted(TtcError):
    """Interrupted; everything drawn so far is stored, and the same command goes on from here."""

    exit_code = 130


def mask_secrets(text: str) -> str:
    """`text` without the passwords of URLs and without anything that has the shape of an API key."""
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _QUERY_SECRET.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _KEY_LIKE.sub(MASK, text)


def looks_like_secret(text: str) -> bool:
    """Whether `text` has the shape of an API key rather than of a name."""
    is_long_mix = len(text) >= 32 and any(c.isdigit() for c in text) and any(c.islower() for c in text)
    return bool(_KEY_LIKE.search(text)) or is_long_mix


def is_secret_field(field: str) -> bool:
    """Whether the last part of a dotted `field` may hold a secret, so that its value is never shown."""
    name = re.split(r"[.\[\]]", field.rstrip("]"))[-1]
    return name not in _INNOCENT_FIELDS and bool(_SECRET_FIELD.search(name))


def show_value(value: object, *, field: str = "") -> str:
    """`value` for a message: one line, at most `MAX_VALUE_LENGTH` characters, secrets masked."""
    if is_secret_field(field) and value is not None:
        return MASK
    if isinstance(value, dict):
        return _shorten("{" + ", ".join(str(key) for key in value) + "}")
    if isinstance(value, (list, tuple)):
        return _shorten("[" + ", ".join(show_value(item) for item in value[:20]) + "]")
    if isinstance(value, str):
        return _shorten(repr(mask_secrets(value[: 20 * MAX_VALUE_LENGTH])))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _shorten(str(value))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 4]} ..."


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 4]} ..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
