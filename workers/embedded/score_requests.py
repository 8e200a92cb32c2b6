"""What is asked of reward models: the bodies of /pooling, /classify, /score and /generative_scoring.

Shapes and errors are those of vLLM 0.32. /pooling and /generative_scoring were recorded from a real server, run as
the Math-Shepherd recipe asks (STEP pooling over `from_2_way_softmax`, one label); /classify and /score were only
read in its source. Pure functions; knows neither aiohttp nor how texts are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from workers.embedded.batch import Limits, Request, Wanted
from workers.embedded.card import Card
from workers.embedded.protocol import (
    MAX_PROMPTS,
    Flag,
    Message,
    RequestError,
    chat_ids,
    check_ids,
    check_model,
    content,
    validated,
)
from workers.embedded.reward import Reward, Role
from workers.embedded.sampling import Sampling
from workers.embedded.scores import Texts

MAX_INPUTS = 4096  # vLLM has no such limit; encoding more texts would keep the event loop from everybody else
TASKS = {Role.PRM: "token_classify", Role.ORM: "classify"}
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "chat_template": (),
    "chat_template_kwargs": (),
    "dimensions": (),
    "normalize": (),
    "padding": ("do_not_pad",),
}
"""Fields that would change the result and are not implemented, with the values that ask for nothing."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the numbers of /pooling are written."""

    format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    dtype: Literal["float32", "float16"] = "float32"
    endianness: Literal["native", "little", "big"] = "native"


@dataclass(frozen=True, slots=True)
class Parsed:
    """Texts to be scored and how the reply is to look; without activation it gives l+ - l-, not P(good)."""

    texts: Texts
    has_activation: bool
    encoding: Encoding = Encoding()


@dataclass(frozen=True, slots=True)
class Labelled:
    """Prompts whose next token is to be one of `labels`; the score is that of the first."""

    requests: tuple[Request, ...]
    labels: Tokens
    is_normalised: bool
    """Over the labels alone; otherwise over the vocabulary."""


class _Body(BaseModel):
    model: str | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None


class _InputBody(_Body):
    input: Any = None  # checked by hand, in one pass: it may hold millions of numbers
    messages: list[Message] | None = Field(default=None, min_length=1)
    add_generation_prompt: bool | None = None
    continue_final_message: Flag = False


class _PoolingBody(_InputBody):
    task: str | None = None
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    embed_dtype: Literal["float32", "float16"] = "float32"
    endianness: Literal["native", "little", "big"] = "native"


class _ScoreBody(_Body):
    text_1: Any = None
    text_2: Any = None
    data_1: Any = None
    data_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None


class _LabelBody(BaseModel):
    model: str | None = None
    query: Any = None
    items: Any = None
    label_token_ids: list[int]
    apply_softmax: bool = True
    item_first: bool = False
    add_special_tokens: bool = True


@dataclass(slots=True)
class _ChatView:
    """The messages of a body whose template takes care of special tokens, where it does not say otherwise."""

    messages: list[Message]
    add_special_tokens: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool


def parse_pooling(data: Any, card: Card, reward: Reward) -> Parsed:
    """Parse the body of /pooling. Raises RequestError."""
    body = validated(_PoolingBody, data, NEUTRAL)
    check_model(body.model, card)
    supported = TASKS[reward.role]
    if body.task not in (None, supported):
        raise RequestError(f"Unsupported task: {body.task!r} Supported tasks: [{supported!r}]", "task")
    encoding = Encoding(body.encoding_format, body.embed_dtype, body.endianness)
    return Parsed(Texts(_texts(body, card)), body.use_activation is not False, encoding)


def parse_classify(data: Any, card: Card, reward: Reward) -> Parsed:
    """Parse the body of /classify. Raises RequestError, also for a text without a tag: it has no class."""
    body = validated(_InputBody, data, NEUTRAL)
    check_model(body.model, card)
    return Parsed(_tagged(_texts(body, card), reward), body.use_activation is not False)


def parse_score(data: Any, card: Card, reward: Reward) -> Parsed:
    """Parse the body of /score: 1:1, 1:N or N:N texts; each pair is joined as it is, without a separator.

    Raises RequestError, also for a pair without a tag.
    """
    body = validated(_ScoreBody, data, NEUTRAL)
    check_model(body.model, card)
    first, second = _pairs(body)
    _check_count(second, "text_2")
    starts = [_clipped(text, body, card) for text in first]
    pairs = zip(starts * (len(second) // len(first)), second, strict=True)
    tokens = tuple(_fitted(_encoded(start + end, body, card), body, card) for start, end in pairs)
    return Parsed(_tagged(tokens, reward), body.use_activation is not False)


def parse_generative_scoring(data: Any, card: Card) -> Labelled:
    """Parse the body of /generative_scoring, which policies have too. Raises RequestError.

    Prompts too long for one more token are cut at their end without a word, as vLLM does.
    """
    body = validated(_LabelBody, data, {})
    check_model(body.model, card)
    labels = tuple(body.label_token_ids)
    for label in labels:
        if not 0 <= label < card.vocabulary:
            valid = f"[0, {card.vocabulary}). Please provide valid token IDs."
            raise RequestError(f"label_token_id {label} is out of vocabulary range {valid}")
    if not labels:
        raise RequestError("label_token_ids must contain at least one token ID.")
    start = _ids(_one(body.query, "query"), card, "query", adds=body.add_special_tokens)
    ends = [_ids(item, card, "items", adds=False) for item in _items(body.items)]
    requests = tuple(_label_request(start, end, labels, body, card) for end in ends)
    return Labelled(requests, labels, body.apply_softmax)


def _label_request(start: Tokens, end: Tokens, labels: Tokens, body: _LabelBody, card: Card) -> Request:
    limit = card.context - 1
    prompt = ((end[:limit] + start) if body.item_first else (start[:limit] + end))[:limit]
    if not prompt:
        raise RequestError("The decoder prompt cannot be empty")
    return Request(prompt, (0,), Sampling(temperature=0.0), Limits(max_tokens=1), Wanted(0, labels))


def _texts(body: _InputBody, card: Card) -> tuple[Tokens, ...]:
    """Encode `input` or `messages`, and cut or refuse what is too long."""
    if body.messages is not None:
        if sum(len(content(message)) for message in body.messages) > _most_characters(card):
            raise _too_long(card.context + 1, card)
        view = _ChatView(
            body.messages, body.add_special_tokens, body.add_generation_prompt, body.continue_final_message
        )
        return (_fitted(chat_ids(view, card), body, card),)
    inputs = _sequences(body.input, "input")
    if not inputs:
        raise RequestError("The decoder prompt cannot be empty")
    _check_count(inputs, "input")
    return tuple(_fitted(_encoded(text, body, card), body, card) for text in inputs)


def _encoded(text: str | list[int], body: _Body, card: Card) -> Tokens:
    clipped = _clipped(text, body, card) if isinstance(text, str) else text
    return _ids(clipped, card, "input", adds=body.add_special_tokens is not False)


def _clipped(text: str, body: _Body, card: Card) -> str:
    """Drop characters that cannot be part of the result before they cost any work; refuse a text that cannot fit."""
    most = _most_characters(card)
    if len(text) <= most:
        return text
    if body.truncate_prompt_tokens is None:
        raise _too_long(card.context + 1, card)
    return text[-most:] if body.truncation_side == "left" else text[:most]


def _most_characters(card: Card) -> int:
    """Give the length beyond which a text has more tokens than the context, whatever it says."""
    return (card.context + 1) * card.text.longest_token


def _ids(text: str | list[int] | Tokens, card: Card, param: str, *, adds: bool) -> Tokens:
    if isinstance(text, str):
        return tuple(card.text.encode(text, add_special_tokens=adds))
    check_ids(text, card, param)
    return tuple(text)


def _fitted(tokens: Tokens, body: _Body, card: Card) -> Tokens:
    """Cut a text to `truncate_prompt_tokens` (-1: the context), its end unless told otherwise; refuse a long one."""
    limit = body.truncate_prompt_tokens
    if limit is not None and limit > card.context:
        message = (
            f"truncate_prompt_tokens={limit} cannot be greater than max_model_len - max_output_tokens = "
            f"{card.context}. Please request a smaller truncation size."
        )
        raise RequestError(message, "truncate_prompt_tokens", value=limit)
    if limit is not None:
        limit = card.context if limit < 0 else limit
        tokens = tokens[max(0, len(tokens) - limit) :] if body.truncation_side == "left" else tokens[:limit]
    if not tokens:
        raise RequestError("The decoder prompt cannot be empty")
    if len(tokens) > card.context:
        raise _too_long(card.context + 1, card)
    return tokens


def _too_long(length: int, card: Card) -> RequestError:
    message = (
        f"This model's maximum context length is {card.context} tokens. However, your prompt contains at least "
        f"{length} input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt."
    )
    return RequestError(message, "input_tokens", value=length)


def _tagged(tokens: tuple[Tokens, ...], reward: Reward) -> Texts:
    """Refuse texts without a tag where one number is owed for each (vLLM would read their last token)."""
    for index, text in enumerate(tokens):
        if reward.tag not in text:
            raise RequestError(f"Input {index} has no {reward.tag_text}, where its score is read.", "input")
    return Texts(tokens)


def _pairs(body: _ScoreBody) -> tuple[list[str], list[str]]:
    """Give both sides under whichever of vLLM's names they came, as lists."""
    names = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))
    for one, two in names:
        first, second = getattr(body, one), getattr(body, two)
        if first is not None and second is not None:
            left, right = _strings(first, one), _strings(second, two)
            break
    else:
        raise RequestError("Either text_1 and text_2 or queries and documents must be given.", "text_1")
    if len(left) > 1 and len(left) != len(right):
        raise RequestError("Input lengths must be either 1:1, 1:N or N:N")
    if not left:
        raise RequestError("At least one text element must be given")
    if not right:
        raise RequestError("At least one text_pair element must be given")
    return left, right


def _strings(value: Any, param: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not set(map(type, texts)) <= {str}:
        raise _wrong_type(param, "a string or a list of strings")
    return texts


def _sequences(value: Any, param: str) -> Sequence[str | list[int]]:
    """Tell a text, a list of texts, token ids and a list of token ids apart; empty for an empty list."""
    if isinstance(value, str) or (isinstance(value, list) and set(map(type, value)) == {int}):
        return [value]
    return _several(value, param)


def _several(value: Any, param: str) -> Sequence[str | list[int]]:
    kinds = set(map(type, value)) if isinstance(value, list) else {type(value)}
    if isinstance(value, list) and kinds <= {str}:
        return value
    if isinstance(value, list) and kinds == {list} and all(set(map(type, ids)) <= {int} for ids in value):
        return value
    raise _wrong_type(param, "a string, a list of strings, token ids, or a list of token ids")


def _one(value: Any, param: str) -> str | list[int]:
    if isinstance(value, str) or (isinstance(value, list) and set(map(type, value)) <= {int}):
        return value
    raise _wrong_type(param, "a string or token ids")


def _items(value: Any) -> Sequence[str | list[int]]:
    items = _several(value, "items")
    if not items:
        raise RequestError("items must contain at least one item.")
    if len(items) > MAX_PROMPTS:
        raise RequestError(f"items must hold at most {MAX_PROMPTS} items, got {len(items)}.", "items")
    return items


def _wrong_type(param: str, wanted: str) -> RequestError:
    return RequestError(
        f"1 validation errors: body.{param}: Input should be {wanted}", f"body.{param}", kind="Bad Request"
    )


def _check_count(inputs: Sequence[Any], param: str) -> None:
    if len(inputs) > MAX_INPUTS:
        raise RequestError(f"{param} must hold at most {MAX_INPUTS} texts, got {len(inputs)}.", param)
