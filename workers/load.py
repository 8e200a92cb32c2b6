"""What a server says of its own load, beside a reply: read from a header, hostile until proven otherwise. Pure.

vLLM answers a request that carries `endpoint-load-metrics-format: JSON` with a header such as
`endpoint-load-metrics: JSON {"named_metrics": {"num_requests_waiting": 2.0, "kv_cache_usage_perc": 0.4}}` (ORCA
load reports): news of every replica with every reply, and nothing to poll.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

ASK_HEADER = "endpoint-load-metrics-format"
ASK_VALUE = "JSON"
HEADER = "endpoint-load-metrics"
MAX_CHARS = 4096


@dataclass(frozen=True, slots=True)
class Load:
    """A server's own account."""

    waiting: float
    """Sequences that wait for a slot, over all clients."""
    cache_usage: float | None = None
    """Share of the KV cache in use; None: not said."""


def parse_load(text: str | None) -> Load | None:
    """Read the header; None if there is none, or nothing in it that makes sense."""
    if text is None or len(text) > MAX_CHARS:
        return None
    kind, _, body = text.strip().partition(" ")
    if kind != ASK_VALUE:
        return None
    try:
        metrics = json.loads(body)["named_metrics"]
        waiting, usage = _number(metrics["num_requests_waiting"]), _number(metrics.get("kv_cache_usage_perc"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return None if waiting is None else Load(waiting, usage)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None
