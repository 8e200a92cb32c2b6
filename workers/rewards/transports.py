"""The calls that give scores, as pure translation: queries to JSON to probabilities, one module for all formats.

It knows what servers send (recorded from vLLM 0.32; SGLang's `/classify` and the `/v1/embeddings` of Skywork's
plugin from their sources) and nothing of how it got here, nor of how solutions are written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from workers.errors import MalformedReply
from workers.rewards.contract import BrokenContract, number, settled
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.types import Transport

MAX_PROMPTS = 256
"""Prompts in one request of the transports that need one a step (vLLM takes 1024)."""
_BYTES_BASE = 1 << 20
_BYTES_A_NUMBER = 64
_BYTES_A_PROMPT = 2048
_NO_LOGPROB = -9999.0  # vLLM's stand-in for minus infinity
_MOST_BYTES_A_TOKEN = 256
_SPARE_TOKENS = 8  # BOS, EOS and what a tokenizer adds in front

Values = tuple[float, ...]
Rows = list[Any]


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a reply says it cost; zeros where it does not say."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for scores, and how its reply is read."""

    path: str
    is_at_root: bool
    payload: dict[str, Any]
    read: Callable[[Any], list[Values | BrokenContract]]
    """One entry a query: its probabilities, or why there are none. Raises `BrokenContract` if none has any."""
    size: int
    """Tokens that are sent, or a guess at them."""
    max_bytes: int


@dataclass(frozen=True, slots=True)
class _Wire:
    path: str
    is_at_root: bool
    build: Callable[[Sequence[Query], Vocabulary, bool], dict[str, Any]]
    rows: Callable[[Any, Sequence[Query], Vocabulary], list[Rows]]
    is_by_prefix: bool = False
    """Needs one prompt a step, and gives probabilities."""


def ask(
    transport: Transport, model: str, queries: Sequence[Query], vocabulary: Vocabulary, *, is_logit: bool
) -> Ask:
    """The request for the scores of `queries`; `is_logit` asks for raw logits and takes them as such."""
    wire = _WIRES[transport]
    is_raw = is_logit and not wire.is_by_prefix
    sent = [len(prefix) for query in queries for prefix in query.prefixes] if wire.is_by_prefix else None

    def read(data: Any) -> list[Values | BrokenContract]:
        _check_usage(usage_of(data).prompt_tokens, queries, sent)
        return _outcomes(queries, wire.rows(data, queries, vocabulary), wire.is_by_prefix, is_raw)

    return Ask(
        path=wire.path,
        is_at_root=wire.is_at_root,
        payload={"model": model, **wire.build(queries, vocabulary, is_raw)},
        read=read,
        size=sum(sent) if sent is not None else sum(query.size for query in queries),
        max_bytes=_bound(queries),
    )


def prompt_count(transport: Transport, query: Query) -> int:
    """Prompts that a query takes in a request."""
    return len(query.positions) if _WIRES[transport].is_by_prefix else 1


def is_by_prefix(transport: Transport) -> bool:
    """Does the call take one prompt a step."""
    return _WIRES[transport].is_by_prefix


def usage_of(data: Any) -> TokenUsage:
    """The token counts of a reply of any of the calls."""
    usage = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(usage, dict):
        return TokenUsage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return TokenUsage(
        _count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens"))
    )


def _outcomes(
    queries: Sequence[Query], rows: Sequence[Rows], is_picked: bool, is_logit: bool
) -> list[Values | BrokenContract]:
    outcomes = [_outcome(query, own, is_picked, is_logit) for query, own in zip(queries, rows, strict=True)]
    broken = [outcome for outcome in outcomes if isinstance(outcome, BrokenContract)]
    if len(broken) < len(outcomes):
        return outcomes
    if len(broken) == 1:
        raise broken[0]
    raise BrokenContract(f"none of {len(broken)} texts got sound scores; the first: {broken[0]}")


def _outcome(query: Query, rows: Rows, is_picked: bool, is_logit: bool) -> Values | BrokenContract:
    try:
        return settled(rows if is_picked else _picked(query, rows), query.count, is_logit=is_logit)
    except BrokenContract as error:
        return error.with_traceback(None)


def _picked(query: Query, rows: Rows) -> Rows:
    """The rows of the scored tokens, of what may be a row for every token."""
    if query.place is Place.END:
        return rows[-1:] if not query.ids or len(rows) in (query.tag_count, len(query.ids)) else rows
    if query.place is Place.TAGS and len(rows) == query.count:
        return rows
    if query.ids and len(rows) == len(query.ids):
        return [rows[position] for position in query.positions]
    if query.place is Place.TOKENS:
        raise BrokenContract(
            f"{len(rows)} scores came where one for each of {len(query.ids)} tokens is wanted"
            f" ({query.count} step{'s' if query.count > 1 else ''})"
        )
    return rows  # for the count to be refused


def _check_usage(prompt_tokens: int, queries: Sequence[Query], sent: Sequence[int] | None) -> None:
    """Refuse a reply to another text than was sent: truncated, or read by another tokenizer."""
    if not prompt_tokens:  # the server does not say
        return
    if sent is None and not all(query.ids for query in queries):
        low, high = _plausible(queries)
        if not low <= prompt_tokens <= high:
            raise BrokenContract(
                f"the server read {prompt_tokens} tokens, which cannot be the text that was sent ({low} to {high})"
            )
        return
    wanted = sum(sent) if sent is not None else sum(len(query.ids) for query in queries)
    if prompt_tokens != wanted:
        raise BrokenContract(f"the server read {prompt_tokens} tokens where {wanted} were sent")


def _plausible(queries: Sequence[Query]) -> tuple[int, int]:
    """Bounds of the tokens of these texts: no token is longer than 256 bytes, none shorter than one."""
    size = sum(len((query.first_text + query.text).encode()) for query in queries)
    least = sum(query.count if query.place is Place.TAGS else 1 for query in queries)
    return max(least, size // _MOST_BYTES_A_TOKEN), size + _SPARE_TOKENS * len(queries)


def _bound(queries: Sequence[Query]) -> int:
    """Bytes no honest reply exceeds: two numbers a token, or an entry a prompt."""
    numbers = sum(2 * max(len(query.ids), len(query.text)) for query in queries)
    prompts = sum(max(1, len(query.positions)) for query in queries)
    return _BYTES_BASE + numbers * _BYTES_A_NUMBER + prompts * _BYTES_A_PROMPT


def _inputs(queries: Sequence[Query]) -> dict[str, Any]:
    """Ids where all are known, else texts; whether the tokenizer adds its own is the same for all."""
    if all(query.ids for query in queries):
        return {"input": [list(query.ids) for query in queries]}
    return {
        "input": [query.text for query in queries],
        "add_special_tokens": all(query.adds_special_tokens for query in queries),
    }


def _pooling(queries: Sequence[Query], _: Vocabulary, is_raw: bool) -> dict[str, Any]:
    is_whole = all(query.place is Place.END for query in queries)
    task = {} if is_whole else {"task": "token_classify"}
    return {**_inputs(queries), **task, "use_activation": not is_raw}


def _classify(queries: Sequence[Query], _: Vocabulary, is_raw: bool) -> dict[str, Any]:
    """The fields of vLLM (`input`) and of SGLang (`text`, `input_ids`) at once; each ignores the other's."""
    inputs = _inputs(queries)
    other = "input_ids" if all(query.ids for query in queries) else "text"
    return {**inputs, other: inputs["input"], "use_activation": not is_raw}


def _score(queries: Sequence[Query], _: Vocabulary, is_raw: bool) -> dict[str, Any]:
    return {
        "text_1": queries[0].first_text,
        "text_2": [query.text for query in queries],
        "use_activation": not is_raw,
    }


def _embeddings(queries: Sequence[Query], _: Vocabulary, __: bool) -> dict[str, Any]:
    return {**_inputs(queries), "encoding_format": "float"}


def _completions(queries: Sequence[Query], vocabulary: Vocabulary, _: bool) -> dict[str, Any]:
    return {
        "prompt": [list(prefix) for query in queries for prefix in query.prefixes],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 0,
        "logprob_token_ids": list(vocabulary.labels),
        "return_tokens_as_token_ids": True,
    }


def _generative(queries: Sequence[Query], vocabulary: Vocabulary, _: bool) -> dict[str, Any]:
    return {
        "query": [],
        "items": [list(prefix) for query in queries for prefix in query.prefixes],
        "label_token_ids": list(vocabulary.labels),
        "add_special_tokens": False,
    }


def _pooling_rows(data: Any, queries: Sequence[Query], _: Vocabulary) -> list[Rows]:
    rows = [_list(entry, "data") for entry in _entries(data, "data", len(queries))]
    return [
        [own] if query.place is Place.END and own and not isinstance(own[0], list) else own
        for query, own in zip(queries, rows, strict=True)
    ]


def _classify_rows(data: Any, queries: Sequence[Query], _: Vocabulary) -> list[Rows]:
    if isinstance(data, list):  # SGLang: as many objects as texts, in order
        if len(data) != len(queries):
            raise BrokenContract(f"{len(data)} scores came for {len(queries)} texts")
        return [[_list(entry, "embedding")] for entry in data]
    return [[_list(entry, "probs")] for entry in _entries(data, "data", len(queries))]


def _score_rows(data: Any, queries: Sequence[Query], _: Vocabulary) -> list[Rows]:
    return [[entry.get("score")] for entry in _entries(data, "data", len(queries))]


def _embedding_rows(data: Any, queries: Sequence[Query], _: Vocabulary) -> list[Rows]:
    return [_list(entry, "embedding") for entry in _entries(data, "data", len(queries))]


def _generative_rows(data: Any, queries: Sequence[Query], _: Vocabulary) -> list[Rows]:
    entries = _entries(data, "data", sum(len(query.positions) for query in queries))
    return _grouped(queries, [entry.get("score") for entry in entries])


def _completion_rows(data: Any, queries: Sequence[Query], vocabulary: Vocabulary) -> list[Rows]:
    choices = _entries(data, "choices", sum(len(query.positions) for query in queries))
    return _grouped(queries, [_label_probability(choice, vocabulary) for choice in choices])


def _label_probability(choice: Mapping[str, Any], vocabulary: Vocabulary) -> float:
    """P(good) among the two labels, from the log-probabilities of a choice of one token."""
    logprobs = choice.get("logprobs")
    tops = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
    top = tops[0] if isinstance(tops, list) and len(tops) == 1 and isinstance(tops[0], dict) else {}
    good, bad = (number(value) for value in _label_logprobs(top, vocabulary))
    if not math.isfinite(good) or not math.isfinite(bad):
        raise BrokenContract(
            f"the log-probabilities of the tokens {vocabulary.labels} are wanted, and came for {sorted(top)[:5]}:"
            " does the server know logprob_token_ids and return_tokens_as_token_ids?"
        )
    if max(good, bad) <= _NO_LOGPROB:
        raise BrokenContract(f"neither of the label tokens {vocabulary.labels} has any probability")
    return 1.0 / (1.0 + math.exp(min(700.0, bad - good)))


def _label_logprobs(top: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Any, Any]:
    """The entries of the two labels, by id; by text only where no other token can have taken their place.

    Tokens of equal text fall together where a server keys by text (vllm#44319), so the sampled token, the labels'
    only company, must stand apart from both.
    """
    by_id = [top.get(f"token_id:{label}") for label in vocabulary.labels]
    if None in by_id and len(top) == 3:
        return top.get(vocabulary.good_text), top.get(vocabulary.bad_text)
    return by_id[0], by_id[1]


def _entries(data: Any, field: str, count: int) -> list[dict[str, Any]]:
    """The entries of a reply by their index, exactly `count`."""
    entries = data.get(field) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MalformedReply(f"the reply has no list named {field}")
    if len(entries) != count:
        raise BrokenContract(f"{len(entries)} results came for {count} texts")
    by_index = {entry.get("index"): entry for entry in entries if type(entry.get("index")) is int}
    if set(by_index) != set(range(count)):
        raise BrokenContract(f"the indices of the results are not 0 to {count - 1}")
    return [by_index[index] for index in range(count)]


def _list(entry: Any, field: str) -> list[Any]:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise BrokenContract(f"a result has no list named {field}")
    return value


def _grouped(queries: Sequence[Query], values: Sequence[Any]) -> list[Rows]:
    """The values of the prompts, put together again by query."""
    rows, start = [], 0
    for query in queries:
        rows.append(list(values[start : start + len(query.positions)]))
        start += len(query.positions)
    return rows


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


_WIRES: Mapping[Transport, _Wire] = MappingProxyType(
    {
        Transport.POOLING: _Wire("/pooling", True, _pooling, _pooling_rows),
        Transport.CLASSIFY: _Wire("/classify", True, _classify, _classify_rows),
        Transport.SCORE: _Wire("/score", True, _score, _score_rows),
        Transport.EMBEDDINGS: _Wire("/embeddings", False, _embeddings, _embedding_rows),
        Transport.COMPLETIONS: _Wire(
            "/completions", False, _completions, _completion_rows, is_by_prefix=True
        ),
        Transport.GENERATIVE_SCORING: _Wire(
            "/generative_scoring", True, _generative, _generative_rows, is_by_prefix=True
        ),
    }
)
