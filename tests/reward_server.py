"""A server of reward models on loopback, with vLLM's calls, that misbehaves on order. For tests only.

Its model is a function of token ids: P(good) after a prefix is a hash of it, so that every call, and every test, can
tell what the right score is. Its tokenizer knows a few special tokens and takes every other character for one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

from aiohttp import web

from tests.loopback import Loopback

SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<extra_0>", "<|step|>", " ки", "<s>")
"""` ки` is one token with its space, as in the vocabulary of Mistral."""
ALL_CALLS = frozenset(
    {"pooling", "classify", "score", "embeddings", "completions", "generative_scoring", "tokenize"}
)


class RewardFault(StrEnum):
    """One way to misbehave. `NONE` in a script serves the request as it should be."""

    NONE = "none"
    FEWER = "fewer"
    """One score too few."""
    MORE = "more"
    EMPTY = "empty"
    """No score at all, with 200: what vLLM sends where no tag is found."""
    NAN = "nan"
    NULL = "null"
    TEXT = "text"
    TOO_BIG = "too_big"
    """1.7."""
    NEGATIVE = "negative"
    """-0.2."""
    WIDE = "wide"
    """Many values where one is wanted: another head."""
    OVERSHOOT = "overshoot"
    """1.0000001; not a failure."""
    NO_RESULTS = "no_results"
    """An empty list of results."""
    DOUBLED_INDEX = "doubled_index"
    SHUFFLED = "shuffled"
    """The results in another order; not a failure."""
    READ_LESS = "read_less"
    """The usage tells that the text was truncated."""
    NOT_A_LIST = "not_a_list"
    SERVER_ERROR = "server_error"
    RATE_LIMIT = "rate_limit"
    HTML = "html"
    TRUNCATED_JSON = "truncated_json"
    HUGE_BODY = "huge_body"
    HANG = "hang"
    DISCONNECT = "disconnect"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_MODEL = "unknown_model"
    ODD_REFUSAL = "odd_refusal"
    """400 that names nothing."""


def encode(text: str) -> list[int]:
    """Ids of a text: special tokens first, then a token a character."""
    ids, at = [], 0
    while at < len(text):
        special = next((i for i, token in enumerate(SPECIALS) if text.startswith(token, at)), None)
        ids.append(1000 + ord(text[at]) if special is None else special)
        at += 1 if special is None else len(SPECIALS[special])
    return ids


def chat_text(messages: Sequence[dict[str, str]], opens_reply: bool = False) -> str:
    """The dialogue in ChatML."""
    turns = [f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if opens_reply else "")


def probability(ids: Sequence[int]) -> float:
    """P(good) after these tokens: uniform, and different for every prefix."""
    digest = hashlib.blake2b(repr(tuple(ids)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 1) / (2**64 + 2)


def logit(value: float) -> float:
    return math.log(value / (1.0 - value))


class RewardServer(Loopback):
    """Async context manager. `url` ends in `/v1`.

    calls: what it offers; the rest is 404. pooling: where it pools, "step", "all" or "last". classes: values a row.
    is_swapped: the two classes have changed places. judge: the text of a chat reply, from the prompt and the seed.
    script: one fault a scoring request, in order of arrival; spoils: which texts of a request are hit. noise: added to
    the scores, from the number of the request and the index in it.
    """

    def __init__(
        self,
        *,
        model: str = "scorer",
        calls: Iterable[str] = ALL_CALLS,
        pooling: str = "step",
        classes: int = 1,
        tag: str = "<extra_0>",
        bos: bool = False,
        max_model_len: int = 1 << 20,
        api_key: str | None = None,
        script: Iterable[RewardFault] = (),
        always: RewardFault = RewardFault.NONE,
        spoils: Callable[[Sequence[int]], bool] = lambda ids: True,
        judge: Callable[[str, int], str] = lambda prompt, seed: "Fine. [[correct]]",
        reports_length: bool = True,
        is_swapped: bool = False,
        noise: Callable[[int, int], float] = lambda request, size: 0.0,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.model = model
        self.calls = frozenset(calls)
        self.pooling = pooling
        self.classes = classes
        self.tag_id = encode(tag)[0]
        self.bos = bos
        self.max_model_len = max_model_len
        self.api_key = api_key
        self.script = list(script)
        self.always = always
        self.spoils = spoils
        self.judge = judge
        self.reports_length = reports_length
        self.is_swapped = is_swapped
        self.noise = noise
        self.requests: Counter[str] = Counter()
        """POST requests that arrived, by call."""
        self.payloads: dict[str, list[dict[str, Any]]] = {}
        self.faults: Counter[RewardFault] = Counter()
        self.in_flight = 0

    @property
    def scoring_requests(self) -> int:
        """Requests that asked for scores."""
        return sum(count for call, count in self.requests.items() if call != "tokenize")

    def app(self) -> web.Application:
        """Routes and handlers."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._on_models)
        app.router.add_get("/version", self._on_version)
        app.router.add_post("/{path:.*}", self._on_post)
        return app

    async def _on_models(self, _: web.Request) -> web.Response:
        length = {"max_model_len": self.max_model_len} if self.reports_length else {}
        return web.json_response({"object": "list", "data": [{"id": self.model, **length}]})

    async def _on_version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.0-rewards"})

    async def _on_post(self, request: web.Request) -> web.StreamResponse:
        call = _CALLS.get(request.path)
        if call is None or (call != "chat" and call not in self.calls):
            return web.json_response({"detail": "Not Found"}, status=404)
        self.requests[call] += 1
        payload = json.loads(await request.read())
        self.payloads.setdefault(call, []).append(payload)
        self.in_flight += 1
        try:
            return await self._answer(request, call, payload)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, call: str, payload: dict[str, Any]) -> web.StreamResponse:
        refusal = self._refusal(request, payload)
        if refusal is not None:
            return refusal
        if call == "tokenize":
            return web.json_response(self.tokenized(payload))
        fault = self.script.pop(0) if self.script else self.always
        self.faults[fault] += fault is not RewardFault.NONE
        if fault in _ERRORS:
            status, message, code = _ERRORS[fault]
            body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
            return web.json_response(body, status=status)
        if fault is RewardFault.HANG:
            await asyncio.Event().wait()
        if fault is RewardFault.DISCONNECT:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fault is RewardFault.HTML:
            return web.Response(text="<html><title>Welcome</title></html>", content_type="text/html")
        return self._reply(call, payload, fault)

    def _refusal(self, request: web.Request, payload: dict[str, Any]) -> web.Response | None:
        if self.api_key is not None and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return _error(401, "Incorrect API key provided", None)
        if payload["model"] != self.model:
            return _error(404, f"The model `{payload['model']}` does not exist.", "model")
        return None

    def tokenized(self, payload: dict[str, Any]) -> dict[str, Any]:
        if "messages" in payload:
            ids = encode(chat_text(payload["messages"], payload.get("add_generation_prompt", True)))
        else:
            ids = self._ids(payload["prompt"], payload.get("add_special_tokens", True))
        length = {"max_model_len": self.max_model_len} if self.reports_length else {}
        return {"count": len(ids), "tokens": ids, "token_strs": None, **length}

    def _ids(self, text: str, special: bool = True) -> list[int]:
        return ([SPECIALS.index("<s>")] if self.bos and special else []) + encode(text)

    def _reply(self, call: str, payload: dict[str, Any], fault: RewardFault) -> web.Response:
        if call == "chat":
            return self._chat(payload)
        texts = self._texts(call, payload)
        drawn = 1 if call == "completions" else 0
        longest = max(map(len, texts))
        if longest + drawn > self.max_model_len and call != "generative_scoring":
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens. However, your prompt"
            )
            return _error(400, f"{message} contains at least {longest} input tokens.", "input_tokens")
        texts = [ids[: self.max_model_len] for ids in texts]  # /generative_scoring truncates without a word
        results = [
            self._result(call, payload, ids, i, fault if self.spoils(ids) else RewardFault.NONE)
            for i, ids in enumerate(texts)
        ]
        read = sum(map(len, texts)) - 3 * (fault is RewardFault.READ_LESS)
        return _body(_spoilt(results, fault), "choices" if call == "completions" else "data", read, fault)

    def _texts(self, call: str, payload: dict[str, Any]) -> list[list[int]]:
        if call == "score":
            return [encode(payload["text_1"] + text) for text in payload["text_2"]]
        if call == "generative_scoring":
            return [payload["query"] + item for item in payload["items"]]
        inputs = payload["prompt" if call == "completions" else "input"]
        special = payload.get("add_special_tokens", True)
        return [self._ids(each, special) if isinstance(each, str) else each for each in inputs]

    def _result(
        self, call: str, payload: dict[str, Any], ids: list[int], index: int, fault: RewardFault
    ) -> dict[str, Any]:
        is_raw = payload.get("use_activation") is False
        last = probability(ids) + self.noise(self.scoring_requests, index)
        if call == "completions":
            return {"index": index, "text": "x", "finish_reason": "length", **_logprobs(payload, last, fault)}
        if call in ("generative_scoring", "score"):
            value = logit(last) if is_raw else last
            return {"index": index, "score": _spoil([value], fault, 1)[0]}
        if call == "classify":
            return {"index": index, "probs": _row(_spoil([self._cells(last, is_raw)], fault, self.classes))}
        if call == "embeddings":
            values = [logit(probability(ids[: i + 1])) for i in range(len(ids))]
            return {"index": index, "embedding": _spoil(values, fault, 1)}
        places = {
            "step": [i for i, token in enumerate(ids) if token == self.tag_id],
            "all": list(range(len(ids))),
            "last": [len(ids) - 1],
        }[self.pooling]
        noise = self.noise(self.scoring_requests, index)
        rows = [self._cells(probability(ids[: i + 1]) + noise, is_raw) for i in places]
        return {"index": index, "object": "pooling", "data": _spoil(rows, fault, self.classes)}

    def _cells(self, value: float, is_raw: bool) -> list[float]:
        if self.classes == 2:
            cells = [-logit(value) / 2, logit(value) / 2] if is_raw else [1.0 - value, value]
            return cells[::-1] if self.is_swapped else cells
        return [logit(value) if is_raw else value]

    def _chat(self, payload: dict[str, Any]) -> web.Response:
        prompt = "\n".join(message["content"] for message in payload["messages"])
        if len(prompt) > self.max_model_len:
            return _error(400, f"This model's maximum context length is {self.max_model_len} tokens.", None)
        words = self.judge(prompt, payload["seed"]).split(" ")
        kept = words[: min(payload["max_tokens"], self.max_model_len - len(prompt))]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": " ".join(kept)},
            "finish_reason": "stop" if kept == words else "length",
        }
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(kept)}
        return web.json_response({"choices": [choice], "usage": usage})


_CALLS = {
    "/pooling": "pooling",
    "/classify": "classify",
    "/score": "score",
    "/tokenize": "tokenize",
    "/generative_scoring": "generative_scoring",
    "/v1/embeddings": "embeddings",
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
}
_ERRORS: dict[RewardFault, tuple[int, str, str | None]] = {
    RewardFault.SERVER_ERROR: (500, "Internal server error", None),
    RewardFault.RATE_LIMIT: (429, "Rate limit reached", None),
    RewardFault.UNAUTHORIZED: (401, "Incorrect API key provided", "invalid_api_key"),
    RewardFault.UNKNOWN_MODEL: (404, "The model `nope` does not exist.", "model_not_found"),
    RewardFault.ODD_REFUSAL: (400, "We do not like this one.", None),
}
_SPOILT_VALUES: dict[RewardFault, Any] = {
    RewardFault.NAN: math.nan,
    RewardFault.NULL: None,
    RewardFault.TEXT: "0.5",
    RewardFault.TOO_BIG: 1.7,
    RewardFault.NEGATIVE: -0.2,
    RewardFault.OVERSHOOT: 1.0000001,
}


def _row(rows: list[Any]) -> Any:
    return rows[0] if rows else []


def _spoil(rows: list[Any], fault: RewardFault, classes: int) -> list[Any]:
    """Damage the scores of one text."""
    if fault is RewardFault.FEWER:
        return rows[:-1]
    if fault is RewardFault.MORE:
        return [*rows, rows[-1]]
    if fault is RewardFault.EMPTY:
        return []
    if fault is RewardFault.WIDE:
        return [*rows[:-1], [0.1] * 64]
    if fault in _SPOILT_VALUES:
        value = _SPOILT_VALUES[fault]
        cells = [0.0, value] if classes == 2 else [value]
        return [*rows[:-1], cells if isinstance(rows[-1], list) else value]
    return rows


def _spoilt(results: list[dict[str, Any]], fault: RewardFault) -> Any:
    """Damage the list of results."""
    if fault is RewardFault.NO_RESULTS:
        return []
    if fault is RewardFault.DOUBLED_INDEX:
        return (
            [{**each, "index": 0} for each in results] if len(results) > 1 else [{**results[0], "index": 7}]
        )
    if fault is RewardFault.SHUFFLED:
        return list(reversed(results))
    return {} if fault is RewardFault.NOT_A_LIST else results


def _body(results: Any, field: str, read: int, fault: RewardFault) -> web.Response:
    reply = {"object": "list", field: results, "usage": {"prompt_tokens": read, "completion_tokens": 0}}
    body = json.dumps(reply).encode()
    if fault is RewardFault.TRUNCATED_JSON:
        body = body[: len(body) // 2]
    if fault is RewardFault.HUGE_BODY:
        body += b" " * (64 << 20)
    return web.Response(body=body, content_type="application/json")


def _logprobs(payload: dict[str, Any], value: float, fault: RewardFault) -> dict[str, Any]:
    good, bad = payload["logprob_token_ids"]
    names = [f"token_id:{good}", f"token_id:{bad}"]
    if not payload.get("return_tokens_as_token_ids"):
        names = [chr(good - 1000), chr(bad - 1000)]
    spoilt = _spoil([math.log(value) - 3.0], fault, 1)
    top = {"token_id:5": -0.9, names[1]: math.log(1.0 - value) - 3.0}
    if spoilt:
        top[names[0]] = spoilt[0]
    return {"logprobs": {"tokens": ["token_id:5"], "token_logprobs": [-0.9], "top_logprobs": [top]}}


def _error(status: int, message: str, param: str | None) -> web.Response:
    body = {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}}
    return web.json_response(body, status=status)
