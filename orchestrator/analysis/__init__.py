"""From stored samples to numbers: verdicts, answer clusters, estimators, results, forecasts. Draws nothing."""

from __future__ import annotations
