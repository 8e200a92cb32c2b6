"""Tables of what was computed from the facts: selectors, estimates, results. All may be deleted and made again.

This module must not know how anything is estimated.
"""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.store.columns import BIG, INT, KEYED, REAL, STRICT, TEXT, col, key, metadata, ref

selectors = sa.Table(
    "selectors",
    metadata,
    key("Selector"),
    col("name", TEXT, "Name in results, parameters included", unique=True),
    col("kind", TEXT, "majority, pass, best-of-n, weighted, filter-vote or hierarchical"),
    col("scorer", TEXT, "Name of the scorer it uses; NULL: none", nullable=True),
    col("aggregation", TEXT, "How step scores become one: last, min, prod, mean or max", nullable=True),
    comment="Ways to choose one answer from many samples",
    **STRICT,
)

results = sa.Table(
    "results",
    metadata,
    ref("sweep_id", "sweeps.id", "Sweep", primary_key=True),
    col("strategy", TEXT, "Strategy", primary_key=True),
    ref("selector_id", "selectors.id", "Selector", primary_key=True),
    col("budget", INT, "Generations a problem", primary_key=True),
    col("level", TEXT, "Difficulty level; empty: all problems", primary_key=True),
    col("metric", TEXT, "Metric", primary_key=True),
    col("estimator_version", TEXT, "Version of the estimator", primary_key=True),
    col("value", REAL, "Estimate", nullable=True),
    col("std_error", REAL, "Standard error, clustered by problem", nullable=True),
    col("low", REAL, "Lower end of the 95% interval", nullable=True),
    col("high", REAL, "Upper end of the 95% interval", nullable=True),
    col("mc_error", REAL, "Part of the error that is due to resampling; 0: exact"),
    col("problems", INT, "Problems it rests on"),
    col("computed_at", REAL, "When it was computed"),
    comment="Estimates over problems, computed from what is stored",
    **KEYED,
)

estimates = sa.Table(
    "estimates",
    metadata,
    ref("sweep_id", "sweeps.id", "Sweep", primary_key=True),
    col("strategy", TEXT, "Strategy", primary_key=True),
    ref("selector_id", "selectors.id", "Selector", primary_key=True),
    col("budget", INT, "Generations", primary_key=True),
    ref("problem_id", "problems.id", "Problem", primary_key=True),
    col("value", REAL, "Chance that the selector is right with that budget"),
    col("mc_error", REAL, "Standard error that is due to resampling; 0: exact"),
    col("signature", BIG, "Hash of what it was computed from: an estimate of something else is made again"),
    comment="Estimates of single problems: any two selectors, strategies or budgets can be compared pair by pair",
    **KEYED,
)
