"""A server of fixed capacity, a policy's or a reward model's, that only waits, writes, and measures how busy it was.

It shares the cores with what is measured, so it is a bare asyncio protocol: some 80 microseconds a request,
most of them in the kernel. It parses only as much HTTP as clients of model servers send, one request at a
time on a connection; never face it to a network. A request whose client has gone is served to its end, as on
a server that does not notice.

`python -m benchmarks.stub --port 0` prints one line of JSON with its URL, and ends when its standard input
closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from benchmarks.draws import (
    CHARACTERS_A_TOKEN,
    SEPARATOR,
    STEP_TOKENS,
    ServiceTimes,
    Wants,
    Writer,
    hash_of,
    mixed,
    scored,
)
from benchmarks.slots import Slots
from workers.rewards.qwen import TAG

MODEL = "stub"
MAX_MODEL_LEN = 32_768
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CLOSE = re.compile(rb"(?i)\r\nconnection: *close")


@dataclass(frozen=True, slots=True)
class StubSettings:
    """How fast, how many at once, how long the texts."""

    slots: int = 256
    mean_s: float = 0.2
    sigma: float = 0.0
    """Of the logarithm of the service time; 0: constant."""
    unit: str = "request"
    """What takes a slot: a `request`, or each `sequence` of it as on a real engine."""
    text_characters: int = 300
    is_verbose: bool = False
    probe_tokens: int = 64
    """A request for fewer tokens is a client's look at the server: answered at once, beside the slots, uncounted."""


@dataclass(slots=True)
class Counts:
    """What was served since the last reset."""

    requests: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    prompt_hash: int
    prompt_tokens: int
    seed: int
    count: int
    wants: Wants
    is_probe: bool
    problem_hash: int
    depth: int | None
    """Steps that the prompt holds already, where one more is asked for; None: whole solutions are."""


class Stub:
    """The model behind the connections."""

    def __init__(self, settings: StubSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._slots = Slots(settings.slots)
        self._times = ServiceTimes(settings.mean_s, settings.sigma)
        self._writer = Writer(settings.text_characters, is_verbose=settings.is_verbose)
        self._in_flight = 0
        self.counts = Counts()

    def reset(self) -> None:
        """Start counting anew."""
        self._slots.reset()
        self.counts = Counts()

    def accept(self, body: dict[str, Any]) -> tuple[_Request, float]:
        """Take a request: what it asks for, and when it will have been served."""
        prompt = body["prompt"]
        max_tokens = int(body.get("max_tokens") or 16)
        request = _Request(
            hash_of(prompt),
            max(1, len(prompt) // CHARACTERS_A_TOKEN),
            int(body.get("seed") or 0),
            int(body.get("n") or 1),
            Wants(max_tokens, bool(body.get("return_token_ids")), body.get("logprobs") is not None),
            max_tokens < self._settings.probe_tokens,
            hash_of(prompt[: prompt.find(SEPARATOR) + len(SEPARATOR)]),
            prompt.count(SEPARATOR) - 1 if SEPARATOR in (body.get("stop") or ()) else None,
        )
        now = self._clock()
        if request.is_probe:
            return request, now
        self._in_flight += 1
        sequences = request.count if self._settings.unit == "sequence" else 1
        bits = [mixed(request.prompt_hash, request.seed + j) for j in range(sequences)]
        return request, max(self._slots.serve(now, self._times.of(each)) for each in bits)

    def reply(self, request: _Request) -> bytes:
        """Body of the reply: choice j is the draw of seed + j."""
        choices = b",".join(self._choice(request, j) for j in range(request.count))
        tokens = self._writer.count(request.wants) if request.depth is None else STEP_TOKENS
        completion_tokens = request.count * tokens
        if not request.is_probe:
            self._in_flight -= 1
            self._count(request, completion_tokens)
        return (
            b'{"id":"cmpl-%x","object":"text_completion","created":1700000000,"model":"stub","choices":[%b],'
            b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
        ) % (
            request.seed,
            choices,
            request.prompt_tokens,
            completion_tokens,
            request.prompt_tokens + completion_tokens,
        )

    def score(self, body: dict[str, Any]) -> tuple[bytes, float]:
        """Take a request for the scores of texts, as a Qwen PRM gives them: the reply, and when it is to be sent."""
        texts = body["input"]
        rows = b",".join(
            b'{"index":%d,"object":"pooling","data":%b}' % (index, scored(text, TAG))
            for index, text in enumerate(texts)
        )
        tokens = sum(max(1, len(text) // CHARACTERS_A_TOKEN) for text in texts)
        self.counts.requests += 1
        self.counts.samples += len(texts)
        self.counts.prompt_tokens += tokens
        reply = b'{"object":"list","model":"stub","data":[%b],"usage":{"prompt_tokens":%d}}' % (rows, tokens)
        return reply, self._slots.serve(self._clock(), self._times.of(mixed(hash_of(texts[0]), len(texts))))

    def _choice(self, request: _Request, index: int) -> bytes:
        seed = request.seed + index
        bits = mixed(request.prompt_hash, seed)
        if request.depth is None:
            return self._writer.choice(index, request.prompt_hash, seed, bits, request.wants)
        return self._writer.step(index, request.problem_hash, request.depth, seed, bits, request.wants)

    def stats(self) -> dict[str, Any]:
        """What `GET /stub/stats` tells; times of day are seconds since 1970-01-01 UTC."""
        slots = self._slots
        to_unix = time.time() - self._clock()
        return {
            "slots": slots.count,
            "requests": self.counts.requests,
            "samples": self.counts.samples,
            "prompt_tokens": self.counts.prompt_tokens,
            "completion_tokens": self.counts.completion_tokens,
            "connections": self.counts.connections,
            "in_flight": self._in_flight,
            "busy_slot_s": slots.busy_s,
            "waited_s": slots.waited_s,
            "first_start": None if slots.first_start is None else slots.first_start + to_unix,
            "last_end": None if slots.last_end is None else slots.last_end + to_unix,
            "utilisation": slots.utilisation,
            "steady_utilisation": slots.steady_utilisation(),
            "cpu_s": time.process_time(),
        }

    def metrics(self) -> bytes:
        """The gauges and counters of vLLM that say how full a server is."""
        running = min(self._in_flight, self._slots.count)
        return (
            f"vllm:num_requests_running {running}\n"
            f"vllm:num_requests_waiting {self._in_flight - running}\n"
            f"vllm:prompt_tokens_total {self.counts.prompt_tokens}\n"
            f"vllm:generation_tokens_total {self.counts.completion_tokens}\n"
        ).encode()

    def _count(self, request: _Request, completion_tokens: int) -> None:
        counts = self.counts
        counts.requests += 1
        counts.samples += request.count
        counts.prompt_tokens += request.prompt_tokens
        counts.completion_tokens += completion_tokens


class StubProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, stub: Stub, loop: asyncio.AbstractEventLoop) -> None:
        self._stub = stub
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._stub.counts.connections += 1

    def data_received(self, data: bytes) -> None:
        """Handle every complete request in what has come so far."""
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            match = _LENGTH.search(head)
            size = int(match.group(1)) if match else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            self._handle(head, body)

    _PAGES: ClassVar[dict[bytes, Callable[[Stub], bytes]]] = {
        b"/health": lambda _: b"",
        b"/version": lambda _: b'{"version":"0.32.0"}',
        b"/v1/models": lambda _: orjson.dumps(
            {
                "object": "list",
                "data": [{"id": MODEL, "object": "model", "owned_by": MODEL, "max_model_len": MAX_MODEL_LEN}],
            }
        ),
        b"/metrics": Stub.metrics,
        b"/stub/stats": lambda stub: orjson.dumps(stub.stats()),
    }

    def _handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        closes = _CLOSE.search(head) is not None
        page = self._PAGES.get(path)
        if method == b"POST" and path == b"/v1/completions":
            self._draw(body, closes)
        elif method == b"POST" and path == b"/pooling":
            self._score(body, closes)
        elif method == b"GET" and page is not None:
            self._send(b"200 OK", page(self._stub), closes)
        elif method == b"POST" and path == b"/stub/reset":
            self._stub.reset()
            self._send(b"200 OK", b"{}", closes)
        else:
            self._send(b"404 Not Found", b'{"error":{"message":"no such page","code":404}}', closes)

    def _draw(self, body: bytes, closes: bool) -> None:
        try:
            request, end = self._stub.accept(orjson.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._send(
                b"400 Bad Request", b'{"error":{"message":"not a completion request","code":400}}', closes
            )
            return
        self._loop.call_at(end, self._finish, request, closes)

    def _score(self, body: bytes, closes: bool) -> None:
        try:
            reply, end = self._stub.score(orjson.loads(body))
        except (LookupError, ValueError, TypeError, AttributeError):
            self._send(
                b"400 Bad Request", b'{"error":{"message":"not a pooling request","code":400}}', closes
            )
            return
        self._loop.call_at(end, self._send, b"200 OK", reply, closes)

    def _finish(self, request: _Request, closes: bool) -> None:
        self._send(b"200 OK", self._stub.reply(request), closes)

    def _send(self, status: bytes, body: bytes, closes: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )
        if closes:
            transport.close()


async def serve(settings: StubSettings, port: int = 0) -> tuple[asyncio.Server, str]:
    """Serve on the loopback interface; the server, and its base URL up to and including `/v1`."""
    loop = asyncio.get_running_loop()
    stub = Stub(settings, loop.time)
    server = await loop.create_server(lambda: StubProtocol(stub, loop), "127.0.0.1", port, backlog=4096)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def _main(settings: StubSettings, port: int) -> None:
    loop = asyncio.get_running_loop()
    server, url = await serve(settings, port)
    print(json.dumps({"url": url, "pid": os.getpid(), "slots": settings.slots}), flush=True)
    is_over = asyncio.Event()

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            is_over.set()

    with contextlib.suppress(PermissionError):  # a file or /dev/null cannot be waited for: run until a signal
        loop.add_reader(sys.stdin.fileno(), on_input)
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be a pause in what is measured
    async with server:
        await is_over.wait()


def _settings() -> tuple[StubSettings, int]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--mean", type=float, default=0.2, help="mean service time, seconds")
    parser.add_argument("--sigma", type=float, default=0.0, help="of its logarithm; 0: constant")
    parser.add_argument(
        "--unit", choices=("request", "sequence"), default="request", help="what takes a slot"
    )
    parser.add_argument("--text-characters", type=int, default=300)
    parser.add_argument(
        "--verbose-logprobs", action="store_true", help="log probabilities with all of vLLM's fields"
    )
    a = parser.parse_args()
    return StubSettings(a.slots, a.mean, a.sigma, a.unit, a.text_characters, a.verbose_logprobs), a.port


if __name__ == "__main__":
    asyncio.run(_main(*_settings()))
