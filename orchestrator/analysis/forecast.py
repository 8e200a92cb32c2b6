"""What a sweep will cost before it runs. Calls no model, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.problems.datasets import ProblemSet
from orchestrator.registration import revision_of
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_fingerprint, samples_per_request
from orchestrator.store import PoolContent, Store, database_exists

FLOPS_PER_PARAMETER = 2
"""Forward pass of one token, by the rule of Kaplan et al. 2020 that Wu et al. 2408.00724 use."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one strategy of a sweep has and lacks."""

    strategy: str
    policy: str
    problems: int
    samples_wanted: int
    samples_stored: int
    samples_missing: int
    requests: int
    """Requests for what is missing, at the n of the sweep file (`auto` counts as for a vLLM server)."""
    max_tokens: int
    """Generated tokens if every sample runs to its limit."""
    expected_tokens: float | None
    """Generated tokens at the mean length of what is stored; None while nothing is."""
    flops: float | None
    """2 x parameters x tokens (expected, else at most); None where the sweep file does not say the parameters."""
    seconds: float | None
    """At the mean latency of what is stored, with all slots busy; None while nothing is stored."""


async def forecast(spec: SweepSpec, problems: ProblemSet, url: str) -> list[Forecast]:
    """One forecast a strategy; a database that does not exist yet holds nothing."""
    if not database_exists(url):
        return [_forecast(spec, number, problems, {}) for number in range(len(spec.sampled))]
    async with await Store.open(url, create=False, read_only=True) as store:
        found = []
        for number, strategy in enumerate(spec.sampled):
            model = spec.models[strategy.policy]
            name = generator_fingerprint(model, revision=revision_of(model))
            found.append(_forecast(spec, number, problems, await store.pool_contents(name, spec.seed)))
        return found


def _forecast(
    spec: SweepSpec, number: int, problems: ProblemSet, stored: Mapping[str, PoolContent]
) -> Forecast:
    """`stored` maps the content hash of a problem to what its pool holds."""
    strategy = spec.sampled[number]
    model = spec.models[strategy.policy]
    n = samples_per_request(model, derives_seeds=True)
    present = missing = requests = 0
    for problem in problems.problems:
        held = stored.get(problem.content_hash)
        covered = min(held.samples, strategy.samples) if held else 0
        lacking = strategy.samples - covered
        present += covered
        missing += lacking
        requests += -(-lacking // n)
    tokens = sum(each.completion_tokens for each in stored.values())
    samples = sum(each.samples for each in stored.values())
    expected = missing * tokens / samples if samples else None
    at_most = missing * model.sampling.max_tokens
    charged = expected if expected is not None else at_most
    waited_s = sum(each.latency_s for each in stored.values())
    mean_s = waited_s / samples if samples else None
    return Forecast(
        strategy=strategy.name,
        policy=strategy.policy,
        problems=len(problems.problems),
        samples_wanted=strategy.samples * len(problems.problems),
        samples_stored=present,
        samples_missing=missing,
        requests=requests,
        max_tokens=at_most,
        expected_tokens=expected,
        flops=None if model.parameters is None else FLOPS_PER_PARAMETER * model.parameters * charged,
        seconds=None if mean_s is None else mean_s * requests / model.limits.concurrency,
    )
