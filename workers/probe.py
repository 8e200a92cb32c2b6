"""What a model server can do, found out by asking: a few short generations before a sweep relies on it.

A 200 proves nothing, since servers ignore fields they do not know: what counts is the effect in the reply.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from workers.errors import Rejected
from workers.http import exchange, parse_json, read_api_key
from workers.rejections import failure_of
from workers.server_pages import ServerPages
from workers.types import GeneratorSettings, Sampling
from workers.wire import (
    PATHS,
    Capabilities,
    Reading,
    body_bound,
    build_payload,
    deadline_s,
    prompt_chars,
    read_reply,
    refused_field,
    without,
)

PROBLEM = "What is 12 + 30?"
SEED = 4242
MAX_TOKENS = 24


async def probe(session: aiohttp.ClientSession, url: str, generator: GeneratorSettings) -> Capabilities:
    """Try the server at base URL `url` (up to and including `/v1`) with short draws of this generator.

    Raises an `EndpointError` if it cannot draw at all: `Misconfigured` for key, path, model or parameters.
    """
    return await _Probe(session, url.rstrip("/"), generator).run()


class _Probe:
    def __init__(self, session: aiohttp.ClientSession, url: str, generator: GeneratorSettings) -> None:
        self._session = session
        self._url = url
        self._generator = replace(generator, sampling=_sampling(top_k=-1))
        self._api_key = read_api_key(generator.endpoint.api_key_env)
        self._pages = ServerPages(session, url, self._api_key)
        self._asked = Capabilities()

    async def run(self) -> Capabilities:
        models = await self._pages.models()
        model = self._generator.model
        pair, again = await self._draw(SEED, 2), await self._draw(SEED, 2)
        child, child_again = await self._draw(SEED + 1, 1), await self._draw(SEED + 1, 1)
        texts = [sample.text for sample in pair.samples]
        return Capabilities(
            child_seeds=texts[1] == child.samples[0].text,
            deterministic=_texts(pair) == _texts(again) and _texts(child) == _texts(child_again),
            token_ids=self._asked.token_ids and pair.samples[0].completion_tokens is not None,
            logprobs=self._asked.logprobs and pair.bad_logprobs == 0,
            top_k=await self._honours_top_k(),
            model_is_listed=None if models is None else model in models,
            max_model_len=(models or {}).get(model),
            server_version=await self._pages.version(),
            notes=_notes(texts),
        )

    async def _draw(self, seed: int, count: int, top_k: int = -1) -> Reading:
        """Draw once; an optional field that is refused is given up for good."""
        generator = replace(self._generator, sampling=_sampling(top_k))
        while True:
            payload = build_payload(generator, PROBLEM, seed=seed, count=count, capabilities=self._asked)
            try:
                return read_reply(await self._post(payload), payload, generator.api)
            except Rejected as error:
                field = refused_field(payload, str(error))
                if field is None:
                    raise
                self._asked = without(self._asked, field)

    async def _post(self, payload: dict[str, Any]) -> Any:
        reply = await exchange(
            self._session,
            "POST",
            self._url + PATHS[self._generator.api],
            api_key=self._api_key,
            body=orjson.dumps(payload),
            deadline_s=deadline_s(self._generator.endpoint, self._generator.sampling),
            max_bytes=body_bound(payload, prompt_chars(payload)),
        )
        if reply.status != 200:
            raise failure_of(
                reply.status, reply.body, sent=payload.keys(), max_tokens=self._generator.sampling.max_tokens
            )
        return parse_json(reply.body, self._api_key)

    async def _honours_top_k(self) -> bool:
        """With top_k = 1 two seeds must give one text; a server that ignores it gives two."""
        try:
            first, second = await self._draw(SEED, 1, top_k=1), await self._draw(SEED + 1, 1, top_k=1)
        except Rejected:
            return False
        return _texts(first) == _texts(second)


def _sampling(top_k: int) -> Sampling:
    return Sampling(temperature=1.0, top_p=1.0, top_k=top_k, max_tokens=MAX_TOKENS)


def _texts(reading: Reading) -> list[str]:
    return [sample.text for sample in reading.samples]


def _notes(texts: list[str]) -> tuple[str, ...]:
    if texts[0] != texts[1]:
        return ()
    return ("two samples of one request were equal: seeds of children cannot be told apart on this model",)
