"""Token ids from the server itself, never from a tokenizer of ours: another one would place other tags.

One toy model scored [1e-8, 1.0] for a text and [.145, .855] for ids of the same text that another tokenizer had
made. Knows `/tokenize` and no format.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from workers.calls import Call
from workers.errors import MalformedReply, Misconfigured
from workers.rewards.meter import Meter
from workers.types import EndpointSettings

PINNED_DATE = "26 Jul 2024"
"""Date for chat templates that print today's, which would change the prompts at midnight; Llama 3.1's own default."""
MAX_CACHED_TOKENS = 1 << 18
_BYTES_BASE = 1 << 16
_BYTES_A_CHARACTER = 64

Ids = tuple[int, ...]
Messages = Sequence[Mapping[str, str]]


class TokenCache:
    """Ids of recent texts: the steps of a beam are asked for again and again. Bounded in tokens."""

    def __init__(self, capacity: int = MAX_CACHED_TOKENS) -> None:
        self.max_model_len: int | None = None
        self._capacity = capacity
        self._size = 0
        self._ids: OrderedDict[tuple[str, bool], Ids] = OrderedDict()

    def get(self, key: tuple[str, bool]) -> Ids | None:
        """The ids of a text, if they are still known."""
        ids = self._ids.get(key)
        if ids is not None:
            self._ids.move_to_end(key)
        return ids

    def put(self, key: tuple[str, bool], ids: Ids) -> None:
        """Remember the ids of a text."""
        if key in self._ids:
            return
        self._ids[key] = ids
        self._size += len(ids)
        while self._size > self._capacity:
            self._size -= len(self._ids.popitem(last=False)[1])


class Tokens:
    """The tokenizer of one model behind its server. Every method raises an `EndpointError` where it fails."""

    def __init__(
        self, meter: Meter, model: str, endpoint: EndpointSettings, cache: TokenCache | None = None
    ) -> None:
        self._meter = meter
        self._model = model
        self._endpoint = endpoint
        self._cache = cache or TokenCache()

    @property
    def max_model_len(self) -> int | None:
        """Tokens of the context, as the last reply told; None: it did not tell."""
        return self._cache.max_model_len

    async def ids(self, text: str, *, special: bool = False) -> Ids:
        """Ids of a text; `special`: with what the tokenizer adds by itself (BOS)."""
        key = (text, special)
        known = self._cache.get(key)
        if known is None:
            known = await self._ask({"prompt": text, "add_special_tokens": special}, len(text))
            self._cache.put(key, known)
        return known

    async def one(self, text: str, what: str) -> int:
        """The id of a text that must be one token, else `Misconfigured`."""
        ids = await self.ids(text)
        if len(ids) != 1:
            raise Misconfigured(
                f"{what} {text!r} is {len(ids)} tokens of {self._model} ({list(ids)}), not one"
            )
        return ids[0]

    async def chat(self, messages: Messages, *, opens_reply: bool = False) -> Ids:
        """Ids of a dialogue in the server's own chat template; `opens_reply`: up to where a reply begins."""
        fields = {
            "messages": list(messages),
            "add_generation_prompt": opens_reply,
            "chat_template_kwargs": {"date_string": PINNED_DATE},
        }
        return await self._ask(fields, sum(len(message["content"]) for message in messages))

    async def _ask(self, fields: dict[str, Any], characters: int) -> Ids:
        call = Call(
            path="/tokenize",
            payload={"model": self._model, **fields},
            deadline_s=self._endpoint.deadline_base_s,
            max_bytes=_BYTES_BASE + characters * _BYTES_A_CHARACTER,
            affinity=self._meter.affinity,
            is_at_root=True,
        )
        try:
            ids, self._cache.max_model_len = await self._meter.ask(call, _read)
        except Misconfigured as error:
            raise Misconfigured(f"/tokenize: {error}", status=error.status) from None
        return ids


def _read(data: Any) -> tuple[Ids, int | None]:
    tokens = data.get("tokens") if isinstance(data, dict) else None
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        raise MalformedReply("the tokenizer's reply has no list of ids")
    if data.get("count", len(tokens)) != len(tokens):
        raise MalformedReply(f"the tokenizer's reply does not hold as many ids as it counts ({len(tokens)})")
    length = data.get("max_model_len")
    return tuple(tokens), length if type(length) is int and length > 0 else None
