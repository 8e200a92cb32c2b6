"""What a reply that is not a success means: pure translation of status and body into the error tree.

Servers word the same refusal in many ways; what is known of their wording is gathered here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from workers.errors import (
    ContentRefused,
    ContextOverflow,
    EndpointError,
    MalformedReply,
    Misconfigured,
    RateLimited,
    Rejected,
    ServerFault,
)
from workers.http import parse_json, shorten

_SERVER_FAULTS = frozenset({408, 409, 425, 499})
_OVERFLOW_CODES = frozenset(
    {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}
)
_REFUSAL_CODES = frozenset(
    {"content_filter", "content_policy_violation", "moderation_blocked", "responsibleaipolicyviolation"}
)
_OVERFLOW_TEXT = re.compile(
    r"context (length|window|size)|context_length|max_model_len|(prompt|input) is too long"
    r"|maximum (input|prompt|sequence|allowed) length|must have less than \d+ tokens"
    r"|inputs? tokens? \+ `?max_new_tokens"
    # vLLM 0.32 of a prompt that leaves no room for an answer; nobody sends less than 1.
    r"|max_tokens must be at least 1, got (0|-\d+)",
    re.IGNORECASE,
)
_REFUSAL_TEXT = re.compile(
    r"content (management )?(policy|filter)|content_filter|flagged by moderation", re.IGNORECASE
)
_CONTEXT_LIMIT = re.compile(r"context length (?:is|of) (\d+)", re.IGNORECASE)
_ABOUT_THE_PROBLEM = frozenset(
    {"prompt", "messages", "input", "input_tokens", "input_ids", "text", "text_1", "text_2", "query", "items"}
)
_PLAIN_WORDS = frozenset({"model", "n", "stop", "seed", "stream"}) | _ABOUT_THE_PROBLEM


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error body says, whatever its shape."""

    message: str
    param: str = ""
    code: str = ""


def read_complaint(body: bytes) -> Complaint:
    """Find message, parameter and code in an error body: OpenAI's, vLLM's, FastAPI's, HTML or plain text."""
    try:
        data = parse_json(body)
    except MalformedReply:
        return Complaint(_plain_message(body))
    if isinstance(data, dict):
        inner = data.get("error", data.get("detail", data))
        return _complaint_of(inner if isinstance(inner, dict | list | str) else data)
    return Complaint(shorten(str(data)))


def failure_of(
    status: int,
    body: bytes,
    *,
    retry_after_s: float | None = None,
    sent: Collection[str] = (),
    max_tokens: int = 0,
) -> EndpointError:
    """Name the failure that a status other than 200 stands for.

    `sent` are the fields of the request: a 400 that names one of them is an error of the sweep. `max_tokens`
    tells a context that is too short for any prompt from one that is too short for this one.
    """
    complaint = read_complaint(body)
    message = f"HTTP {status}: {complaint.message}"
    if status == 429 and complaint.code != "insufficient_quota":
        return RateLimited(message, status=status, retry_after_s=retry_after_s)
    if status < 300:
        return MalformedReply(message, status=status)
    if status >= 500 or status in _SERVER_FAULTS:
        return ServerFault(message, status=status, retry_after_s=retry_after_s)
    return _refusal(status, complaint, sent, max_tokens)(message, status=status)


def error_inside(data: Any) -> tuple[int, bytes] | None:
    """Status and body of an error that a proxy wrapped in a 200, or None."""
    error = data.get("error") if isinstance(data, dict) else None
    if not isinstance(error, dict):
        return None
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return status, shorten(str(error.get("message", error))).encode("utf-8", "replace")


def _refusal(status: int, complaint: Complaint, sent: Collection[str], max_tokens: int) -> type[Rejected]:
    code = complaint.code.lower()
    if status in (400, 403, 422) and (code in _REFUSAL_CODES or _REFUSAL_TEXT.search(complaint.message)):
        return ContentRefused
    if status in (400, 413, 422) and (code in _OVERFLOW_CODES or _OVERFLOW_TEXT.search(complaint.message)):
        return Misconfigured if _no_prompt_would_fit(complaint.message, max_tokens) else ContextOverflow
    if status == 413:
        return ContextOverflow
    if status in (400, 422) and not _names_a_field(complaint, sent):
        return Rejected
    return Misconfigured


def _no_prompt_would_fit(message: str, max_tokens: int) -> bool:
    limit = _CONTEXT_LIMIT.search(message)
    return limit is not None and "too large" in message and max_tokens >= int(limit.group(1))


def _names_a_field(complaint: Complaint, sent: Collection[str]) -> bool:
    param = complaint.param.rpartition(".")[2]
    if param:
        return param in sent and param not in _ABOUT_THE_PROBLEM
    if complaint.code == "model_not_found":
        return True
    words = set(re.findall(r"[A-Za-z_]+", complaint.message))
    quoted = set(re.findall(r"[`'\"](\w+)[`'\"]", complaint.message)) - _ABOUT_THE_PROBLEM
    opening = {complaint.message.partition(" ")[0]} - _ABOUT_THE_PROBLEM
    return any(field in quoted | opening or (field in words - _PLAIN_WORDS) for field in sent)


def _complaint_of(inner: dict[str, Any] | list[Any] | str) -> Complaint:
    if isinstance(inner, str):
        return Complaint(shorten(inner))
    if isinstance(inner, list):  # FastAPI: [{"loc": ["body", "temperature"], "msg": "..."}]
        first = inner[0] if inner and isinstance(inner[0], dict) else {}
        where = [part for part in first.get("loc", ()) if isinstance(part, str)]
        return Complaint(
            shorten(f"{'.'.join(where)}: {first.get('msg', inner)}"), param=where[-1] if where else ""
        )
    code = inner.get("code")
    nested = inner.get("innererror")
    if isinstance(nested, dict) and str(nested.get("code", "")).lower() in _REFUSAL_CODES:
        code = nested["code"]
    message = inner.get("message", inner.get("msg", inner))
    return Complaint(shorten(str(message)), str(inner.get("param") or ""), str(code or ""))


def _plain_message(body: bytes) -> str:
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return shorten(title.group(1) if title else re.sub(r"<[^>]+>", " ", text)) or "no message"
