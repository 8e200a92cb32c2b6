"""The metrics endpoint: on loopback unless told otherwise, with a token where one is set, and our numbers only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import REGISTRY

from orchestrator.environment import METRICS_TOKEN_VARIABLE
from orchestrator.errors import UsageError
from orchestrator.execution.metrics.server import (
    MetricsServer,
    MetricsSettings,
    metrics_settings,
)
from tests.unit.test_metrics import VIEW

TOKEN = "a-token-of-this-test"


@asynccontextmanager
async def get(url: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
        yield reply


async def test_it_serves_the_view_of_the_moment_and_nothing_of_other_libraries() -> None:
    async with MetricsServer(MetricsSettings("127.0.0.1", 0)) as server:
        assert server.url.startswith("http://127.0.0.1:")
        async with get(server.url) as reply:
            assert (reply.status, await reply.text()) == (200, "")  # there is no run yet
        server.show(lambda: VIEW)
        async with get(server.url) as reply:
            text = await reply.text()
            assert reply.headers["Content-Type"].startswith("text/plain")
            assert "ttc_samples_wanted 200.0" in text
            assert {line.split()[2][:4] for line in text.splitlines() if line.startswith("# HELP")} == {
                "ttc_"
            }
        async with get(server.url, Accept="application/openmetrics-text; version=1.0.0") as reply:
            assert (await reply.text()).endswith("# EOF\n")
        async with get(server.url.removesuffix("/metrics")) as reply:
            assert reply.status == 404
    assert not [each for each in REGISTRY.collect() if each.name.startswith("ttc_")]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer w\xf6rong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
async def test_a_token_that_is_set_is_demanded(header: dict[str, str], status: int) -> None:
    async with MetricsServer(MetricsSettings("127.0.0.1", 0, TOKEN)) as server:
        server.show(lambda: VIEW)
        async with get(server.url, **header) as reply:
            assert reply.status == status
            text = await reply.text()
            assert ("ttc_samples_wanted" in text) == (status == 200)
            assert TOKEN not in text


async def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    async with MetricsServer(MetricsSettings("127.0.0.1", 0)) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(UsageError, match=r"--metrics-port.*nothing can listen"):
            await MetricsServer(MetricsSettings("127.0.0.1", port)).__aenter__()


def test_metrics_are_off_by_default_and_on_loopback_otherwise() -> None:
    assert metrics_settings(None, None, {METRICS_TOKEN_VARIABLE: TOKEN}) is None
    assert metrics_settings(0, None, {}) == MetricsSettings("127.0.0.1", 0, None)
    assert metrics_settings(9, "::1", {METRICS_TOKEN_VARIABLE: ""}) == MetricsSettings("::1", 9, None)
    assert metrics_settings(9, "0.0.0.0", {METRICS_TOKEN_VARIABLE: TOKEN}) == MetricsSettings(
        "0.0.0.0", 9, TOKEN
    )
    assert TOKEN not in repr(metrics_settings(9, "localhost", {METRICS_TOKEN_VARIABLE: TOKEN}))


@pytest.mark.parametrize(
    ("port", "host", "token", "said"),
    [
        (9, "0.0.0.0", "", METRICS_TOKEN_VARIABLE),
        (9, "::", "", METRICS_TOKEN_VARIABLE),
        (9, "node7", "", METRICS_TOKEN_VARIABLE),
        (None, "0.0.0.0", TOKEN, "--metrics-port"),
        (9, None, "two\nlines", METRICS_TOKEN_VARIABLE),
    ],
)
def test_what_would_be_open_to_all_is_refused(
    port: int | None, host: str | None, token: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        metrics_settings(port, host, {METRICS_TOKEN_VARIABLE: token})
    assert not token or token not in str(caught.value)
