"""What searches and independent samples have consumed. Functions take their transaction.

It must not know what the numbers are compared with, nor what a FLOP is.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store.backend import AnyRow, Transaction
from orchestrator.store.records import SampleCost, SearchCost
from workers.identity import SAMPLES_PER_POOL_BITS

SEARCHES = """SELECT w.strategy, p.problem_id,
        (SELECT COUNT(*) FROM nodes n WHERE n.pool_id = p.id) AS nodes,
        (SELECT COALESCE(SUM(n.completion_tokens), 0) FROM nodes n WHERE n.pool_id = p.id) AS tokens,
        (SELECT COALESCE(SUM(n.completion_tokens), 0) FROM prunings r
            JOIN nodes n ON n.pool_id = r.pool_id AND n.path = r.path WHERE r.pool_id = p.id) AS discarded_tokens,
        COALESCE((SELECT SUM(u.prompt_tokens) FROM tasks k JOIN usage u ON u.task_id = k.id AND u.role = 'scorer'
            WHERE k.pool_id = p.id), 0) AS scorer_tokens,
        COALESCE((SELECT SUM(u.prompt_tokens) FROM tasks k JOIN usage u ON u.task_id = k.id AND u.role = 'policy'
            WHERE k.pool_id = p.id), 0) AS prompt_tokens,
        COALESCE((SELECT SUM(u.cached_tokens) FROM tasks k JOIN usage u ON u.task_id = k.id AND u.role = 'policy'
            WHERE k.pool_id = p.id), 0) AS cached_tokens,
        g.parameters AS policy_parameters, r.parameters AS scorer_parameters,
        (SELECT MAX(j.latency_s) FROM trajectories j WHERE j.pool_id = p.id) AS seconds
    FROM sweep_pools w JOIN pools p ON p.id = w.pool_id JOIN procedures c ON c.id = p.procedure_id
    JOIN generators g ON g.id = p.generator_id JOIN scorers r ON r.id = c.scorer_id
    WHERE w.sweep_id = :sweep_id ORDER BY w.strategy, p.problem_id"""

_SAMPLED = """FROM sweep_pools w JOIN pools p ON p.id = w.pool_id AND p.procedure_id IS NULL AND p.prefix_id IS NULL
    JOIN tasks k ON k.pool_id = p.id JOIN lanes l ON l.id = k.lane_id"""

DRAWN = f"""SELECT w.strategy, SUM(u.requests) AS requests, SUM(u.prompt_tokens) AS prompt_tokens,
        MAX(g.parameters) AS parameters
    {_SAMPLED} AND l.kind = 'sample' JOIN usage u ON u.task_id = k.id JOIN generators g ON g.id = p.generator_id
    WHERE w.sweep_id = :sweep_id GROUP BY w.strategy"""

READ = f"""SELECT w.strategy, l.scorer_id, SUM(u.prompt_tokens) AS tokens, MAX(r.parameters) AS parameters
    {_SAMPLED} AND l.kind = 'score' JOIN usage u ON u.task_id = k.id JOIN scorers r ON r.id = l.scorer_id
    WHERE w.sweep_id = :sweep_id AND l.scorer_id IN (SELECT c.scorer_id FROM sweep_pools o
        JOIN pools q ON q.id = o.pool_id JOIN procedures c ON c.id = q.procedure_id WHERE o.sweep_id = :sweep_id)
    GROUP BY w.strategy, l.scorer_id"""
"""By the scorers that guide the sweep's searches, so that both pay for the same ones."""

STORED = """SELECT w.strategy, COUNT(*) AS samples FROM sweep_pools w
    JOIN pools p ON p.id = w.pool_id AND p.procedure_id IS NULL AND p.prefix_id IS NULL
    JOIN trajectories j ON j.pool_id = p.id WHERE w.sweep_id = :sweep_id GROUP BY w.strategy"""

_FIRST = f"CAST(p.id AS BIGINT) * {1 << SAMPLES_PER_POOL_BITS}"

SLOWEST = f"""SELECT s.strategy, AVG(s.seconds) AS seconds FROM (
        SELECT w.strategy, MAX(j.latency_s) AS seconds FROM sweep_pools w
        JOIN pools p ON p.id = w.pool_id AND p.procedure_id IS NULL AND p.prefix_id IS NULL
        JOIN trajectories j ON j.id >= {_FIRST} AND j.id < {_FIRST} + :budget
        WHERE w.sweep_id = :sweep_id GROUP BY w.strategy, p.id) s GROUP BY s.strategy"""
"""The samples of a problem are drawn at the same time: their slowest is what one waits for."""


async def search_costs(tx: Transaction, sweep_id: int) -> list[SearchCost]:
    """What each search of a sweep has consumed: what was thrown away is in it."""
    return [_search_cost(row) for row in await tx.rows(SEARCHES, sweep_id=sweep_id)]


async def sample_costs(tx: Transaction, sweep_id: int, budgets: Sequence[int]) -> dict[str, SampleCost]:
    """What independent samples have cost, by strategy."""
    samples = {row.strategy: row.samples for row in await tx.rows(STORED, sweep_id=sweep_id)}
    drawn = {row.strategy: row for row in await tx.rows(DRAWN, sweep_id=sweep_id)}
    read = await tx.rows(READ, sweep_id=sweep_id)
    slowest = {
        (row.strategy, budget): float(row.seconds)
        for budget in budgets
        for row in await tx.rows(SLOWEST, sweep_id=sweep_id, budget=budget)
    }
    return {
        strategy: SampleCost(
            samples=count,
            requests=int(drawn[strategy].requests) if strategy in drawn else 0,
            prompt_tokens=int(drawn[strategy].prompt_tokens) if strategy in drawn else 0,
            policy_parameters=drawn[strategy].parameters if strategy in drawn else None,
            readings=tuple((int(row.tokens), row.parameters) for row in read if row.strategy == strategy),
            seconds={
                budget: slowest[strategy, budget] for budget in budgets if (strategy, budget) in slowest
            },
        )
        for strategy, count in samples.items()
    }


def _search_cost(row: AnyRow) -> SearchCost:
    """Sums are decimals in PostgreSQL."""
    return SearchCost(
        strategy=row.strategy,
        problem_id=row.problem_id,
        nodes=int(row.nodes),
        tokens=int(row.tokens),
        discarded_tokens=int(row.discarded_tokens),
        scorer_tokens=int(row.scorer_tokens),
        prompt_tokens=int(row.prompt_tokens),
        cached_tokens=int(row.cached_tokens),
        policy_parameters=row.policy_parameters,
        scorer_parameters=row.scorer_parameters,
        seconds=row.seconds,
    )
