"""Refusals as servers word them, sorted into outcomes, errors of the sweep and passing faults."""

from __future__ import annotations

import orjson
import pytest

from workers import errors
from workers.rejections import failure_of, read_complaint

SENT = ("model", "prompt", "temperature", "top_p", "max_tokens", "seed", "n", "stop", "top_k")


def body(message: str, **fields: object) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "x", "param": None, "code": None} | fields})


@pytest.mark.parametrize(
    ("status", "reply", "kind"),
    [
        (429, body("slow down"), errors.RateLimited),
        (429, body("You exceeded your current quota", code="insufficient_quota"), errors.Misconfigured),
        (500, body("oops"), errors.ServerFault),
        (502, b"<html><title>502 Bad Gateway</title></html>", errors.ServerFault),
        (503, b"", errors.ServerFault),
        (408, b"", errors.ServerFault),
        (425, b"", errors.ServerFault),
        (204, b"", errors.MalformedReply),
        (307, b"", errors.Misconfigured),
        (401, body("bad key"), errors.Misconfigured),
        (403, body("not allowed"), errors.Misconfigured),
        (403, body("blocked", code="content_filter"), errors.ContentRefused),
        (404, body("The model `nope` does not exist.", param="model", code=404), errors.Misconfigured),
        (405, b"", errors.Misconfigured),
        (413, b"Input is large", errors.ContextOverflow),
        (400, body("too long", code="context_length_exceeded"), errors.ContextOverflow),
        (
            400,
            body(
                "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input"
                " tokens (parameter=input_tokens, value=513)",
                param="input_tokens",
                code=400,
            ),
            errors.ContextOverflow,
        ),
        (422, orjson.dumps({"error": "Input validation error: `inputs` must have less than 1024 tokens"}),
         errors.ContextOverflow),
        (400, orjson.dumps({"object": "error", "message": "maximum context length is 9 tokens", "code": 400}),
         errors.ContextOverflow),
        (400, body("the request exceeds the available context size"), errors.ContextOverflow),
        (400, body("max_tokens must be at least 1, got 0.", param="max_tokens"), errors.ContextOverflow),
        (400, body("max_tokens must be at most 100, got 200.", param="max_tokens"), errors.Misconfigured),
        (400, body("'max_tokens' is too large: 600. This model's maximum context length is 512 tokens"),
         errors.Misconfigured),
        (400, body("'max_tokens' is too large: 300. This model's maximum context length is 2048 tokens"),
         errors.ContextOverflow),
        (400, body("x", innererror={"code": "ResponsibleAIPolicyViolation"}), errors.ContentRefused),
        (400, body("The prompt triggered Azure OpenAI's content management policy."), errors.ContentRefused),
        (400, body("temperature must be non-negative"), errors.Misconfigured),
        (400, body("out of range", param="top_p"), errors.Misconfigured),
        (400, body("n must be 1 when using greedy sampling, got 2."), errors.Misconfigured),
        (400, body("Unsupported parameter: 'top_k'"), errors.Misconfigured),
        (422, orjson.dumps({"detail": [{"loc": ["body", "seed"], "msg": "not an int", "input": "prompt"}]}),
         errors.Misconfigured),
        (400, body("Either prompt or prompt_embeds must be provided (parameter=prompt)", param="prompt"),
         errors.Rejected),
        (400, body("We do not stop to model this prompt."), errors.Rejected),
        (400, b"no", errors.Rejected),
    ],
)  # fmt: skip
def test_each_refusal_has_one_meaning(status: int, reply: bytes, kind: type[errors.EndpointError]) -> None:
    error = failure_of(status, reply, sent=SENT, max_tokens=512)
    assert type(error) is kind
    assert error.status == status


def test_the_message_of_the_server_is_quoted_in_one_short_line() -> None:
    error = failure_of(400, body("temperature must\nbe " + "very " * 200 + "small"), sent=SENT)
    assert str(error).startswith("HTTP 400: temperature must be very very")
    assert "\n" not in str(error)
    assert len(str(error)) < 320


def test_retry_after_travels_with_what_may_be_retried() -> None:
    assert failure_of(429, b"", retry_after_s=7.0).retry_after_s == 7.0
    assert failure_of(503, b"", retry_after_s=7.0).retry_after_s == 7.0


def test_a_page_is_told_by_its_title() -> None:
    page = b"<html><head><title>504 Gateway\n Time-out</title></head><body>...</body></html>"
    assert read_complaint(page).message == "504 Gateway Time-out"
    assert read_complaint(b"<h1>Down</h1>").message == "Down"
    assert read_complaint(b"[]").message == "[]"
    assert read_complaint(b"").message == "no message"
