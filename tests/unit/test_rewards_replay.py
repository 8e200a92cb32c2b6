"""Requests and readings against what a real vLLM 0.32 was asked and replied, replayed over HTTP."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.replay_server import MINUS, PLUS, TAG, ReplayServer, transcripts
from workers.calls import Call, EndpointClient
from workers.errors import ContextOverflow, Misconfigured, Rejected
from workers.http import open_session
from workers.rewards import RewardClient, Score, Solution, probe_scorer
from workers.rewards.contract import BrokenContract
from workers.rewards.meter import Meter
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.transports import Ask, ask
from workers.types import (
    EndpointSettings,
    RewardOptions,
    ScorerKind,
    ScorerSettings,
    ScoreStatus,
    Transport,
)

DATA = os.environ.get("TTC_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="TTC_TEST_DATA is not set: no recorded replies to read")

Recorded = dict[str, dict[str, Any]]
SUM = Solution(("Add them.\n\n", "So 4.\n\n", "The answer is \\boxed{4}."))
SHEPHERD = Solution(("Step 1: add.\n\n", "Step 2: 4.\n\n", "The answer is: 4"))
TORCH = (0.63052, 0.592988, 0.5760251)
"""P(+) at the three steps, computed with torch, to 7 decimals."""
PAIR = Vocabulary(good_id=PLUS, bad_id=MINUS, good_text="+", bad_text="-")


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return transcripts(DATA or "")


def scorer_of(url: str, name: str, model: str, **options: Any) -> ScorerSettings:
    endpoint = EndpointSettings(name="scorer", urls=(url,), max_attempts=1)
    return ScorerSettings(1, "f", ScorerKind.PRM, name, model, RewardOptions(**options), 8, endpoint)


async def scored(
    server: ReplayServer, scorer: ScorerSettings, problem: str, *solutions: Solution
) -> list[Score]:
    async with RewardClient(scorer.endpoint) as client:
        scoring = await client.score(scorer, problem, solutions, affinity=1)
    assert server.strangers == []
    return list(scoring.scores)


async def replied(server: ReplayServer, request: Ask) -> Any:
    endpoint = EndpointSettings(name="scorer", urls=(server.url,), max_attempts=1)
    async with EndpointClient(endpoint) as client:
        call = Call(request.path, request.payload, 5.0, request.max_bytes, is_at_root=request.is_at_root)
        try:
            return await Meter(client).ask(call, request.read)
        finally:
            assert server.strangers == []


def reference(recorded: Recorded) -> Query:
    """The recorded ids of the Math-Shepherd text, as a query."""
    found = recorded["shepherd_step_classify"]["reference"]
    return Query(3, Place.TAGS, ids=tuple(found["ids"]), positions=tuple(found["positions"]))


@pytest.mark.parametrize("name", ["prm_str", "prm_task"])
async def test_qwen_sends_what_was_recorded_and_reads_the_recorded_scores(
    recorded: Recorded, name: str
) -> None:
    async with ReplayServer(recorded, name) as server:
        scores = await scored(server, scorer_of(server.url, "qwen", "tiny-prm"), "What is 2+2?", SUM)
    assert scores == [Score((1.0, 0.9999998, 0.9999988), ScoreStatus.OK)]
    assert server.served == [name]


async def test_qwen_by_raw_logits_gives_the_same_scores(recorded: Recorded) -> None:
    async with ReplayServer(recorded, "prm_no_activation") as server:
        scorer = scorer_of(server.url, "qwen", "tiny-prm", is_logit=True)
        scores = await scored(server, scorer, "What is 2+2?", SUM)
    assert scores[0].values == pytest.approx((1.0, 0.9999997, 0.9999988), abs=2e-7)


async def test_ids_and_batches_are_read_as_recorded(recorded: Recorded) -> None:
    ids = tuple(recorded["prm_ids"]["request"]["input"])
    tags = Query(3, Place.TAGS, ids=ids, positions=tuple(i for i, token in enumerate(ids) if token == 6))
    texts = [
        Query(count, Place.TAGS, text=text, adds_special_tokens=False)
        for text, count in zip(recorded["prm_batch2"]["request"]["input"], (3, 2), strict=True)
    ]
    async with ReplayServer(recorded, "prm_ids", "prm_batch2") as server:
        request = ask(Transport.POOLING, "tiny-prm", [tags], PAIR, is_logit=False)
        assert await replied(server, request) == [(0.8549007, 0.4532321, 0.0121273)]
        batch = ask(Transport.POOLING, "tiny-prm", texts, PAIR, is_logit=False)
        assert await replied(server, batch) == [(1.0, 0.9999998, 0.9999988), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("shepherd_step_classify", Transport.POOLING),
        ("shep_logprob_token_ids_batch", Transport.COMPLETIONS),
        ("shep_generative_scoring", Transport.GENERATIVE_SCORING),
    ],
)
async def test_shepherd_gets_the_scores_of_torch_on_all_three_ways(
    recorded: Recorded, name: str, transport: Transport
) -> None:
    async with ReplayServer(recorded, name) as server:
        model = recorded[name]["request"]["model"]
        scorer = scorer_of(server.url, "math-shepherd", model, transport=transport)
        (score,) = await scored(server, scorer, "What is 2+2?", SHEPHERD)
    assert score.status is ScoreStatus.OK
    assert score.values == pytest.approx(TORCH, abs=2e-7)
    assert server.served == [name]


async def test_generative_scoring_is_read_the_same_whatever_the_query(recorded: Recorded) -> None:
    request = ask(Transport.GENERATIVE_SCORING, "tiny-gen", [reference(recorded)], PAIR, is_logit=False)
    for name in ("shep_generative_scoring", "shep_generative_scoring2"):
        assert request.read(recorded[name]["response"]) == [pytest.approx(TORCH, abs=2e-7)]


@pytest.mark.parametrize(("name", "is_logit"), [("rlhflow_all_classify", False), ("rlhflow_all_raw", True)])
async def test_a_score_for_every_token_is_read_at_the_positions(
    recorded: Recorded, name: str, is_logit: bool
) -> None:
    own = reference(recorded)
    query = Query(3, Place.TOKENS, ids=own.ids, positions=own.positions)
    async with ReplayServer(recorded, name) as server:
        request = ask(Transport.POOLING, "tiny-rlhflow", [query], PAIR, is_logit=is_logit)
        assert await replied(server, request) == [pytest.approx(TORCH, abs=2e-7)]


async def test_no_tag_and_truncation_give_no_scores_with_200_and_are_refused(recorded: Recorded) -> None:
    for name in ("prm_no_step_tag", "prm_truncate"):
        text = recorded[name]["request"]["input"]
        request = ask(Transport.POOLING, "tiny-prm", [Query(1, Place.TAGS, text=text)], PAIR, is_logit=False)
        assert recorded[name]["status"] == 200
        with pytest.raises(BrokenContract, match="no score came for 1 step"):
            request.read(recorded[name]["response"])


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("prm_too_long", ContextOverflow, "maximum context length is 512"),
        ("prm_bad_task", Misconfigured, "Unsupported task: 'embed'"),
        ("prm_empty", Rejected, "prompt cannot be empty"),
        ("prm_classify", Misconfigured, "Not Found"),
        ("prm_embeddings", Misconfigured, "Not Found"),
        ("prm_completions", Misconfigured, "Not Found"),
        ("shepherd_doc_recipe", Misconfigured, "Unsupported task: 'token_classify'"),
    ],
)
async def test_recorded_refusals_have_their_meaning(
    recorded: Recorded, name: str, kind: type[Rejected], told: str
) -> None:
    row = recorded[name]
    async with ReplayServer(recorded, name) as server:
        is_at_root = not row["path"].startswith("/v1")
        request = Ask(
            row["path"].removeprefix("/v1"), is_at_root, row["request"], lambda data: [], 1, 1 << 20
        )
        with pytest.raises(kind, match=told) as caught:
            await replied(server, request)
    assert type(caught.value) is kind


async def test_the_probe_tells_what_a_server_offers(recorded: Recorded) -> None:
    async with (
        ReplayServer(recorded, "prm_models", "shepherd_doc_recipe") as server,
        open_session() as session,
    ):
        with pytest.raises(Misconfigured, match=r"does not list the model other \(it lists: tiny-prm\)"):
            await probe_scorer(session, server.url, scorer_of(server.url, "qwen", "other"))


def test_the_recorded_tags_are_where_the_reference_says(recorded: Recorded) -> None:
    query = reference(recorded)
    assert [query.ids[position] for position in query.positions] == [TAG] * 3
