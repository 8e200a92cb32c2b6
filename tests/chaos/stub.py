"""The servers that die: one process with a model whose texts depend on prompt and seed only, and a reward model.

Every sample that is asked for is counted in a file the moment its request arrives, so that the count survives a
SIGKILL and holds what was generated for nobody; so is every text that is scored. `python -m tests.chaos.stub --help`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.fault_server import FaultServer
from tests.reward_server import RewardServer

RECORD_BYTES = 8
ANSWERS = ("1/2", "0.5", "\\frac{1}{2}", "2", "3", "x+1", "1+x", "4", "nothing at all")


def text_of(prompt: str, seed: int) -> str:
    """A solution of some steps; its answer may be equal to others without being the same, or missing."""
    rng = random.Random(f"{seed}|{prompt}")
    steps = [
        f"Step {number}: {rng.randrange(1000)} is what we find." for number in range(1, rng.randrange(2, 6))
    ]
    answer = rng.choice(ANSWERS)
    last = "We do not know." if answer == ANSWERS[-1] else f"So the answer is \\boxed{{{answer}}}."
    return "\n\n".join([*steps, last])


class CountingServer(FaultServer):
    """Writes the tokens of every sample it is asked for to a file, one record a sample."""

    def __init__(self, log: str, *, port: int, latency_s: float) -> None:
        super().__init__(text=text_of, latency_s=latency_s)
        self._port = port
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def _on_post(self, request: web.Request) -> web.StreamResponse:
        payload = json.loads(await request.read())
        counts = (
            min(payload["max_tokens"], len(text_of(payload["prompt"], payload["seed"] + child).split(" ")))
            for child in range(payload.get("n", 1))
        )
        os.write(self._log, b"".join(b"%7d\n" % count for count in counts))
        self.payloads.clear()
        return await super()._on_post(request)


class CountingRewardServer(RewardServer):
    """Notes every text that it is asked to score, by its hash."""

    def __init__(self, log: str, *, port: int, latency_s: float) -> None:
        super().__init__(classes=2, port=port)
        self._latency_s = latency_s
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def _answer(self, request: web.Request, call: str, payload: dict[str, Any]) -> web.StreamResponse:
        if call == "pooling":
            hashes = (hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in payload["input"])
            os.write(self._log, "".join(f"{each}\n" for each in hashes).encode())
            await asyncio.sleep(self._latency_s)
        self.payloads.clear()
        return await super()._answer(request, call, payload)


async def serve(log: str, ports: Sequence[int], latency_s: float) -> None:
    """Serve until standard input closes, so that the servers never outlive their test."""
    async with (
        CountingServer(f"{log}-drawn", port=ports[0], latency_s=latency_s) as model,
        CountingRewardServer(f"{log}-scored", port=ports[1], latency_s=latency_s) as reward,
    ):
        print(json.dumps({"urls": [model.url, reward.url], "ports": [model._port, reward._port]}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--ports", type=int, nargs=2, default=[0, 0], metavar=("MODEL", "REWARD"))
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(serve(given.log, given.ports, given.latency))
