"""Requests and replies of generations, without a network; and every recorded reply of a real vLLM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers.errors import ContextOverflow, MalformedReply, Misconfigured, Rejected, ServerFault
from workers.http import parse_json
from workers.rejections import failure_of
from workers.types import Api, EndpointSettings, GeneratorSettings, Outcome, Sampling
from workers.wire import (
    Capabilities,
    body_bound,
    build_payload,
    deadline_s,
    prompt_chars,
    read_reply,
    render,
    sanitize,
    token_estimate,
)

ENDPOINT = EndpointSettings(
    name="m", urls=("http://h/v1",), deadline_base_s=60.0, tokens_per_second_floor=5.0
)


def generator(
    api: Api = Api.COMPLETIONS, sampling: Sampling | None = None, **fields: Any
) -> GeneratorSettings:
    values: dict[str, Any] = {
        "generator_id": 1,
        "fingerprint": "f",
        "model": "m",
        "api": api,
        "template": "Q: {problem} A:",
        "system": None,
        "sampling": sampling or Sampling(max_tokens=100),
        "samples_per_request": 8,
        "endpoint": ENDPOINT,
    }
    return GeneratorSettings(**(values | fields))


def build(
    settings: GeneratorSettings, statement: str = "2+2", count: int = 2, can: Capabilities | None = None
) -> dict[str, Any]:
    return build_payload(settings, statement, seed=7, count=count, capabilities=can or Capabilities())


def completion(*texts: str, reason: str = "stop", **usage: Any) -> dict[str, Any]:
    choices = [{"index": i, "text": text, "finish_reason": reason} for i, text in enumerate(texts)]
    return {"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 9} | usage}


def outcomes(data: dict[str, Any], max_tokens: int = 100) -> list[Outcome]:
    payload = {"n": len(data["choices"]), "max_tokens": max_tokens}
    return [sample.outcome for sample in read_reply(data, payload, Api.COMPLETIONS).samples]


def test_everything_that_has_a_default_elsewhere_is_sent() -> None:
    payload = build(generator(sampling=Sampling(0.7, 0.9, 40, 256, ("\n\n",))))
    assert payload == {
        "model": "m",
        "prompt": "Q: 2+2 A:",
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 256,
        "stop": ["\n\n"],
        "seed": 7,
        "n": 2,
        "logprobs": 0,
        "return_token_ids": True,
    }


def test_what_is_off_or_not_supported_is_not_sent() -> None:
    payload = build(generator(), can=Capabilities(token_ids=False, logprobs=False))
    assert payload.keys().isdisjoint({"top_k", "stop", "logprobs", "return_token_ids"})


def test_chat_sends_the_system_and_the_problem_as_messages() -> None:
    payload = build(generator(Api.CHAT, system="Be terse."))
    assert payload["messages"] == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Q: 2+2 A:"},
    ]
    assert payload["logprobs"] is True
    assert build(generator(Api.CHAT))["messages"] == [{"role": "user", "content": "Q: 2+2 A:"}]


def test_only_the_problem_is_a_field_of_the_template() -> None:
    assert (
        render("{x} {problem} {{}} %s", r"\frac{1}{2} {problem} \0")
        == r"{x} \frac{1}{2} {problem} \0 {{}} %s"
    )


def test_five_stops_are_an_error_of_the_sweep() -> None:
    with pytest.raises(Misconfigured, match="at most 4"):
        build(generator(sampling=Sampling(stop=("a", "b", "c", "d", "e"))))


def test_bounds_follow_from_the_request() -> None:
    assert deadline_s(ENDPOINT, Sampling(max_tokens=1000)) == 260.0
    payload = build(generator(), statement="x" * 394, count=4)
    assert prompt_chars(payload) == 400
    assert token_estimate(payload, 400) == 500
    assert prompt_chars(build(generator(Api.CHAT, system="12345"))) == 14
    token = b'{"token":"\\u0416\\u0416","logprob":-12.345678901234567,"bytes":[208,150,208,150],"top_logprobs":[]},'
    assert body_bound(payload, 400) > 4 * 100 * len(token) + 4 * 400 * 7


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("a\x00b", "a\ufffdb"),
        ("é\ud800\udc00é", "é\ufffd\ufffdé"),
        ("ки 𝛼\n", "ки 𝛼\n"),
        ("", ""),
    ],
)
def test_sanitize_replaces_one_for_one(text: str, clean: str) -> None:
    assert sanitize(text) == clean
    assert len(clean) == len(text)
    clean.encode()


def test_outcomes_by_finish_reason() -> None:
    assert outcomes(completion("x")) == [Outcome.COMPLETE]
    assert outcomes(completion(" \n")) == [Outcome.EMPTY]
    assert outcomes(completion("x", reason="content_filter")) == [Outcome.REFUSED]
    assert outcomes(completion("x", reason="length", completion_tokens=100)) == [Outcome.TRUNCATED]
    assert outcomes(completion("x", reason="length", completion_tokens=99)) == [Outcome.OVERFLOW]
    assert outcomes(completion("", reason="length", completion_tokens=100)) == [Outcome.TRUNCATED]
    assert outcomes(completion("x", "y", reason="length", completion_tokens=3)) == [Outcome.TRUNCATED] * 2
    with pytest.raises(ServerFault):
        outcomes(completion("x", reason="abort"))
    odd: list[Any] = ["mystery", None, []]
    for reason in odd:
        with pytest.raises(MalformedReply):
            outcomes(completion("x", reason=reason))


def test_choices_are_put_in_the_order_of_their_seeds() -> None:
    data = completion("a", "b", "c")
    data["choices"].reverse()
    reading = read_reply(data, {"n": 3, "max_tokens": 9}, Api.COMPLETIONS)
    assert [sample.text for sample in reading.samples] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": ["x", "y"]},
        completion("a"),
        completion("a", "b", "c"),
        {"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}] * 2},
        {"choices": [{"index": i, "text": "a", "finish_reason": "stop"} for i in (1, 2)]},
        {"choices": [{"index": i, "text": "a", "finish_reason": "stop"} for i in (True, False)]},
        {"choices": [{"text": "a", "finish_reason": "stop"}] * 2},
        {"choices": [{"index": i, "finish_reason": "stop"} for i in (0, 1)]},
        {"choices": [{"index": i, "text": 3, "finish_reason": "stop"} for i in (0, 1)]},
    ],
)
def test_another_reply_than_was_asked_for_is_malformed(data: Any) -> None:
    with pytest.raises(MalformedReply):
        read_reply(data, {"n": 2, "max_tokens": 9}, Api.COMPLETIONS)


def test_counts_a_choice_come_from_its_token_ids_or_from_a_usage_of_one() -> None:
    both = completion("a", "b", completion_tokens=7)
    both["choices"][0]["token_ids"] = [1, 2, 3]
    reading = read_reply(both, {"n": 2, "max_tokens": 9}, Api.COMPLETIONS)
    assert [sample.completion_tokens for sample in reading.samples] == [3, None]
    assert (reading.prompt_tokens, reading.completion_tokens, reading.cached_tokens) == (5, 7, 0)
    one = read_reply(completion("a", completion_tokens=7), {"n": 1, "max_tokens": 9}, Api.COMPLETIONS)
    assert one.samples[0].completion_tokens == 7
    bare = {"choices": both["choices"], "usage": {"prompt_tokens": "5", "completion_tokens": -1}}
    reading = read_reply(bare, {"n": 2, "max_tokens": 9}, Api.COMPLETIONS)
    assert (reading.prompt_tokens, reading.completion_tokens) == (0, 3)


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([-0.5, -1.0], -1.5),
        ([], 0.0),
        ([-0.5, None], None),
        ([float("nan")], None),
        ([float("-inf")], None),
        ([float("inf"), float("-inf")], None),
        (["x"], None),
        (None, None),
    ],
)
@pytest.mark.parametrize("api", list(Api))
def test_logprobs_are_summed_or_none_and_never_an_exception(
    values: Any, total: float | None, api: Api
) -> None:
    if api is Api.CHAT:
        entries = None if values is None else [{"logprob": value} for value in values]
        choice = {"message": {"content": "a"}, "logprobs": {"content": entries}}
    else:
        choice = {"text": "a", "logprobs": {"token_logprobs": values}}
    data = {"choices": [choice | {"index": 0, "finish_reason": "stop"}]}
    asked = read_reply(data, {"n": 1, "max_tokens": 9, "logprobs": 0}, api)
    assert asked.samples[0].logprob_sum == total
    assert asked.bad_logprobs == (total is None)
    assert read_reply(data, {"n": 1, "max_tokens": 9}, api).bad_logprobs == 0


def test_a_chat_answer_may_be_null_or_a_refusal() -> None:
    def outcome(message: dict[str, Any], reason: str = "stop") -> Outcome:
        data = {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
        return read_reply(data, {"n": 1, "max_tokens": 9}, Api.CHAT).samples[0].outcome

    assert outcome({"content": None, "reasoning": "hmm"}, "length") is Outcome.TRUNCATED
    assert outcome({"content": None}) is Outcome.EMPTY
    assert outcome({"content": None, "refusal": "no"}) is Outcome.REFUSED
    with pytest.raises(MalformedReply):
        outcome({"role": "assistant"})


def test_json_as_sloppy_servers_write_it() -> None:
    assert parse_json(b'{"a": "\\ud800"}') == {"a": "\ud800"}
    assert parse_json(b'{"a": -Infinity}') == {"a": float("-inf")}
    assert parse_json(b'{"a": "\xff"}') == {"a": "\ufffd"}
    for bad in (b"", b"<html>", b'{"a": ', b"[" * 100_000):
        with pytest.raises(MalformedReply):
            parse_json(bad)
    with pytest.raises(MalformedReply, match=r"not JSON: 'key \*\*\*'"):
        parse_json(b"key sk-1", "sk-1")


def transcripts() -> list[dict[str, Any]]:
    folder = os.environ.get("TTC_TEST_DATA")
    if not folder:
        pytest.skip("TTC_TEST_DATA is not set: no recorded replies to read")
    files = sorted(Path(folder, "wire").glob("*.jsonl"))
    assert files
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


def generation_calls() -> dict[str, dict[str, Any]]:
    paths = {"/v1/completions": Api.COMPLETIONS, "/v1/chat/completions": Api.CHAT}
    return {
        row["name"]: row | {"api": paths[row["path"]]}
        for row in transcripts()
        if row.get("path") in paths and row["server"] == "gen" and row.get("status") is not None
    }


def payload_of(row: dict[str, Any]) -> dict[str, Any]:
    asked = row["request"]
    prompt = asked.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    return {**asked, "n": asked.get("n", 1) * prompts, "max_tokens": asked.get("max_tokens", 16)}


def test_every_recorded_reply_is_read() -> None:
    calls = generation_calls()
    abridged = {"n2048", "n200_gt_max_seqs"}
    read = 0
    for name, row in calls.items():
        is_plain = isinstance(row["response"], dict) and "choices" in row["response"]
        if name in abridged or row["status"] != 200 or not is_plain:
            continue
        payload = payload_of(row)
        reading = read_reply(row["response"], payload, row["api"])
        usage = row["response"]["usage"]
        assert len(reading.samples) == payload["n"], name
        assert reading.completion_tokens == usage["completion_tokens"], name
        assert reading.prompt_tokens == usage["prompt_tokens"], name
        if all(choice.get("token_ids") for choice in row["response"]["choices"]):
            assert sum(s.completion_tokens or 0 for s in reading.samples) == usage["completion_tokens"], name
        read += 1
    assert read >= 40


def sample_of(name: str) -> Any:
    row = generation_calls()[name]
    return read_reply(row["response"], payload_of(row), row["api"]).samples[0]


def test_recorded_ends_are_told_apart() -> None:
    assert (sample_of("eos").outcome, sample_of("eos").stop_reason) == (Outcome.EMPTY, None)
    assert (sample_of("stop_str").outcome, sample_of("stop_str").stop_reason) == (Outcome.EMPTY, "\n\n")
    assert sample_of("stop_str").completion_tokens == 2
    assert sample_of("stop_token_id").stop_reason == 9
    assert sample_of("length").outcome is Outcome.TRUNCATED
    assert sample_of("err_ctx_overflow").outcome is Outcome.OVERFLOW
    assert sample_of("err_ctx_overflow").completion_tokens == 12
    assert sample_of("return_token_ids").completion_tokens == 3
    assert sample_of("logprobs0").logprob_sum == pytest.approx(-13.8414, abs=1e-3)
    assert sample_of("chat_basic").logprob_sum == pytest.approx(-14.0920, abs=1e-3)
    assert sample_of("chat_basic").completion_tokens == 3


def test_recorded_cache_hits_are_counted() -> None:
    row = generation_calls()["prefix_cache_2"]
    assert read_reply(row["response"], payload_of(row), row["api"]).cached_tokens == 128


def test_a_reply_that_holds_fewer_choices_than_asked_for_is_not_taken() -> None:
    """The record of n = 2048 was shortened to three choices: just what must not pass for a reply."""
    row = generation_calls()["n2048"]
    with pytest.raises(MalformedReply, match="3 choices came where 2048"):
        read_reply(row["response"], payload_of(row), row["api"])


def test_recorded_children_draw_what_their_seeds_draw_alone() -> None:
    calls = generation_calls()
    four, next_four = (
        [s.text for s in read_reply(calls[n]["response"], payload_of(calls[n]), Api.COMPLETIONS).samples]
        for n in ("seed11_n4", "seed12_n4")
    )
    assert four[1:] == next_four[:3]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("err_too_long", ContextOverflow),
        ("err_bad_model", Misconfigured),
        ("err_n0", Misconfigured),
        ("err_n_greedy", Misconfigured),
        ("err_temp_neg", Misconfigured),
        ("err_n_huge", Misconfigured),
        ("err_logprobs_big", Misconfigured),
        ("err_stops5", Misconfigured),
        ("err_empty_prompt", Rejected),
    ],
)
def test_recorded_refusals(name: str, kind: type[Rejected]) -> None:
    row = generation_calls()[name]
    error = failure_of(
        row["status"], orjson.dumps(row["response"]), sent=row["request"].keys(), max_tokens=16
    )
    assert type(error) is kind
    assert " ".join(row["response"]["error"]["message"][:40].split()) in str(error)
