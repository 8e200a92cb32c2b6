"""Scores of solutions from process and outcome reward models, judges and step verifiers: one module a wire format.

`RewardClient` scores, `probe_scorer` finds out beforehand whether a server can be relied on, and `contract` sees to
it that nothing wrong passes.
"""

from __future__ import annotations

from workers.rewards.client import RewardClient
from workers.rewards.formats import VALUE_FORMATS, VERDICT_FORMATS, check_format, format_version
from workers.rewards.probe import probe_scorer
from workers.rewards.records import Golden, RewardCapabilities, Score, Scoring, Solution

__all__ = [
    "VALUE_FORMATS",
    "VERDICT_FORMATS",
    "Golden",
    "RewardCapabilities",
    "RewardClient",
    "Score",
    "Scoring",
    "Solution",
    "check_format",
    "format_version",
    "probe_scorer",
]
