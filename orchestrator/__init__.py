"""Specifies, plans, schedules, persists, analyses and shows sweeps; calls `workers`, never the other way round."""

from __future__ import annotations
