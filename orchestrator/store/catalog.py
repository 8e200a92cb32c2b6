"""Registers what things are called: sweeps, problems, models, pools. Registering twice changes nothing.

Functions take the transaction they run in. Must not know tasks nor facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from orchestrator.store import schema
from orchestrator.store.backend import AnyRow, Transaction, bulk
from orchestrator.store.records import (
    GeneratorRecord,
    GoldToVerify,
    LaneRecord,
    ProblemRecord,
    ScorerRecord,
    SweepRecord,
)
from orchestrator.store.text import storable

T = TypeVar("T")

_CHUNK = 500
_SWEEP = "id, name, config_json, config_hash, seed, state, cancel_requested, created_at"
_PROBLEMS = bulk(
    schema.problems, "(dataset, external_id, content_hash) DO NOTHING", without=("id", "gold_status")
)
_POOLS = bulk(
    schema.pools,
    "(problem_id, generator_id, seed) WHERE prefix_id IS NULL AND procedure_id IS NULL DO NOTHING",
    without=("id", "prefix_id", "procedure_id"),
)
_SWEEP_LANES = bulk(schema.sweep_lanes, "(sweep_id, lane_id) DO NOTHING")
_SWEEP_POOLS = bulk(
    schema.sweep_pools, "(sweep_id, pool_id, strategy) DO UPDATE SET samples = excluded.samples"
)


async def register_sweep(
    tx: Transaction, name: str, config_json: str, config_hash: str, seed: int
) -> SweepRecord:
    """Register a sweep, or give the one with that name a new configuration."""
    (row,) = await tx.rows(
        f"""INSERT INTO sweeps (name, config_json, config_hash, seed, created_at)
        VALUES (:name, :config_json, :config_hash, :seed, :now)
        ON CONFLICT (name) DO UPDATE SET config_json = excluded.config_json, seed = excluded.seed,
            config_hash = excluded.config_hash
        RETURNING {_SWEEP}""",
        name=name, config_json=config_json, config_hash=config_hash, seed=seed, now=await tx.now(),
    )  # fmt: skip
    return _sweep(row)


async def find_sweeps(tx: Transaction, name: str | None) -> list[SweepRecord]:
    """The sweep called `name`, or all sweeps, newest first."""
    where = "WHERE name = :name" if name is not None else ""
    values = {"name": name} if name is not None else {}
    rows = await tx.rows(f"SELECT {_SWEEP} FROM sweeps {where} ORDER BY id DESC", **values)
    return [_sweep(row) for row in rows]


def _sweep(row: AnyRow) -> SweepRecord:
    return SweepRecord(
        row.id, row.name, row.config_json, row.config_hash, row.seed, row.state, bool(row.cancel_requested),
        row.created_at,
    )  # fmt: skip


async def register_problems(tx: Transaction, problems: Sequence[ProblemRecord]) -> list[int]:
    """Ids of problems, in order; unknown ones are added."""
    distinct = {(p.dataset, p.external_id, p.content_hash): p for p in problems}
    await tx.insert(
        _PROBLEMS,
        [
            (
                p.dataset,
                p.external_id,
                storable(p.statement),
                storable(p.answer),
                p.level,
                p.subject,
                p.content_hash,
            )
            for p in distinct.values()
        ],
    )
    ids: dict[tuple[str, str, str], int] = {}
    for chunk in chunks(sorted({p.content_hash for p in problems})):
        sql = "SELECT id, dataset, external_id, content_hash FROM problems WHERE content_hash IN :hashes"
        ids.update(
            {(r.dataset, r.external_id, r.content_hash): r.id for r in await tx.rows(sql, hashes=chunk)}
        )
    return [ids[p.dataset, p.external_id, p.content_hash] for p in problems]


async def unverified_problems(tx: Transaction, ids: Sequence[int]) -> list[GoldToVerify]:
    """Those problems whose reference answer nobody has tried to read."""
    sql = "SELECT id, external_id, answer FROM problems WHERE id IN :ids AND gold_status = 'unverified' ORDER BY id"
    return [GoldToVerify(*row) for chunk in chunks(ids) for row in await tx.rows(sql, ids=chunk)]


async def usable_problems(tx: Transaction, ids: Sequence[int]) -> list[int]:
    """Those problems whose reference answer can be graded against, in the order given."""
    sql = "SELECT id FROM problems WHERE id IN :ids AND gold_status = 'ok'"
    usable = {row.id for chunk in chunks(ids) for row in await tx.rows(sql, ids=chunk)}
    return [number for number in ids if number in usable]


async def forget_pools(
    tx: Transaction, sweep_id: int, kept: Collection[tuple[int, str]], *, keeps_prefixes: bool
) -> int:
    """The sweep no longer wants pools other than the (pool, strategy) kept; their samples stay. How many.

    Pools of prefixes follow from what is stored, so they are wanted anew when they are forgotten for nothing.
    """
    sql = f"""SELECT sp.pool_id, sp.strategy FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
        WHERE sp.sweep_id = :sweep_id{" AND p.prefix_id IS NULL" if keeps_prefixes else ""}"""
    stale = [row for row in await tx.rows(sql, sweep_id=sweep_id) if (row.pool_id, row.strategy) not in kept]
    for row in stale:
        await tx.run(
            """DELETE FROM sweep_pools
            WHERE sweep_id = :sweep_id AND pool_id = :pool_id AND strategy = :strategy""",
            sweep_id=sweep_id, pool_id=row.pool_id, strategy=row.strategy,
        )  # fmt: skip
    return len(stale)


async def set_gold_status(tx: Transaction, status: Mapping[int, str]) -> None:
    """Record what is known about reference answers (`schema.GoldStatus`)."""
    for word in sorted(set(status.values())):
        for chunk in chunks([problem for problem, its in status.items() if its == word]):
            await tx.run("UPDATE problems SET gold_status = :word WHERE id IN :ids", word=word, ids=chunk)


async def register_generator(tx: Transaction, generator: GeneratorRecord) -> int:
    """Id of the generator with that fingerprint; name and size may change, the rest is its meaning."""
    return int(
        await tx.scalar(
            """INSERT INTO generators (name, fingerprint, model, config_json, revision, parameters)
            VALUES (:name, :fingerprint, :model, :config_json, CAST(:revision AS TEXT), CAST(:size AS BIGINT))
            ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name,
                parameters = COALESCE(excluded.parameters, generators.parameters)
            RETURNING id""",
            name=generator.name, fingerprint=generator.fingerprint, model=generator.model,
            config_json=generator.config_json, revision=generator.revision, size=generator.parameters,
        )
    )  # fmt: skip


async def find_generator(tx: Transaction, fingerprint: str) -> int | None:
    """Id of the generator with that fingerprint, if there is one."""
    found = await tx.scalar("SELECT id FROM generators WHERE fingerprint = :name", name=fingerprint)
    return None if found is None else int(found)


async def register_scorer(tx: Transaction, scorer: ScorerRecord) -> int:
    """Id of the scorer with that fingerprint."""
    return int(
        await tx.scalar(
            """INSERT INTO scorers (name, fingerprint, kind, config_json, label_type, parameters)
            VALUES (:name, :fingerprint, :kind, :config_json, CAST(:label_type AS TEXT), CAST(:size AS BIGINT))
            ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name, label_type = excluded.label_type,
                parameters = COALESCE(excluded.parameters, scorers.parameters) RETURNING id""",
            name=scorer.name, fingerprint=scorer.fingerprint, kind=scorer.kind,
            config_json=scorer.config_json, label_type=scorer.label_type, size=scorer.parameters,
        )
    )  # fmt: skip


async def register_lanes(
    tx: Transaction,
    sweep_id: int,
    generator_ids: Sequence[int],
    scorer_ids: Sequence[int],
    searches: Sequence[tuple[int, int]],
) -> list[LaneRecord]:
    """The lanes of a sweep, those that draw first; it has no others from now on.

    `searches` are generators with the scorers that guide them.
    """
    lanes = [
        *[await _register_lane(tx, "sample", generator, None) for generator in generator_ids],
        *[await _register_lane(tx, "score", None, scorer) for scorer in scorer_ids],
        *[await _register_lane(tx, "search", *pair) for pair in searches],
    ]
    await tx.run("DELETE FROM sweep_lanes WHERE sweep_id = :sweep_id", sweep_id=sweep_id)
    await tx.insert(_SWEEP_LANES, [(sweep_id, lane.id) for lane in lanes])
    return lanes


async def sweep_lanes(tx: Transaction, sweep_id: int) -> list[LaneRecord]:
    """The lanes of a sweep, as registered."""
    sql = """SELECT l.id, l.kind, l.generator_id, l.scorer_id
        FROM sweep_lanes s JOIN lanes l ON l.id = s.lane_id WHERE s.sweep_id = :sweep_id ORDER BY l.kind, l.id"""
    return [LaneRecord(*row) for row in await tx.rows(sql, sweep_id=sweep_id)]


async def _register_lane(
    tx: Transaction, kind: str, generator_id: int | None, scorer_id: int | None
) -> LaneRecord:
    numbers = [str(number) for number in (generator_id, scorer_id) if number is not None]
    (row,) = await tx.rows(
        """INSERT INTO lanes (name, kind, generator_id, scorer_id)
        VALUES (:name, :kind, CAST(:generator AS INTEGER), CAST(:scorer AS INTEGER))
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind RETURNING id, kind, generator_id, scorer_id""",
        name=":".join([kind, *numbers]),
        kind=kind,
        generator=generator_id,
        scorer=scorer_id,
    )
    return LaneRecord(*row)


async def register_version(tx: Transaction, table: str, name: str, version: str) -> int:
    """Id of an extractor or a grader (`table` is `extractors` or `graders`)."""
    return int(
        await tx.scalar(
            f"""INSERT INTO {table} (name, version) VALUES (:name, :version)
            ON CONFLICT (name, version) DO UPDATE SET name = excluded.name RETURNING id""",
            name=name,
            version=version,
        )
    )


async def choose_grading(
    tx: Transaction, sweep_id: int, extractor_id: int | None, grader_id: int | None
) -> None:
    """Which extractor and grader the views use for a sweep; None: the newest."""
    await tx.run(
        """UPDATE sweeps SET extractor_id = CAST(:extractor_id AS INTEGER),
            grader_id = CAST(:grader_id AS INTEGER) WHERE id = :sweep_id""",
        sweep_id=sweep_id,
        extractor_id=extractor_id,
        grader_id=grader_id,
    )


async def register_pools(
    tx: Transaction,
    sweep_id: int,
    generator_id: int,
    seed: int,
    strategy: str,
    problem_ids: Sequence[int],
    samples: int,
) -> dict[int, int]:
    """Pool of each problem; the sweep now wants `samples` samples of each for that strategy."""
    wanted = list(dict.fromkeys(problem_ids))
    await tx.insert(_POOLS, [(problem, generator_id, seed) for problem in wanted])
    pools: dict[int, int] = {}
    for chunk in chunks(wanted):
        sql = """SELECT id, problem_id FROM pools
            WHERE problem_id IN :ids AND generator_id = :generator_id AND seed = :seed
                AND prefix_id IS NULL AND procedure_id IS NULL"""
        rows = await tx.rows(sql, ids=chunk, generator_id=generator_id, seed=seed)
        pools.update({row.problem_id: row.id for row in rows})
    await tx.insert(_SWEEP_POOLS, [(sweep_id, pools[problem], strategy, samples) for problem in wanted])
    return {problem: pools[problem] for problem in wanted}


def chunks(items: Sequence[T]) -> Iterator[list[T]]:
    """The items in lists short enough for `IN`."""
    return (list(items[start : start + _CHUNK]) for start in range(0, len(items), _CHUNK))
