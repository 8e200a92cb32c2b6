"""The bodies of replies: completions, chat completions, models and metrics, shaped as vLLM shapes them.

Pure functions of a parsed request and its generations; knows neither aiohttp nor the engine's thread. Replies with
scores are in `score_replies.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from workers.embedded.batch import Completion, Generation, TokenLogprobs
from workers.embedded.card import Card
from workers.embedded.counters import Counters
from workers.embedded.protocol import Parsed
from workers.load import ASK_VALUE


@dataclass(frozen=True, slots=True)
class Heading:
    """What identifies a reply; `created` is in seconds since 1970."""

    id: str
    created: int


def completion(
    heading: Heading, parsed: Parsed, generations: Sequence[Generation], card: Card
) -> dict[str, Any]:
    """Build the body of /v1/completions; choice i * n + j is sample j of prompt i."""
    choices = [
        _choice(parsed, prompt, generation, sample, card)
        for prompt, generation in enumerate(generations)
        for sample in generation.completions
    ]
    return _body("text_completion", heading, choices, generations, card)


def chat(heading: Heading, parsed: Parsed, generations: Sequence[Generation], card: Card) -> dict[str, Any]:
    """Build the body of /v1/chat/completions."""
    (generation,) = generations
    choices = [_chat_choice(parsed, sample, card) for sample in generation.completions]
    body = _body("chat.completion", heading, choices, generations, card)
    body["prompt_token_ids"] = list(parsed.requests[0].prompt) if parsed.gives_ids else None
    return body


def models(card: Card, created: int) -> dict[str, Any]:
    """Build the body of /v1/models."""
    entry = {"id": card.name, "object": "model", "created": created, "owned_by": "ttc", "root": card.name}
    return {"object": "list", "data": [{**entry, "parent": None, "max_model_len": card.context}]}


def load_report(waiting: int) -> str:
    """Say how many samples wait for a slot, as vLLM does in a header; there is no KV cache to fill up."""
    metrics = {"named_metrics": {"num_requests_waiting": float(waiting), "kv_cache_usage_perc": 0.0}}
    return f"{ASK_VALUE} {orjson.dumps(metrics).decode()}"


def metrics(counters: Counters, running: int, waiting: int, model: str) -> str:
    """Write Prometheus text under vLLM's names, and two counters of our own under `ttc:`."""
    gauges = {"vllm:num_requests_running": running, "vllm:num_requests_waiting": waiting}
    totals = {
        "vllm:prompt_tokens_total": counters.prompt_tokens,
        "vllm:prompt_tokens_cached_total": counters.cached_tokens,
        "vllm:generation_tokens_total": counters.generated_tokens,
        "ttc:aborted_tokens_total": counters.aborted_tokens,
        "ttc:decode_steps_total": counters.steps,
    }
    label = f'model_name="{model}"'
    lines = [
        line
        for name, value in gauges.items()
        for line in (f"# TYPE {name} gauge", f"{name}{{{label}}} {value}")
    ]
    lines += [
        line
        for name, value in totals.items()
        for line in (f"# TYPE {name} counter", f"{name}{{{label}}} {value}")
    ]
    lines.append("# TYPE vllm:request_success_total counter")
    for reason, count in counters.finished.items():
        lines.append(f'vllm:request_success_total{{finished_reason="{reason}",{label}}} {count}')
    return "\n".join(lines) + "\n"


def _body(
    kind: str, heading: Heading, choices: list[dict[str, Any]], generations: Sequence[Generation], card: Card
) -> dict[str, Any]:
    for index, choice in enumerate(choices):
        choice["index"] = index
    return {
        "id": heading.id,
        "object": kind,
        "created": heading.created,
        "model": card.name,
        "choices": choices,
        "system_fingerprint": None,
        "usage": _usage(generations),
    }


def _usage(generations: Sequence[Generation]) -> dict[str, Any]:
    """Count each prompt once whatever n is, and every token made, those that ended a sample included."""
    prompt = sum(generation.prompt_tokens for generation in generations)
    made = sum(len(sample.token_ids) for generation in generations for sample in generation.completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {
            "cached_tokens": sum(generation.cached_tokens for generation in generations)
        },
    }


def _choice(
    parsed: Parsed, prompt: int, generation: Generation, sample: Completion, card: Card
) -> dict[str, Any]:
    echo = parsed.echo[prompt] if parsed.echo else ""
    ids = parsed.requests[prompt].prompt
    return {
        "index": 0,
        "text": echo + sample.text,
        "logprobs": _completion_logprobs(parsed, ids, generation, sample, card),
        "finish_reason": sample.finish_reason,
        "stop_reason": sample.stop_reason,
        "token_ids": list(sample.token_ids) if parsed.gives_ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": list(ids) if parsed.gives_ids else None,
    }


def _chat_choice(parsed: Parsed, sample: Completion, card: Card) -> dict[str, Any]:
    echo = parsed.echo[0] if parsed.echo else ""
    logprobs = None
    if sample.logprobs is not None:
        logprobs = {"content": [_chat_logprob(parsed, entry, card) for entry in sample.logprobs]}
    return {
        "index": 0,
        "message": {"role": "assistant", "content": echo + sample.text},
        "logprobs": logprobs,
        "finish_reason": sample.finish_reason,
        "stop_reason": sample.stop_reason,
        "token_ids": list(sample.token_ids) if parsed.gives_ids else None,
    }


def _completion_logprobs(
    parsed: Parsed, prompt: Sequence[int], generation: Generation, sample: Completion, card: Card
) -> dict[str, Any] | None:
    if sample.logprobs is None:
        return None
    entries: list[TokenLogprobs | None] = [*(generation.prompt_logprobs or ()), *sample.logprobs]
    ids = [*(prompt if generation.prompt_logprobs else ()), *sample.token_ids]
    tokens = [_name(parsed, token, card) for token in ids]
    return {
        "text_offset": list(accumulate((len(token) for token in tokens), initial=0))[:-1],
        "token_logprobs": [None if entry is None else entry.logprob for entry in entries],
        "tokens": tokens,
        "top_logprobs": [None if entry is None else _named(parsed, entry, card) for entry in entries],
    }


def _named(parsed: Parsed, entry: TokenLogprobs, card: Card) -> dict[str, float]:
    """Name the log-probabilities at one place, the chosen token first; of equal names the first one stays."""
    result: dict[str, float] = {}
    for token, logprob in _with_chosen(entry):
        result.setdefault(_name(parsed, token, card), logprob)
    return result


def _chat_logprob(parsed: Parsed, entry: TokenLogprobs, card: Card) -> dict[str, Any]:
    top = [_chat_token(parsed, token, logprob, card) for token, logprob in entry.others]
    return {**_chat_token(parsed, entry.token, entry.logprob, card), "top_logprobs": top}


def _chat_token(parsed: Parsed, token: int, logprob: float, card: Card) -> dict[str, Any]:
    name = _name(parsed, token, card)
    return {"token": name, "logprob": logprob, "bytes": list(name.encode("utf-8"))}


def _with_chosen(entry: TokenLogprobs) -> Iterator[tuple[int, float]]:
    yield entry.token, entry.logprob
    yield from entry.others


def _name(parsed: Parsed, token: int, card: Card) -> str:
    return f"token_id:{token}" if parsed.names_ids else card.text.token(token)
