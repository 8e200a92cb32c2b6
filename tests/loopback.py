"""A server on loopback that lives as long as a context. For tests only."""

from __future__ import annotations

from typing import Self

from aiohttp import web


class Loopback:
    """Async context manager; `url` ends in `/v1`. A subclass says what it serves."""

    def __init__(self, port: int = 0) -> None:
        self._runner: web.AppRunner | None = None
        self._port = port

    def app(self) -> web.Application:
        """Routes and handlers."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Base URL for an endpoint."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(
            self.app(), handler_cancellation=True, shutdown_timeout=0.05, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
