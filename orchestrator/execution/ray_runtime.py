"""Ray itself: started here, or reached elsewhere, and left as it was found. It must not know what runs on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.errors import TtcError

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Our objects are small and short-lived; Ray's default would take 30% of memory."""
KNOCK_TIMEOUT_S = 5.0
_START_REMEDY = "start it with `ray start --head`, correct --address, or use --local to run without Ray"


class RayUnavailable(TtcError):
    """Ray could not be started or reached."""


@asynccontextmanager
async def ray_runtime(address: str | None) -> AsyncIterator[None]:
    """A connection to the cluster at `address`, or to a Ray of our own; one that is there already is used as it is."""
    is_ours = not ray.is_initialized()
    if is_ours:
        await asyncio.to_thread(_start, address)
    # Ray's listener prints what it hears of dead workers on standard output, which is for results; to its very end.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            if is_ours:
                await asyncio.to_thread(ray.shutdown)


def _start(address: str | None) -> None:
    if address is not None:
        knock(address, _START_REMEDY)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local: dict[str, Any] = {}
    if address is None:
        local = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            namespace="ttc",
            log_to_driver=False,
            logging_level="ERROR",
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise RayUnavailable(
            f"Ray at {address or 'this machine'} could not be reached: {one_line(error)}",
            remedy=_remedy(error),
        ) from error


def knock(address: str, remedy: str) -> None:
    """Refuse an address where nothing listens at once; Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdigit():
        return  # "auto", or a name that Ray looks up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
    except OSError as error:
        raise RayUnavailable(f"nothing listens at --address {address} ({error})", remedy=remedy) from error


def _remedy(error: BaseException) -> str:
    if "token" in str(error).lower():
        return "the cluster wants a token: set RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token"
    return _START_REMEDY


def one_line(error: BaseException) -> str:
    """First line of an error, without Ray's tracebacks."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
