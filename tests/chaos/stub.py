"""The model server that dies: a process of its own whose texts depend on prompt and seed only.

Every sample it is asked for is counted in a file the moment its request arrives, so that the count survives a
SIGKILL and holds what was generated for nobody. `python -m tests.chaos.stub --help`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys

from aiohttp import web

from tests.fault_server import FaultServer

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


async def serve(log: str, port: int, latency_s: float) -> None:
    """Serve until standard input closes, so that the server never outlives its test."""
    async with CountingServer(log, port=port, latency_s=latency_s) as server:
        print(json.dumps({"url": server.url, "port": server._port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(serve(given.log, given.port, given.latency))
