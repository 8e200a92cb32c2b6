"""Asks every node of the Ray cluster that this process is connected to how it is, by an actor of its own on each.

It only collects; `cluster_checkup` judges. Like `ray_pool` it is one of the few places that know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster_checkup import NodeReport, Reached, Versions
from orchestrator.execution.ray_pool import SAMPLER
from workers.errors import EndpointError
from workers.http import exchange, open_session, public_url, read_api_key
from workers.types import EndpointSettings

NODE_TIMEOUT_S = 60.0
REPLY_TIMEOUT_S = 10.0
REPLY_BYTES = 1 << 22
CLOCK_ROUNDS = 5
FIRST_BAD_STATUS = 400
MISSING = 404
"""Some servers list no models; somebody is there all the same."""


def versions_here() -> Versions:
    """Versions of this process."""
    return Versions(version("ttc"), version("ray"), platform.python_version())


class NodeActor:
    """Lives on a node for as long as it is asked."""

    async def look(self, endpoints: Sequence[EndpointSettings]) -> tuple[Versions, tuple[Reached, ...]]:
        """Versions, and whether the endpoints can be reached from here, with the keys that are here."""
        async with open_session() as session:
            tries = (_reach(session, each, url) for each in endpoints for url in each.urls)
            return versions_here(), tuple(await asyncio.gather(*tries))

    async def clock(self) -> float:
        """Seconds since 1970 by the clock of this node."""
        return time.time()


async def look_at_nodes(endpoints: Sequence[EndpointSettings]) -> list[NodeReport]:
    """A report of every node that is alive."""
    nodes = [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
    return list(await asyncio.gather(*(_report(node, endpoints) for node in nodes)))


async def _report(node: dict[str, Any], endpoints: Sequence[EndpointSettings]) -> NodeReport:
    name = str(node["NodeManagerAddress"])
    slots = node["Resources"].get(SAMPLER)
    place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    actor = ray.remote(NodeActor).options(num_cpus=0, scheduling_strategy=place).remote()
    room = None if slots is None else int(slots)
    try:
        async with asyncio.timeout(NODE_TIMEOUT_S):
            versions, reached = await actor.look.remote(tuple(endpoints))
            ahead_s, uncertainty_s = await _clock_of(actor)
        return NodeReport(name, room, versions, ahead_s, uncertainty_s, reached)
    except TimeoutError:
        return NodeReport(name, room, None, 0.0, 0.0, error=f"no answer within {NODE_TIMEOUT_S:.0f} s")
    except RayError as error:
        last = str(error).strip().splitlines()[-1:]
        return NodeReport(name, room, None, 0.0, 0.0, error=f"{type(error).__name__}: {''.join(last)}")
    finally:
        with contextlib.suppress(RayError):
            ray.kill(actor, no_restart=True)


async def _clock_of(actor: Any) -> tuple[float, float]:
    """How far the clock of a node is ahead of ours, and how wrong that may be: by the quickest of some round trips."""
    best = (0.0, float("inf"))
    for _ in range(CLOCK_ROUNDS):
        before_s = time.time()
        there_s = await actor.clock.remote()
        after_s = time.time()
        best = min(
            best, (there_s - (before_s + after_s) / 2, (after_s - before_s) / 2), key=lambda each: each[1]
        )
    return best


async def _reach(session: Any, endpoint: EndpointSettings, url: str) -> Reached:
    shown = public_url(url)
    try:
        key = read_api_key(endpoint.api_key_env)
        reply = await exchange(
            session, "GET", f"{url.rstrip('/')}/models", api_key=key, deadline_s=REPLY_TIMEOUT_S, max_bytes=REPLY_BYTES
        )  # fmt: skip
    except EndpointError as error:
        return Reached(endpoint.name, shown, str(error))
    is_there = reply.status < FIRST_BAD_STATUS or reply.status == MISSING
    return Reached(endpoint.name, shown, None if is_there else f"HTTP {reply.status}")
