"""Leaf library of ttc: given a task and endpoints, produce facts. It knows neither Ray, nor SQL, nor the orchestrator."""

from __future__ import annotations
