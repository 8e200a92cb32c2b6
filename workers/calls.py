"""Calls to a model's replicas that end in an answer or a final error: admission, sending, retries, health.

It knows HTTP and JSON but not what is asked: the caller brings a payload and a function that reads the reply.
Samples and reward-model calls go the same way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiohttp
import orjson

from workers.admission import Admission, Lease, Want
from workers.concurrency import first_that
from workers.endpoints import PROBATION_BASE_S, PROBATION_CAP_S, Replica, Replicas
from workers.errors import (
    DeadlineExceeded,
    EndpointError,
    MalformedReply,
    RateLimited,
    Rejected,
    ServerFault,
    Unreachable,
)
from workers.hedging import Hedging
from workers.http import Reply, exchange, open_session, parse_json, read_api_key, without_key
from workers.limiter import COOLDOWN_S, AdaptiveLimit, ConcurrencyLimit, FixedCeiling, LimitChange, RateLimit
from workers.rejections import error_inside, failure_of
from workers.retry import AttemptLog, RetryBudget, RetryPolicy, parse_retry_after
from workers.types import EndpointSettings, EngineLoad, Event, ReplicaHealth

T = TypeVar("T")
MAX_EVENTS = 256
_PROBE_BODY_BYTES = 1 << 22
_AILING = (Unreachable, ServerFault, DeadlineExceeded)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Time constants that a test shortens and a user never needs, in seconds."""

    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    probation_base_s: float = PROBATION_BASE_S
    probation_cap_s: float = PROBATION_CAP_S
    probe_timeout_s: float = 5.0
    cooldown_s: float = COOLDOWN_S
    retry_share: float = 0.2
    retry_trickle_per_s: float | None = None
    """Retries a second that are always allowed; None: a tenth of the concurrency, at least one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, before anybody knows which replica serves it."""

    path: str
    """Below the base URL, with its slash."""
    payload: dict[str, Any]
    deadline_s: float
    max_bytes: int
    affinity: int = 0
    """Requests with the same number prefer the same replica (prefix cache)."""
    token_estimate: int = 0
    is_repeatable: bool = False
    """Sent twice it is answered alike: a copy may be sent to another replica."""
    is_at_root: bool = False
    """The path stands beside `/v1`, not below it: vLLM serves `/pooling` and `/tokenize` there."""

    def url(self, base: str) -> str:
        """Where to send it, on the replica with this base URL."""
        return (base.removesuffix("/v1") if self.is_at_root else base) + self.path


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """How a call ended: with a value or with the error of its last attempt."""

    value: T | None
    error: EndpointError | None
    latency_s: float
    """From sending to reply, of the last attempt."""
    retries: int
    wasted_requests: int
    replica: str


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """What a reply holds, and the tokens it cost (None: unknown)."""

    value: T
    tokens: int | None = None


class EndpointClient:
    """Client of one model behind one or more replicas. Async context manager; for one event loop."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        session_factory: Callable[[], aiohttp.ClientSession] = open_session,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        tuning = tuning or Tuning()
        self.settings = settings
        self.failures: Counter[str] = Counter()
        self._tuning = tuning
        self._session_factory = session_factory
        self._session: aiohttp.ClientSession | None = None
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._policy = RetryPolicy(settings.max_attempts, tuning.backoff_base_s, tuning.backoff_cap_s)
        self._budget = _budget(settings, tuning, clock())
        self._limit = _limit(settings, tuning)
        self._rates = RateLimit(settings.requests_per_minute, settings.tokens_per_minute, now=clock())
        self._replicas = Replicas(
            settings.urls,
            probation_base_s=tuning.probation_base_s,
            probation_cap_s=tuning.probation_cap_s,
            most_in_flight=settings.replica_concurrency,
        )
        self._hedging = Hedging(settings.hedge_share)
        self._drained = asyncio.Event()
        self._admission = Admission(self._limit, self._rates, self._replicas, clock)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._is_paused = False

    async def __aenter__(self) -> Self:
        self._session = self._session_factory()
        return self

    def drain(self) -> None:
        """Send nothing more: calls under way go on, those that wait raise `Draining`."""
        self._drained.set()
        self._admission.drain()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        if self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        return self._session

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._admission.in_flight

    @property
    def limit(self) -> int:
        """Requests allowed in flight now, over all replicas."""
        return self._limit.value

    @property
    def paused_reason(self) -> str | None:
        """Why nothing is sent: every replica is down; None if one is up."""
        if not self._replicas.is_everything_down:
            return None
        if not self._replicas.all:
            return f"no engine of {self.settings.name} is up"
        states = "; ".join(f"{replica.name}: {replica.last_error}" for replica in self._replicas.all)
        return f"every replica of {self.settings.name} is down ({states})"

    def health(self) -> tuple[ReplicaHealth, ...]:
        """State of every replica; `limit` is its share of the model's limit."""
        up_count = sum(replica.is_up for replica in self._replicas.all) or 1
        share = -(-self._limit.value // up_count)
        return tuple(
            ReplicaHealth(
                r.name, r.is_up, r.in_flight, share if r.is_up else 0, r.requests, r.failures, r.last_error
            )
            for r in (*self._replicas.all, *self._replicas.leaving)
        )

    def load(self) -> EngineLoad | None:
        """What there is for the engines behind this endpoint; None if its servers are not ours."""
        name = self.settings.engines
        return None if name is None else EngineLoad(name, self.in_flight, self._admission.waiting)

    def set_replicas(self, urls: Sequence[str]) -> None:
        """Send to these servers from now on; without any, requests wait."""
        self._replicas.update(urls)
        self._note_pause()
        self._admission.wake()

    def drain_events(self) -> tuple[Event, ...]:
        """Events since the last call; the oldest are dropped beyond a bound."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def record(self, kind: str, subject: str, detail: str) -> None:
        """Add an event."""
        self._events.append(Event(kind, subject, detail))

    async def call(self, call: Call, read: Callable[[Any], Read[T]]) -> Answer[T]:
        """Send until an answer or a final error. `read` turns JSON into a value or raises an `EndpointError`.

        Endpoint errors are returned, not raised; raised are cancellation and a key variable that is not set.
        """
        api_key = read_api_key(self.settings.api_key_env)
        body = orjson.dumps(call.payload)
        log = AttemptLog(self._policy)
        failed_at: Replica | None = None
        self._budget.on_request(self._clock())
        self._hedging.on_request()
        copies = 0
        while True:
            is_retry = log.retries > 0
            want = Want(self._affinity(call), call.token_estimate, failed_at)
            lease = await self._admitted(want, is_retry, api_key)
            started_at = self._clock()
            send = partial(self._attempt, call=call, body=body, read=read, api_key=api_key, is_retry=is_retry)
            result, lease, is_copied = await self._first_answer(lease, call, send)
            copies += is_copied
            latency_s = self._clock() - started_at
            replica = lease.replica.name
            if isinstance(result, Read):
                return Answer(result.value, None, latency_s, log.retries, log.wasted + copies, replica)
            if not log.may_retry(result, everything_is_down=self._replicas.is_everything_down):
                return Answer(None, result, latency_s, log.retries, log.wasted + copies, replica)
            failed_at = lease.replica
            await self._back_off(self._delay_s(log, result))

    def _affinity(self, call: Call) -> int | None:
        return call.affinity if self.settings.has_affinity else None

    async def _first_answer(
        self, lease: Lease, call: Call, send: Callable[[Lease], Coroutine[Any, Any, Read[T] | EndpointError]]
    ) -> tuple[Read[T] | EndpointError, Lease, bool]:
        """Send, and a copy elsewhere if the answer is late: the first answer, whose it is, and if there was a copy."""
        patience_s = self._hedging.patience_s() if call.is_repeatable else None
        if patience_s is None:
            return await send(lease), lease, False
        attempts = {asyncio.create_task(send(lease)): lease}
        try:
            await asyncio.wait(attempts, timeout=patience_s)
            first, *_ = attempts
            copy = None if first.done() else self._lease_of_copy(call, lease)
            if copy is not None:
                attempts[asyncio.create_task(send(copy))] = copy
            winner = await first_that(attempts, lambda result: isinstance(result, Read))
            return winner.result(), attempts[winner], copy is not None
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    def _lease_of_copy(self, call: Call, lease: Lease) -> Lease | None:
        if not self._hedging.take():
            return None
        copy = self._admission.enter_now(Want(None, call.token_estimate, lease.replica))
        if copy is None:
            self._hedging.give_back()
        return copy

    async def _back_off(self, delay_s: float) -> None:
        """Wait before a retry; a client that drains sends no retry, so there is nothing to wait for."""
        waits = [asyncio.ensure_future(self._sleep(delay_s)), asyncio.ensure_future(self._drained.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _delay_s(self, log: AttemptLog, error: EndpointError) -> float:
        backoff_s = self._policy.delay_s(log.retries - 1, error, self._rng)
        return max(backoff_s, self._budget.reserve(self._clock()))

    async def _admitted(self, want: Want, is_retry: bool, api_key: str | None) -> Lease:
        """Wait for a slot; whoever comes across a replica whose probation is over probes it on the way."""
        while True:
            lease = await self._admission.enter(want, is_retry=is_retry)
            if not lease.is_probe:
                return lease
            await self._probe(lease.replica, api_key)
            is_retry = True  # it has waited its turn

    async def _attempt(
        self,
        lease: Lease,
        call: Call,
        body: bytes,
        read: Callable[[Any], Read[T]],
        api_key: str | None,
        is_retry: bool,
    ) -> Read[T] | EndpointError:
        """Send once; give the lease back with what was learnt, whatever happens."""
        result: Read[T] | EndpointError | None = None  # None: cancelled
        started_at = self._clock()
        try:
            reply = await exchange(
                self.session,
                "POST",
                call.url(lease.replica.url),
                api_key=api_key,
                body=body,
                deadline_s=call.deadline_s,
                max_bytes=call.max_bytes,
            )
            if reply.load is not None:
                self._replicas.on_load(lease.replica, reply.load)
            result = read(self._json_of(reply, call, api_key))
        except EndpointError as error:
            result = error.with_traceback(None)
        finally:
            self._learn(lease, call, result, is_retry)
            self._admission.leave(lease)
        if isinstance(result, Read):
            self._hedging.on_success(self._clock() - started_at)
        return result

    def _json_of(self, reply: Reply, call: Call, api_key: str | None) -> Any:
        status, body = reply.status, reply.body
        data = parse_json(body, api_key) if status == 200 else None
        wrapped = error_inside(data) if status == 200 else (status, body)
        if wrapped is None:
            return data
        status, body = wrapped
        raise failure_of(
            status,
            without_key(body, api_key),
            retry_after_s=parse_retry_after(reply.retry_after, self._wall_clock()),
            sent=call.payload.keys(),
            max_tokens=call.payload.get("max_tokens", 0),
        )

    def _learn(
        self, lease: Lease, call: Call, result: Read[T] | EndpointError | None, is_retry: bool
    ) -> None:
        now = self._clock()
        if isinstance(result, Read):
            self._on_success(lease, now, is_retry)
            if result.tokens is not None:
                self._rates.settle(call.token_estimate, result.tokens, now)
        elif result is not None:
            self.failures[result.kind] += 1
            self._on_error(lease, call, result, now)
        else:
            self.failures["aborted"] += 1

    def _on_success(self, lease: Lease, now: float, is_retry: bool) -> None:
        if self._replicas.on_success(lease.replica):
            self._on_return(lease.replica, "it answered")
        if not is_retry:
            self._note_limit(self._limit.on_success(now, self._admission.in_flight))

    def _on_error(self, lease: Lease, call: Call, error: EndpointError, now: float) -> None:
        if isinstance(error, RateLimited):
            self._note_limit(self._limit.on_rate_limited(now, error.retry_after_s))
            self._rates.settle(call.token_estimate, 0, now)
        elif isinstance(error, _AILING):
            self._limit.on_failure(now)
            if self._replicas.on_failure(lease.replica, lease.epoch, str(error), now):
                self._on_ejection(lease.replica)
        elif isinstance(error, Rejected | MalformedReply) and self._replicas.on_success(lease.replica):
            self._on_return(lease.replica, "it answered")

    async def _probe(self, replica: Replica, api_key: str | None) -> None:
        """Ask an ejected replica for its models: any reply below 500 shows that somebody is there."""
        failure: str | None
        try:
            reply = await exchange(
                self.session,
                "GET",
                replica.url + "/models",
                api_key=api_key,
                deadline_s=self._tuning.probe_timeout_s,
                max_bytes=_PROBE_BODY_BYTES,
            )
            failure = f"HTTP {reply.status} to a probe" if reply.status >= 500 else None
        except EndpointError as error:
            failure = str(error)
        except asyncio.CancelledError:
            self._admission.forgo_probe(replica)
            raise
        if self._replicas.on_probe(replica, failure, self._clock()):
            self._on_return(replica, "it answered a probe")
        self._admission.wake()

    def _on_ejection(self, replica: Replica) -> None:
        self.record("replica_ejected", replica.name, replica.last_error or "")
        self._note_pause()

    def _on_return(self, replica: Replica, why: str) -> None:
        self.record("replica_returned", replica.name, why)
        self._note_pause()

    def _note_pause(self) -> None:
        """Say so when the last replica has gone, and when the first one is there again."""
        reason = self.paused_reason
        if (reason is not None) == self._is_paused:
            return
        self._is_paused = reason is not None
        up = ", ".join(replica.name for replica in self._replicas.all if replica.is_up)
        self.record("paused" if reason else "resumed", self.settings.name, reason or f"{up} is back")

    def _note_limit(self, change: LimitChange | None) -> None:
        if change is None:
            return
        kind = "limit_cut" if change.after < change.before else "limit_grown"
        self.record(kind, self.settings.name, f"{change.before} to {change.after} ({change.reason})")
        self._admission.wake()


def _limit(settings: EndpointSettings, tuning: Tuning) -> ConcurrencyLimit:
    if settings.adaptive:
        return AdaptiveLimit(settings.concurrency, cooldown_s=tuning.cooldown_s)
    return FixedCeiling(settings.concurrency)


def _budget(settings: EndpointSettings, tuning: Tuning, now: float) -> RetryBudget:
    trickle = tuning.retry_trickle_per_s or max(1.0, settings.concurrency / 10)
    burst = 10.0 + settings.concurrency / 8
    return RetryBudget(now=now, share=tuning.retry_share, burst=burst, trickle_per_s=trickle)
