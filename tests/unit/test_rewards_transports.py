"""Requests for scores and their replies without a network: the shapes, the counts, and what is refused."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers import errors
from workers.rejections import failure_of
from workers.rewards.contract import BrokenContract
from workers.rewards.goldens import goldens_of
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.transports import MAX_PROMPTS, Ask, TokenUsage, ask, prompt_count, usage_of
from workers.types import EndpointSettings, RewardOptions, ScorerKind, ScorerSettings, Transport

DATA = os.environ.get("TTC_TEST_DATA")
LABELS = Vocabulary(good_id=24, bad_id=26, good_text="+", bad_text="-")
TEXT = Query(2, Place.TAGS, text="a<t>b<t>", adds_special_tokens=False)
TAGS = Query(2, Place.TAGS, ids=(1, 7, 2, 7), positions=(1, 3))
TOKENS = Query(2, Place.TOKENS, ids=(1, 7, 2, 7), positions=(0, 2))
END = Query(1, Place.END, ids=(1, 7, 2, 7), positions=(3,), tag_count=2)
PLAIN = Query(1, Place.END, text="good", first_text="problem")


def asked(transport: Transport, *queries: Query, is_logit: bool = False) -> Ask:
    return ask(transport, "m", queries, LABELS, is_logit=is_logit)


def scorer_named(model: str) -> ScorerSettings:
    endpoint = EndpointSettings(name="scorer", urls=("http://127.0.0.1:1/v1",))
    return ScorerSettings(1, "f", ScorerKind.PRM, "qwen", model, RewardOptions(), 4, endpoint)


def pooled(*rows: Any, tokens: int | None = None) -> dict[str, Any]:
    data = [{"index": i, "object": "pooling", "data": own} for i, own in enumerate(rows)]
    return {"data": data, "usage": {"prompt_tokens": tokens} if tokens is not None else None}


def choice(index: int, good: Any, bad: Any, **other: Any) -> dict[str, Any]:
    top = {"token_id:24": good, "token_id:26": bad} | other
    return {"index": index, "text": "x", "logprobs": {"tokens": ["x"], "top_logprobs": [top]}}


def test_pooling_sends_ids_where_all_are_known_and_asks_for_probabilities() -> None:
    request = asked(Transport.POOLING, TAGS, TOKENS)
    assert (request.path, request.is_at_root, request.size) == ("/pooling", True, 8)
    assert request.payload == {
        "model": "m",
        "input": [[1, 7, 2, 7], [1, 7, 2, 7]],
        "task": "token_classify",
        "use_activation": True,
    }
    assert asked(Transport.POOLING, TEXT, is_logit=True).payload == {
        "model": "m",
        "input": ["a<t>b<t>"],
        "add_special_tokens": False,
        "task": "token_classify",
        "use_activation": False,
    }
    assert "task" not in asked(Transport.POOLING, END).payload


def test_one_prompt_a_step_goes_to_completions_and_generative_scoring() -> None:
    prefixes = [[1, 7], [1, 7, 2, 7], [1], [1, 7, 2]]
    completions = asked(Transport.COMPLETIONS, TAGS, TOKENS)
    assert (completions.path, completions.is_at_root, completions.size) == ("/completions", False, 10)
    assert completions.payload == {
        "model": "m",
        "prompt": prefixes,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 0,
        "logprob_token_ids": [24, 26],
        "return_tokens_as_token_ids": True,
    }
    generative = asked(Transport.GENERATIVE_SCORING, TAGS, TOKENS)
    assert (generative.path, generative.is_at_root) == ("/generative_scoring", True)
    assert generative.payload["items"] == prefixes
    assert generative.payload["label_token_ids"] == [24, 26]
    assert [prompt_count(Transport.COMPLETIONS, TAGS), prompt_count(Transport.POOLING, TAGS)] == [2, 1]
    assert MAX_PROMPTS <= 1024


def test_outcome_calls_send_what_vllm_and_sglang_read() -> None:
    assert asked(Transport.CLASSIFY, END).payload == {
        "model": "m",
        "input": [[1, 7, 2, 7]],
        "input_ids": [[1, 7, 2, 7]],
        "use_activation": True,
    }
    assert asked(Transport.CLASSIFY, PLAIN).payload["text"] == ["good"]
    pairs = asked(Transport.SCORE, PLAIN, Query(1, Place.END, text="bad", first_text="problem"))
    assert (pairs.payload["text_1"], pairs.payload["text_2"]) == ("problem", ["good", "bad"])
    embeddings = asked(Transport.EMBEDDINGS, TOKENS, is_logit=True)
    assert (embeddings.path, embeddings.is_at_root) == ("/embeddings", False)
    assert embeddings.payload == {"model": "m", "input": [[1, 7, 2, 7]], "encoding_format": "float"}


@pytest.mark.parametrize(
    ("query", "rows", "values"),
    [
        (TEXT, [[0.9, 0.1], [0.0, 1.0]], (0.1, 1.0)),
        (TEXT, [[0.25], [0.5]], (0.25, 0.5)),
        (TEXT, [0.25, 0.5], (0.25, 0.5)),
        (TAGS, [[0.25], [0.5]], (0.25, 0.5)),
        (TAGS, [[0.1], [0.2], [0.3], [0.4]], (0.2, 0.4)),
        (TOKENS, [[0.1], [0.2], [0.3], [0.4]], (0.1, 0.3)),
        (END, [[0.4]], (0.4,)),
        (END, [0.4], (0.4,)),
        (END, [0.6, 0.4], (0.4,)),
        (END, [[0.3], [0.4]], (0.4,)),
        (END, [[0.1], [0.2], [0.3], [0.4]], (0.4,)),
        (PLAIN, [[0.1], [0.2], [0.3], [0.4], [0.5]], (0.5,)),
    ],
)
def test_scores_are_found_by_their_place(query: Query, rows: list[Any], values: tuple[float, ...]) -> None:
    assert asked(Transport.POOLING, query).read(pooled(rows)) == [values]


@pytest.mark.parametrize(
    ("query", "rows", "told"),
    [
        (TEXT, [], "no score came for 2 steps"),
        (TEXT, [[0.5]], "1 score came for 2 steps"),
        (TAGS, [[0.5]] * 3, "3 scores came for 2 steps"),
        (TOKENS, [[0.5]] * 2, "2 scores came where one for each of 4 tokens is wanted (2 steps)"),
        (TOKENS, [[0.5]] * 5, "5 scores came where one for each of 4 tokens is wanted"),
        (END, [[0.5]] * 3, "3 scores came for 1 step"),
        (END, [], "no score came for 1 step"),
        (END, [0.1] * 1024, "1024 values came where 1 or 2 are wanted"),
        (TAGS, [[0.5, 0.5], [1.5, -0.5]], "the score -0.5 is outside of [0, 1]"),
    ],
)
def test_other_numbers_of_scores_are_refused(query: Query, rows: list[Any], told: str) -> None:
    with pytest.raises(BrokenContract) as caught:
        asked(Transport.POOLING, query).read(pooled(rows))
    assert told in str(caught.value)


def test_the_dialogue_with_tag_rows_is_not_read_one_token_late() -> None:
    """A server that pools at the "+" itself gives as many scores as steps, each of them too late."""
    with pytest.raises(BrokenContract, match="one for each of 4 tokens is wanted"):
        asked(Transport.POOLING, TOKENS).read(pooled([[0.5], [0.5]]))


def test_one_unsound_text_costs_the_others_nothing() -> None:
    sound, broken = asked(Transport.POOLING, TAGS, TAGS).read(pooled([[0.5], [0.25]], [[0.5]]))
    assert sound == (0.5, 0.25)
    assert isinstance(broken, BrokenContract)
    with pytest.raises(BrokenContract, match="none of 2 texts got sound scores; the first: no score came"):
        asked(Transport.POOLING, TAGS, TAGS).read(pooled([], [[1.7], [0.5]]))


def test_results_go_by_their_index() -> None:
    reply = pooled([[0.1], [0.2]], [[0.3], [0.4]])
    reply["data"].reverse()
    assert asked(Transport.POOLING, TAGS, TAGS).read(reply) == [(0.1, 0.2), (0.3, 0.4)]
    broken: list[tuple[Any, str]] = [
        ([{"index": 0, "data": [[0.1], [0.2]]}] * 2, "indices of the results are not 0 to 1"),
        ([{"index": 0, "data": [[0.1], [0.2]]}], "1 results came for 2 texts"),
        ([], "0 results came for 2 texts"),
    ]
    for data, told in broken:
        with pytest.raises(BrokenContract, match=told):
            asked(Transport.POOLING, TAGS, TAGS).read({"data": data})


@pytest.mark.parametrize("data", [None, [], "x", {}, {"data": {}}, {"data": [1, 2]}])
def test_what_is_no_reply_at_all_is_malformed(data: Any) -> None:
    with pytest.raises(errors.MalformedReply):
        asked(Transport.POOLING, TAGS).read(data)


def test_a_text_that_was_read_in_part_is_noticed_by_the_count_of_tokens() -> None:
    assert asked(Transport.POOLING, TAGS).read(pooled([[0.1], [0.2]], tokens=4)) == [(0.1, 0.2)]
    with pytest.raises(BrokenContract, match="the server read 3 tokens where 4 were sent"):
        asked(Transport.POOLING, TAGS).read(pooled([[0.1], [0.2]], tokens=3))
    long = Query(1, Place.TAGS, text="word " * 2000 + "<t>")
    assert asked(Transport.POOLING, long).read(pooled([[0.1]], tokens=2001)) == [(0.1,)]
    for tokens in (3, 50_000):
        with pytest.raises(BrokenContract, match="cannot be the text that was sent"):
            asked(Transport.POOLING, long).read(pooled([[0.1]], tokens=tokens))
    scores = {"data": [{"index": 0, "score": 0.5}, {"index": 1, "score": 0.5}], "usage": {"prompt_tokens": 5}}
    with pytest.raises(BrokenContract, match="read 5 tokens where 6 were sent"):
        asked(Transport.GENERATIVE_SCORING, TAGS).read(scores)


def test_label_probabilities_are_a_softmax_of_two() -> None:
    request = asked(Transport.COMPLETIONS, TAGS, TOKENS)
    choices = [choice(i, math.log(0.3) - i, math.log(0.1) - i) for i in range(4)]
    choices[3] = choice(3, -9999.0, -0.1)
    assert request.read({"choices": choices}) == [(0.75, 0.75), (0.75, 0.0)]
    choices[0] = choice(0, -0.1, -9999.0)
    assert request.read({"choices": choices})[0] == (1.0, 0.75)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (choice(0, None, -1.0), "the log-probabilities of the tokens (24, 26) are wanted"),
        (choice(0, 10**400, -1.0), "are wanted"),
        (choice(0, math.nan, -1.0), "are wanted, and came for ['token_id:24', 'token_id:26']"),
        (
            {"index": 0, "logprobs": None},
            "are wanted, and came for []: does the server know logprob_token_ids",
        ),
        ({"index": 0, "logprobs": {"top_logprobs": [{"x": -1.0}, {}]}}, "came for []"),
        ({"index": 0, "logprobs": {"top_logprobs": [{"x": -1.0}]}}, "came for ['x']"),
        (choice(0, -9999.0, -9999.0), "neither of the label tokens (24, 26) has any probability"),
    ],
)
def test_log_probabilities_that_are_not_the_labels_are_refused(bad: dict[str, Any], told: str) -> None:
    with pytest.raises(BrokenContract) as caught:
        asked(Transport.COMPLETIONS, Query(1, Place.TAGS, ids=(1, 7), positions=(1,))).read(
            {"choices": [bad]}
        )
    assert told in str(caught.value)


def test_labels_by_text_are_believed_only_where_nothing_can_have_taken_their_place() -> None:
    """Keyed by text, `▁+` and `+` are one entry: the reply then tells of one of them, and not which."""
    request = asked(Transport.COMPLETIONS, Query(1, Place.TAGS, ids=(1, 7), positions=(1,)))
    top: dict[str, float] = {"K": -0.5, "+": -2.0, "-": -2.0}
    by_text = {"choices": [{"index": 0, "logprobs": {"top_logprobs": [top]}}]}
    assert request.read(by_text) == [(0.5,)]
    del top["K"]
    with pytest.raises(BrokenContract, match="are wanted"):
        request.read(by_text)


@pytest.mark.parametrize(
    ("transport", "query", "is_logit", "reply"),
    [
        (
            Transport.CLASSIFY,
            END,
            False,
            {"data": [{"index": 0, "label": "x", "probs": [0.25], "num_classes": 1}]},
        ),
        (Transport.CLASSIFY, END, False, {"data": [{"index": 0, "probs": [0.75, 0.25]}]}),
        (Transport.CLASSIFY, END, True, {"data": [{"index": 0, "probs": [math.log(1 / 3)]}]}),
        (Transport.CLASSIFY, END, True, [{"embedding": [math.log(1 / 3)], "meta_info": {}}]),
        (Transport.SCORE, PLAIN, False, {"data": [{"index": 0, "object": "score", "score": 0.25}]}),
        (Transport.SCORE, PLAIN, True, {"data": [{"index": 0, "score": math.log(1 / 3)}]}),
        (
            Transport.POOLING,
            END,
            True,
            {"data": [{"index": 0, "data": [[2.0], [1.0], [3.0], [math.log(1 / 3)]]}]},
        ),
    ],
)
def test_outcome_scores(transport: Transport, query: Query, is_logit: bool, reply: Any) -> None:
    assert asked(transport, query, is_logit=is_logit).read(reply) == [(0.25,)]


def test_embeddings_hold_a_raw_value_a_token() -> None:
    request = asked(Transport.EMBEDDINGS, TOKENS, is_logit=True)
    reply = {"data": [{"index": 0, "embedding": [0.0, 9.0, math.log(3), 9.0]}]}
    assert request.read(reply) == [(0.5, 0.75)]
    reply["data"][0]["embedding"] = [0.1] * 3584
    with pytest.raises(BrokenContract, match="3584 scores came where one for each of 4 tokens"):
        request.read(reply)


def test_bounds_leave_room_for_every_honest_reply() -> None:
    query = Query(50, Place.TOKENS, ids=tuple(range(4000)), positions=tuple(range(50)))
    reply = pooled([[-0.12345678901234567, -123.45678901234567]] * 4000)
    assert len(orjson.dumps(reply)) < asked(Transport.POOLING, query).max_bytes < 4 << 20
    choices = {"choices": [choice(i, -1.2345678901234567, -1.2345678901234567) for i in range(50)]}
    assert len(orjson.dumps(choices)) < asked(Transport.COMPLETIONS, query).max_bytes


def test_usage_is_read_where_it_is_told() -> None:
    told = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    assert usage_of({"usage": told}) == TokenUsage(5, 3, 2)
    for data in (
        None,
        [],
        {},
        {"usage": None},
        {"usage": {"prompt_tokens": "5", "prompt_tokens_details": []}},
    ):
        assert usage_of(data) == TokenUsage()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "Input length (700 tokens) exceeds the maximum allowed length (512 tokens). Use a shorter input or"
            " enable --allow-auto-truncate.",
            errors.ContextOverflow,
        ),
        (
            "The input (700 tokens) is longer than the model's context length (512 tokens).",
            errors.ContextOverflow,
        ),
        ("items must contain at least one item.", errors.Rejected),
        ("`text_2` is odd", errors.Rejected),
        ("Unsupported task: 'token_classify' Supported tasks: ['embed']", errors.Misconfigured),
        ("label_token_ids: 7 is out of vocabulary range", errors.Misconfigured),
    ],
)
def test_refusals_of_scoring_requests(message: str, kind: type[errors.EndpointError]) -> None:
    sent = ("model", "items", "query", "text_1", "text_2", "input", "text", "task", "label_token_ids")
    assert type(failure_of(400, orjson.dumps({"error": {"message": message}}), sent=sent)) is kind


@pytest.mark.skipif(DATA is None, reason="TTC_TEST_DATA is not set: no published scores to compare with")
def test_the_published_scores_of_qwen_are_read_by_index_with_their_zeros() -> None:
    golden = orjson.loads((Path(DATA or "") / "vectors" / "qwen_prm_golden.json").read_bytes())
    rows = golden["step_scores"]
    request = asked(Transport.POOLING, Query(golden["n_steps"], Place.TAGS, text="t<t>" * golden["n_steps"]))
    (values,) = request.read(pooled(rows))
    assert values == pytest.approx([good for _, good in rows], rel=golden["rtol"])
    scorer = scorer_named("Qwen/Qwen2.5-Math-PRM-7B")
    (card,) = goldens_of(scorer)
    assert len(card.steps) == golden["n_steps"]
    assert values == pytest.approx(
        card.scores, rel=card.rtol, abs=card.atol
    )  # vLLM's float16 passes for the card's
    assert goldens_of(scorer_named("my-model")) == ()
    underflown = [[0.0, 1.0], *rows[1:3], [1.0, 0.0]]
    assert request.read(pooled(underflown)) == [(1.0, round(rows[1][1], 7), round(rows[2][1], 7), 0.0)]
