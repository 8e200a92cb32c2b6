"""Gives everything a sweep names its row: problems with verified golds, generators, scorers, lanes, pools.

Draws and scores nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import DatasetError, UsageError
from orchestrator.problems.datasets import ProblemSet
from orchestrator.problems.rows import ProblemRow
from orchestrator.spec.file import sweep_from, validated
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.scorer_settings import scorer_fingerprint, scorer_meaning
from orchestrator.spec.scorers import AnyScorer, PrmScorer
from orchestrator.spec.search_settings import procedure_fingerprint, procedure_params, searches_of
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import config_json, generator_fingerprint, generator_meaning
from orchestrator.spec.yaml_text import Document
from orchestrator.store import (
    GeneratorRecord,
    GoldStatus,
    LaneRecord,
    ProblemRecord,
    ProcedureRecord,
    RolloutDemand,
    ScorerRecord,
    Store,
)
from workers.answers import EXTRACTOR_VERSION
from workers.embedded.catalog import weights_revision
from workers.errors import StrategyError
from workers.grading import GRADERS, MATH, GraderPool
from workers.identity import content_hash
from workers.strategies import build

Note = Callable[[str], None]
"""Says something to the user."""

EXTRACTOR_NAME = "boxed"
ORIGIN = "origin"
"""Name of the extractor and of the grader that stand for what an imported file brought along."""
COMPLETE = "complete"
"""State of a sweep whose last run found nothing more to do."""
NAMED_GOLDS = 5
"""Unparsable golds that are named one by one."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A strategy wants samples 0..samples-1 of a pool."""

    strategy: str
    pool_id: int
    problem_id: int
    generator_id: int
    samples: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which answers are found and judged, as the store numbers them."""

    extractor_id: int
    primary_id: int
    """The grader whose verdicts count."""
    grader_ids: Mapping[str, int]
    """The graders that are to give verdicts, by name; none, where samples brought theirs along."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The rows of a sweep."""

    sweep_id: int
    rules: Rules
    models: Mapping[int, str]
    """Name of the model in the sweep file, by generator id."""
    scorers: Mapping[int, str]
    """Name of the scorer in the sweep file, by scorer id."""
    lanes: Sequence[LaneRecord]
    demands: Sequence[Demand]
    rollouts: Sequence[RolloutDemand]
    is_settled: bool
    """The same sweep has run to its end before: its results are stored, and nothing it asks for has changed."""

    @property
    def wanted(self) -> dict[int, int]:
        """Samples wanted of each pool, the most over strategies, by pool id."""
        wanted: dict[int, int] = {}
        for demand in self.demands:
            wanted[demand.pool_id] = max(demand.samples, wanted.get(demand.pool_id, 0))
        return wanted

    def lane_of(self, generator_id: int) -> int:
        """The lane in which a generator draws."""
        return _sampling_lane(self.lanes, generator_id)

    def generator_of(self, model: str) -> int:
        """The generator that a model of the sweep file is."""
        return next(number for number, name in self.models.items() if name == model)


def check_strategies(spec: SweepSpec) -> None:
    """Raise UsageError for a strategy of the user's own that cannot be had; its module is imported here."""
    for strategy in spec.searched:
        try:
            build(strategy.algorithm, strategy.options)
        except StrategyError as error:
            raise UsageError(
                f"strategy {strategy.name!r}: {error}",
                remedy="install its package, or put its folder on PYTHONPATH, here and on every worker",
            ) from error


def _sampling_lane(lanes: Sequence[LaneRecord], generator_id: int) -> int:
    return next(lane.id for lane in lanes if lane.kind == "sample" and lane.generator_id == generator_id)


async def register(spec: SweepSpec, problems: ProblemSet, store: Store, note: Note) -> Registered:
    """Register a sweep; golds that do not verify against themselves are named, counted and left out."""
    check_strategies(spec)
    for each in problems.notes:
        note(each)
    config = config_json(spec)
    before = await store.find_sweep(spec.name)
    sweep = await store.register_sweep(spec.name, config, content_hash(config), spec.seed)
    usable = await _register_problems(problems, store, note)
    named = await _register_names(spec, sweep.id, store)
    demands = await _register_pools(spec, sweep.id, usable, named, store)
    searches = await _register_searches(spec, sweep.id, usable, named, store)
    is_same = before is not None and before.config_hash == sweep.config_hash
    kept = {(each.pool_id, each.strategy) for each in demands} | searches
    forgotten = await store.forget_pools(sweep.id, kept, keeps_prefixes=is_same)
    return _registered(
        spec,
        sweep.id,
        await _register_rules(spec, sweep.id, store),
        named,
        demands,
        is_settled=is_same and not forgotten and sweep.state == COMPLETE,
    )


async def recall(name: str, store: Store) -> tuple[SweepSpec, Registered]:
    """A sweep as it was last registered; the file of its problems is not needed. Raises UsageError if unknown."""
    sweep = await store.find_sweep(name)
    if sweep is None:
        raise unknown_sweep(name)
    spec = sweep_from(json.loads(sweep.config_json))
    named = await _register_names(spec, sweep.id, store)
    demands = [
        Demand(each.strategy, each.pool_id, each.problem_id, each.generator_id, each.samples_wanted)
        for each in await store.coverage(sweep.id)
    ]
    rules = await _register_rules(spec, sweep.id, store)
    is_settled = sweep.state == COMPLETE
    return spec, _registered(spec, sweep.id, rules, named, demands, is_settled=is_settled)


@dataclass(frozen=True, slots=True)
class _Named:
    """What the names of a sweep file stand for."""

    models: dict[str, int]
    """Generator ids."""
    scorers: dict[str, int]
    """Scorer ids."""
    lanes: list[LaneRecord]


async def _register_names(spec: SweepSpec, sweep_id: int, store: Store) -> _Named:
    """Models that a strategy uses, and all scorers."""
    used = [each.policy for each in spec.sampled] + [each.policy for each in spec.searched]
    used += [each.completer for each in spec.labelled]
    models = {name: await _register_generator(name, spec.models[name], store) for name in dict.fromkeys(used)}
    scorers = {name: await _register_scorer(name, each, store) for name, each in spec.scorers.items()}
    served = [number for name, number in scorers.items() if spec.scorers[name].imported is None]
    pairs = dict.fromkeys((models[each.policy], scorers[each.scorer]) for each in spec.searched)
    lanes = await store.register_lanes(sweep_id, list(models.values()), served, list(pairs))
    return _Named(models, scorers, lanes)


async def _register_pools(
    spec: SweepSpec, sweep_id: int, problem_ids: Sequence[int], named: _Named, store: Store
) -> list[Demand]:
    demands: list[Demand] = []
    for strategy in spec.sampled:
        generator_id = named.models[strategy.policy]
        pools = await store.register_pools(
            sweep_id, generator_id, spec.seed, strategy.name, problem_ids, strategy.samples
        )
        demands += [
            Demand(strategy.name, pools[number], number, generator_id, strategy.samples)
            for number in problem_ids
        ]
    return demands


async def _register_searches(
    spec: SweepSpec, sweep_id: int, problem_ids: Sequence[int], named: _Named, store: Store
) -> set[tuple[int, str]]:
    """The searches of a sweep: (pool, strategy with its budget)."""
    kept: set[tuple[int, str]] = set()
    for strategy, budget, name in searches_of(spec):
        scorer = spec.scorers[strategy.scorer]
        scorer_print = scorer_fingerprint(scorer, revision=revision_of_scorer(scorer))
        procedure_id = await store.register_procedure(
            ProcedureRecord(
                fingerprint=procedure_fingerprint(strategy, budget, scorer_print),
                kind=strategy.algorithm,
                budget=budget,
                params_json=procedure_params(strategy),
                scorer_id=named.scorers[strategy.scorer],
            )
        )
        most = strategy.most_solutions(budget)
        pools = await store.register_searches(
            sweep_id, named.models[strategy.policy], procedure_id, spec.seed, name, problem_ids, most
        )
        kept |= {(pool_id, name) for pool_id in pools.values()}
    return kept


def _registered(
    spec: SweepSpec,
    sweep_id: int,
    rules: Rules,
    named: _Named,
    demands: Sequence[Demand],
    *,
    is_settled: bool,
) -> Registered:
    rollouts = [
        RolloutDemand(
            strategy=each.name,
            source=each.source,
            solutions=each.solutions,
            generator_id=named.models[each.completer],
            lane_id=_sampling_lane(named.lanes, named.models[each.completer]),
            seed=spec.seed,
            rollouts=each.rollouts,
        )
        for each in spec.labelled
    ]
    return Registered(
        sweep_id=sweep_id,
        rules=rules,
        models={number: name for name, number in named.models.items()},
        scorers={number: name for name, number in named.scorers.items()},
        lanes=named.lanes,
        demands=demands,
        rollouts=rollouts,
        is_settled=is_settled,
    )


async def extend(name: str, added: Document, file: str, store: Store) -> tuple[SweepSpec, Registered]:
    """Give a stored sweep the scorers (and selectors) of another file; raises SpecError with the lines of that file.

    A scorer of the same name is replaced: a new fingerprint makes it another scorer, whose scores are kept apart.
    """
    sweep = await store.find_sweep(name)
    if sweep is None:
        raise unknown_sweep(name)
    given = added.data if isinstance(added.data, dict) else {}
    config = json.loads(sweep.config_json)
    config["scorers"] = {**config["scorers"], **_fields(given.get("scorers"))}
    if "selectors" in given:
        config["selectors"] = given["selectors"]
    spec = validated(replace(added, data=config), file)
    stored = config_json(spec)
    await store.register_sweep(name, stored, content_hash(stored), spec.seed)
    return await recall(name, store)


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def unknown_sweep(name: str) -> UsageError:
    """No sweep has this name."""
    return UsageError(f"there is no sweep {name!r} in this database", remedy="`ttc status` lists them")


def revision_of(model: ModelSpec) -> str | None:
    """What tells the weights apart where the sweep file does not: a checksum, for embedded models."""
    return weights_revision(model.built_in) if model.built_in else None


def revision_of_scorer(scorer: AnyScorer) -> str | None:
    """As `revision_of`, for a scorer."""
    return weights_revision(scorer.built_in) if scorer.built_in else None


async def _register_problems(problems: ProblemSet, store: Store, note: Note) -> list[int]:
    """Ids of the problems that can be graded, in the order of the sweep."""
    ids = await store.register_problems(problem_records(problems.dataset, problems.problems))
    await verify_golds(store, ids, note)
    usable = await store.usable_problems(ids)
    if not usable:
        raise DatasetError(
            "no problem has a gold answer that can be graded",
            remedy="check the mapping `problems.fields.answer`",
        )
    return usable


def problem_records(dataset: str, rows: Iterable[ProblemRow]) -> list[ProblemRecord]:
    """Problems of a file as the store takes them."""
    return [
        ProblemRecord(
            dataset=dataset,
            external_id=row.external_id,
            statement=row.statement,
            answer=row.answer,
            level=None if row.level is None else str(row.level),
            subject=row.subject,
            content_hash=row.content_hash,
        )
        for row in rows
    ]


async def verify_golds(store: Store, problem_ids: Sequence[int], note: Note) -> None:
    """Grade every gold against itself, once in the life of a problem: a bad gold leaves answers unscored, not wrong."""
    golds = await store.unverified_problems(problem_ids)
    if not golds:
        return
    async with GraderPool() as graders:
        verdicts = await asyncio.gather(*(graders.verify_gold(each.answer) for each in golds))
    bad = [each for each, is_ok in zip(golds, verdicts, strict=True) if not is_ok]
    for each in bad[:NAMED_GOLDS]:
        note(f"gold_unparsable: {each.external_id}: {each.answer!r} does not verify against itself")
    if bad:
        note(f"{len(bad)} of {len(golds)} problems left out: gold_unparsable")
    await store.set_gold_status(
        {
            each.problem_id: GoldStatus.OK if is_ok else GoldStatus.UNPARSABLE
            for each, is_ok in zip(golds, verdicts, strict=True)
        }
    )


async def _register_rules(spec: SweepSpec, sweep_id: int, store: Store) -> Rules:
    """Our extractor and mathematical grader (with the strict one for comparison), or what a file brought along."""
    origin = next((each.imported for each in spec.models.values() if each.imported is not None), None)
    extractor = (EXTRACTOR_NAME, EXTRACTOR_VERSION)
    if origin is not None and origin.has_answers:
        extractor = (ORIGIN, origin.checksum)
    extractor_id = await store.register_extractor(*extractor)
    if origin is not None and origin.has_verdicts:
        rules = Rules(extractor_id, await store.register_grader(ORIGIN, origin.checksum), {})
    else:
        grader_ids = {
            each.name: await store.register_grader(each.name, each.version) for each in GRADERS.values()
        }
        rules = Rules(extractor_id, grader_ids[MATH.name], grader_ids)
    await store.choose_grading(sweep_id, extractor_id=extractor_id, grader_id=rules.primary_id)
    return rules


async def _register_generator(name: str, model: ModelSpec, store: Store) -> int:
    revision = revision_of(model)
    return await store.register_generator(
        GeneratorRecord(
            name=name,
            fingerprint=generator_fingerprint(model, revision=revision),
            model=model.served_name,
            config_json=json.dumps(generator_meaning(model, revision=revision), sort_keys=True),
            revision=model.revision or revision,
            parameters=model.parameters,
        )
    )


async def _register_scorer(name: str, scorer: AnyScorer, store: Store) -> int:
    revision = revision_of_scorer(scorer)
    return await store.register_scorer(
        ScorerRecord(
            name=name,
            fingerprint=scorer_fingerprint(scorer, revision=revision),
            kind=scorer.kind,
            config_json=json.dumps(scorer_meaning(scorer, revision=revision), sort_keys=True),
            label_type=scorer.labels if isinstance(scorer, PrmScorer) else None,
            parameters=scorer.parameters,
        )
    )
