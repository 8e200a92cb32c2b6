"""Keeps the garbage collector out of the way of an event loop that carries hundreds of requests."""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 50
"""Allocations before a young collection, young ones before a middle one, middle ones before a full one."""


def calm_collector() -> None:
    """Leave what is loaded out of all collections, and collect less often.

    By default a full collection walks every imported module's objects many times a minute and stops the loop each
    time: with 256 slots in use that cost a tenth of their time. Records of a sweep hold no cycles, so reference
    counting frees them anyway.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
