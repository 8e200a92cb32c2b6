"""Samples one by one, with their answers and scores: read in bulk, without a text.

Must not know what is made of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from orchestrator.store.backend import Backend, Transaction
from orchestrator.store.records import AnswerRecord, PoolSamples, SampleTexts, ScoreTexts, SweepPool
from workers.identity import SAMPLES_PER_POOL_BITS

POOLS = """SELECT w.pool_id, w.problem_id, w.generator_id, q.level, q.answer, w.samples_wanted
    FROM v_sweep_pools w JOIN problems q ON q.id = w.problem_id
    WHERE w.sweep_id = :sweep_id AND w.prefix_id IS NULL AND w.procedure_id IS NULL ORDER BY w.pool_id"""

SEARCHES = """SELECT sp.strategy, w.pool_id, w.problem_id, w.generator_id, q.level, q.answer, w.samples_wanted
    FROM v_sweep_pools w JOIN problems q ON q.id = w.problem_id
    JOIN sweep_pools sp ON sp.sweep_id = w.sweep_id AND sp.pool_id = w.pool_id
    WHERE w.sweep_id = :sweep_id AND w.procedure_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM tasks t JOIN lanes l ON l.id = t.lane_id AND l.kind = 'search'
        WHERE t.pool_id = w.pool_id AND t.state = 2)
    ORDER BY sp.strategy, w.pool_id"""
"""Searches that are done, those included that found nothing."""

ANSWERS = """SELECT a.problem_id, a.id, a.text, g.verdict, g.cluster_id
    FROM (SELECT DISTINCT p.problem_id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
        WHERE sp.sweep_id = :sweep_id AND p.prefix_id IS NULL) w
    JOIN answers a ON a.problem_id = w.problem_id
    LEFT JOIN grades g ON g.answer_id = a.id AND g.grader_id = :grader_id
    ORDER BY a.id"""

SAMPLES = """SELECT {i}, {outcome}, {answer}, {tokens} FROM (
        SELECT t.sample_index AS i, t.outcome, COALESCE(CAST(x.answer_id AS TEXT), 'null') AS answer,
            COALESCE(CAST(t.completion_tokens AS TEXT), 'null') AS tokens
        FROM trajectories t
        LEFT JOIN extractions x ON x.trajectory_id = t.id AND x.extractor_id = {extractor}
        WHERE t.id >= {first} AND t.id < {end} ORDER BY t.id) g"""

SCORES = """SELECT {i}, {status}, {values_json} FROM (
        SELECT s.trajectory_id - {first} AS i, s.status,
            CASE WHEN s.status IN ('error', 'invalid') THEN '[]' ELSE s.values_json END AS values_json
        FROM scores s
        WHERE s.trajectory_id >= {first} AND s.trajectory_id < {end} AND s.scorer_id = {scorer}
        ORDER BY s.trajectory_id) g"""


async def sample_pools(tx: Transaction, sweep_id: int) -> list[SweepPool]:
    """The pools of independent solutions of a sweep."""
    return [SweepPool(*row) for row in await tx.rows(POOLS, sweep_id=sweep_id)]


async def search_pools(tx: Transaction, sweep_id: int) -> dict[str, list[SweepPool]]:
    """The pools of what the searches of a sweep have found, by strategy (with its budget)."""
    found: defaultdict[str, list[SweepPool]] = defaultdict(list)
    for strategy, *pool in await tx.rows(SEARCHES, sweep_id=sweep_id):
        found[strategy].append(SweepPool(*pool))
    return dict(found)


async def sweep_answers(tx: Transaction, sweep_id: int, grader_id: int) -> dict[int, list[AnswerRecord]]:
    """All distinct answers to the problems of a sweep, with what a grader says of them, by problem id."""
    found: defaultdict[int, list[AnswerRecord]] = defaultdict(list)
    for problem_id, *answer in await tx.rows(ANSWERS, sweep_id=sweep_id, grader_id=grader_id):
        found[problem_id].append(AnswerRecord(*answer))
    return dict(found)


async def pool_samples(
    tx: Transaction, pools: Sequence[SweepPool], scorer_ids: Sequence[int], extractor_id: int
) -> list[PoolSamples]:
    """The samples that a sweep wants of pools, with the answers that an extractor found and their scores."""
    return [await _pool(tx, pool, scorer_ids, extractor_id) for pool in pools]


async def _pool(
    tx: Transaction, pool: SweepPool, scorer_ids: Sequence[int], extractor_id: int
) -> PoolSamples:
    first = pool.pool_id << SAMPLES_PER_POOL_BITS
    bounds = {"first": first, "end": first + pool.samples_wanted}
    samples = SampleTexts(*await _gathered(tx, SAMPLES, extractor=extractor_id, **bounds))
    scores = {
        scorer: ScoreTexts(*await _gathered(tx, SCORES, scorer=scorer, **bounds)) for scorer in scorer_ids
    }
    return PoolSamples(pool.pool_id, samples, scores)


async def _gathered(tx: Transaction, sql: str, **numbers: int) -> list[str]:
    """Columns of a statement, each as one text: as rows, a million samples cost what is made of each."""
    (row,) = await tx.backend.fetch(tx.connection, gathering(tx.backend, sql, **numbers))
    return [text or "" for text in row]


def gathering(backend: Backend, sql: str, **numbers: int) -> str:
    """A statement (`SAMPLES` or `SCORES`) whose columns a database gathers in its own words."""
    columns = ("i", "outcome", "answer", "tokens", "status", "values_json")
    gathered = {name: backend.gather.format(column=f"g.{name}") for name in columns}
    return sql.format(**gathered, **numbers)
