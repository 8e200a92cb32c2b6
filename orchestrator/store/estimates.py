"""Estimates kept: by problem, and over problems. Functions take the transaction they run in.

Must not know how anything is estimated, nor what makes an estimate out of date.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store import findings
from orchestrator.store.backend import Transaction, bulk
from orchestrator.store.records import EstimateRecord, ResultRecord, SelectorRecord

_RESULTS = bulk(
    findings.results,
    "(sweep_id, strategy, selector_id, budget, level, metric, estimator_version) DO UPDATE SET "
    "value = excluded.value, std_error = excluded.std_error, low = excluded.low, high = excluded.high, "
    "mc_error = excluded.mc_error, problems = excluded.problems, computed_at = excluded.computed_at",
)
_ESTIMATES = bulk(
    findings.estimates,
    "(sweep_id, strategy, selector_id, budget, problem_id) DO UPDATE SET "
    "value = excluded.value, mc_error = excluded.mc_error, signature = excluded.signature",
)


async def register_selectors(tx: Transaction, selectors: Sequence[SelectorRecord]) -> list[int]:
    """Ids of selectors, in order; unknown ones are added."""
    return [
        int(
            await tx.scalar(
                """INSERT INTO selectors (name, kind, scorer, aggregation)
                VALUES (:name, :kind, CAST(:scorer AS TEXT), CAST(:aggregation AS TEXT))
                ON CONFLICT (name) DO UPDATE SET kind = excluded.kind RETURNING id""",
                name=each.name, kind=each.kind, scorer=each.scorer, aggregation=each.aggregation,
            )
        )
        for each in selectors
    ]  # fmt: skip


async def read_estimates(tx: Transaction, sweep_id: int, strategy: str) -> list[EstimateRecord]:
    """All estimates of a strategy of a sweep."""
    rows = await tx.rows(
        """SELECT selector_id, budget, problem_id, value, mc_error, signature FROM estimates
        WHERE sweep_id = :sweep_id AND strategy = :strategy""",
        sweep_id=sweep_id,
        strategy=strategy,
    )
    return [EstimateRecord(*row) for row in rows]


async def write_estimates(
    tx: Transaction, sweep_id: int, strategy: str, estimates: Sequence[EstimateRecord]
) -> None:
    """Store estimates of problems; those of the same selector and budget are replaced."""
    await tx.insert(
        _ESTIMATES,
        [
            (sweep_id, strategy, e.selector_id, e.budget, e.problem_id, e.value, e.mc_error, e.signature)
            for e in estimates
        ],
    )


async def write_results(tx: Transaction, sweep_id: int, results: Sequence[ResultRecord]) -> None:
    """Store estimates over problems; those of the same estimator version are replaced."""
    now = await tx.now()
    distinct = {
        (r.strategy, r.selector_id, r.budget, r.level, r.metric, r.estimator_version): r for r in results
    }
    await tx.insert(
        _RESULTS,
        [
            (sweep_id, *key, r.value, r.std_error, r.low, r.high, r.mc_error, r.problems, now)
            for key, r in distinct.items()
        ],
    )
