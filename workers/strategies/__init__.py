"""How compute is spent on a problem: plain async functions over a search, with no word about where text comes from.

`base` is all that a strategy of one's own needs; `registry` finds strategies by name.
"""

from __future__ import annotations

from workers.strategies.base import (
    Candidate,
    Limits,
    Node,
    NodeEnd,
    Search,
    Strategy,
    sample_children,
    together,
)
from workers.strategies.registry import KINDS, build, load, names

__all__ = [
    "KINDS",
    "Candidate",
    "Limits",
    "Node",
    "NodeEnd",
    "Search",
    "Strategy",
    "build",
    "load",
    "names",
    "sample_children",
    "together",
]
