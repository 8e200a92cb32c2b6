"""Makes the policies of a sweep ready to be drawn from: starts embedded ones, and asks every server what it can do."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.errors import EndpointProblem
from orchestrator.execution.embedded_server import embedded_server
from orchestrator.execution.progress import Reporter
from orchestrator.registration import Registered, revision_of
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_settings
from workers.errors import EndpointError
from workers.http import open_session
from workers.probe import probe
from workers.types import EndpointSettings, GeneratorSettings


@dataclass(frozen=True, slots=True)
class Served:
    """A generator with servers behind it."""

    settings: GeneratorSettings
    task_samples: int | None
    """Samples a task, where the sweep file says so."""


@asynccontextmanager
async def serve_models(
    spec: SweepSpec, registered: Registered, workers: int, reporter: Reporter
) -> AsyncIterator[Mapping[int, Served]]:
    """Generators by id, ready to draw; embedded servers live as long as the context."""
    size = spec.limits.task_samples if isinstance(spec.limits.task_samples, int) else None
    async with AsyncExitStack() as stack:
        served: dict[int, Served] = {}
        for generator_id, name in registered.models.items():
            model = spec.models[name]
            revision = revision_of(model)
            urls = (
                [await stack.enter_async_context(embedded_server(model.embedded))] if model.embedded else []
            )
            settings = generator_settings(name, model, generator_id, urls=urls, revision=revision)
            if not model.embedded:
                derives_seeds = await _ask(settings, reporter)
                settings = generator_settings(
                    name, model, generator_id, urls=urls, revision=revision, derives_seeds=derives_seeds
                )
            share = share_of(settings.endpoint, workers)
            served[generator_id] = Served(replace(settings, endpoint=share), size)
        yield served


def share_of(endpoint: EndpointSettings, workers: int) -> EndpointSettings:
    """One worker's part of the limits of a sweep: the file states them for all workers together."""

    def part(total: float | None) -> float | None:
        return None if total is None else total / workers

    return replace(
        endpoint,
        concurrency=max(1, math.ceil(endpoint.concurrency / workers)),
        requests_per_minute=part(endpoint.requests_per_minute),
        tokens_per_minute=part(endpoint.tokens_per_minute),
    )


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
