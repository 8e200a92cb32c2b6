"""An OpenAI-compatible server on loopback that misbehaves on order; equal (prompt, seed) get equal answers.

For tests only. Faults come from a script (one entry a request, in order of arrival) and then at random with
given probabilities. Everything it is asked and everything it hands out is counted.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Self

from aiohttp import web


class Fault(StrEnum):
    """One way to misbehave. `NONE` in a script serves the request as it should be."""

    NONE = "none"
    RATE_LIMIT = "rate_limit"
    """429 with Retry-After."""
    RATE_LIMIT_SILENT = "rate_limit_silent"
    """429 without Retry-After."""
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    """503 with an HTML page, as a proxy sends it."""
    HANG = "hang"
    """Never answers."""
    DISCONNECT = "disconnect"
    """Closes the connection before a reply: the keep-alive race."""
    RESET = "reset"
    """Resets the connection in the middle of the body."""
    TRUNCATED_JSON = "truncated_json"
    WRONG_N = "wrong_n"
    """One choice too few; one too many where one was asked for."""
    EMPTY_CHOICES = "empty_choices"
    DOUBLED_INDEX = "doubled_index"
    NO_TEXT = "no_text"
    NAN_LOGPROBS = "nan_logprobs"
    """Bare NaN in the JSON; not a failure of the sample."""
    NO_LOGPROBS = "no_logprobs"
    HUGE_BODY = "huge_body"
    """More bytes than any honest reply; the size is `huge_bytes`."""
    HTML = "html"
    """200 with an HTML page."""
    SLOW = "slow"
    """A good reply in many small pieces; not a failure."""
    DRIP = "drip"
    """A byte now and then, for ever."""
    SHUFFLED = "shuffled"
    """The choices in another order; not a failure."""
    ODD_TEXT = "odd_text"
    """NUL and a lone surrogate in the text; not a failure."""
    UNAUTHORIZED = "unauthorized"
    """401 that quotes the Authorization header."""
    UNKNOWN_MODEL = "unknown_model"
    OVERFLOW = "overflow"
    """400: the prompt does not fit the context."""
    CONTENT_FILTER = "content_filter"
    BAD_PARAMETER = "bad_parameter"
    """400 that names `temperature`."""
    ODD_REFUSAL = "odd_refusal"
    """400 that names nothing."""
    ABORTED = "aborted"
    """200 whose choices the engine gave up."""
    WRAPPED_ERROR = "wrapped_error"
    """200 that holds an error object."""


Writer = Callable[[str, int], str]


def default_text(prompt: str, seed: int) -> str:
    """Write a solution in steps that depends on prompt and seed only."""
    rng = random.Random(f"{seed}|{prompt}")
    steps = [f"Step {i}: we find {rng.randrange(100)}." for i in range(1, rng.randrange(2, 5))]
    return "\n\n".join([*steps, f"The answer is \\boxed{{{rng.randrange(10)}}}."])


class FaultServer:
    """Async context manager. `url` ends in `/v1`; `stop` and `start` take it down and up on the same port.

    latency_s: seconds a reply takes, or a function of a seeded generator. slots: requests served at a time,
    the others queue. reject_above: 429 while more requests than that are under way. child_seeds: whether child j
    draws with seed + j. refuses: fields answered with a 400 that names them. ignores: fields without effect
    (return_token_ids, logprobs, top_k). max_model_len: in characters of the prompt. choose: fault by prompt,
    before script and rates. reports_load: say how many requests wait for a slot, as vLLM does.
    """

    def __init__(
        self,
        *,
        model: str = "stub",
        script: Iterable[Fault] = (),
        rates: Mapping[Fault, float] | None = None,
        choose: Callable[[str], Fault | None] | None = None,
        seed: int = 0,
        latency_s: float | Callable[[random.Random], float] = 0.0,
        text: Writer = default_text,
        retry_after: str = "0",
        slots: int | None = None,
        reject_above: int | None = None,
        api_key: str | None = None,
        max_model_len: int = 1 << 20,
        child_seeds: bool = True,
        refuses: Iterable[str] = (),
        ignores: Iterable[str] = (),
        huge_bytes: int = 10 << 20,
        keepalive_s: float = 75.0,
        reports_load: bool = False,
    ) -> None:
        self.model = model
        self.script = list(script)
        self.rates = dict(rates or {})
        self.choose = choose
        self.latency_s = latency_s
        self.text = text
        self.retry_after = retry_after
        self.reject_above = reject_above
        self.api_key = api_key
        self.max_model_len = max_model_len
        self.child_seeds = child_seeds
        self.refuses = frozenset(refuses)
        self.ignores = frozenset(ignores)
        self.huge_bytes = huge_bytes
        self.reports_load = reports_load
        self.requests = 0
        """POST requests that arrived."""
        self.probes = 0
        """GET requests that arrived."""
        self.faults: Counter[Fault] = Counter()
        self.served: Counter[tuple[str, int]] = Counter()
        """Samples handed out in good replies, by (prompt, seed)."""
        self.tokens: Counter[int] = Counter()
        """Completion tokens handed out in good replies, by seed."""
        self.payloads: list[dict[str, Any]] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self.cancelled = 0
        """Requests whose client went away."""
        self._rng = random.Random(seed)
        self._slot_count = slots or 1 << 20
        self._slots = asyncio.Semaphore(slots) if slots else None
        self._keepalive_s = keepalive_s
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def root(self) -> str:
        """URL without `/v1`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Base URL for an endpoint."""
        return f"{self.root}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; on the port of the last time, if there was one."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/completions", self._on_post)
        app.router.add_post("/v1/chat/completions", self._on_post)
        app.router.add_get("/v1/models", self._on_models)
        app.router.add_get("/version", self._on_version)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=0.05,
            keepalive_timeout=self._keepalive_s,
            access_log=None,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _on_models(self, _: web.Request) -> web.Response:
        self.probes += 1
        entry = {"id": self.model, "object": "model", "max_model_len": self.max_model_len}
        return web.json_response({"object": "list", "data": [entry]})

    async def _on_version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.0-fault"})

    async def _on_post(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        payload = json.loads(await request.read())
        self.payloads.append(payload)
        try:
            async with self._under_way():
                return await self._answer(request, payload)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[None]:
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        prompt = _prompt_of(payload)
        fault = self._fault_for(prompt)
        refusal = self._refusal(request, payload, prompt)
        if fault is Fault.NONE and refusal is not None:
            return refusal
        self.faults[fault] += fault is not Fault.NONE
        if fault in _STATUS:
            return self._error(fault, request)
        if self._slots is None:
            await self._wait()
        else:
            async with self._slots:
                await self._wait()
        return await self._misbehave(fault, request, payload, prompt)

    def _fault_for(self, prompt: str) -> Fault:
        chosen = self.choose(prompt) if self.choose else None
        if chosen is not None:
            return chosen
        if self.script:
            return self.script.pop(0)
        if self.reject_above is not None and self.in_flight > self.reject_above:
            return Fault.RATE_LIMIT
        point = self._rng.random()
        for fault, rate in self.rates.items():
            point -= rate
            if point < 0:
                return fault
        return Fault.NONE

    def _refusal(self, request: web.Request, payload: dict[str, Any], prompt: str) -> web.Response | None:
        """What a sound server refuses."""
        if self.api_key is not None and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self._error(Fault.UNAUTHORIZED, request)
        if payload["model"] != self.model:
            return self._error(Fault.UNKNOWN_MODEL, request)
        if len(prompt) > self.max_model_len:
            return self._error(Fault.OVERFLOW, request)
        for field in sorted(self.refuses & payload.keys()):
            message = f"Unrecognized request argument supplied: {field}"
            return web.json_response(_error_body(message, "invalid_request_error", field, None), status=400)
        return None

    async def _wait(self) -> None:
        latency = self.latency_s if isinstance(self.latency_s, float | int) else self.latency_s(self._rng)
        if latency > 0:
            await asyncio.sleep(latency)

    def _error(self, fault: Fault, request: web.Request) -> web.Response:
        status, message, code = _STATUS[fault]
        headers = {"Retry-After": self.retry_after} if fault is Fault.RATE_LIMIT else {}
        if fault is Fault.UNAVAILABLE:
            page = f"<html><head><title>{message}</title></head><body><h1>{message}</h1></body></html>"
            return web.Response(status=status, text=page, content_type="text/html")
        if fault is Fault.UNAUTHORIZED:
            message = f"{message}: {request.headers.get('Authorization')}"
        param = "temperature" if fault is Fault.BAD_PARAMETER else None
        return web.json_response(
            _error_body(message, fault.value, param, code), status=status, headers=headers
        )

    async def _misbehave(
        self, fault: Fault, request: web.Request, payload: dict[str, Any], prompt: str
    ) -> web.StreamResponse:
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault is Fault.DISCONNECT:
            return _hang_up(request)
        if fault is Fault.HTML:
            return web.Response(
                text="<html><title>Welcome to nginx!</title></html>", content_type="text/html"
            )
        reply = self._reply(payload, prompt)
        _spoil(reply, fault)
        body = json.dumps(reply).encode()
        if fault is Fault.TRUNCATED_JSON:
            body = body[: len(body) // 2]
        if fault is Fault.HUGE_BODY:
            body += b" " * self.huge_bytes
        if fault in _GOOD:
            self._count(payload, prompt, reply)
        if fault in (Fault.SLOW, Fault.DRIP, Fault.RESET):
            return await _send_in_pieces(fault, request, body)
        return web.Response(body=body, content_type="application/json", headers=self._load_report(request))

    def _load_report(self, request: web.Request) -> dict[str, str]:
        if not (self.reports_load and request.headers.get("endpoint-load-metrics-format") == "JSON"):
            return {}
        waiting = max(0, self.in_flight - 1 - self._slot_count)  # this one has had its slot
        metrics = {"num_requests_waiting": float(waiting), "kv_cache_usage_perc": 0.5}
        return {"endpoint-load-metrics": f"JSON {json.dumps({'named_metrics': metrics})}"}

    def _count(self, payload: dict[str, Any], prompt: str, reply: dict[str, Any]) -> None:
        for choice in reply["choices"]:
            seed = payload["seed"] + choice["index"]
            self.served[prompt, seed] += 1
            self.tokens[seed] += choice["n_tokens"]

    def _reply(self, payload: dict[str, Any], prompt: str) -> dict[str, Any]:
        choices = [self._choice(payload, prompt, index) for index in range(payload.get("n", 1))]
        generated = sum(choice["n_tokens"] for choice in choices)
        read = len(prompt) // 4
        usage = {"prompt_tokens": read, "completion_tokens": generated, "total_tokens": read + generated}
        return {"id": "stub", "model": self.model, "choices": choices, "usage": usage}

    def _choice(self, payload: dict[str, Any], prompt: str, index: int) -> dict[str, Any]:
        is_greedy = payload.get("temperature") == 0 or (
            "top_k" not in self.ignores and payload.get("top_k") == 1
        )
        offset = index if self.child_seeds else index * 7919
        words = self.text(prompt, 0 if is_greedy else payload["seed"] + offset).split(" ")
        kept = words[: payload["max_tokens"]]
        reason = "stop" if len(kept) == len(words) else "length"
        text = " ".join(kept)
        is_chat = "messages" in payload
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "stop_reason": None}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        choice["n_tokens"] = len(kept)  # no server sends this; it is for our own counts
        if payload.get("return_token_ids") and "return_token_ids" not in self.ignores:
            choice["token_ids"] = list(range(len(kept)))
        if "logprobs" in payload and "logprobs" not in self.ignores:
            values = [-0.5] * len(kept)
            choice["logprobs"] = (
                {"content": [{"token": "x", "logprob": value} for value in values]}
                if is_chat
                else {"token_logprobs": values}
            )
        return choice


_STATUS = {
    Fault.RATE_LIMIT: (429, "Rate limit reached", "rate_limit_exceeded"),
    Fault.RATE_LIMIT_SILENT: (429, "Rate limit reached", "rate_limit_exceeded"),
    Fault.SERVER_ERROR: (500, "Internal server error", None),
    Fault.UNAVAILABLE: (503, "503 Service Temporarily Unavailable", None),
    Fault.UNAUTHORIZED: (401, "Incorrect API key provided", "invalid_api_key"),
    Fault.UNKNOWN_MODEL: (404, "The model `nope` does not exist.", "model_not_found"),
    Fault.OVERFLOW: (400, "This model's maximum context length is 512 tokens.", "context_length_exceeded"),
    Fault.CONTENT_FILTER: (400, "The response was filtered", "content_filter"),
    Fault.BAD_PARAMETER: (400, "temperature must be non-negative", None),
    Fault.ODD_REFUSAL: (400, "We do not like this one.", None),
}
_GOOD = frozenset(
    {Fault.NONE, Fault.SLOW, Fault.SHUFFLED, Fault.NAN_LOGPROBS, Fault.NO_LOGPROBS, Fault.ODD_TEXT}
)


def _error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _prompt_of(payload: dict[str, Any]) -> str:
    if "prompt" in payload:
        return str(payload["prompt"])
    return "\n".join(message["content"] for message in payload["messages"])


def _hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def _send_in_pieces(fault: Fault, request: web.Request, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(body))}
    )
    await response.prepare(request)
    piece = max(1, len(body) // 20)
    if fault is Fault.DRIP:
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)
    for start in range(0, len(body), piece):
        await response.write(body[start : start + piece])
        await asyncio.sleep(0.002)
        if fault is Fault.RESET and start > len(body) // 2:
            request.transport.abort()
            break
    return response


def _spoil(reply: dict[str, Any], fault: Fault) -> None:
    """Damage a good reply."""
    choices = reply["choices"]
    if fault is Fault.WRAPPED_ERROR:
        reply.clear()
        reply.update(_error_body("upstream is overloaded", "overloaded", None, None))
    elif fault is Fault.EMPTY_CHOICES:
        choices.clear()
    elif fault is Fault.SHUFFLED:
        choices.reverse()
    elif fault in (Fault.WRONG_N, Fault.DOUBLED_INDEX) and len(choices) == 1:
        choices.append(dict(choices[0]))
    elif fault is Fault.WRONG_N:
        choices.pop()
    for choice in choices:
        choice.update(_damage(fault, is_chat="message" in choice))


def _damage(fault: Fault, is_chat: bool) -> dict[str, Any]:
    """What to overwrite in every choice."""
    odd, nan = "a\x00b\ud800c", float("nan")
    damages: dict[Fault, dict[str, Any]] = {
        Fault.DOUBLED_INDEX: {"index": 0},
        Fault.NO_TEXT: {"message": {}} if is_chat else {"text": None},
        Fault.ODD_TEXT: {"message": {"content": odd}} if is_chat else {"text": odd},
        Fault.NAN_LOGPROBS: {
            "logprobs": {"content": [{"logprob": nan}]} if is_chat else {"token_logprobs": [nan]}
        },
        Fault.NO_LOGPROBS: {"logprobs": None},
        Fault.ABORTED: {"finish_reason": "abort"},
    }
    return damages.get(fault, {})
