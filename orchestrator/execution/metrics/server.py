"""Serves the metrics of a run to Prometheus: `GET /metrics`, on loopback and with a token where one is set.

It has a registry of its own, so that nothing another library registers is shown. It must not know what the numbers
mean; it asks for a view whenever somebody asks it.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orchestrator.environment import METRICS_TOKEN_VARIABLE
from orchestrator.errors import UsageError
from orchestrator.execution.metrics.families import RunView, families

LOOPBACK = "127.0.0.1"
SHUTDOWN_S = 0.5


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics are served, and to whom."""

    host: str
    port: int
    """0: any free one."""
    token: str | None = field(default=None, repr=False)


def metrics_settings(
    port: int | None, host: str | None, environ: Mapping[str, str]
) -> MetricsSettings | None:
    """Settings as the command line and the environment say them; None: metrics are not wanted.

    Raises UsageError for a host that others can reach where no token is set.
    """
    if port is None:
        if host is not None:
            raise UsageError.of(
                "says where to serve metrics, but not that they are wanted", field="--metrics-host",
                value=repr(host), remedy="add --metrics-port PORT; 0 takes a free one",
            )  # fmt: skip
        return None
    host, token = host or LOOPBACK, environ.get(METRICS_TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError.of("holds characters that no header can carry", field=METRICS_TOKEN_VARIABLE)
    if token is None and not is_loopback(host):
        raise UsageError.of(
            "can be reached from other machines, and no token is set", field="--metrics-host", value=repr(host),
            remedy=f"set {METRICS_TOKEN_VARIABLE}, which readers then send as `Authorization: Bearer ...`, "
            "or leave --metrics-host out",
        )  # fmt: skip
    return MetricsSettings(host, port, token)


def is_loopback(host: str) -> bool:
    """Can only processes of this machine reach what listens there?"""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsServer(Collector):
    """`async with` listens; `show` says whose numbers to serve."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._view: Callable[[], RunView] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._runner: web.AppRunner | None = None
        self._port = settings.port

    @property
    def url(self) -> str:
        """Where Prometheus finds it."""
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/metrics"

    def show(self, view: Callable[[], RunView]) -> None:
        """Serve what `view` returns from now on; it is called in the event loop, at every request."""
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """All metrics; none before there is a run."""
        return families(self._view()) if self._view is not None else iter(())

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError.of(
                f"nothing can listen at {self._settings.host} ({error.strerror})", field="--metrics-port",
                value=str(self._settings.port), remedy="choose another, or 0 for any free one",
            ) from error  # fmt: skip
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if not self._may_read(request):
            headers = {hdrs.WWW_AUTHENTICATE: "Bearer"}
            return web.Response(
                status=401, text=f"send the token of {METRICS_TOKEN_VARIABLE}\n", headers=headers
            )
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(body=encode(self._registry), headers=headers)

    def _may_read(self, request: web.Request) -> bool:
        token = self._settings.token
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        return token is None or hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
