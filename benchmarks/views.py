"""How long the main views of a store take, asked as `ttc sql` asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from benchmarks.report import Figure, Target
from orchestrator.store import Store

VIEWS = {
    "v_progress": "SELECT * FROM v_progress",
    "v_accuracy": "SELECT * FROM v_accuracy",
    "v_cost": "SELECT * FROM v_cost",
    "v_results": "SELECT * FROM v_results",
    "v_samples, one problem": "SELECT * FROM v_samples WHERE external_id = 'bench/7'",
}
ROWS = 100_000
TIMEOUT_S = 300.0


def view_figures(group: str, prefix: str, url: str, limit_s: float) -> Iterator[Figure]:
    """Seconds of each view of the store at `url`, against the most that is wanted."""
    for name, seconds in asyncio.run(_times(url)).items():
        yield Figure(group, f"{prefix}{name}", "s", (seconds,), target=Target(limit_s, is_ceiling=True))


async def _times(url: str) -> dict[str, float]:
    times: dict[str, float] = {}
    async with await Store.open(url, read_only=True) as store:
        for name, query in VIEWS.items():
            started = time.perf_counter()
            await store.query(query, limit=ROWS, timeout_s=TIMEOUT_S)
            times[name] = time.perf_counter() - started
    return times
