"""Calls for one scoring, with what they cost added up; whoever sends them is a port, since a probe has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from workers.calls import Answer, Call, Read
from workers.errors import Unreachable
from workers.rewards.records import Score, Scoring
from workers.rewards.transports import usage_of

T = TypeVar("T")


class Caller(Protocol):
    """Sends a call until an answer or a final error; endpoint errors are returned, not raised."""

    async def call(self, call: Call, read: Callable[[Any], Read[T]]) -> Answer[T]:
        """Send it, and read the reply with `read`, which may raise an `EndpointError`."""
        ...


class Meter:
    """Sends the calls of one scoring and counts them; `affinity` is the replica they prefer."""

    def __init__(self, caller: Caller, affinity: int = 0) -> None:
        self.affinity = affinity
        self.broken = 0
        """Solutions with unsound scores in replies that were sound for others."""
        self._caller = caller
        self._requests = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens = 0
        self._retries = 0
        self._wasted = 0
        self._seconds = 0.0

    async def ask(self, call: Call, read: Callable[[Any], T]) -> T:
        """The value that `read` makes of the reply; raises the `EndpointError` of the last attempt."""

        def metered(data: Any) -> Read[T]:
            value, usage = read(data), usage_of(data)
            self._prompt_tokens += usage.prompt_tokens
            self._cached_tokens += usage.cached_tokens
            self._completion_tokens += usage.completion_tokens
            return Read(value, usage.prompt_tokens + usage.completion_tokens or None)

        answer = await self._caller.call(call, metered)
        self._requests += 1
        self._retries += answer.retries
        self._wasted += answer.wasted_requests
        self._seconds += answer.latency_s
        if answer.value is None:
            raise answer.error or Unreachable()
        return answer.value

    def scoring(self, scores: tuple[Score, ...]) -> Scoring:
        """The scores, with all that was spent so far."""
        return Scoring(
            scores=scores,
            requests=self._requests,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            retries=self._retries,
            wasted_requests=self._wasted,
            seconds=self._seconds,
        )
