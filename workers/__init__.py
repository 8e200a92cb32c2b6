"""Leaf library of ttc: tasks in, facts out. It knows neither Ray, nor SQL, nor the orchestrator."""

from __future__ import annotations
