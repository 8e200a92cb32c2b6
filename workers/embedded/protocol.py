"""The OpenAI-compatible wire format, with vLLM's defaults, limits, error bodies and extra fields.

Parsing turns a JSON body into requests for the engine, building turns generations into a JSON body. Pure
functions; knows neither aiohttp nor how samples are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workers.embedded.batch import Limits, Request, Wanted
from workers.embedded.card import Card
from workers.embedded.sampling import Sampling
from workers.embedded.text import NoChatTemplateError

MAX_SAMPLES = 16_384
MAX_PROMPTS = 1024
MAX_STOPS = 4
MAX_LOGPROBS = 20
DEFAULT_MAX_TOKENS = 16
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "allowed_token_ids": (),
    "bad_words": (),
    "frequency_penalty": (0,),
    "logit_bias": (),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stream": (False,),
    "structured_outputs": (),
    "suffix": ("",),
    "tools": (),
    "use_beam_search": (False,),
}
"""Fields that would change the result and are not implemented, with the values that ask for nothing."""

Draw = Callable[[], int]
"""Gives a fresh seed for a request that has none."""


class RequestError(Exception):
    """The request cannot be served as it is."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        value: int | None = None,
        status: int = 400,
        kind: str = "BadRequestError",
    ) -> None:
        super().__init__(message)
        self.param = param
        self.value = value
        self.status = status
        self.kind = kind

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body, as vLLM words it."""
        value = "" if self.value is None else f", value={self.value}"
        suffix = f" (parameter={self.param}{value})" if self.param else ""
        return {
            "error": {
                "message": f"{self}{suffix}",
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid request: one engine request a prompt, and how the reply is to look."""

    requests: tuple[Request, ...]
    echo: tuple[str, ...] = ()
    """Text put before each completion: one a prompt, or nothing."""
    gives_ids: bool = False
    names_ids: bool = False
    """Name tokens "token_id:17" instead of by their text."""


def _items(value: Any) -> Any:
    """Accept one string where a list is wanted, and null for an empty list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


Stops = Annotated[list[str], BeforeValidator(_items), Field(max_length=MAX_STOPS)]
Flag = Annotated[bool, BeforeValidator(lambda value: False if value is None else value)]
Count = Annotated[int, BeforeValidator(lambda value: 1 if value is None else value)]
Ids = Annotated[list[int], BeforeValidator(_items)]


class _Body(BaseModel):
    """Fields common to both ways of asking; unknown fields are ignored, as vLLM does."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    n: Count = 1
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: Stops = []
    stop_token_ids: Ids = []
    include_stop_str_in_output: Flag = False
    ignore_eos: Flag = False
    return_token_ids: Flag = False
    return_tokens_as_token_ids: Flag = False
    logprob_token_ids: Ids = []
    echo: Flag = False
    add_special_tokens: bool | None = None


class _CompletionBody(_Body):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None


class _Part(BaseModel):
    type: str = "text"
    text: str


class Message(BaseModel):
    """One message of a chat."""

    role: str
    content: str | list[_Part] | None = None


class Chat(Protocol):
    """A body with messages."""

    messages: list[Message]
    add_special_tokens: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool


class _ChatBody(_Body):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: Flag = False
    top_logprobs: int | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: Flag = False


class _TokenizeBody(BaseModel):
    prompt: str | None = None
    messages: list[Message] = []
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: Flag = False
    return_token_strs: Flag = False


class _DetokenizeBody(BaseModel):
    tokens: list[int]


Body = TypeVar("Body", bound=BaseModel)


def parse_completion(data: Any, card: Card, draw: Draw) -> Parsed:
    """Parse the body of /v1/completions. Raises RequestError."""
    body = validated(_CompletionBody, data)
    check_model(body.model, card)
    prompts = _prompts(body, card)
    wanted = _wanted(body.logprobs, body, has_prompt=body.echo and body.logprobs is not None)
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens < (0 if body.echo else 1):
        raise RequestError(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens")
    requests = _requests(body, prompts, card, draw, max_tokens, wanted)
    return _parsed(body, requests, [_prompt_text(body.prompt, i, p, card) for i, p in enumerate(prompts)])


def parse_chat(data: Any, card: Card, draw: Draw) -> Parsed:
    """Parse the body of /v1/chat/completions. Raises RequestError."""
    body = validated(_ChatBody, data)
    check_model(body.model, card)
    prompt = chat_ids(body, card)
    if body.top_logprobs and not body.logprobs:
        raise RequestError("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    wanted = _wanted((body.top_logprobs or 0) if body.logprobs else None, body, has_prompt=False)
    asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    max_tokens = max(1, card.context - len(prompt)) if asked is None else asked
    if max_tokens < 1:
        raise RequestError(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens")
    requests = _requests(body, [prompt], card, draw, max_tokens, wanted)
    return _parsed(body, requests, [_contents(body.messages)[-1]["content"]])


def parse_tokenize(data: Any, card: Card) -> dict[str, Any]:
    """Serve the body of /tokenize: a prompt, or messages to be rendered. Raises RequestError."""
    body = validated(_TokenizeBody, data)
    if body.prompt is None and not body.messages:
        raise RequestError("Either prompt or messages must be given.", "prompt")
    if body.prompt is None:
        tokens = list(chat_ids(body, card))
    else:
        tokens = card.text.encode(body.prompt, add_special_tokens=body.add_special_tokens is not False)
    names = [card.text.token(token) for token in tokens] if body.return_token_strs else None
    return {"count": len(tokens), "max_model_len": card.context, "tokens": tokens, "token_strs": names}


def parse_detokenize(data: Any, card: Card) -> dict[str, Any]:
    """Serve the body of /detokenize. Raises RequestError."""
    body = validated(_DetokenizeBody, data)
    check_ids(body.tokens, card, "tokens")
    return {"prompt": card.text.decode(body.tokens, skip_special_tokens=False)}


def validated(kind: type[Body], data: Any, neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL) -> Body:
    """Check a body field by field. Raises RequestError, also for fields whose value is not in `neutral`."""
    if not isinstance(data, dict):
        raise RequestError("The body must be a JSON object.", kind="Bad Request")
    _refuse_unsupported(data, neutral)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [(".".join(str(p) for p in ("body", *e["loc"][:1])), e["msg"]) for e in error.errors()]
        lines = "; ".join(f"{place}: {message}" for place, message in faults)
        raise RequestError(
            f"{len(faults)} validation errors: {lines}", faults[0][0], kind="Bad Request"
        ) from None


def _refuse_unsupported(data: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse what would silently give something else than was asked for."""
    for name, harmless in neutral.items():
        value = data.get(name)
        if value is not None and value not in harmless and value not in ([], {}):
            raise RequestError(f"{name}={value!r} is not supported by this server.", name)


def check_model(name: str | None, card: Card) -> None:
    """Raise RequestError if another model is asked for."""
    if name not in (None, "", card.name):
        message = f"The model `{name}` does not exist. Valid aliases: {card.name}."
        raise RequestError(message, "model", status=404, kind="NotFoundError")


def _prompts(body: _CompletionBody, card: Card) -> list[tuple[int, ...]]:
    prompt = body.prompt
    if not prompt:
        raise RequestError("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    several = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    if len(several) > MAX_PROMPTS:
        raise RequestError(f"prompt must hold at most {MAX_PROMPTS} prompts, got {len(several)}.", "prompt")
    return [_prompt_ids(one, body, card) for one in several]


def _prompt_ids(prompt: Any, body: _Body, card: Card) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return tuple(card.text.encode(prompt, add_special_tokens=body.add_special_tokens is not False))
    check_ids(prompt, card, "prompt")
    return tuple(prompt)


def _prompt_text(prompt: Any, index: int, ids: Sequence[int], card: Card) -> str:
    """Give the text that `echo` repeats: the prompt as it came, or the text of its ids."""
    if isinstance(prompt, str):
        return prompt
    return prompt[index] if isinstance(prompt[0], str) else card.text.decode(ids, skip_special_tokens=False)


def chat_ids(body: Chat, card: Card) -> tuple[int, ...]:
    """Render and encode messages. Raises RequestError where the model has no chat template."""
    if body.continue_final_message and body.add_generation_prompt:
        raise RequestError("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    try:
        rendered = card.text.render_chat(_contents(body.messages), continue_final=body.continue_final_message)
    except NoChatTemplateError as error:
        raise RequestError(str(error), "messages") from None
    return tuple(card.text.encode(rendered, add_special_tokens=bool(body.add_special_tokens)))


def _contents(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": content(message)} for message in messages]


def content(message: Message) -> str:
    """Give the text of a message, its parts joined."""
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _requests(
    body: _Body,
    prompts: Sequence[tuple[int, ...]],
    card: Card,
    draw: Draw,
    max_tokens: int,
    wanted: Wanted,
) -> tuple[Request, ...]:
    """Make one engine request a prompt; child j of each gets seed + j, also when prompts share a seed."""
    sampling = _sampling(body, card.default_sampling)
    _check_count(body.n, sampling)
    check_ids(body.logprob_token_ids, card, "logprob_token_ids")
    limits = Limits(
        max_tokens=max_tokens,
        stop=tuple(stop for stop in body.stop if stop),
        stop_token_ids=frozenset(body.stop_token_ids),
        keeps_stop=body.include_stop_str_in_output,
        ignores_end=body.ignore_eos,
    )
    for prompt in prompts:
        _check_length(len(prompt), max_tokens, card.context)
    first = [draw() if body.seed is None else body.seed for _ in prompts]
    seeds = [tuple(range(seed, seed + body.n)) for seed in first]
    return tuple(Request(p, s, sampling, limits, wanted) for p, s in zip(prompts, seeds, strict=True))


def _parsed(body: _Body, requests: tuple[Request, ...], echo: list[str]) -> Parsed:
    return Parsed(
        requests, tuple(echo) if body.echo else (), body.return_token_ids, body.return_tokens_as_token_ids
    )


def _sampling(body: _Body, default: Sampling) -> Sampling:
    temperature = default.temperature if body.temperature is None else body.temperature
    top_p = default.top_p if body.top_p is None else body.top_p
    top_k = default.top_k if body.top_k is None else body.top_k
    if not 0 <= temperature < float("inf"):
        raise RequestError(f"temperature must be non-negative, got {temperature}.", "temperature")
    if not 0 < top_p <= 1:
        raise RequestError(f"top_p must be in (0, 1], got {top_p}.", "top_p")
    if top_k < -1:
        raise RequestError(f"top_k must be 0 (disable), or at least 1, got {top_k}.", "top_k")
    return Sampling(temperature, top_p, max(0, top_k))


def _check_count(count: int, sampling: Sampling) -> None:
    if count < 1:
        raise RequestError(f"n must be at least 1, got {count}.")
    if count > MAX_SAMPLES:
        raise RequestError(f"n must be at most {MAX_SAMPLES}, got {count}.")
    if count > 1 and sampling.is_greedy:
        raise RequestError(f"n must be 1 when using greedy sampling, got {count}.")


def check_ids(ids: Sequence[int], card: Card, param: str) -> None:
    """Raise RequestError for a token id that the model does not have."""
    if not ids or (min(ids) >= 0 and max(ids) < card.vocabulary):
        return
    bad = next(token for token in ids if not 0 <= token < card.vocabulary)
    raise RequestError(f"Token id {bad} is out of vocabulary.", param)


def _check_length(length: int, max_tokens: int, context: int) -> None:
    """Refuse a prompt that leaves no room; one that leaves too little is served until the context is full."""
    if not length:
        raise RequestError("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if length + min(max_tokens, 1) > context:
        message = (
            f"This model's maximum context length is {context} tokens. However, your prompt contains "
            f"{length} input tokens, which leaves no room for output tokens. "
            "Please reduce the length of the input prompt."
        )
        raise RequestError(message, "input_tokens")


def _wanted(top: int | None, body: _Body, *, has_prompt: bool) -> Wanted:
    if top is not None and top < 0:
        raise RequestError(f"logprobs must be non-negative, got {top}.", "logprobs")
    if top is not None and top > MAX_LOGPROBS:
        message = f"Requested sample logprobs of {top}, which is greater than max allowed: {MAX_LOGPROBS}"
        raise RequestError(message, "logprobs")
    return Wanted(top, tuple(body.logprob_token_ids), has_prompt)
