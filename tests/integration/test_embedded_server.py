"""The embedded server over real HTTP on loopback: shapes, refusals, accounting, and what ends it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.embedded_models import Reference, build_tokenizer, write_model
from workers.embedded import engine
from workers.embedded.blas import limit_threads
from workers.embedded.catalog import resolve_model
from workers.embedded.server import create_app
from workers.load import ASK_HEADER, ASK_VALUE, HEADER, Load, parse_load

CONTEXT = 256


@dataclass(slots=True)
class Client:
    """A session on one server."""

    session: aiohttp.ClientSession
    running: engine.Engine
    folder: Path

    async def post(self, path: str, status: int = 200, **body: Any) -> Any:
        async with self.session.post(path, json=body) as response:
            found = await response.json()
            assert response.status == status, found
            return found

    async def complete(self, **body: Any) -> Any:
        return await self.post("/v1/completions", **{"prompt": "abc", "max_tokens": 8, **body})

    async def refusal(self, path: str = "/v1/completions", status: int = 400, **body: Any) -> Any:
        """Send what must be refused; give the error, whose shape is checked here."""
        default = {"prompt": "abc"} if path == "/v1/completions" else {}
        error = (await self.post(path, status, **{**default, **body}))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == status
        return error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    limit_threads(1)
    return write_model(tmp_path_factory.mktemp("models") / "tiny", context=CONTEXT, eos_token_id=None)


@asynccontextmanager
async def serving(folder: Path, *, api_key: str | None = None, slots: int = 8) -> AsyncIterator[Client]:
    async with engine.load(folder, slots=slots) as running:
        app = create_app(running, api_key=api_key, max_body_bytes=100_000)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
                yield Client(session, running, folder)
        finally:
            await runner.cleanup()


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[Client]:
    async with serving(folder) as client:
        yield client


def texts(body: Any) -> list[str]:
    return [choice["text"] for choice in body["choices"]]


async def test_a_completion_has_the_shape_of_vllm(client: Client) -> None:
    body = await client.complete(n=3, seed=11, model="tiny")
    assert re.fullmatch(r"cmpl-[0-9a-f]{16}", body["id"])
    assert (body["object"], body["model"]) == ("text_completion", "tiny")
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert set(body["choices"][0]) == {
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids",
    }  # fmt: skip
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 24,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_child_j_of_a_request_has_seed_plus_j(client: Client) -> None:
    whole = texts(await client.complete(n=5, seed=11))
    assert len(set(whole)) == 5
    assert texts(await client.complete(n=3, seed=11)) + texts(await client.complete(n=2, seed=14)) == whole
    assert texts(await client.complete(seed=13)) == [whole[2]]
    assert texts(await client.complete()) != texts(await client.complete())  # no seed: a fresh one each time


async def test_several_prompts_are_answered_in_order_and_share_the_seed(client: Client) -> None:
    both = await client.complete(prompt=["abc", "hello"], n=2, seed=5)
    separate = [await client.complete(prompt=prompt, n=2, seed=5) for prompt in ("abc", "hello")]
    assert texts(both) == texts(separate[0]) + texts(separate[1])
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["usage"]["prompt_tokens"] == 8
    assert both["usage"]["completion_tokens"] == 32


async def test_text_and_token_ids_are_the_same_prompt(client: Client) -> None:
    ids = build_tokenizer().encode("abc").ids
    expected = texts(await client.complete(seed=3))
    for prompt in (ids, [ids], ["abc"]):
        assert texts(await client.complete(prompt=prompt, seed=3)) == expected
    detailed = (await client.complete(seed=3, return_token_ids=True))["choices"][0]
    assert detailed["prompt_token_ids"] == ids
    assert len(detailed["token_ids"]) == 8
    assert build_tokenizer().decode(detailed["token_ids"]) == detailed["text"]


async def test_defaults_are_those_of_vllm(client: Client) -> None:
    body = await client.post(
        "/v1/completions", prompt="abc", not_a_field=1, temperature=None, n=None, stop=None
    )
    assert body["usage"]["completion_tokens"] == 16
    greedy = [texts(await client.complete(temperature=0, seed=seed))[0] for seed in (1, 2)]
    assert greedy[0] == greedy[1]


async def test_echo_repeats_the_prompt_and_can_score_it(client: Client, folder: Path) -> None:
    assert (
        texts(await client.complete(echo=True, seed=1))[0] == "abc" + texts(await client.complete(seed=1))[0]
    )
    scored = await client.complete(echo=True, max_tokens=0, logprobs=1)
    (choice,) = scored["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
    logprobs = choice["logprobs"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["a", "b", "c"], [0, 1, 2])
    ids = build_tokenizer().encode("abc").ids
    rows = Reference(folder).log_probs(ids)
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][1:] == pytest.approx([rows[0, ids[1]], rows[1, ids[2]]], abs=1e-4)
    assert scored["usage"]["completion_tokens"] == 0


async def test_log_probabilities_name_the_chosen_token_first(client: Client) -> None:
    body = await client.complete(seed=1, logprobs=2)
    logprobs = body["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == body["choices"][0]["text"]
    for token, value, top in zip(
        *(logprobs[k] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert next(iter(top.items())) == (token, value)
        assert len(top) in (2, 3)
    only = (await client.complete(seed=1, logprobs=0))["choices"][0]["logprobs"]
    assert [len(top) for top in only["top_logprobs"]] == [1] * 8
    named = (await client.complete(seed=1, logprobs=0, return_tokens_as_token_ids=True))["choices"][0][
        "logprobs"
    ]
    assert all(re.fullmatch(r"token_id:\d+", token) for token in named["tokens"])
    exact = (await client.complete(seed=1, logprobs=0, logprob_token_ids=[50, 51]))["choices"][0]["logprobs"]
    assert all(
        {build_tokenizer().id_to_token(i) for i in (50, 51)} <= set(top) for top in exact["top_logprobs"]
    )


async def test_a_stop_string_is_cut_off_and_billed(client: Client) -> None:
    text = texts(await client.complete(seed=1, max_tokens=30))[0]
    stop = text[5:7]
    at = text.index(stop)
    body = await client.complete(seed=1, max_tokens=30, stop=stop)
    choice = body["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (text[:at], "stop", stop)
    assert body["usage"]["completion_tokens"] == at + 2
    kept = await client.complete(seed=1, max_tokens=30, stop=[stop], include_stop_str_in_output=True)
    assert texts(kept) == [text[: at + 2]]


async def test_the_end_token_is_billed_and_has_no_text(client: Client) -> None:
    ids = (await client.complete(seed=1, return_token_ids=True))["choices"][0]["token_ids"]
    body = await client.complete(seed=1, stop_token_ids=[ids[0]])
    choice = body["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("", "stop", ids[0])
    assert body["usage"]["completion_tokens"] == 1


async def test_the_context_limits_silently_but_a_long_prompt_is_refused(client: Client) -> None:
    body = await client.complete(prompt="z" * 250, max_tokens=100)
    assert body["usage"]["completion_tokens"] == CONTEXT - 250
    assert body["choices"][0]["finish_reason"] == "length"
    for length in (CONTEXT, CONTEXT + 1):
        error = await client.refusal(prompt="z" * length)
        assert f"maximum context length is {CONTEXT} tokens" in error["message"]
        assert f"{length} input tokens" in error["message"]
        assert error["param"] == "input_tokens"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"n": 20_000}, "n must be at most 16384, got 20000."),
        ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2."),
        ({"temperature": -1}, "temperature must be non-negative, got -1.0."),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0."),
        ({"top_k": -2}, "top_k must be 0 (disable), or at least 1, got -2."),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"logprobs": 50}, "Requested sample logprobs of 50, which is greater than max allowed: 20"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "at most 4 items"),
        ({"prompt": ""}, "non-empty"),
        ({"prompt": []}, "non-empty"),
        ({"prompt": ["a", ""]}, "non-empty"),
        ({"prompt": [5, 10**6]}, "Token id 1000000 is out of vocabulary."),
        ({"prompt": {"a": 1}}, "body.prompt"),
        ({"seed": "x"}, "body.seed"),
        ({"seed": 2**63}, "body.seed"),
        ({"stream": True}, "stream=True is not supported"),
        ({"logit_bias": {"5": 1.0}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5 is not supported"),
    ],
)
async def test_what_cannot_be_served_is_refused(client: Client, body: dict[str, Any], message: str) -> None:
    error = await client.refusal(**body)
    assert message in error["message"]


async def test_fields_that_ask_for_nothing_are_accepted(client: Client) -> None:
    await client.complete(
        stream=False, logit_bias={}, presence_penalty=0.0, min_p=0, response_format={"type": "text"}
    )


async def test_other_refusals(client: Client) -> None:
    error = await client.refusal(status=404, model="nope")
    assert (error["type"], error["param"]) == ("NotFoundError", "model")
    assert error["message"].startswith("The model `nope` does not exist.")
    for data, status in ((b"{", 400), (b"[]", 400), (b"x" * 200_000, 413)):
        async with client.session.post("/v1/completions", data=data) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == status
    async with client.session.get("/v1/nothing") as response:
        assert (await response.json())["error"]["code"] == 404


async def test_chat_renders_the_simple_template(client: Client) -> None:
    question, start = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Step"}
    chat = await client.post("/v1/chat/completions", messages=[question], max_tokens=6, seed=4, n=2)
    assert chat["object"] == "chat.completion"
    plain = texts(await client.complete(prompt="2+2?\n\n", max_tokens=6, seed=4, n=2))
    assert [choice["message"] for choice in chat["choices"]] == [
        {"role": "assistant", "content": t} for t in plain
    ]
    continued = await client.post(
        "/v1/chat/completions",
        messages=[question, {**start, "content": [{"type": "text", "text": "Step"}]}],
        continue_final_message=True,
        add_generation_prompt=False,
        max_completion_tokens=6,
        seed=4,
    )
    assert continued["choices"][0]["message"]["content"] == texts(
        await client.complete(prompt="2+2?\n\nStep", max_tokens=6, seed=4)
    )[0]  # fmt: skip
    error = await client.refusal(
        "/v1/chat/completions", messages=[question], continue_final_message=True, add_generation_prompt=True
    )
    assert error["message"] == "Cannot set both `continue_final_message` and `add_generation_prompt` to True."


async def test_chat_fills_the_context_unless_told_otherwise_and_gives_log_probabilities(
    client: Client,
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = await client.post("/v1/chat/completions", messages=messages, logprobs=True, top_logprobs=3, seed=1)
    assert body["usage"]["total_tokens"] == CONTEXT
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == body["usage"]["completion_tokens"]
    assert {len(entry["top_logprobs"]) for entry in entries} == {3}
    assert bytes(entries[0]["bytes"]).decode() == entries[0]["token"]


async def test_tokenize_and_detokenize(client: Client) -> None:
    body = await client.post("/tokenize", prompt="a\n\nb", return_token_strs=True)
    assert body == {
        "count": 3, "max_model_len": CONTEXT, "tokens": build_tokenizer().encode("a\n\nb").ids,
        "token_strs": ["a", "\n\n", "b"],
    }  # fmt: skip
    assert await client.post("/detokenize", tokens=body["tokens"]) == {"prompt": "a\n\nb"}
    chat = await client.post("/tokenize", messages=[{"role": "user", "content": "a"}])
    assert chat["tokens"] == build_tokenizer().encode("a\n\n").ids


async def test_the_small_routes(client: Client) -> None:
    async with client.session.get("/v1/models") as response:
        (card,) = (await response.json())["data"]
        assert (card["id"], card["max_model_len"]) == ("tiny", CONTEXT)
    async with client.session.get("/health") as response:
        assert response.status == 200
    async with client.session.get("/version") as response:
        assert "version" in await response.json()


async def metric(client: Client, line: str) -> float:
    async with client.session.get("/metrics") as response:
        found = {
            name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", await response.text(), re.M)
        }
    return next(value for name, value in found.items() if name.startswith(line))


async def until(client: Client, line: str, value: float) -> None:
    while await metric(client, line) != value:  # noqa: ASYNC110 - the only view of the decoding thread is HTTP
        await asyncio.sleep(0.001)


async def test_metrics_count_what_was_done(client: Client) -> None:
    await client.complete(n=4)
    await client.complete(n=1)
    assert await metric(client, "vllm:generation_tokens_total") == 40
    assert await metric(client, "vllm:prompt_tokens_total") == 6
    assert await metric(client, "vllm:prompt_tokens_cached_total") == 3
    assert await metric(client, 'vllm:request_success_total{finished_reason="length"') == 5
    assert await metric(client, "vllm:num_requests_running") == 0


async def test_a_reply_says_how_long_the_queue_is_to_whoever_asks(client: Client) -> None:
    body = {"prompt": "abc", "max_tokens": 4}
    async with client.session.post("/v1/completions", json=body, headers={ASK_HEADER: ASK_VALUE}) as reply:
        assert parse_load(reply.headers[HEADER]) == Load(0.0, 0.0)
    async with client.session.post("/v1/completions", json=body) as reply:
        assert HEADER not in reply.headers


async def test_a_closed_connection_frees_its_slots(client: Client) -> None:
    call = asyncio.create_task(client.complete(n=20, max_tokens=250))
    await until(client, "vllm:num_requests_running", 8)
    assert await metric(client, "vllm:num_requests_waiting") == 12
    call.cancel()
    await until(client, 'vllm:request_success_total{finished_reason="abort"', 20)
    assert await metric(client, "vllm:num_requests_running") == 0
    made, aborted = (client.running.counters.generated_tokens, client.running.counters.aborted_tokens)
    assert 0 < aborted == made < 8 * 250


async def test_an_aborted_prompt_takes_all_its_siblings_along(client: Client) -> None:
    call = asyncio.create_task(client.complete(prompt=["aa", "bb", "cc"], n=2, max_tokens=250))
    await until(client, "vllm:num_requests_running", 6)
    call.cancel()
    await until(client, "vllm:num_requests_running", 0)
    assert client.running.counters.finished["abort"] == 6


async def test_a_key_is_asked_for(folder: Path) -> None:
    async with serving(folder, api_key="secret") as client:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer secret"}, 200),
        ):
            async with client.session.get("/v1/models", headers=headers) as response:
                assert response.status == status
                assert "secret" not in await response.text()
        async with client.session.get("/health") as response:
            assert response.status == 200


async def test_the_built_in_model_chats() -> None:
    async with serving(resolve_model("arithmetic")) as client:
        messages = [{"role": "user", "content": "Compute $3 + 4$."}]
        body = await client.post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=60)
        assert body["model"] == "arithmetic"
        assert body["choices"][0]["message"]["content"]


@asynccontextmanager
async def process(folder: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start the server as users do; give the process and its base URL."""
    arguments = ("-m", "workers.embedded.serve", "--model", str(folder), "--port", "0", *options)
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        assert server.stdout is not None
        line = json.loads(await server.stdout.readline())
        assert line["model"] == folder.name
        yield server, line["url"]
    finally:
        if server.returncode is None:
            server.kill()
        await server.communicate()


async def test_the_process_ends_with_its_standard_input(folder: Path) -> None:
    async with process(folder, "--exit-with-stdin") as (server, url), aiohttp.ClientSession() as session:
        async with session.post(url + "/completions", json={"prompt": "a"}) as response:
            assert response.status == 200
        assert server.stdin is not None
        server.stdin.close()
        async with asyncio.timeout(20):
            assert await server.wait() == 0


async def test_sigterm_ends_the_process_cleanly_with_work_in_flight(folder: Path) -> None:
    async with process(folder) as (server, url), aiohttp.ClientSession() as session:
        body = {"prompt": "a", "n": 2000, "max_tokens": 250}
        call = asyncio.create_task(session.post(url + "/completions", json=body))
        root = url.removesuffix("/v1")
        running = ""
        while 'vllm:num_requests_running{model_name="tiny"} 128' not in running:
            async with session.get(root + "/metrics") as response:
                running = await response.text()
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await server.wait() == 0
            with pytest.raises(aiohttp.ClientError):
                await call
        assert server.stderr is not None
        assert await server.stderr.read() == b""


async def test_the_process_reads_its_key_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_KEY", "from-env")
    async with (
        process(folder, "--api-key-env", "EMBEDDED_KEY") as (_, url),
        aiohttp.ClientSession() as session,
    ):
        for key, status in (("wrong", 401), ("from-env", 200)):
            async with session.get(url + "/models", headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status == status


async def test_a_model_that_is_not_there_is_named_in_one_line() -> None:
    pipe = asyncio.subprocess.PIPE
    arguments = (sys.executable, "-m", "workers.embedded.serve", "--model", "nonesuch")
    server = await asyncio.create_subprocess_exec(*arguments, stdout=pipe, stderr=pipe, env=dict(os.environ))
    _, stderr = await server.communicate()
    assert server.returncode == 2
    assert stderr.decode().startswith("error: no model 'nonesuch'")
    assert "arithmetic" in stderr.decode()
    assert stderr.count(b"\n") == 1
