"""From the searches of a sweep file to what workers and the store need: names, parameters, fingerprints.

Pure. What goes into a procedure's fingerprint is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.strategies import SearchStrategy
from workers.identity import fingerprint

SEARCH_VERSION = 1
"""Raised when strategies, the cutting of steps or seeds of nodes change: then the same search finds another tree."""


def searches_of(spec: SweepSpec) -> Iterator[tuple[SearchStrategy, int, str]]:
    """Every search of a sweep: its strategy, its budget, and the name of both."""
    for strategy in spec.searched:
        for budget in sorted(strategy.budgets):
            yield strategy, budget, search_name(strategy.name, budget)


def search_name(strategy: str, budget: int) -> str:
    """What a strategy at one of its budgets is called in the store."""
    return f"{strategy}@{budget}"


def procedure_params(strategy: SearchStrategy) -> str:
    """Options and limits of a search, as JSON."""
    params = {"options": strategy.options, "limits": strategy.limits}
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS).decode()


def procedure_fingerprint(strategy: SearchStrategy, budget: int, scorer: str) -> str:
    """Name of a way to search (32 hex characters); `scorer` is the fingerprint of what guides it."""
    return fingerprint(
        {
            "version": SEARCH_VERSION,
            "kind": strategy.algorithm,
            "params": procedure_params(strategy),
            "budget": budget,
            "scorer": scorer,
        }
    )
