"""The nearest valid name for a misspelt one, as a remedy. It knows nothing of where the names come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 12


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` was probably meant to be; None where nothing is near."""
    by_folded = {candidate.casefold(): candidate for candidate in valid}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def suggestion(name: str, valid: Iterable[str], want: str = "use one of") -> str:
    """Remedy for a misspelt name: the nearest valid one, then all of them (`MAX_LISTED` at most)."""
    names = list(valid)
    listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    near = nearest(name, names)
    return f"did you mean {near}? {want}: {listed}" if near else f"{want}: {listed or 'there are none'}"
