"""Tables that name things and plan work: sweeps, problems, models, pools, tasks. Small, one row a thing.

`facts` holds the large tables that the workers' results fill, `findings` what is computed from them. Comments
are for people with SQL and reach the database (COMMENT ON in PostgreSQL, the table `schema_comments` in both).
Times are seconds since 1970-01-01 UTC. This module must not know how rows get there.
"""

from __future__ import annotations

from enum import IntEnum

import sqlalchemy as sa

from orchestrator.store.columns import (
    BIG,
    FLAG,
    INT,
    KEYED,
    REAL,
    SMALL,
    STRICT,
    TEXT,
    col,
    key,
    metadata,
    partial,
    ref,
)


class TaskState(IntEnum):
    """States of a task; `DONE` and `FAILED` are final until a sweep is resumed."""

    PENDING = 0
    """Waiting for a run to claim it."""
    RUNNING = 1
    """Leased by `run_id`; anyone may claim it once that run is silent for `LEASE_S`."""
    DONE = 2
    """Every fact it owes is stored."""
    FAILED = 3
    """Gave up; see `error_kind`."""


class GoldStatus:
    """What is known about the reference answer of a problem."""

    OK = "ok"
    UNPARSABLE = "gold_unparsable"
    UNVERIFIED = "unverified"


LEASE_S = 30.0
"""A run whose heartbeat is older than this holds its tasks no longer."""

schema_comments = sa.Table(
    "schema_comments",
    metadata,
    col("object_name", TEXT, "Table or view", primary_key=True),
    col("column_name", TEXT, "Column; empty for the table or view itself", primary_key=True),
    col("comment", TEXT, "What it means"),
    comment="What every table, view and column means",
    **KEYED,
)

extractors = sa.Table(
    "extractors",
    metadata,
    key("Extractor"),
    col("name", TEXT, "Name"),
    col("version", TEXT, "Version; a new one reads no row of another"),
    sa.UniqueConstraint("name", "version"),
    comment="Ways to find the final answer in a text",
    **STRICT,
)

graders = sa.Table(
    "graders",
    metadata,
    key("Grader"),
    col("name", TEXT, "Name"),
    col("version", TEXT, "Version; a new one reads no row of another"),
    sa.UniqueConstraint("name", "version"),
    comment="Ways to decide whether an answer is equivalent to the reference",
    **STRICT,
)

sweeps = sa.Table(
    "sweeps",
    metadata,
    key("Sweep"),
    col("name", TEXT, "Name given in the sweep file", unique=True),
    col("config_json", TEXT, "The sweep file as last run, as JSON"),
    col("config_hash", TEXT, "Hash of config_json"),
    col("seed", BIG, "Seed every sample's seed derives from"),
    col(
        "state",
        TEXT,
        "new, running, or how its last run ended: complete, cancelled, ...",
        server_default="new",
    ),
    col(
        "cancel_requested",
        FLAG,
        "Someone asked the running coordinator to stop",
        server_default=sa.text("'0'"),
    ),
    ref("extractor_id", "extractors.id", "Extractor the views use; NULL: the newest", nullable=True),
    ref("grader_id", "graders.id", "Grader the views use; NULL: the newest", nullable=True),
    col("created_at", REAL, "When the sweep was first registered"),
    comment="Sweeps: problems x models x strategies x budgets; they own no samples but look at pools",
    **STRICT,
)

runs = sa.Table(
    "runs",
    metadata,
    key("Run"),
    ref("sweep_id", "sweeps.id", "Sweep", index=True),
    col("host", TEXT, "Host of the coordinator"),
    col("pid", INT, "Process id of the coordinator"),
    col("started_at", REAL, "When the run started"),
    col("heartbeat_at", REAL, "Last sign of life; after 30 s of silence its tasks may be claimed by others"),
    col("ended_at", REAL, "When it ended in good order; NULL: running or killed", nullable=True),
    col("outcome", TEXT, "How it ended", nullable=True),
    col("details", TEXT, "Versions, command line and so on, as JSON"),
    col(
        "commit_sequence",
        BIG,
        "Last commit of its writer: a commit sent twice is done once",
        server_default="0",
    ),
    comment="One life of a coordinator",
    **STRICT,
)

problems = sa.Table(
    "problems",
    metadata,
    key("Problem"),
    col("dataset", TEXT, "Dataset"),
    col("external_id", TEXT, "The dataset's own name of the problem"),
    col("statement", TEXT, "What the model is asked"),
    col("answer", TEXT, "Reference answer"),
    col("level", TEXT, "The dataset's difficulty level", nullable=True),
    col("subject", TEXT, "The dataset's subject", nullable=True),
    col("content_hash", TEXT, "Hash of statement and answer: an edited problem is another problem"),
    col(
        "gold_status",
        TEXT,
        "ok, gold_unparsable (never graded wrong) or unverified",
        server_default="unverified",
    ),
    sa.UniqueConstraint("dataset", "external_id", "content_hash"),
    sa.CheckConstraint("gold_status IN ('ok', 'gold_unparsable', 'unverified')", name="gold_status"),
    comment="Problems, each with its reference answer",
    **STRICT,
)

generators = sa.Table(
    "generators",
    metadata,
    key("Generator"),
    col("name", TEXT, "Name in the sweep file"),
    col("fingerprint", TEXT, "Hash of all that changes the meaning of a sample", unique=True),
    col("model", TEXT, "Model"),
    col("revision", TEXT, "Revision of the model", nullable=True),
    col("parameters", BIG, "Number of parameters; 2 x this = FLOPs of a generated token", nullable=True),
    col("config_json", TEXT, "Model, prompt template, sampling and stop rules, as JSON"),
    comment="Policies: model + prompt + sampling",
    **STRICT,
)

scorers = sa.Table(
    "scorers",
    metadata,
    key("Scorer"),
    col("name", TEXT, "Name in the sweep file"),
    col("fingerprint", TEXT, "Hash of all that changes the meaning of a score", unique=True),
    col("kind", TEXT, "prm (a value a step), orm (a value a solution) or judge"),
    col("label_type", TEXT, "What its labels were: hard or soft; NULL: not known", nullable=True),
    col("parameters", BIG, "Number of parameters; 2 x this = FLOPs of a token it reads", nullable=True),
    col("config_json", TEXT, "Model, wire format, prompt and what else changes a score, as JSON"),
    comment="Process reward models, outcome reward models and judges",
    **STRICT,
)

procedures = sa.Table(
    "procedures",
    metadata,
    key("Procedure"),
    col("fingerprint", TEXT, "Hash of all that changes what a search finds", unique=True),
    col("kind", TEXT, "Algorithm: beam, rebase, ..."),
    col("budget", INT, "Budget N, in generations"),
    col("params_json", TEXT, "Parameters of the algorithm, as JSON"),
    ref("scorer_id", "scorers.id", "Scorer that guides it"),
    comment="Ways to search: algorithm, parameters, budget and the scorer that guides",
    **STRICT,
)

pools = sa.Table(
    "pools",
    metadata,
    key("Pool"),
    ref("problem_id", "problems.id", "Problem"),
    ref("generator_id", "generators.id", "Generator", index=True),
    col("seed", BIG, "Sweep seed its samples derive from"),
    # Prefixes point at trajectories, which point at pools: this side of the circle is left out where tables are sorted.
    ref(
        "prefix_id",
        "prefixes.id",
        "Beginning that its samples complete; NULL: none",
        kind=BIG,
        nullable=True,
        use_alter=True,
    ),
    ref("procedure_id", "procedures.id", "Procedure that finds its samples; NULL: none", nullable=True),
    partial(
        "uq_pools_whole",
        "problem_id",
        "generator_id",
        "seed",
        where="prefix_id IS NULL AND procedure_id IS NULL",
        unique=True,
    ),
    partial(
        "uq_pools_search",
        "problem_id",
        "generator_id",
        "seed",
        "procedure_id",
        where="procedure_id IS NOT NULL",
        unique=True,
    ),
    partial(
        "uq_pools_prefix", "prefix_id", "generator_id", "seed", where="prefix_id IS NOT NULL", unique=True
    ),
    comment="The samples of one problem (or of one beginning of a solution, or of one search) by one generator; "
    "shared by all sweeps with the same seed",
    **STRICT,
)

lanes = sa.Table(
    "lanes",
    metadata,
    key("Lane"),
    col("name", TEXT, "Kind and numbers of the models: sample:3, score:2, search:3:2", unique=True),
    col("kind", TEXT, "What its tasks are: sample, score or search"),
    ref("generator_id", "generators.id", "Generator that draws; NULL: none", nullable=True),
    ref("scorer_id", "scorers.id", "Scorer that scores; NULL: none", nullable=True),
    comment="What serves a task: lanes are claimed and filled apart, so that a slow model does not hold up another",
    **STRICT,
)

sweep_lanes = sa.Table(
    "sweep_lanes",
    metadata,
    ref("sweep_id", "sweeps.id", "Sweep", primary_key=True),
    ref("lane_id", "lanes.id", "Lane", primary_key=True),
    comment="Which models a sweep draws from and is scored by",
    **KEYED,
)

sweep_pools = sa.Table(
    "sweep_pools",
    metadata,
    ref("sweep_id", "sweeps.id", "Sweep", primary_key=True),
    ref("pool_id", "pools.id", "Pool", primary_key=True),
    col("strategy", TEXT, "Strategy of the sweep that wants these samples", primary_key=True),
    col("samples", INT, "Samples 0 .. samples-1 are wanted"),
    sa.Index("ix_sweep_pools_pool_id", "pool_id"),
    comment="Which samples a sweep looks at",
    **KEYED,
)

tasks = sa.Table(
    "tasks",
    metadata,
    key("Task"),
    ref(
        "lane_id", "lanes.id", "What serves it: says whether samples are drawn or scored, and by which model"
    ),
    ref("pool_id", "pools.id", "Pool"),
    col("sample_start", INT, "First sample"),
    col("sample_count", INT, "Number of samples"),
    col("state", SMALL, "0 pending, 1 running, 2 done, 3 failed", server_default="0"),
    col("attempt", INT, "Number of leases so far: the fence", server_default="0"),
    ref("run_id", "runs.id", "Run that holds or held the lease", nullable=True),
    col("not_before", REAL, "Not to be claimed before this time", nullable=True),
    col("error_kind", TEXT, "Why it failed, as one word", nullable=True),
    col("error_text", TEXT, "Why it failed", nullable=True),
    sa.Index("ix_tasks_span", "pool_id", "lane_id", "sample_start", "sample_count", "state", unique=False),
    partial("ix_tasks_pending", "lane_id", "id", where="state = 0"),
    partial("ix_tasks_running", "run_id", where="state = 1"),
    partial("ix_tasks_failed", "id", where="state = 3"),
    sa.UniqueConstraint("lane_id", "pool_id", "sample_start"),
    comment="Units of dispatch: a span of samples of a pool, to be drawn, found or scored",
    **STRICT,
)

events = sa.Table(
    "events",
    metadata,
    key("Event", BIG),
    ref("sweep_id", "sweeps.id", "Sweep", index=True),
    ref("run_id", "runs.id", "Run", nullable=True),
    col("at", REAL, "When"),
    col("kind", TEXT, "What happened, as one word"),
    col("subject", TEXT, "What it happened to"),
    col("detail", TEXT, "Details"),
    comment="What an operator may want to read afterwards: a replica ejected, a limit cut, a pause",
    **STRICT,
)
