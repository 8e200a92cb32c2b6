"""Makes the models of a sweep ready: starts those that are to be started, and asks every server what it can do."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.errors import EndpointProblem
from orchestrator.execution import planner
from orchestrator.execution.embedded_server import embedded_server
from orchestrator.execution.engines.fleet import Fleet
from orchestrator.execution.progress import Reporter
from orchestrator.execution.scheduler import LaneSettings
from orchestrator.registration import Registered, revision_of, revision_of_scorer
from orchestrator.spec.engine_settings import EngineGroup, engine_group, engines_name
from orchestrator.spec.scorer_settings import scorer_settings
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_settings, samples_per_request
from orchestrator.store import LaneRecord
from workers.errors import EndpointError
from workers.http import open_session
from workers.probe import probe
from workers.rewards import probe_scorer
from workers.types import EndpointSettings, GeneratorSettings, ScorerSettings

MODELS, SCORERS = "models", "scorers"
"""Sections of the sweep file."""
SEARCHES_CLAIMED = 16
"""Search tasks bring their trees along when they are resumed."""
SEARCHES_WAITING = 2
"""Searches a worker holds for each that its policy could serve: half of a search's budget, or more, waits for the
slowest call of its round and for its scorer, or is spent already."""
SEARCH_REFILL = 1 / 8
"""Searches end one by one; sent one by one, they would be as many streams."""


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Generators and scorers with servers behind them, by id."""

    generators: Mapping[int, GeneratorSettings]
    scorers: Mapping[int, ScorerSettings]
    size: int | None
    """Samples a task, where the sweep file says so."""
    fleet: Fleet
    """The engines behind them; none, if others have started all servers."""
    shares_steps: bool = False
    """Searches for one problem run one after the other."""

    def task_samples(self, generator_id: int) -> int:
        """Samples a task of this generator."""
        return self.size or planner.task_samples(self.generators[generator_id].samples_per_request)

    def lane_settings(self, lane: LaneRecord) -> LaneSettings:
        """How much of a lane a worker may hold."""
        if lane.generator_id is not None:
            generator = self.generators[lane.generator_id]
            samples = generator.endpoint.concurrency * generator.samples_per_request
            if lane.kind == "search":
                return LaneSettings(
                    samples * SEARCHES_WAITING,
                    claim_tasks=SEARCHES_CLAIMED,
                    is_chained=self.shares_steps,
                    refill_share=SEARCH_REFILL,
                )
            return LaneSettings(samples)
        assert lane.scorer_id is not None
        scorer = self.scorers[lane.scorer_id]
        samples = scorer.endpoint.concurrency * scorer.texts_per_request
        # Score tasks bring their texts along: no more of them than a refill takes.
        claims = max(4, math.ceil(4 * samples / planner.MAX_TASK_SAMPLES))
        return LaneSettings(samples, claim_tasks=min(claims, 64), is_chained=True)


def engine_groups(
    spec: SweepSpec, registered: Registered, lanes: Sequence[LaneRecord]
) -> Sequence[EngineGroup]:
    """The engines that these lanes need."""
    models = {registered.models[each.generator_id] for each in lanes if each.generator_id is not None}
    scorers = {registered.scorers[each.scorer_id] for each in lanes if each.scorer_id is not None}
    return [
        *(
            engine_group(MODELS, name, spec.models[name])
            for name in sorted(models)
            if spec.models[name].engine
        ),
        *(
            engine_group(SCORERS, name, spec.scorers[name])
            for name in sorted(scorers)
            if spec.scorers[name].engine
        ),
    ]


@asynccontextmanager
async def serve_models(
    spec: SweepSpec,
    registered: Registered,
    lanes: Sequence[LaneRecord],
    fleet: Fleet,
    workers: int,
    reporter: Reporter,
) -> AsyncIterator[ServedModels]:
    """What the lanes need, ready to draw and to score; servers that ttc starts live as long as the context."""
    size = spec.limits.task_samples if isinstance(spec.limits.task_samples, int) else None
    async with fleet, AsyncExitStack() as stack:
        await fleet.ready()
        generators: dict[int, GeneratorSettings] = {}
        scorers: dict[int, ScorerSettings] = {}
        for lane in lanes:
            if lane.generator_id is not None and lane.generator_id not in generators:
                settings = await _generator(spec, registered, lane.generator_id, fleet, stack, reporter)
                endpoint = share_of(settings.endpoint, workers)
                generators[lane.generator_id] = replace(settings, endpoint=endpoint)
            if lane.scorer_id is not None and lane.scorer_id not in scorers:
                scorer = await _scorer(spec, registered, lane.scorer_id, fleet, stack, reporter)
                scorers[lane.scorer_id] = replace(scorer, endpoint=share_of(scorer.endpoint, workers))
        yield ServedModels(generators, scorers, size, fleet, spec.limits.share_steps)


async def _generator(
    spec: SweepSpec,
    registered: Registered,
    generator_id: int,
    fleet: Fleet,
    stack: AsyncExitStack,
    reporter: Reporter,
) -> GeneratorSettings:
    name = registered.models[generator_id]
    model = spec.models[name]
    if model.imported is not None:
        raise EndpointProblem(
            f"the samples of model {name!r} were imported, and more are wanted than there are",
            remedy="lower samples in the strategy, or import a file with more",
        )
    revision = revision_of(model)
    if model.embedded:
        urls = [await stack.enter_async_context(embedded_server(model.embedded))]
        return generator_settings(name, model, generator_id, urls=urls, revision=revision)
    engines = engines_name(MODELS, name) if model.engine else None
    served_at = fleet.urls(engines) if engines else ()
    settings = generator_settings(
        name, model, generator_id, urls=served_at, engines=engines, revision=revision
    )
    if model.built_in:
        return settings
    count = samples_per_request(model, derives_seeds=await _ask(settings, reporter))
    return replace(settings, samples_per_request=count)


async def _scorer(
    spec: SweepSpec,
    registered: Registered,
    scorer_id: int,
    fleet: Fleet,
    stack: AsyncExitStack,
    reporter: Reporter,
) -> ScorerSettings:
    name = registered.scorers[scorer_id]
    scorer = spec.scorers[name]
    revision = revision_of_scorer(scorer)
    engines = engines_name(SCORERS, name) if scorer.engine else None
    urls = fleet.urls(engines) if engines else ()
    if scorer.shipped:
        urls = (await stack.enter_async_context(embedded_server(scorer.shipped)),)
    settings = scorer_settings(name, scorer, scorer_id, urls=urls, engines=engines, revision=revision)
    await _ask_scorer(settings, reporter)
    return settings


def share_of(endpoint: EndpointSettings, workers: int) -> EndpointSettings:
    """One worker's part of the limits of a sweep: the file states them for all workers together."""

    def part(total: float | None) -> float | None:
        return None if total is None else total / workers

    return replace(
        endpoint,
        concurrency=max(1, math.ceil(endpoint.concurrency / workers)),
        replica_concurrency=None
        if endpoint.replica_concurrency is None
        else max(1, math.ceil(endpoint.replica_concurrency / workers)),
        requests_per_minute=part(endpoint.requests_per_minute),
        tokens_per_minute=part(endpoint.tokens_per_minute),
    )


async def _ask_scorer(settings: ScorerSettings, reporter: Reporter) -> None:
    """Raise EndpointProblem if the server will never give this sweep scores, or breaks the contract of a scorer."""
    try:
        async with open_session() as session:
            found = await probe_scorer(session, settings.endpoint.urls[0], settings)
    except EndpointError as error:
        if error.retryable:
            reporter.note(f"{settings.endpoint.name}: {error}; the run will wait for it")
            return
        raise EndpointProblem(
            f"scorer {settings.endpoint.name!r} at {', '.join(settings.endpoint.urls)}: {error}",
            remedy="check format, model, endpoints and api_key_env in the sweep file, or ask `ttc doctor SWEEP.yaml`",
        ) from error
    for note in found.notes:
        reporter.note(f"{settings.endpoint.name}: {note}")


async def _ask(settings: GeneratorSettings, reporter: Reporter) -> bool:
    """Whether the server derives seeds as vLLM does; raises EndpointProblem if it will never serve this sweep."""
    try:
        async with open_session() as session:
            found = await probe(session, settings.endpoint.urls[0], settings)
    except EndpointError as error:
        if error.retryable:
            reporter.note(f"{settings.endpoint.name}: {error}; the run will wait for it")
            return settings.samples_per_request > 1
        raise EndpointProblem(
            f"model {settings.endpoint.name!r} at {', '.join(settings.endpoint.urls)}: {error}",
            remedy="check model, endpoints and api_key_env in the sweep file, or ask `ttc doctor SWEEP.yaml`",
        ) from error
    for note in found.notes:
        reporter.note(f"{settings.endpoint.name}: {note}")
    return found.child_seeds
