"""An embedded model server that notes every request for samples before it serves it, so that nothing is paid in secret.

`python -m tests.chaos.replica --model arithmetic --log FILE --port 0` prints its URL as a line of JSON, and ends when
its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import time

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from workers.embedded import engine
from workers.embedded.blas import limit_threads
from workers.embedded.catalog import resolve_model
from workers.embedded.server import create_app


def key_of(prompt: str, seed: int) -> str:
    """What a draw is known by in the log."""
    return hashlib.blake2b(f"{seed}|{prompt}".encode(), digest_size=8).hexdigest()


async def serve(model: str, log: str, port: int) -> None:
    """Serve until standard input closes."""
    limit_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/v1/completions":
            payload = orjson.loads(await request.read())
            if "seed" in payload:
                keys = (
                    key_of(payload["prompt"], payload["seed"] + child) for child in range(payload.get("n", 1))
                )
                os.write(descriptor, "".join(f"{time.time():.4f} {key}\n" for key in keys).encode())
        return await handler(request)

    async with engine.load(resolve_model(model)) as running:
        app = create_app(running)
        app.middlewares.append(note)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1"}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.model, given.log, given.port))
