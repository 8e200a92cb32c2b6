"""Replays recorded exchanges over real HTTP: a request that means what was recorded gets the recorded reply.

Two requests mean the same if they differ only in what states vLLM's defaults, and in one input written as a list of
one. What was not recorded is answered with 599 and kept in `strangers`. `/tokenize` knows the recorded tokenizer as
far as the texts of the recordings show it. For tests only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.loopback import Loopback

TAG, NEWLINE, PLUS, MINUS = 7, 9, 24, 26
_UNKNOWN = 3
_DEFAULTS = {
    "encoding_format": "float",
    "use_activation": True,
    "task": "token_classify",
    "apply_softmax": True,
    "return_tokens_as_token_ids": True,  # changes how tokens are named, and nothing else
}


def transcripts(folder: str) -> dict[str, dict[str, Any]]:
    """The recorded exchanges by name."""
    lines = (Path(folder) / "wire" / "vllm_0.32.0_transcripts.jsonl").read_bytes().splitlines()
    return {row["name"]: row for row in map(orjson.loads, lines)}


def meaning(path: str, payload: dict[str, Any]) -> str:
    """A request without what says nothing, as a key."""
    kept = {key: value for key, value in payload.items() if _DEFAULTS.get(key, ...) != value}
    inputs = kept.get("input")
    if isinstance(inputs, str) or (isinstance(inputs, list) and inputs and isinstance(inputs[0], int)):
        kept["input"] = [inputs]
    if not any(isinstance(each, str) for each in kept.get("input", kept.get("items", []))):
        kept.pop("add_special_tokens", None)  # ids are taken as they are
    return json.dumps([path, kept], sort_keys=True)


class ReplayServer(Loopback):
    """Async context manager over exchanges, by name; `url` ends in `/v1`."""

    def __init__(self, recorded: dict[str, dict[str, Any]], *names: str) -> None:
        super().__init__()
        self.strangers: list[dict[str, Any]] = []
        self.served: list[str] = []
        self._replies = {
            meaning(recorded[n]["path"], recorded[n]["request"] or {}): recorded[n] for n in names
        }
        reference = recorded["shepherd_step_classify"]["reference"]
        self._ids = _alphabet(reference["text"], reference["ids"])

    def app(self) -> web.Application:
        """Routes and handlers."""
        app = web.Application()
        app.router.add_post("/tokenize", self._on_tokenize)
        app.router.add_route("*", "/{path:.*}", self._on_request)
        return app

    async def _on_request(self, request: web.Request) -> web.Response:
        body = await request.read()
        payload = json.loads(body) if body else {}
        found = self._replies.get(meaning(request.path, payload))
        if found is None:
            self.strangers.append({"path": request.path, **payload})
            return web.Response(status=599, text="not recorded")
        self.served.append(found["name"])
        return web.json_response(found["response"], status=found["status"])

    async def _on_tokenize(self, request: web.Request) -> web.Response:
        text = json.loads(await request.read())["prompt"]
        ids, at = [], 0
        while at < len(text):
            token = "ки" if text.startswith("ки", at) else text[at]
            ids.append(self._ids.get(token, _UNKNOWN))
            at += len(token)
        return web.json_response({"count": len(ids), "max_model_len": 512, "tokens": ids, "token_strs": None})


def _alphabet(text: str, ids: list[int]) -> dict[str, int]:
    tokens = [each for part in text.replace("ки", "\0").split("\0") for each in (*part, "ки")][:-1]
    known = dict(zip(tokens, ids, strict=True))
    return known | {"ки": TAG, "\n": NEWLINE, "+": PLUS, "-": MINUS}
