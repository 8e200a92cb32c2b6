"""The bodies of replies that hold scores: /pooling, /classify, /score and /generative_scoring, shaped as in vLLM.

Pure functions of a parsed request and its scores; knows neither aiohttp nor the engine's thread.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.embedded.batch import Generation
from workers.embedded.card import Card
from workers.embedded.replies import Heading
from workers.embedded.reward import Reward, Role, probability
from workers.embedded.score_requests import Encoding, Labelled, Parsed
from workers.embedded.scores import Scoring

LABEL = "LABEL_0"  # the name that Hugging Face's configuration gives to the only class of a model


def pooling(heading: Heading, parsed: Parsed, scoring: Scoring, card: Card, reward: Reward) -> dict[str, Any]:
    """Build the JSON body of /pooling: one row of one number a tag; of an outcome model, the number at the last."""
    values = _values(parsed, scoring, reward)
    if parsed.encoding.format == "float":
        data: list[Any] = [each.tolist() for each in values]
    else:
        data = [base64.b64encode(_coded(each, parsed.encoding)).decode("ascii") for each in values]
    entries = [{"index": i, "object": "pooling", "data": each} for i, each in enumerate(data)]
    return _body(heading, entries, scoring, card)


def pooling_bytes(
    heading: Heading, parsed: Parsed, scoring: Scoring, card: Card, reward: Reward
) -> tuple[bytes, dict[str, str]]:
    """Build the binary body of /pooling, and the header that says what is where in it."""
    values = _values(parsed, scoring, reward)
    pieces = [_coded(each, parsed.encoding) for each in values]
    if parsed.encoding.format == "bytes_only":
        return b"".join(pieces), {}
    entries, end = [], 0
    for index, (piece, each) in enumerate(zip(pieces, values, strict=True)):
        start, end = end, end + len(piece)
        entries.append(
            {
                "index": index,
                "embed_dtype": parsed.encoding.dtype,
                "endianness": parsed.encoding.endianness,
                "start": start,
                "end": end,
                "shape": list(each.shape),
            }
        )
    usage = {"prompt_tokens": scoring.prompt_tokens, "total_tokens": scoring.prompt_tokens}
    identity = {"id": heading.id, "created": heading.created, "model": card.name}
    return b"".join(pieces), {"metadata": json.dumps({**identity, "data": entries, "usage": usage})}


def classify(
    heading: Heading, parsed: Parsed, scoring: Scoring, card: Card, reward: Reward
) -> dict[str, Any]:
    """Build the body of /classify, from a model of one class."""
    values = _values(parsed, scoring, reward)
    entries = [
        {"index": i, "label": LABEL, "probs": each.tolist(), "num_classes": 1}
        for i, each in enumerate(values)
    ]
    return _body(heading, entries, scoring, card)


def score(heading: Heading, parsed: Parsed, scoring: Scoring, card: Card, reward: Reward) -> dict[str, Any]:
    """Build the body of /score."""
    values = _values(parsed, scoring, reward)
    entries = [{"index": i, "object": "score", "score": each.item()} for i, each in enumerate(values)]
    return _body(heading, entries, scoring, card)


def generative_scoring(
    heading: Heading, labelled: Labelled, generations: Sequence[Generation], card: Card
) -> dict[str, Any]:
    """Build the body of /generative_scoring."""
    entries = [
        {"index": i, "object": "score", "score": _label_probability(labelled, generation)}
        for i, generation in enumerate(generations)
    ]
    prompt = sum(generation.prompt_tokens for generation in generations)
    cached = sum(generation.cached_tokens for generation in generations)
    return {**_head(heading, card), "data": entries, "usage": _usage(prompt, len(generations), cached)}


def _values(parsed: Parsed, scoring: Scoring, reward: Reward) -> list[NDArray[np.float32]]:
    """Give the numbers of each text: (tags, 1) of a process model, (1,) or nothing of an outcome model."""
    read = probability if parsed.has_activation else float
    arrays = [np.array([read(margin) for margin in each], np.float32) for each in scoring.margins]
    if reward.role is Role.ORM:
        return [array[-1:] for array in arrays]
    return [array[:, None] for array in arrays]


def _coded(values: NDArray[np.float32], encoding: Encoding) -> bytes:
    kind = np.dtype(encoding.dtype).newbyteorder(encoding.endianness)
    with np.errstate(over="ignore"):  # a margin beyond float16 is infinite in it
        return values.astype(kind).tobytes()


def _label_probability(labelled: Labelled, generation: Generation) -> float:
    """Give the probability of the first label, among the labels or in the whole vocabulary."""
    (sample,) = generation.completions
    assert sample.logprobs is not None
    logprobs = dict(sample.logprobs[0].others)
    first = logprobs[labelled.labels[0]]
    if not labelled.is_normalised:
        return math.exp(first)
    highest = max(logprobs.values())
    return math.exp(first - highest) / sum(math.exp(value - highest) for value in logprobs.values())


def _body(heading: Heading, entries: list[dict[str, Any]], scoring: Scoring, card: Card) -> dict[str, Any]:
    usage = _usage(scoring.prompt_tokens, 0, scoring.cached_tokens)
    return {**_head(heading, card), "data": entries, "usage": usage}


def _head(heading: Heading, card: Card) -> dict[str, Any]:
    return {"id": heading.id, "object": "list", "created": heading.created, "model": card.name}


def _usage(prompt: int, made: int, cached: int) -> dict[str, Any]:
    """Count as completions do; vLLM says null in place of the details, since its PRMs read no prefix cache."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + made,
        "completion_tokens": made,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": None,
    }
