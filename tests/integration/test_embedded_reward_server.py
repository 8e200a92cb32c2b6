"""Reward models over real HTTP: the shapes that were recorded from vLLM, refusals, accounting, hostile bodies."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.embedded_models import TAG, Reference, build_tokenizer, write_model
from tests.integration.test_embedded_server import CONTEXT, Client, metric, process, serving
from workers.embedded.blas import limit_threads

TOKENIZER = build_tokenizer(has_tag=True)
STEP, GOOD, BAD = (TOKENIZER.token_to_id(token) for token in (TAG, "+", "-"))
PROBLEM = "Compute $2 + 3$.\n\n"
STEPS = f"First, $2 + 3 = 5$.{TAG}\n\nThe answer is $\\boxed{{5}}$.{TAG}"
TEXT = PROBLEM + STEPS
IDS = TOKENIZER.encode(TEXT).ids


@pytest.fixture(scope="module")
def prm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    limit_threads(1)
    return write_model(
        tmp_path_factory.mktemp("models") / "tiny-prm", context=CONTEXT, role="prm", is_half=True
    )


@pytest.fixture(scope="module")
def orm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    limit_threads(1)
    return write_model(tmp_path_factory.mktemp("models") / "tiny-orm", context=CONTEXT, role="orm")


@pytest.fixture
async def prm(prm_folder: Path) -> AsyncIterator[Client]:
    async with serving(prm_folder) as client:
        yield client


@pytest.fixture
async def orm(orm_folder: Path) -> AsyncIterator[Client]:
    async with serving(orm_folder) as client:
        yield client


def recorded(name: str) -> dict[str, Any]:
    """Give a reply of a real vLLM 0.32, by its name; skips where the recordings are not there."""
    folder = os.environ.get("TTC_TEST_DATA")
    if not folder:
        pytest.skip("TTC_TEST_DATA is not set")
    lines = (Path(folder) / "wire" / "vllm_0.32.0_transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    return next(entry for entry in map(json.loads, lines) if entry["name"] == name)


def shape(value: Any) -> Any:
    """Reduce a reply to its keys and types; counts of tokens in detail are ours to add."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items() if key != "prompt_tokens_details"}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def expected(folder: Path, ids: list[int] = IDS) -> list[float]:
    return [1 / (1 + math.exp(-margin)) for margin in Reference(folder).margins(ids, STEP, GOOD, BAD)]


async def test_a_process_model_gives_one_row_a_tag(prm: Client, prm_folder: Path) -> None:
    body = await prm.post("/pooling", input=IDS, model="tiny-prm", task="token_classify")
    assert shape(body) == shape(recorded("rlhflow_all_classify")["response"])
    assert re.fullmatch(r"pooling-[0-9a-f]{16}", body["id"])
    (entry,) = body["data"]
    assert (entry["index"], entry["object"]) == (0, "pooling")
    assert [len(row) for row in entry["data"]] == [1, 1]
    assert [row[0] for row in entry["data"]] == pytest.approx(expected(prm_folder), abs=1e-5)
    assert body["usage"] == {
        "prompt_tokens": len(IDS), "total_tokens": len(IDS), "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": None,
    }  # fmt: skip


async def test_all_ways_to_say_it_give_the_same_numbers(prm: Client) -> None:
    messages = [{"role": "user", "content": PROBLEM.strip()}, {"role": "assistant", "content": STEPS}]
    wanted = (await prm.post("/pooling", input=TEXT))["data"][0]["data"]
    for body in (
        {"input": [TEXT]},
        {"input": IDS},
        {"input": [IDS]},
        {"messages": messages, "add_generation_prompt": False},
        {"messages": messages},
        {"input": TEXT, "use_activation": True, "priority": 1, "no_such_field": 1},
    ):
        found = await prm.post("/pooling", **body)
        assert [entry["data"] for entry in found["data"]] == [wanted]
        assert found["usage"]["prompt_tokens"] == len(IDS)


async def test_several_texts_come_back_in_their_order(prm: Client) -> None:
    others = [TEXT, f"x{TAG}y{TAG}", "no tag here", TEXT]
    body = await prm.post("/pooling", input=others)
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2, 3]
    separate = [(await prm.post("/pooling", input=text))["data"][0]["data"] for text in others]
    assert [entry["data"] for entry in body["data"]] == separate
    assert separate[2] == []  # 200 all the same, as recorded in prm_no_step_tag
    assert body["usage"]["prompt_tokens"] == sum(len(TOKENIZER.encode(text).ids) for text in others)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(IDS)


async def test_without_activation_it_gives_the_difference_of_the_logits(
    prm: Client, prm_folder: Path
) -> None:
    rows = (await prm.post("/pooling", input=TEXT, use_activation=False))["data"][0]["data"]
    assert [row[0] for row in rows] == pytest.approx(
        Reference(prm_folder).margins(IDS, STEP, GOOD, BAD), abs=2e-4
    )


async def test_numbers_as_base64_and_as_bytes(prm: Client) -> None:
    texts = [TEXT, "no tag", f"a{TAG}"]
    rows = [entry["data"] for entry in (await prm.post("/pooling", input=texts))["data"]]
    coded = await prm.post("/pooling", input=texts, encoding_format="base64")
    flat = [list(struct.unpack(f"<{len(each)}f", base64.b64decode(entry["data"])))
            for entry, each in zip(coded["data"], rows, strict=True)]  # fmt: skip
    assert flat == [[row[0] for row in each] for each in rows]
    body = {"input": texts, "encoding_format": "bytes", "endianness": "big"}
    async with prm.session.post("/pooling", json=body) as response:
        assert response.headers["Content-Type"] == "application/octet-stream"
        metadata, content = json.loads(response.headers["metadata"]), await response.read()
    assert shape(metadata) == shape(json.loads(recorded("prm_bytes")["response_headers"]["metadata"]))
    assert [entry["shape"] for entry in metadata["data"]] == [[2, 1], [0, 1], [1, 1]]
    for entry, each in zip(metadata["data"], rows, strict=True):
        piece = content[entry["start"] : entry["end"]]
        assert np.frombuffer(piece, ">f4").tolist() == [row[0] for row in each]
    body = {"input": TEXT, "encoding_format": "bytes_only", "embed_dtype": "float16"}
    async with prm.session.post("/pooling", json=body) as response:
        assert "metadata" not in response.headers
        assert np.frombuffer(await response.read(), "<f2") == pytest.approx(
            [row[0] for row in rows[0]], abs=1e-3
        )


async def test_truncation_keeps_the_beginning_and_may_eat_the_tags(prm: Client) -> None:
    whole = (await prm.post("/pooling", input=TEXT))["data"][0]["data"]
    cut = await prm.post("/pooling", input=TEXT, truncate_prompt_tokens=IDS.index(STEP) + 1)
    assert cut["data"][0]["data"] == whole[:1]
    assert cut["usage"]["prompt_tokens"] == IDS.index(STEP) + 1
    eaten = await prm.post("/pooling", input="x" * 10_000 + TAG, truncate_prompt_tokens=100)
    assert (eaten["data"][0]["data"], eaten["usage"]["prompt_tokens"]) == ([], 100)
    longest = await prm.post("/pooling", input="x" * 10_000 + TAG, truncate_prompt_tokens=-1)
    assert longest["usage"]["prompt_tokens"] == CONTEXT
    left = await prm.post(
        "/pooling", input="x" * 10_000 + TAG, truncate_prompt_tokens=7, truncation_side="left"
    )
    assert (len(left["data"][0]["data"]), left["usage"]["prompt_tokens"]) == (1, 7)
    error = await prm.refusal("/pooling", input=TEXT, truncate_prompt_tokens=CONTEXT + 1)
    assert error["param"] == "truncate_prompt_tokens"


async def test_what_vllm_refuses_is_refused_in_its_words(prm: Client) -> None:
    long = recorded("prm_too_long")["response"]["error"]
    for text in ("x" * (CONTEXT + 1), "x" * 90_000, [40] * (CONTEXT + 1)):
        found = await prm.refusal("/pooling", input=text)
        assert found == {**long, "message": long["message"].replace("512", "256").replace("513", "257")}
    assert (
        await prm.refusal("/pooling", input="a", task="embed")
        == recorded("prm_bad_task")["response"]["error"]
    )
    for nothing in ("", [], [""], [[]]):
        assert await prm.refusal("/pooling", input=nothing) == recorded("prm_empty")["response"]["error"]
    assert (await prm.refusal("/pooling", 404, input="a", model="nope"))["type"] == "NotFoundError"
    await prm.post("/pooling", input="x" * CONTEXT)  # exactly the context: it is served


@pytest.mark.parametrize("name", ["prm_embeddings", "prm_classify"])
async def test_a_process_model_has_no_other_routes_of_this_kind(prm: Client, name: str) -> None:
    transcript = recorded(name)
    async with prm.session.post(transcript["path"], json={"input": "a"}) as response:
        assert response.status == transcript["status"] == 404
        assert transcript["response"].items() <= (await response.json()).items()


@pytest.mark.parametrize("path", ["/pooling", "/classify", "/score", "/v1/score"])
async def test_a_policy_does_not_score(tmp_path: Path, path: str) -> None:
    async with serving(write_model(tmp_path / "policy", context=CONTEXT)) as client:
        error = await client.refusal(path, 404, input=TEXT, text_1="a", text_2="b")
        assert error["code"] == 404


async def test_completions_of_a_reward_model_give_the_same_probabilities(prm: Client) -> None:
    """The way for servers that only generate: one prompt a step, two log-probabilities, exactly the same numbers."""
    wanted = [row[0] for row in (await prm.post("/pooling", input=IDS))["data"][0]["data"]]
    ends = [end for end, token in enumerate(IDS, 1) if token == STEP]
    body = await prm.complete(
        prompt=[IDS[:end] for end in ends], max_tokens=1, temperature=0, logprobs=0,
        logprob_token_ids=[GOOD, BAD], return_tokens_as_token_ids=True,
    )  # fmt: skip
    found = []
    for choice in body["choices"]:
        (top,) = choice["logprobs"]["top_logprobs"]
        good, bad = top[f"token_id:{GOOD}"], top[f"token_id:{BAD}"]
        found.append(float(np.float32(1 / (1 + math.exp(bad - good)))))
    assert found == wanted


async def test_generative_scoring(prm: Client, prm_folder: Path) -> None:
    wanted = [row[0] for row in (await prm.post("/pooling", input=IDS))["data"][0]["data"]]
    ends = [end for end, token in enumerate(IDS, 1) if token == STEP]
    body = {"query": IDS[:5], "items": [IDS[5:end] for end in ends], "label_token_ids": [GOOD, BAD]}
    found = await prm.post("/generative_scoring", **body)
    assert shape(found) == shape(recorded("shep_generative_scoring2")["response"])
    assert found["id"].startswith("generative-scoring-")
    assert [float(np.float32(entry["score"])) for entry in found["data"]] == wanted
    assert found["usage"]["prompt_tokens"] == sum(ends)
    assert (found["usage"]["completion_tokens"], found["usage"]["total_tokens"]) == (2, sum(ends) + 2)
    texts = {"query": PROBLEM, "items": [STEPS], "label_token_ids": [BAD, GOOD]}
    assert (await prm.post("/generative_scoring", **texts))["data"][0]["score"] == pytest.approx(
        1 - wanted[1]
    )
    whole = await prm.post("/generative_scoring", **texts, apply_softmax=False)
    log_probs = Reference(prm_folder).log_probs(IDS)[-1]
    assert whole["data"][0]["score"] == pytest.approx(math.exp(log_probs[BAD]), rel=1e-3)
    turned = {"query": STEPS, "items": [PROBLEM], "label_token_ids": [BAD, GOOD], "item_first": True}
    assert (await prm.post("/generative_scoring", **turned))["data"] == (
        await prm.post("/generative_scoring", **texts)
    )["data"]  # fmt: skip
    long = await prm.post("/generative_scoring", query="", items=["x" * 300], label_token_ids=[GOOD])
    assert long["usage"]["prompt_tokens"] == CONTEXT - 1
    for wrong, words in (
        ({"items": []}, "items must contain at least one item."),
        ({"label_token_ids": []}, "label_token_ids must contain at least one token ID."),
        ({"label_token_ids": [10**6]}, "label_token_id 1000000 is out of vocabulary range"),
        ({"query": "", "items": [""]}, "The decoder prompt cannot be empty"),
        ({"items": [1, 2]}, "body.items"),
        ({"query": [[1]]}, "body.query"),
    ):
        assert words in (await prm.refusal("/generative_scoring", **{**body, **wrong}))["message"]


async def test_an_outcome_model_is_read_at_the_last_tag(orm: Client, orm_folder: Path) -> None:
    value = expected(orm_folder)[-1]
    pooled = await orm.post("/pooling", input=[TEXT, "no tag"], task="classify")
    assert pooled["data"][0]["data"] == pytest.approx([value], abs=1e-5)
    assert pooled["data"][1]["data"] == []
    classified = await orm.post("/classify", input=[TEXT, TEXT])
    assert classified["id"].startswith("classify-")
    assert classified["data"][1] == {
        "index": 1, "label": "LABEL_0", "probs": pooled["data"][0]["data"], "num_classes": 1
    }  # fmt: skip
    raw = await orm.post("/classify", input=TEXT, use_activation=False)
    assert raw["data"][0]["probs"] == pytest.approx([math.log(value / (1 - value))], abs=1e-3)
    assert "no <|step|>" in (await orm.refusal("/classify", input=[TEXT, "no tag"]))["message"]
    refused = await orm.refusal("/pooling", input=TEXT, task="token_classify")
    assert refused["message"].startswith("Unsupported task: 'token_classify' Supported tasks: ['classify']")


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_pairs_are_joined_and_scored(orm: Client, orm_folder: Path, path: str) -> None:
    value = expected(orm_folder)[-1]
    for body, count in (
        ({"text_1": PROBLEM, "text_2": STEPS}, 1),
        ({"text_1": PROBLEM, "text_2": [STEPS, STEPS]}, 2),
        ({"queries": [PROBLEM, PROBLEM], "documents": [STEPS, STEPS]}, 2),
        ({"queries": PROBLEM, "items": [STEPS]}, 1),
        ({"data_1": [PROBLEM], "data_2": [STEPS] * 3}, 3),
    ):
        found = await orm.post(path, **body)
        assert found["id"].startswith("score-")
        assert [(entry["index"], entry["object"]) for entry in found["data"]] == [
            (i, "score") for i in range(count)
        ]
        assert [entry["score"] for entry in found["data"]] == pytest.approx([value] * count, abs=1e-5)
        assert found["usage"]["prompt_tokens"] == len(IDS) * count
    for body, words in (
        ({"text_1": ["a", "b"], "text_2": [TAG]}, "Input lengths must be either 1:1, 1:N or N:N"),
        ({"text_1": [], "text_2": [TAG]}, "At least one text element must be given"),
        ({"text_1": "a", "text_2": []}, "At least one text_pair element must be given"),
        ({"text_1": "a", "text_2": "b"}, "no <|step|>"),
        ({"text_1": "a"}, "must be given"),
        ({"text_1": "a", "text_2": [1]}, "body.text_2"),
        ({"text_1": {"content": []}, "text_2": "b"}, "body.text_1"),
        ({"text_1": "x" * 300, "text_2": TAG}, "maximum context length is 256 tokens"),
    ):
        assert words in (await orm.refusal(path, **body))["message"]


HOSTILE: list[dict[str, Any]] = [
    {},
    {"input": None},
    {"input": 5},
    {"input": True},
    {"input": {"a": 1}},
    {"input": [1.5]},
    {"input": [True, False]},
    {"input": ["a", 1]},
    {"input": [1, "a"]},
    {"input": [[1], "a"]},
    {"input": [["a"]]},
    {"input": [[[1]]]},
    {"input": [None]},
    {"input": [-1]},
    {"input": [[STEP + 1]]},
    {"input": [2**62]},
    {"input": ["a"] * 5000},
    {"input": [[]] * 20_000},
    {"messages": []},
    {"messages": "a"},
    {"messages": [{"role": 1, "content": 2}]},
    {"messages": [{"role": "user", "content": "x" * 90_000}]},
    {"input": TEXT, "truncate_prompt_tokens": -2},
    {"input": TEXT, "truncate_prompt_tokens": 0},
    {"input": TEXT, "truncate_prompt_tokens": "many"},
    {"input": TEXT, "truncate_prompt_tokens": 10**30},
    {"input": TEXT, "truncation_side": "both"},
    {"input": TEXT, "encoding_format": "xml"},
    {"input": TEXT, "embed_dtype": "fp8_e4m3"},
    {"input": TEXT, "endianness": 1},
    {"input": TEXT, "use_activation": "perhaps"},
    {"input": TEXT, "task": ["token_classify"]},
    {"input": TEXT, "dimensions": 3},
    {"input": TEXT, "normalize": True},
    {"input": TEXT, "model": 7},
]


async def test_hostile_bodies_are_refused_and_the_server_goes_on(prm: Client) -> None:
    for body in HOSTILE:
        async with prm.session.post("/pooling", json=body) as response:
            found = await response.json()
            assert response.status == 400, (body if len(str(body)) < 200 else str(body)[:200], found)
            assert set(found["error"]) == {"message", "type", "param", "code"}
            assert len(found["error"]["message"]) < 2000
    for data, status in ((b"{", 400), (b"[]", 400), (b'"a"', 400), (b"x" * 200_000, 413)):
        async with prm.session.post("/pooling", data=data) as response:
            assert response.status == status
    odd = await prm.post("/pooling", input=[TAG * 200, "\u0000é→\ud83d\ude00" + TAG, TAG, f"{TAG}\n\n{TAG}"])
    assert [len(entry["data"]) for entry in odd["data"]] == [200, 1, 1, 2]
    assert not prm.running.failed.is_set()


async def test_hostile_bodies_do_not_break_the_other_routes(orm: Client) -> None:
    for path in ("/classify", "/score", "/generative_scoring"):
        for body in HOSTILE:
            given = {**body, "text_1": body.get("input"), "text_2": body.get("input")}
            given |= {"query": body.get("input"), "items": body.get("input"), "label_token_ids": [GOOD]}
            async with orm.session.post(path, json=given) as response:
                assert response.status in (200, 400, 413), (path, await response.text())
    assert not orm.running.failed.is_set()


async def test_metrics_and_the_card_of_a_reward_model(prm: Client) -> None:
    await prm.post("/pooling", input=[TEXT, TEXT])
    assert await metric(prm, "vllm:prompt_tokens_total") == 2 * len(IDS)
    assert await metric(prm, "vllm:prompt_tokens_cached_total") == len(IDS)
    assert await metric(prm, 'vllm:request_success_total{finished_reason="stop"') == 2
    assert await metric(prm, "vllm:num_requests_waiting") == 0
    async with prm.session.get("/v1/models") as response:
        (entry,) = (await response.json())["data"]
        assert (entry["id"], entry["max_model_len"]) == ("tiny-prm", CONTEXT)


async def test_scores_do_not_depend_on_who_else_asks(prm: Client) -> None:
    """Many clients at once, while samples are drawn: every number is that of a quiet server."""
    texts = [
        f"Compute ${a} + {b}$.\n\nIt is {a + b}.{TAG}\n\nSo {a}.{TAG}" for a in range(6) for b in range(6)
    ]
    quiet = [(await prm.post("/pooling", input=text))["data"][0]["data"] for text in texts]
    async with serving(prm.folder) as busy, asyncio.TaskGroup() as group:
        samples = group.create_task(busy.complete(n=8, max_tokens=100))
        calls = [group.create_task(busy.post("/pooling", input=texts[at : at + 5])) for at in range(0, 36, 5)]
    found = [entry["data"] for call in calls for entry in call.result()["data"]]
    assert found == quiet
    assert len(samples.result()["choices"]) == 8


async def test_the_process_serves_a_reward_model(prm_folder: Path) -> None:
    async with (
        process(prm_folder) as (_, url),
        aiohttp.ClientSession(url.removesuffix("v1")) as session,
        session.post("/pooling", json={"input": TEXT}) as response,
    ):
        assert response.status == 200
        assert len((await response.json())["data"][0]["data"]) == 2
