"""The reward models that come with ttc: they score as their cards say, and find the step where a mistake is."""

from __future__ import annotations

import pytest

from orchestrator.execution.embedded_server import embedded_server
from workers.http import open_session
from workers.rewards import RewardClient, Solution, probe_scorer
from workers.types import EndpointSettings, RewardOptions, ScorerKind, ScorerSettings

PROBLEM = "Compute $7 + 8 \\cdot 2$."
RIGHT = (
    "First, $8 \\cdot 2 = 16$, which leaves $7 + 16$.\n\n",
    "Next, $7 + 16 = 23$.\n\n",
    "The answer is $\\boxed{23}$.",
)
WRONG_AT_FIRST = (
    "First, $8 \\cdot 2 = 18$, which leaves $7 + 18$.\n\n",
    "Next, $7 + 18 = 25$.\n\n",
    "The answer is $\\boxed{25}$.",
)
WRONG_AT_LAST = (*RIGHT[:1], "Next, $7 + 16 = 24$.\n\n", "The answer is $\\boxed{24}$.")
KINDS = {
    "arithmetic-prm-soft": (ScorerKind.PRM, "embedded"),
    "arithmetic-prm-hard": (ScorerKind.PRM, "embedded"),
    "arithmetic-orm": (ScorerKind.ORM, "embedded-orm"),
}
GOLDEN = {
    "arithmetic-prm-soft": (
        (0.994469, 0.9993053, 0.9993351),
        (0.0212651, 0.0181378, 0.02288),
        (0.994469, 0.1127974, 0.1631392),
    ),
    "arithmetic-prm-hard": (
        (0.989476, 0.9994971, 0.9990059),
        (0.1209376, 0.0642027, 0.0763603),
        (0.989476, 0.1000803, 0.1296077),
    ),
}
"""Scores of RIGHT, WRONG_AT_FIRST and WRONG_AT_LAST."""


async def scores(name: str, solutions: list[tuple[str, ...]]) -> list[tuple[float, ...]]:
    """What a shipped model gives, probed first as before every sweep."""
    kind, wire_format = KINDS[name]
    async with embedded_server(name) as url, open_session() as session:
        endpoint = EndpointSettings("scorer", (url,))
        scorer = ScorerSettings(1, "f", kind, wire_format, name, RewardOptions(), 4, endpoint)
        found = await probe_scorer(session, url, scorer)
        async with RewardClient(endpoint, capabilities={1: found}) as client:
            scoring = await client.score(
                scorer, PROBLEM, [Solution(steps) for steps in solutions], affinity=0
            )
    return [score.values for score in scoring.scores]


@pytest.mark.parametrize("name", GOLDEN)
async def test_a_shipped_model_scores_as_published(name: str) -> None:
    found = await scores(name, [RIGHT, WRONG_AT_FIRST, WRONG_AT_LAST])
    for one, wanted in zip(found, GOLDEN[name], strict=True):
        assert one == pytest.approx(wanted, abs=2e-3)  # float32 sums differ between processors


@pytest.mark.parametrize("name", [name for name in GOLDEN if "prm" in name])
async def test_a_process_model_finds_the_step_with_the_mistake(name: str) -> None:
    right, at_first, at_last = await scores(name, [RIGHT, WRONG_AT_FIRST, WRONG_AT_LAST])
    assert min(right) > 0.5
    assert max(at_first) < 0.5
    assert at_last[0] > 0.5 > at_last[1]
