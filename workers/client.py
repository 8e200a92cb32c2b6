"""What the clients of policies and of scorers have in common. It must not know how a call is made."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from workers.calls import EndpointClient
from workers.types import EngineLoad, Event, ReplicaHealth


class ClientOfEndpoint:
    """What the clients of policies and of scorers have in common: a life, a state, and news, all of the endpoint's."""

    def __init__(self, client: EndpointClient) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def drain(self) -> None:
        """Send nothing more: requests under way go on, and what needs another raises `Draining`."""
        self._client.drain()

    @property
    def paused_reason(self) -> str | None:
        """Why nothing is sent; None if it is."""
        return self._client.paused_reason

    @property
    def failures(self) -> dict[str, int]:
        """Failed requests by kind since the start, `aborted` are those given up; `bad_logprobs` and `broken_contract`
        (unsound scores) are in samples.
        """
        return dict(self._client.failures)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._client.in_flight

    @property
    def limit(self) -> int:
        """Requests allowed in flight now."""
        return self._client.limit

    def health(self) -> tuple[ReplicaHealth, ...]:
        """State of every replica."""
        return self._client.health()

    @property
    def engines(self) -> str | None:
        """Name of the engines behind the endpoint; None if its servers are not ours."""
        return self._client.settings.engines

    def load(self) -> EngineLoad | None:
        """What there is for these engines."""
        return self._client.load()

    def set_replicas(self, urls: Sequence[str]) -> None:
        """Send to these servers from now on; without any, requests wait."""
        self._client.set_replicas(urls)

    def drain_events(self) -> tuple[Event, ...]:
        """Events since the last call."""
        return self._client.drain_events()
