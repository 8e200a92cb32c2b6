"""Gives everything a sweep names its row: problems with verified golds, generators, pools. Draws nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import DatasetError, UsageError
from orchestrator.problems.datasets import ProblemSet
from orchestrator.spec.file import sweep_from
from orchestrator.spec.sections import ModelSpec, SweepSpec
from orchestrator.spec.settings import config_json, generator_fingerprint, generator_meaning
from orchestrator.store import GeneratorRecord, GoldStatus, ProblemRecord, Store
from workers.answers import EXTRACTOR_VERSION
from workers.embedded.catalog import weights_revision
from workers.grading import GRADERS, MATH, GraderPool
from workers.identity import content_hash

Note = Callable[[str], None]
"""Says something to the user."""

EXTRACTOR_NAME = "boxed"
COMPLETE = "complete"
"""State of a sweep whose last run found nothing more to do."""
NAMED_GOLDS = 5
"""Unparsable golds that are named one by one."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A sweep wants samples 0..samples-1 of a pool."""

    pool_id: int
    problem_id: int
    generator_id: int
    samples: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which answers are found and judged, as the store numbers them."""

    extractor_id: int
    grader_ids: Mapping[str, int]
    """By name of the grader."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The rows of a sweep."""

    sweep_id: int
    rules: Rules
    models: Mapping[int, str]
    """Name of the model in the sweep file, by generator id."""
    demands: Sequence[Demand]
    is_settled: bool
    """The same sweep has run to its end before: its results are stored, and nothing it asks for has changed."""


async def register(spec: SweepSpec, problems: ProblemSet, store: Store, note: Note) -> Registered:
    """Register a sweep; golds that do not verify against themselves are named, counted and left out."""
    for each in problems.notes:
        note(each)
    config = config_json(spec)
    before = await store.find_sweep(spec.name)
    sweep = await store.register_sweep(spec.name, config, content_hash(config), spec.seed)
    usable = await _register_problems(problems, store, note)
    models: dict[int, str] = {}
    demands: list[Demand] = []
    kept: set[tuple[int, str]] = set()
    for strategy in spec.strategies:
        generator_id = await _register_generator(strategy.policy, spec.models[strategy.policy], store)
        models[generator_id] = strategy.policy
        pools = await store.register_pools(
            sweep.id, generator_id, spec.seed, strategy.name, usable, strategy.samples
        )
        kept |= {(pool, strategy.name) for pool in pools.values()}
        demands += [Demand(pools[number], number, generator_id, strategy.samples) for number in usable]
    forgotten = await store.forget_pools(sweep.id, kept)
    is_same = before is not None and before.config_hash == sweep.config_hash and not forgotten
    is_settled = is_same and sweep.state == COMPLETE
    return Registered(sweep.id, await _register_rules(sweep.id, store), models, demands, is_settled)


async def recall(name: str, store: Store) -> tuple[SweepSpec, Registered]:
    """A sweep as it was last registered; the file of its problems is not needed. Raises UsageError if unknown."""
    sweep = await store.find_sweep(name)
    if sweep is None:
        raise unknown_sweep(name)
    spec = sweep_from(json.loads(sweep.config_json))
    models = {
        await _register_generator(each.policy, spec.models[each.policy], store): each.policy
        for each in spec.strategies
    }
    demands = [
        Demand(each.pool_id, each.problem_id, each.generator_id, each.samples_wanted)
        for each in await store.coverage(sweep.id)
    ]
    rules = await _register_rules(sweep.id, store)
    return spec, Registered(sweep.id, rules, models, demands, sweep.state == COMPLETE)


def unknown_sweep(name: str) -> UsageError:
    """No sweep has this name."""
    return UsageError(f"there is no sweep {name!r} in this database", remedy="`ttc status` lists them")


def revision_of(model: ModelSpec) -> str | None:
    """What tells the weights apart where the sweep file does not: a checksum, for embedded models."""
    return weights_revision(model.embedded) if model.embedded else None


async def _register_problems(problems: ProblemSet, store: Store, note: Note) -> list[int]:
    """Ids of the problems that can be graded, in the order of the sweep."""
    ids = await store.register_problems(
        [
            ProblemRecord(
                dataset=problems.dataset,
                external_id=row.external_id,
                statement=row.statement,
                answer=row.answer,
                level=None if row.level is None else str(row.level),
                subject=row.subject,
                content_hash=row.content_hash,
            )
            for row in problems.problems
        ]
    )
    await _verify_golds(store, ids, note)
    usable = await store.usable_problems(ids)
    if not usable:
        raise DatasetError(
            "no problem has a gold answer that can be graded",
            remedy="check the mapping `problems.fields.answer`",
        )
    return usable


async def _verify_golds(store: Store, problem_ids: Sequence[int], note: Note) -> None:
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


async def _register_rules(sweep_id: int, store: Store) -> Rules:
    """The views use the newest extractor and the mathematical grader; the strict one is there to be compared with."""
    extractor_id = await store.register_extractor(EXTRACTOR_NAME, EXTRACTOR_VERSION)
    grader_ids = {
        each.name: await store.register_grader(each.name, each.version) for each in GRADERS.values()
    }
    await store.choose_grading(sweep_id, extractor_id=extractor_id, grader_id=grader_ids[MATH.name])
    return Rules(extractor_id, grader_ids)


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
