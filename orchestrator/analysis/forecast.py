"""What a sweep will cost before it runs. Calls no model, writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.problems.datasets import ProblemSet
from orchestrator.registration import revision_of, revision_of_scorer
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.scorer_settings import scorer_fingerprint
from orchestrator.spec.search_settings import searches_of
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_fingerprint, samples_per_request
from orchestrator.spec.strategies import ParallelStrategy, RolloutsStrategy, SearchStrategy
from orchestrator.store import PoolContent, RolloutDemand, SearchCost, Store, database_exists

FLOPS_PER_PARAMETER = 2
"""Forward pass of one token, by the rule of Kaplan et al. 2020 that Wu et al. 2408.00724 use."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one strategy or scorer of a sweep has and lacks."""

    name: str
    """Of the strategy or scorer."""
    unit: str
    """What is counted: samples, completions (of beginnings of solutions) or scores."""
    model: str
    problems: int
    wanted: int | None
    """None while it is not known: how many beginnings there will be depends on the solutions.

    Of completions and scores this is the most: equal beginnings and equal texts are asked for once.
    """
    stored: int
    missing: int | None
    requests: int | None
    """Requests for what is missing, at the sweep file's samples or texts a request (`auto` as for a vLLM server)."""
    max_tokens: int | None
    """Generated tokens if every sample runs to its limit; None for scores, which generate none."""
    expected_tokens: float | None
    """Generated tokens (of scores: tokens of solutions that are read) at the mean length of what is stored."""
    flops: float | None
    """2 x parameters x tokens (expected, else at most); None where the sweep file does not say the parameters."""
    seconds: float | None
    """At the mean latency of what is stored, with all slots busy; None while nothing is stored."""
    shared_steps: int = 0
    """First steps of searches, at most, that an earlier search of the sweep will have drawn (limits: share_steps);
    deeper ones may be shared too, which depends on what survives."""


@dataclass(frozen=True, slots=True)
class _Beginnings:
    """How far a strategy has come in looking at solutions."""

    wanted: int
    """Completions of the beginnings it has found."""
    unlabelled: int
    """Stored solutions whose beginnings it has not looked at."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a database has of a sweep."""

    pools: Mapping[str, Mapping[str, PoolContent]]
    """By model, then by content hash of the problem."""
    steps: Mapping[str, float | None]
    """Mean number of steps of a solution, by model."""
    completions: Mapping[str, PoolContent]
    """By completer."""
    beginnings: Mapping[str, _Beginnings]
    """By strategy that labels."""
    scores: Mapping[str, int]
    """By scorer."""
    searches: Mapping[str, Sequence[SearchCost]]
    """Those that are done, by strategy with its budget."""

    def solutions(self, model: str) -> PoolContent:
        """All whole solutions of a model, summed."""
        contents = self.pools.get(model, {}).values()
        return PoolContent(
            sum(each.samples for each in contents),
            sum(each.completion_tokens for each in contents),
            sum(each.latency_s for each in contents),
        )


async def forecast(spec: SweepSpec, problems: ProblemSet, url: str) -> list[Forecast]:
    """One forecast a strategy and scorer; a database that does not exist yet holds nothing."""
    held = _Held({}, {}, {}, {}, {}, {})
    if database_exists(url):
        async with await Store.open(url, create=False, read_only=True) as store:
            held = await _held(spec, store)
    return [
        *(_samples(spec, strategy, problems, held) for strategy in spec.sampled),
        *(_completions(spec, strategy, problems, held) for strategy in spec.labelled),
        *_all_searches(spec, problems, held),
        *(_scores(spec, name, problems, held) for name in spec.scorers),
    ]


async def _held(spec: SweepSpec, store: Store) -> _Held:
    names = {
        name: generator_fingerprint(model, revision=revision_of(model)) for name, model in spec.models.items()
    }
    policies = dict.fromkeys(each.policy for each in spec.sampled)
    completers = dict.fromkeys(each.completer for each in spec.labelled)
    scorers = {
        name: scorer_fingerprint(scorer, revision=revision_of_scorer(scorer))
        for name, scorer in spec.scorers.items()
    }
    return _Held(
        pools={name: await store.pool_contents(names[name], spec.seed) for name in policies},
        steps={name: await store.mean_steps(names[name], spec.seed) for name in policies if completers},
        completions={name: await store.completions_held(names[name], spec.seed) for name in completers},
        beginnings={each.name: await _beginnings(spec, each, names, store) for each in spec.labelled},
        scores={
            name: sum([await store.scores_held(scorer, names[each], spec.seed) for each in policies])
            for name, scorer in scorers.items()
        },
        searches=await _searched(spec, store),
    )


async def _searched(spec: SweepSpec, store: Store) -> dict[str, list[SearchCost]]:
    sweep = await store.find_sweep(spec.name)
    found: dict[str, list[SearchCost]] = {}
    if sweep is None:
        return found
    done = {
        name: {pool.problem_id for pool in pools}
        for name, pools in (await store.search_pools(sweep.id)).items()
    }
    for cost in await store.search_costs(sweep.id):
        if cost.problem_id in done.get(cost.strategy, ()):
            found.setdefault(cost.strategy, []).append(cost)
    return found


async def _beginnings(
    spec: SweepSpec, strategy: RolloutsStrategy, names: Mapping[str, str], store: Store
) -> _Beginnings:
    sweep = await store.find_sweep(spec.name)
    completer = await store.find_generator(names[strategy.completer])
    if sweep is None or completer is None:
        return _Beginnings(0, 0)
    demand = RolloutDemand(
        strategy.name, strategy.source, strategy.solutions, completer, 0, spec.seed, strategy.rollouts
    )
    unlabelled = await store.unlabelled(sweep.id, demand)
    return _Beginnings(await store.rollouts_wanted(sweep.id, strategy.name), len(unlabelled))


def _samples(spec: SweepSpec, strategy: ParallelStrategy, problems: ProblemSet, held: _Held) -> Forecast:
    model = spec.models[strategy.policy]
    n = samples_per_request(model, derives_seeds=True)
    pools = held.pools.get(strategy.policy, {})
    covered = [
        min(pools[each.content_hash].samples, strategy.samples) if each.content_hash in pools else 0
        for each in problems.problems
    ]
    return _drawn(
        strategy.name,
        "samples",
        strategy.policy,
        model,
        len(problems.problems),
        wanted=strategy.samples * len(problems.problems),
        stored=sum(covered),
        requests=sum(-(-(strategy.samples - count) // n) for count in covered),
        like=held.solutions(strategy.policy),
    )


def _completions(spec: SweepSpec, strategy: RolloutsStrategy, problems: ProblemSet, held: _Held) -> Forecast:
    model = spec.models[strategy.completer]
    source = next(each for each in spec.sampled if each.name == strategy.source)
    steps = held.steps.get(source.policy)
    stored = held.completions.get(strategy.completer, PoolContent(0, 0, 0.0))
    known = held.beginnings.get(strategy.name, _Beginnings(0, 0))
    pools = held.pools.get(source.policy, {})
    missing_solutions = sum(
        strategy.solutions - min(strategy.solutions, pools[each.content_hash].samples)
        if each.content_hash in pools
        else strategy.solutions
        for each in problems.problems
    )
    n = samples_per_request(model, derives_seeds=True)
    wanted = None
    if steps is not None:
        unseen = round((missing_solutions + known.unlabelled) * (steps - 1))
        wanted = known.wanted + unseen * strategy.rollouts
    missing = None if wanted is None else max(0, wanted - stored.samples)
    a_beginning = -(-strategy.rollouts // n)
    return _drawn(
        strategy.name,
        "completions",
        strategy.completer,
        model,
        len(problems.problems),
        wanted=wanted,
        stored=stored.samples,
        requests=None if missing is None else -(-missing // strategy.rollouts) * a_beginning,
        like=stored,
    )


def _all_searches(spec: SweepSpec, problems: ProblemSet, held: _Held) -> Iterator[Forecast]:
    """Searches in the order of the file; what they share depends on the order they run in, by budget."""
    drawn: defaultdict[tuple[object, ...], int] = defaultdict(int)
    shared: dict[str, int] = {}
    for strategy, budget, name in sorted(searches_of(spec), key=lambda each: each[1]):
        alike = (strategy.policy, strategy.scorer, *strategy.limits.values())
        first = strategy.first_steps(budget)
        shared[name] = min(first, drawn[alike]) if spec.limits.share_steps else 0
        drawn[alike] = max(first, drawn[alike])
    for strategy, budget, name in searches_of(spec):
        found = _searches(spec, strategy, budget, name, problems, held)
        yield replace(found, shared_steps=shared[name] * (found.missing or 0))


def _searches(
    spec: SweepSpec, strategy: SearchStrategy, budget: int, name: str, problems: ProblemSet, held: _Held
) -> Forecast:
    """Searches cost, each, what those did that are done; how many steps one takes nobody knows before."""
    model = spec.models[strategy.policy]
    done = held.searches.get(name, ())
    wanted = len(problems.problems)
    missing = max(0, wanted - len(done))
    expected = missing * sum(cost.tokens for cost in done) / len(done) if done else None
    return Forecast(
        name=name,
        unit="searches",
        model=strategy.policy,
        problems=wanted,
        wanted=wanted,
        stored=len(done),
        missing=missing,
        requests=None,
        max_tokens=missing * budget * strategy.most_tokens,
        expected_tokens=expected,
        flops=_flops(model.parameters, expected),
        seconds=None,
    )


def _drawn(
    name: str,
    unit: str,
    model_name: str,
    model: ModelSpec,
    problems: int,
    *,
    wanted: int | None,
    stored: int,
    requests: int | None,
    like: PoolContent,
) -> Forecast:
    """What is missing costs as much as what is stored did."""
    missing = None if wanted is None else max(0, wanted - stored)
    at_most = None if missing is None else missing * model.sampling.max_tokens
    expected = None
    if missing is not None and like.samples:
        expected = missing * like.completion_tokens / like.samples
    charged = expected if expected is not None else at_most
    seconds = None
    if requests is not None and like.samples:
        seconds = like.latency_s / like.samples * requests / model.limits.concurrency
    return Forecast(
        name, unit, model_name, problems, wanted, stored, missing, requests, at_most, expected,
        _flops(model.parameters, charged), seconds,
    )  # fmt: skip


def _scores(spec: SweepSpec, name: str, problems: ProblemSet, held: _Held) -> Forecast:
    scorer = spec.scorers[name]
    sizes: dict[str, int] = {}
    for strategy in spec.sampled:
        sizes[strategy.policy] = max(strategy.samples, sizes.get(strategy.policy, 0))
    wanted = len(problems.problems) * sum(sizes.values())
    stored = min(wanted, held.scores.get(name, 0))
    missing = 0 if scorer.imported else wanted - stored
    solutions = [held.solutions(policy) for policy in sizes]
    samples = sum(each.samples for each in solutions)
    tokens = sum(each.completion_tokens for each in solutions)
    expected = missing * tokens / samples if samples else None
    return Forecast(
        name=name,
        unit="scores",
        model=scorer.served_name or name,
        problems=len(problems.problems),
        wanted=wanted,
        stored=stored,
        missing=missing,
        requests=-(-missing // scorer.texts_per_request),
        max_tokens=None,
        expected_tokens=expected,
        flops=_flops(scorer.parameters, expected),
        seconds=None,
    )


def _flops(parameters: int | None, tokens: float | None) -> float | None:
    return None if parameters is None or tokens is None else FLOPS_PER_PARAMETER * parameters * tokens
