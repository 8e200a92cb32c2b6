"""Measurements, each beside its floor in the same run: `python -m benchmarks`. Not part of the package."""

from __future__ import annotations
