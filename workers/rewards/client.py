"""The client of one scorer's servers, owned by one worker: solutions of a problem in, a score each out.

What becomes of a solution is data, never an exception; only an error of the sweep is raised (key, path, model, a
server that cannot be used in this format). It knows nothing of trajectories, tasks or aggregation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from workers.calls import EndpointClient
from workers.client import ClientOfEndpoint
from workers.errors import EndpointError, Misconfigured
from workers.rewards.formats import VALUE_FORMATS, VERDICT_FORMATS, ValueFormat, check_format
from workers.rewards.learning import learn
from workers.rewards.meter import Meter
from workers.rewards.records import RewardCapabilities, Score, Scoring, Solution
from workers.rewards.scoring import ValueScoring, failed
from workers.rewards.tokens import TokenCache
from workers.rewards.verdicts import VerdictScoring
from workers.types import EndpointSettings, ScorerKind, ScorerSettings


class RewardClient(ClientOfEndpoint):
    """Client of the scorers behind one endpoint. Async context manager; for one event loop.

    `capabilities` come from `probe_scorer`, by scorer id; what is missing is learnt at the first use. `client`
    brings other clocks, sessions or time constants than the usual.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        capabilities: Mapping[int, RewardCapabilities] | None = None,
        client: EndpointClient | None = None,
    ) -> None:
        super().__init__(client or EndpointClient(settings))
        self._capabilities = dict(capabilities or {})
        self._caches: dict[int, TokenCache] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    async def score(
        self, scorer: ScorerSettings, statement: str, solutions: Sequence[Solution], *, affinity: int
    ) -> Scoring:
        """Score solutions of one problem; one `affinity` prefers one replica.

        Equal solutions are scored once (equal steps; for judges, answers too), and those that begin alike stand
        together in a request. Raises `Misconfigured` for errors of the sweep, and `Draining`.
        """
        meter = Meter(self._client, affinity)
        is_judge = scorer.kind is ScorerKind.JUDGE
        keys = [solution if is_judge else Solution(solution.steps) for solution in solutions]
        distinct = sorted(set(keys), key=lambda solution: (solution.steps, solution.answer or ""))
        try:
            scores = await self._scores(meter, scorer, statement, distinct)
        finally:
            if meter.broken:
                self._client.failures["broken_contract"] += meter.broken
        by_solution = dict(zip(distinct, scores, strict=True))
        return meter.scoring(tuple(by_solution[key] for key in keys))

    async def _scores(
        self, meter: Meter, scorer: ScorerSettings, statement: str, solutions: Sequence[Solution]
    ) -> list[Score]:
        check_format(scorer)
        verdict_format = VERDICT_FORMATS.get(scorer.format)
        if verdict_format is not None:
            return await VerdictScoring(meter, scorer, verdict_format, statement).scores(solutions)
        value_format = VALUE_FORMATS[scorer.format]
        try:
            learnt = await self._learnt(meter, scorer, value_format)
        except Misconfigured:
            raise
        except EndpointError as error:
            return [failed(error)] * len(solutions)
        cache = self._caches[scorer.scorer_id]
        return await ValueScoring(meter, scorer, value_format, learnt, statement, cache).scores(solutions)

    async def _learnt(
        self, meter: Meter, scorer: ScorerSettings, value_format: ValueFormat
    ) -> RewardCapabilities:
        """What the server offers; one of the first callers finds it out, and the others wait."""
        key = scorer.scorer_id
        cache = self._caches.setdefault(key, TokenCache())
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._capabilities:
                learnt = await learn(meter, scorer, value_format, cache)
                self._capabilities[key] = learnt
                self._client.record("scorer_learnt", scorer.model, f"{scorer.format} by {learnt.transport}")
        return self._capabilities[key]
