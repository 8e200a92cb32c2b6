"""The two OpenAI-compatible calls that draw samples, as pure translation: settings to JSON to samples.

It knows what servers send (recorded from vLLM 0.32, read for others) and nothing of how it got here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.errors import MalformedReply, Misconfigured, ServerFault
from workers.types import Api, EndpointSettings, GeneratorSettings, Outcome, Sampling

MAX_STOPS = 4
PATHS = {Api.COMPLETIONS: "/completions", Api.CHAT: "/chat/completions"}
OPTIONAL_FIELDS = ("return_token_ids", "logprobs")
"""What is asked for only to know more; a server that refuses it serves the same samples without."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call"})
_CUT = frozenset({"length", "max_tokens"})
_BROKEN = frozenset({"abort", "error"})
_BYTES_A_TOKEN = 640  # a chat logprob entry with its bytes is the longest thing said about one token
_BYTES_BASE = 1 << 20


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do beyond the bare protocol; the defaults assume vLLM and give way to refusals."""

    child_seeds: bool = True
    """Child j of a request with seed s draws what a request with seed s + j draws."""
    deterministic: bool = True
    """The same request twice gives the same text."""
    token_ids: bool = True
    """`return_token_ids` is honoured."""
    logprobs: bool = True
    """Log probabilities of the drawn tokens are given."""
    top_k: bool = True
    """`top_k` is accepted and has an effect."""
    model_is_listed: bool | None = None
    """None: the server lists no models."""
    max_model_len: int | None = None
    server_version: str | None = None
    notes: tuple[str, ...] = ()
    """What the probe could not decide, in words."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One choice of a reply, or the story of why there is none."""

    text: str
    finish_reason: str | None
    stop_reason: str | int | None
    outcome: Outcome
    completion_tokens: int | None
    """None where the server gives no count a choice."""
    logprob_sum: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The usable content of one reply."""

    samples: tuple[Sample, ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    bad_logprobs: int
    """Samples whose log probabilities were asked for and are absent or not finite."""


def build_payload(
    generator: GeneratorSettings,
    statement: str,
    *,
    seed: int,
    count: int,
    capabilities: Capabilities,
    prefix: str = "",
) -> dict[str, Any]:
    """Body of a request for `count` samples from `seed` on; nothing is left to a server's defaults.

    With a `prefix` the samples go on with that beginning of a solution. In chat this takes a server that continues
    the assistant's last message, as vLLM does; one that does not would begin another turn.
    """
    sampling = generator.sampling
    if len(sampling.stop) > MAX_STOPS:
        raise Misconfigured(
            f"sampling.stop holds {len(sampling.stop)} strings; servers take at most {MAX_STOPS}"
        )
    payload: dict[str, Any] = {
        "model": generator.model,
        **_prompt(generator, statement, sanitize(prefix)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": seed,
        "n": count,
    }
    if sampling.stop:
        payload["stop"] = list(sampling.stop)
    if sampling.top_k != -1:
        payload["top_k"] = sampling.top_k
    if capabilities.logprobs:
        payload["logprobs"] = True if generator.api is Api.CHAT else 0
    if capabilities.token_ids:
        payload["return_token_ids"] = True
    return payload


def render(template: str, statement: str) -> str:
    """Put the statement into the template; only `{problem}` is a field, every other brace is text."""
    return sanitize(template.replace("{problem}", statement))


def sanitize(text: str) -> str:
    """Replace what stores cannot hold (NUL, lone surrogates) by U+FFFD, one for one, so that offsets stay."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def deadline_s(endpoint: EndpointSettings, sampling: Sampling) -> float:
    """Seconds granted to one call: queueing and prefill, plus decoding at the slowest speed still alive."""
    return endpoint.deadline_base_s + sampling.max_tokens / endpoint.tokens_per_second_floor


def body_bound(payload: Mapping[str, Any], prompt_chars: int) -> int:
    """Bytes no honest reply exceeds: a token is some hundred bytes with all that is asked about it."""
    return _BYTES_BASE + int(payload["n"]) * (int(payload["max_tokens"]) * _BYTES_A_TOKEN + prompt_chars * 8)


def token_estimate(payload: Mapping[str, Any], prompt_chars: int) -> int:
    """Tokens this request may use at most, roughly: what rate limits are charged until the usage is known."""
    return int(payload["max_tokens"]) * int(payload["n"]) + prompt_chars // 4


def prompt_chars(payload: Mapping[str, Any]) -> int:
    """Characters of the prompt of a request."""
    if "prompt" in payload:
        return len(payload["prompt"])
    return sum(len(message["content"]) for message in payload["messages"])


def refused_field(payload: Mapping[str, Any], message: str) -> str | None:
    """Return the optional field of this request that a refusal names, if it does."""
    return next((field for field in OPTIONAL_FIELDS if field in payload and field in message), None)


def without(capabilities: Capabilities, field: str) -> Capabilities:
    """Return the capabilities of a server that refuses an optional field."""
    if field == "logprobs":
        return replace(capabilities, logprobs=False)
    return replace(capabilities, token_ids=False)


def read_reply(data: Any, payload: Mapping[str, Any], api: Api) -> Reading:
    """Read the reply to `payload`: exactly n samples in the order of their seeds.

    Raises `MalformedReply` for a wrong number of choices, a doubled index or a choice without text, and
    `ServerFault` where the engine gave a choice up.
    """
    choices = _ordered(_choices(data), payload["n"])
    usage = _Usage.of(data)
    only_count = usage.completion_tokens if payload["n"] == 1 else None
    samples, bad = [], 0
    for choice in choices:
        logprob_sum = _logprob_sum(choice, api) if "logprobs" in payload else None
        bad += "logprobs" in payload and logprob_sum is None
        samples.append(_sample(choice, api, payload["max_tokens"], only_count, logprob_sum))
    total = usage.completion_tokens
    if total is None:
        total = sum(sample.completion_tokens or 0 for sample in samples)
    return Reading(tuple(samples), usage.prompt_tokens, usage.cached_tokens, total, bad)


def _prompt(generator: GeneratorSettings, statement: str, prefix: str) -> dict[str, Any]:
    text = render(generator.template, statement)
    if generator.api is Api.COMPLETIONS:
        return {"prompt": sanitize(generator.system or "") + text + prefix}
    system = (
        [{"role": "system", "content": sanitize(generator.system)}] if generator.system is not None else []
    )
    messages = [*system, {"role": "user", "content": text}]
    if not prefix:
        return {"messages": messages}
    begun = {"role": "assistant", "content": prefix}
    return {
        "messages": [*messages, begun],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def _choices(data: Any) -> list[dict[str, Any]]:
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise MalformedReply("the reply has no list of choices")
    return choices


def _ordered(choices: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    if len(choices) != count:
        raise MalformedReply(f"{len(choices)} choices came where {count} were asked for")
    if count == 1:
        return choices
    by_index = {choice.get("index"): choice for choice in choices if type(choice.get("index")) is int}
    if set(by_index) != set(range(count)):
        raise MalformedReply(f"the indices of the choices are not 0 to {count - 1}")
    return [by_index[index] for index in range(count)]


def _sample(
    choice: dict[str, Any], api: Api, max_tokens: int, only_count: int | None, logprob_sum: float | None
) -> Sample:
    text, was_refused = _text(choice, api)
    reason = choice.get("finish_reason")
    tokens = _token_count(choice, only_count)
    outcome = Outcome.REFUSED if was_refused else _outcome(reason, text, tokens, max_tokens)
    stop = choice.get("stop_reason")
    stop_reason = sanitize(stop) if isinstance(stop, str) else stop if type(stop) is int else None
    return Sample(sanitize(text), reason, stop_reason, outcome, tokens, logprob_sum)


def _text(choice: dict[str, Any], api: Api) -> tuple[str, bool]:
    """Text of a choice, and whether it is a refusal. In chat it may be null: all went into reasoning."""
    field = "text" if api is Api.COMPLETIONS else "content"
    holder = choice if api is Api.COMPLETIONS else choice.get("message")
    if not isinstance(holder, dict) or field not in holder:
        raise MalformedReply(f"a choice has no {field}")
    text = holder[field]
    if text is None and api is Api.CHAT:
        refusal = holder.get("refusal")
        return (refusal, True) if isinstance(refusal, str) and refusal else ("", False)
    if not isinstance(text, str):
        raise MalformedReply(f"the {field} of a choice is no text")
    return text, False


def _outcome(reason: Any, text: str, tokens: int | None, max_tokens: int) -> Outcome:
    if not isinstance(reason, str):
        raise MalformedReply("a choice has no finish_reason")
    if reason in _ENDED:
        return Outcome.COMPLETE if text.strip() else Outcome.EMPTY
    if reason in _CUT:
        return Outcome.OVERFLOW if tokens is not None and tokens < max_tokens else Outcome.TRUNCATED
    if reason == "content_filter":
        return Outcome.REFUSED
    if reason == "repetition":  # vLLM cut a loop short
        return Outcome.TRUNCATED
    if reason in _BROKEN:
        raise ServerFault(f"the engine gave the generation up (finish_reason {reason})")
    raise MalformedReply(f"a choice has the finish_reason {reason!r}")


def _token_count(choice: dict[str, Any], only_count: int | None) -> int | None:
    ids = choice.get("token_ids")
    return len(ids) if isinstance(ids, list) else only_count


def _logprob_sum(choice: dict[str, Any], api: Api) -> float | None:
    try:
        total = math.fsum(_logprobs(choice["logprobs"], api))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return total if math.isfinite(total) else None


def _logprobs(holder: Any, api: Api) -> Sequence[float]:
    is_plain = api is Api.COMPLETIONS
    values = holder["token_logprobs"] if is_plain else [entry["logprob"] for entry in holder["content"]]
    if not isinstance(values, list):
        raise TypeError
    return values


@dataclass(frozen=True, slots=True)
class _Usage:
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int | None

    @classmethod
    def of(cls, data: dict[str, Any]) -> _Usage:
        usage = data.get("usage")
        if not isinstance(usage, dict):
            return cls(0, 0, None)
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt_tokens = _count(usage.get("prompt_tokens")) or 0
        return cls(prompt_tokens, _count(cached) or 0, _count(usage.get("completion_tokens")))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
