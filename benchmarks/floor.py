"""The floor of throughput: a bare aiohttp client that sends what `ttc` sends and throws the parsed reply
away.

What `ttc` adds (seeds, retries, limits, steps, answers, transport between processes, commits) is the distance
from here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import aiohttp
import orjson

from benchmarks.stub import MODEL

IN_FLIGHT = 256
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class FloorRun:
    """One run of the bare client."""

    samples: int
    seconds: float
    cpu_s: float

    @property
    def samples_per_second(self) -> float:
        """Samples received a second, first call to last reply."""
        return self.samples / self.seconds

    @property
    def cpu_per_1000(self) -> float:
        """CPU-seconds of the client a thousand samples."""
        return 1000 * self.cpu_s / self.samples


def payload(prompt: str, seed: int, n: int) -> dict[str, object]:
    """The body that `ttc` sends for n samples."""
    return {
        "model": MODEL,
        "prompt": prompt,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": MAX_TOKENS,
        "seed": seed,
        "n": n,
        "logprobs": 0,
        "return_token_ids": True,
    }


def run_floor(url: str, n: int, requests: int, in_flight: int = IN_FLIGHT) -> FloorRun:
    """Run the client in a process of its own, so that nothing of this one is measured."""
    command = [sys.executable, "-m", "benchmarks.floor", url, str(n), str(requests), str(in_flight)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return FloorRun(**json.loads(output))


async def _measure(url: str, n: int, requests: int, in_flight: int) -> FloorRun:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        await asyncio.gather(*(session.get(url + "/models") for _ in range(8)))
        seeds = iter(range(0, requests * n, n))
        start, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(_send(session, url + "/completions", n, seeds))
        return FloorRun(requests * n, time.perf_counter() - start, time.process_time() - cpu)


async def _send(session: aiohttp.ClientSession, url: str, n: int, seeds: Iterator[int]) -> None:
    headers = {"Content-Type": "application/json"}
    for seed in seeds:
        body = orjson.dumps(payload(f"Problem {seed // 64}: what is {seed // 64} + 1?\n\n", seed, n))
        async with session.post(url, data=body, headers=headers) as reply:
            choices = orjson.loads(await reply.read())["choices"]
            if len(choices) != n:
                raise RuntimeError(f"{len(choices)} choices came where {n} were asked for")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor")
    parser.add_argument("url")
    for name in ("n", "requests", "in_flight"):
        parser.add_argument(name, type=int)
    a = parser.parse_args()
    print(json.dumps(asdict(asyncio.run(_measure(a.url, a.n, a.requests, a.in_flight)))))


if __name__ == "__main__":
    _main()
