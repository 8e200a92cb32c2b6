"""The HTTP face of the engine: an aiohttp application with vLLM's routes.

A client that closes its connection cancels its handler, and with it the samples it waits for; that needs
`handler_cancellation=True`, which `serve.py` sets. Knows HTTP; what is valid and what replies look like is
decided in `protocol.py` and `replies.py`, for scores in `score_requests.py` and `score_replies.py`.

A reward model has the routes that vLLM gives one: /pooling, and for one number a text /classify and /score. Unlike
vLLM it keeps the routes of a policy too: it is one process, and reading the labels' log-probabilities of a
completion is another way to the same scores.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from workers.embedded import protocol, replies, score_replies, score_requests
from workers.embedded.batch import Generation, Request
from workers.embedded.card import Card
from workers.embedded.engine import Engine, EngineError
from workers.embedded.protocol import Parsed, RequestError
from workers.embedded.replies import Heading
from workers.embedded.reward import Reward, Role
from workers.embedded.scores import Scoring
from workers.load import ASK_HEADER, ASK_VALUE, HEADER

MAX_BODY_BYTES = 16 * 1024 * 1024
OPEN_PATHS = frozenset({"/health", "/version", "/metrics"})  # what probes and scrapers read needs no key
SEED_BITS = 62  # leaves room for seed + j below 2^63

Parse = Callable[[Any, Card, protocol.Draw], Parsed]
Build = Callable[[Heading, Parsed, Sequence[Generation], Card], dict[str, Any]]
ParseTexts = Callable[[Any, Card, Reward], score_requests.Parsed]
BuildScores = Callable[[Heading, score_requests.Parsed, Scoring, Card, Reward], dict[str, Any]]


def create_app(
    engine: Engine, *, api_key: str | None = None, max_body_bytes: int = MAX_BODY_BYTES
) -> web.Application:
    """Make the application around a running engine; `api_key` is the bearer token requests must carry."""
    server = Server(engine)
    middlewares = [_errors, _authentication(api_key), _load_report(engine)]
    app = web.Application(client_max_size=max_body_bytes, middlewares=middlewares)
    app.add_routes(
        [
            web.post("/v1/completions", server.completions),
            web.post("/v1/chat/completions", server.chat),
            web.get("/v1/models", server.models),
            web.post("/tokenize", server.tokenize),
            web.post("/detokenize", server.detokenize),
            web.post("/generative_scoring", server.generative_scoring),
            web.get("/health", server.health),
            web.get("/version", server.version),
            web.get("/metrics", server.metrics),
        ]
    )
    if engine.card.reward is not None:
        app.add_routes(RewardServer(engine, engine.card.reward).routes())
    return app


class Server:
    """The handlers, around one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._card = engine.card
        self._started = int(time.time())

    async def completions(self, request: web.Request) -> web.Response:
        """Serve /v1/completions."""
        return await self._generate(request, "cmpl", protocol.parse_completion, replies.completion)

    async def chat(self, request: web.Request) -> web.Response:
        """Serve /v1/chat/completions."""
        return await self._generate(request, "chatcmpl", protocol.parse_chat, replies.chat)

    async def models(self, request: web.Request) -> web.Response:
        """Serve /v1/models."""
        return _json(replies.models(self._card, self._started))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Serve /tokenize."""
        return _json(protocol.parse_tokenize(await _body(request), self._card))

    async def detokenize(self, request: web.Request) -> web.Response:
        """Serve /detokenize."""
        return _json(protocol.parse_detokenize(await _body(request), self._card))

    async def generative_scoring(self, request: web.Request) -> web.Response:
        """Serve /generative_scoring."""
        labelled = score_requests.parse_generative_scoring(await _body(request), self._card)
        generations = await self._draw(labelled.requests)
        heading = _heading("generative-scoring")
        return _json(score_replies.generative_scoring(heading, labelled, generations, self._card))

    async def health(self, request: web.Request) -> web.Response:
        """Serve /health: 200 while samples can be made, 503 afterwards."""
        return web.Response(status=503 if self._engine.failed.is_set() else 200)

    async def version(self, request: web.Request) -> web.Response:
        """Serve /version."""
        return _json({"version": version("ttc")})

    async def metrics(self, request: web.Request) -> web.Response:
        """Serve /metrics."""
        engine = self._engine
        text = replies.metrics(engine.counters, engine.running, engine.waiting, self._card.name)
        return web.Response(text=text, content_type="text/plain")

    async def _generate(self, request: web.Request, prefix: str, parse: Parse, build: Build) -> web.Response:
        parsed = parse(await _body(request), self._card, _fresh_seed)
        generations = await self._draw(parsed.requests)
        return _json(build(_heading(prefix), parsed, generations, self._card))

    async def _draw(self, requests: Sequence[Request]) -> list[Generation]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._engine.generate(request)) for request in requests]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]


class RewardServer:
    """The handlers that only a reward model has."""

    def __init__(self, engine: Engine, reward: Reward) -> None:
        self._engine, self._card, self._reward = engine, engine.card, reward

    def routes(self) -> list[web.RouteDef]:
        """List what vLLM serves for such a model."""
        routes = [web.post("/pooling", self.pooling)]
        if self._reward.role is Role.ORM:
            routes += [web.post("/classify", self.classify)]
            routes += [web.post(path, self.score) for path in ("/score", "/v1/score")]
        return routes

    async def pooling(self, request: web.Request) -> web.Response:
        """Serve /pooling."""
        parsed, scoring = await self._scored(request, score_requests.parse_pooling)
        reply = _heading("pooling"), parsed, scoring, self._card, self._reward
        if not parsed.encoding.format.startswith("bytes"):
            return _json(score_replies.pooling(*reply))
        body, headers = score_replies.pooling_bytes(*reply)
        return web.Response(body=body, headers=headers, content_type="application/octet-stream")

    async def classify(self, request: web.Request) -> web.Response:
        """Serve /classify."""
        return await self._answered(
            request, "classify", score_requests.parse_classify, score_replies.classify
        )

    async def score(self, request: web.Request) -> web.Response:
        """Serve /score."""
        return await self._answered(request, "score", score_requests.parse_score, score_replies.score)

    async def _answered(
        self, request: web.Request, prefix: str, parse: ParseTexts, build: BuildScores
    ) -> web.Response:
        parsed, scoring = await self._scored(request, parse)
        return _json(build(_heading(prefix), parsed, scoring, self._card, self._reward))

    async def _scored(self, request: web.Request, parse: ParseTexts) -> tuple[score_requests.Parsed, Scoring]:
        parsed = parse(await _body(request), self._card, self._reward)
        return parsed, await self._engine.score(parsed.texts)


def _heading(prefix: str) -> Heading:
    return Heading(f"{prefix}-{secrets.token_hex(8)}", int(time.time()))


def _fresh_seed() -> int:
    return secrets.randbits(SEED_BITS)


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error}", kind="Bad Request") from None


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every failure the body that OpenAI clients expect."""
    try:
        return await handler(request)
    except RequestError as error:
        return _json(error.body, error.status)
    except web.HTTPException as error:
        failure = RequestError(error.reason, status=error.status, kind=type(error).__name__)
        # vLLM says no more than `detail` of a path that it does not have
        return _json({**failure.body, "detail": error.reason}, error.status)
    except EngineError as error:
        return _json(_failure(error).body, 500)
    except Exception as error:  # a fault of ours: the client still gets a body it can read
        logging.getLogger(__name__).exception("a handler failed")
        return _json(_failure(error).body, 500)


def _failure(error: Exception) -> RequestError:
    return RequestError(f"{type(error).__name__}: {error}", status=500, kind="InternalServerError")


def _authentication(api_key: str | None) -> Middleware:
    """Make the middleware that asks for the key, if there is one."""
    wanted = f"Bearer {api_key}".encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if api_key is None or request.path in OPEN_PATHS or hmac.compare_digest(given, wanted):
            return await handler(request)
        raise RequestError("Unauthorized", status=401, kind="AuthenticationError")

    return authenticate


def _load_report(engine: Engine) -> Middleware:
    """Make the middleware that says how long the queue is, to whoever asks as vLLM is asked."""

    @web.middleware
    async def report(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if request.headers.get(ASK_HEADER) == ASK_VALUE:
            response.headers[HEADER] = replies.load_report(engine.waiting)
        return response

    return report
