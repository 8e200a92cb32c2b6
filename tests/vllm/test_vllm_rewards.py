"""A real vLLM on this CPU serves the embedded reward models: the scores of the embedded server, by every call.

The pooling server follows the recipe for models whose labels are tokens: vLLM makes a classifier of two rows of the
output matrix and reads it at the tags.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.execution.embedded_server import embedded_server
from tests.vllm.server import ROOT, vllm_server
from workers.http import open_session
from workers.rewards import RewardClient, Solution, probe_scorer
from workers.types import EndpointSettings, RewardOptions, ScorerKind, ScorerSettings, ScoreStatus, Transport

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

NAME = "arithmetic-prm-soft"
MODEL = ROOT / "workers/embedded/models" / NAME
TAG = "<|step|>"
PROBLEM = "Compute $7 + 8 \\cdot 2$."
SOLUTIONS = [
    Solution(
        (
            "First, $8 \\cdot 2 = 16$, which leaves $7 + 16$.",
            "Next, $7 + 16 = 23$.",
            "The answer is $\\boxed{23}$.",
        )
    ),
    Solution(
        (
            "First, $8 \\cdot 2 = 18$, which leaves $7 + 18$.",
            "Next, $7 + 18 = 25$.",
            "The answer is $\\boxed{25}$.",
        )
    ),
]
CLOSE = 1e-4
"""float32 sums of another order; the margins of these solutions are within +-10 nats."""


def scorer_at(url: str, transport: Transport | None = None) -> ScorerSettings:
    options = RewardOptions() if transport is None else RewardOptions(transport=transport)
    endpoint = EndpointSettings("prm", (url,), concurrency=8)
    return ScorerSettings(1, "f", ScorerKind.PRM, "embedded", NAME, options, 4, endpoint)


async def scores(
    url: str, transport: Transport | None = None
) -> tuple[Transport | None, list[tuple[float, ...]]]:
    """What a server gives the solutions, and by which call."""
    scorer = scorer_at(url, transport)
    async with open_session() as session:
        found = await probe_scorer(session, url, scorer)
    async with RewardClient(scorer.endpoint, capabilities={1: found}) as client:
        scoring = await client.score(scorer, PROBLEM, SOLUTIONS, affinity=0)
    assert [score.status for score in scoring.scores] == [ScoreStatus.OK] * len(SOLUTIONS)
    return found.transport, [score.values for score in scoring.scores]


@asynccontextmanager
async def ours() -> AsyncIterator[list[tuple[float, ...]]]:
    async with embedded_server(NAME) as url:
        _, found = await scores(url)
    yield found


def assert_close(found: list[tuple[float, ...]], wanted: list[tuple[float, ...]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=CLOSE)


async def test_the_pooling_server_gives_the_scores_of_the_embedded_server(tmp_path: Path) -> None:
    tokens = json.loads((MODEL / "tokenizer.json").read_text())
    tag_id = next(each["id"] for each in tokens["added_tokens"] if each["content"] == TAG)
    overrides = {
        "architectures": ["LlamaForSequenceClassification"],
        "classifier_from_token": ["-", "+"],
        "method": "from_2_way_softmax",
        "num_labels": 1,
    }
    pooler = {"task": "token_classify", "tok_pooling_type": "STEP", "step_tag_id": tag_id}
    options = [
        *("--runner", "pooling", "--convert", "classify"),
        *("--hf-overrides", json.dumps(overrides), "--pooler-config", json.dumps(pooler)),
    ]
    with vllm_server(MODEL, NAME, tmp_path / "server.log", *options) as url:
        transport, found = await scores(url)
    assert transport is Transport.POOLING
    async with ours() as wanted:
        assert_close(found, wanted)
    assert found[0][-1] > 0.5 > found[1][-1]  # it tells the right solution from the wrong one


async def test_a_generating_server_gives_them_by_the_odds_of_two_tokens(tmp_path: Path) -> None:
    with vllm_server(MODEL, NAME, tmp_path / "server.log") as url:
        found = {
            each: (await scores(url, each))[1]
            for each in (Transport.COMPLETIONS, Transport.GENERATIVE_SCORING)
        }
    async with ours() as wanted:
        for values in found.values():
            assert_close(values, wanted)
