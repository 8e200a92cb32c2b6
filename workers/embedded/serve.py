"""Run the embedded model server as a process: `python -m workers.embedded.serve --model arithmetic --port 0`.

It prints one JSON line when it is ready, serves on loopback unless told otherwise, and ends on SIGTERM,
SIGINT, or, with `--exit-with-stdin`, when its standard input closes: then it cannot outlive the parent that
holds the other end, not even one that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from workers.embedded import engine
from workers.embedded.blas import limit_threads
from workers.embedded.catalog import UnknownModelError, built_in_models, resolve_model
from workers.embedded.engine import DEFAULT_SLOTS, Engine
from workers.embedded.server import create_app

SHUTDOWN_S = 0.5  # granted to replies on their way when the server stops
SWITCH_INTERVAL_S = 0.0005  # the decoding thread asks for the interpreter after every NumPy call

__all__ = ["UnknownModelError", "built_in_models", "main", "resolve_model", "run_server"]

Announcement = Mapping[str, str]
Announce = Callable[[Announcement], None]


def run_server(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    slots: int = DEFAULT_SLOTS,
    api_key: str | None = None,
    exit_with_stdin: bool = False,
    announce: Announce,
) -> int:
    """Serve until told to stop. When ready, `announce` gets `url` (up to /v1) and `model`; port 0: any free.

    Give it a process of its own: it takes over SIGTERM and SIGINT, and sets BLAS to one thread. Returns the exit
    status, 1 when the engine failed. Raises UnknownModelError, UnsupportedModelError, or OSError when the address
    is taken.
    """
    limit_threads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    folder = resolve_model(model)

    async def serve() -> int:
        stop = _stop_signal(exit_with_stdin)
        async with engine.load(folder, slots=slots) as running:
            return await _serve(running, host, port, api_key, stop, announce)

    return asyncio.run(serve())


async def _serve(
    engine: Engine, host: str, port: int, api_key: str | None, stop: asyncio.Event, announce: Announce
) -> int:
    app = create_app(engine, api_key=api_key)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        announce({"url": f"http://{shown}:{bound}/v1", "model": engine.card.name})
        await _first(stop, engine.failed)
    finally:
        await runner.cleanup()
    if engine.failure is not None:
        logging.getLogger(__name__).error("the decoding thread has failed", exc_info=engine.failure)
    return 0 if engine.failure is None else 1


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _stop_signal(exit_with_stdin: bool) -> asyncio.Event:
    """Make the event that SIGTERM, SIGINT and, if wanted, the end of standard input set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if exit_with_stdin:
        threading.Thread(target=_await_stdin, args=(loop, stop), name="stdin-watch", daemon=True).start()
    return stop


def _await_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Read standard input to its end; by descriptor, since a lock held here would spoil the exit."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the server has stopped already
        loop.call_soon_threadsafe(stop.set)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; errors go to stderr as one line, with exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        return run_server(
            options.model,
            options.host,
            options.port,
            slots=options.slots,
            api_key=_api_key(options.api_key_env),
            exit_with_stdin=options.exit_with_stdin,
            announce=_print_line,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.embedded.serve", description=__doc__)
    parser.add_argument(
        "--model", default="arithmetic", help="name of a built-in model, or a Hugging Face Llama folder"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free port")
    parser.add_argument(
        "--slots", type=int, default=DEFAULT_SLOTS, help="samples that run at once; the rest queue"
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable that holds the bearer token"
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input closes")
    return parser


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise ValueError(f"--api-key-env: the environment variable {name} is not set")
    return os.environ[name]


def _print_line(announcement: Announcement) -> None:
    sys.stdout.write(json.dumps(dict(announcement)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
