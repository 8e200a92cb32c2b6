"""Serves a built-in model for as long as a run needs it: a server process of our own, over real HTTP, on loopback.

The process exits when its standard input closes, so it never outlives the run that started it, not even one that was
killed. It knows nothing of sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.errors import EndpointProblem
from workers.environment import without_secrets

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


@asynccontextmanager
async def embedded_server(model: str) -> AsyncIterator[str]:
    """Base URL (`.../v1`) of a server of the built-in model `model`, stopped when the context is left."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "workers.embedded.serve",
            "--model",
            model,
            "--port",
            "0",
            "--exit-with-stdin",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A session of its own: Ctrl-C in the terminal is for the run, which lets requests in flight finish.
        start_new_session=True,
        env=without_secrets(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
    )
    try:
        yield await _announced_url(process, model)
    finally:
        await _stop(process)


async def _announced_url(process: asyncio.subprocess.Process, model: str) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        return str(json.loads(line)["url"])
    except (TimeoutError, ValueError, KeyError) as error:
        raise EndpointProblem(
            f"the embedded model {model!r} did not start", remedy=f"try `ttc models serve {model}` by hand"
        ) from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
