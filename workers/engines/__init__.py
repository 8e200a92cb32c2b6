"""Servers that ttc starts itself: one engine is one server process, watched and started again while it is wanted.

    records    what an engine is told, and what it reports
    watch      when to kill, when to start again, when to give up: pure
    guard      the process between us and the server, which outlives neither
    server     one life of a server, behind its guard
    engine     the shell round `watch`: one server after the other

It must not know what is asked of a server, nor how many others there are.
"""

from __future__ import annotations

from workers.engines.engine import Engine
from workers.engines.records import EngineReport, EngineSettings, Phase, fill

__all__ = ["Engine", "EngineReport", "EngineSettings", "Phase", "fill"]
