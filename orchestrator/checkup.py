"""One thing that `ttc doctor` tried: what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import TtcError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    subject: str
    is_ok: bool
    found: str
    remedy: str = ""


def failed(subject: str, error: TtcError) -> Check:
    """What an error says, with all the remedies that it knows."""
    remedies = [each.remedy for each in error.findings if each.remedy] + (
        [error.remedy] if error.remedy else []
    )
    return Check(subject, False, str(error), "; ".join(remedies))
