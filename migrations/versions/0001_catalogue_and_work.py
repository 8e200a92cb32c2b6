"""Tables that name things and plan work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INT = sa.Integer()
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text()
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_extractors()
    _create_generators()
    _create_graders()
    _create_problems()
    _create_schema_comments()
    _create_scorers()
    _create_pools()
    _create_sweeps()
    _create_results()
    _create_runs()
    _create_sweep_pools()
    _create_events()
    _create_tasks()


def downgrade() -> None:
    for table in (
        "tasks",
        "events",
        "sweep_pools",
        "runs",
        "results",
        "sweeps",
        "pools",
        "scorers",
        "schema_comments",
        "problems",
        "graders",
        "generators",
        "extractors",
    ):
        op.drop_table(table)


def _create_extractors() -> None:
    op.create_table(
        "extractors",
        sa.Column("id", INT, nullable=False, comment="Extractor"),
        sa.Column("name", TEXT, nullable=False, comment="Name"),
        sa.Column("version", TEXT, nullable=False, comment="Version; a new one reads no row of another"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_extractors")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_extractors_name_version")),
        comment="Ways to find the final answer in a text",
        sqlite_strict=True,
    )


def _create_generators() -> None:
    op.create_table(
        "generators",
        sa.Column("id", INT, nullable=False, comment="Generator"),
        sa.Column("name", TEXT, nullable=False, comment="Name in the sweep file"),
        sa.Column(
            "fingerprint", TEXT, nullable=False, comment="Hash of all that changes the meaning of a sample"
        ),
        sa.Column("model", TEXT, nullable=False, comment="Model"),
        sa.Column("revision", TEXT, nullable=True, comment="Revision of the model"),
        sa.Column(
            "parameters",
            BIG,
            nullable=True,
            comment="Number of parameters; 2 x this = FLOPs of a generated token",
        ),
        sa.Column(
            "config_json",
            TEXT,
            nullable=False,
            comment="Model, prompt template, sampling and stop rules, as JSON",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generators")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_generators_fingerprint")),
        comment="Policies: model + prompt + sampling",
        sqlite_strict=True,
    )


def _create_graders() -> None:
    op.create_table(
        "graders",
        sa.Column("id", INT, nullable=False, comment="Grader"),
        sa.Column("name", TEXT, nullable=False, comment="Name"),
        sa.Column("version", TEXT, nullable=False, comment="Version; a new one reads no row of another"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_graders")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_graders_name_version")),
        comment="Ways to decide whether an answer is equivalent to the reference",
        sqlite_strict=True,
    )


def _create_problems() -> None:
    op.create_table(
        "problems",
        sa.Column("id", INT, nullable=False, comment="Problem"),
        sa.Column("dataset", TEXT, nullable=False, comment="Dataset"),
        sa.Column("external_id", TEXT, nullable=False, comment="The dataset's own name of the problem"),
        sa.Column("statement", TEXT, nullable=False, comment="What the model is asked"),
        sa.Column("answer", TEXT, nullable=False, comment="Reference answer"),
        sa.Column("level", TEXT, nullable=True, comment="The dataset's difficulty level"),
        sa.Column("subject", TEXT, nullable=True, comment="The dataset's subject"),
        sa.Column(
            "content_hash",
            TEXT,
            nullable=False,
            comment="Hash of statement and answer: an edited problem is another problem",
        ),
        sa.Column(
            "gold_status",
            TEXT,
            nullable=False,
            server_default="unverified",
            comment="ok, gold_unparsable (never graded wrong) or unverified",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_problems")),
        sa.CheckConstraint(
            "gold_status IN ('ok', 'gold_unparsable', 'unverified')", name=op.f("ck_problems_gold_status")
        ),
        sa.UniqueConstraint(
            "dataset",
            "external_id",
            "content_hash",
            name=op.f("uq_problems_dataset_external_id_content_hash"),
        ),
        comment="Problems, each with its reference answer",
        sqlite_strict=True,
    )


def _create_schema_comments() -> None:
    op.create_table(
        "schema_comments",
        sa.Column("object_name", TEXT, nullable=False, comment="Table or view"),
        sa.Column("column_name", TEXT, nullable=False, comment="Column; empty for the table or view itself"),
        sa.Column("comment", TEXT, nullable=False, comment="What it means"),
        sa.PrimaryKeyConstraint("object_name", "column_name", name=op.f("pk_schema_comments")),
        comment="What every table, view and column means",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_scorers() -> None:
    op.create_table(
        "scorers",
        sa.Column("id", INT, nullable=False, comment="Scorer"),
        sa.Column("name", TEXT, nullable=False, comment="Name in the sweep file"),
        sa.Column(
            "fingerprint", TEXT, nullable=False, comment="Hash of all that changes the meaning of a score"
        ),
        sa.Column(
            "kind", TEXT, nullable=False, comment="prm (a value a step), orm (a value a solution) or judge"
        ),
        sa.Column(
            "label_type",
            TEXT,
            nullable=True,
            comment="What the value estimates: probability, reward, Monte Carlo value, ...",
        ),
        sa.Column("config_json", TEXT, nullable=False, comment="Model, wire format and aggregation, as JSON"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scorers")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_scorers_fingerprint")),
        comment="Process reward models, outcome reward models and judges",
        sqlite_strict=True,
    )


def _create_pools() -> None:
    op.create_table(
        "pools",
        sa.Column("id", INT, nullable=False, comment="Pool"),
        sa.Column("problem_id", INT, nullable=False, comment="Problem"),
        sa.Column("generator_id", INT, nullable=False, comment="Generator"),
        sa.Column("seed", BIG, nullable=False, comment="Sweep seed its samples derive from"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.ForeignKeyConstraint(
            ["generator_id"], ["generators.id"], name=op.f("fk_pools_generator_id_generators")
        ),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.id"], name=op.f("fk_pools_problem_id_problems")),
        sa.UniqueConstraint(
            "problem_id", "generator_id", "seed", name=op.f("uq_pools_problem_id_generator_id_seed")
        ),
        comment="The samples of one problem by one generator; shared by all sweeps with the same seed",
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_pools_generator_id"), "pools", ["generator_id"], unique=False)


def _create_sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", INT, nullable=False, comment="Sweep"),
        sa.Column("name", TEXT, nullable=False, comment="Name given in the sweep file"),
        sa.Column("config_json", TEXT, nullable=False, comment="The sweep file as last run, as JSON"),
        sa.Column("config_hash", TEXT, nullable=False, comment="Hash of config_json"),
        sa.Column("seed", BIG, nullable=False, comment="Seed every sample's seed derives from"),
        sa.Column(
            "state",
            TEXT,
            nullable=False,
            server_default="new",
            comment="new, running, or how its last run ended: complete, cancelled, ...",
        ),
        sa.Column(
            "cancel_requested",
            FLAG,
            nullable=False,
            server_default=sa.text("'0'"),
            comment="Someone asked the running coordinator to stop",
        ),
        sa.Column("extractor_id", INT, nullable=True, comment="Extractor the views use; NULL: the newest"),
        sa.Column("grader_id", INT, nullable=True, comment="Grader the views use; NULL: the newest"),
        sa.Column("created_at", REAL, nullable=False, comment="When the sweep was first registered"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
        sa.ForeignKeyConstraint(
            ["extractor_id"], ["extractors.id"], name=op.f("fk_sweeps_extractor_id_extractors")
        ),
        sa.ForeignKeyConstraint(["grader_id"], ["graders.id"], name=op.f("fk_sweeps_grader_id_graders")),
        sa.UniqueConstraint("name", name=op.f("uq_sweeps_name")),
        comment="Sweeps: problems x models x strategies x budgets; they own no samples but look at pools",
        sqlite_strict=True,
    )


def _create_results() -> None:
    op.create_table(
        "results",
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("strategy", TEXT, nullable=False, comment="Strategy"),
        sa.Column("selector", TEXT, nullable=False, comment="Selector: majority, best-of-n, pass@k, ..."),
        sa.Column("budget", INT, nullable=False, comment="Generations a problem"),
        sa.Column("level", TEXT, nullable=False, comment="Difficulty level; empty: all problems"),
        sa.Column("metric", TEXT, nullable=False, comment="Metric"),
        sa.Column("estimator_version", TEXT, nullable=False, comment="Version of the estimator"),
        sa.Column("value", REAL, nullable=True, comment="Estimate"),
        sa.Column("std_error", REAL, nullable=True, comment="Standard error of the estimate"),
        sa.Column("problems", INT, nullable=False, comment="Problems it rests on"),
        sa.Column("computed_at", REAL, nullable=False, comment="When it was computed"),
        sa.PrimaryKeyConstraint(
            "sweep_id",
            "strategy",
            "selector",
            "budget",
            "level",
            "metric",
            "estimator_version",
            name=op.f("pk_results"),
        ),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_results_sweep_id_sweeps")),
        comment="Estimates computed from what is stored; may be deleted and computed again at any time",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", INT, nullable=False, comment="Run"),
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("host", TEXT, nullable=False, comment="Host of the coordinator"),
        sa.Column("pid", INT, nullable=False, comment="Process id of the coordinator"),
        sa.Column("started_at", REAL, nullable=False, comment="When the run started"),
        sa.Column(
            "heartbeat_at",
            REAL,
            nullable=False,
            comment="Last sign of life; after 30 s of silence its tasks may be claimed by others",
        ),
        sa.Column(
            "ended_at", REAL, nullable=True, comment="When it ended in good order; NULL: running or killed"
        ),
        sa.Column("outcome", TEXT, nullable=True, comment="How it ended"),
        sa.Column("details", TEXT, nullable=False, comment="Versions, command line and so on, as JSON"),
        sa.Column(
            "commit_sequence",
            BIG,
            nullable=False,
            server_default="0",
            comment="Last commit of its writer: a commit sent twice is done once",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_runs_sweep_id_sweeps")),
        comment="One life of a coordinator",
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_runs_sweep_id"), "runs", ["sweep_id"], unique=False)


def _create_sweep_pools() -> None:
    op.create_table(
        "sweep_pools",
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("pool_id", INT, nullable=False, comment="Pool"),
        sa.Column("strategy", TEXT, nullable=False, comment="Strategy of the sweep that wants these samples"),
        sa.Column("samples", INT, nullable=False, comment="Samples 0 .. samples-1 are wanted"),
        sa.PrimaryKeyConstraint("sweep_id", "pool_id", "strategy", name=op.f("pk_sweep_pools")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_sweep_pools_pool_id_pools")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_pools_sweep_id_sweeps")),
        comment="Which samples a sweep looks at",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_sweep_pools_pool_id"), "sweep_pools", ["pool_id"], unique=False)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", BIG, nullable=False, comment="Event"),
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("run_id", INT, nullable=True, comment="Run"),
        sa.Column("at", REAL, nullable=False, comment="When"),
        sa.Column("kind", TEXT, nullable=False, comment="What happened, as one word"),
        sa.Column("subject", TEXT, nullable=False, comment="What it happened to"),
        sa.Column("detail", TEXT, nullable=False, comment="Details"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_events_run_id_runs")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_events_sweep_id_sweeps")),
        comment="What an operator may want to read afterwards: a replica ejected, a limit cut, a pause",
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_events_sweep_id"), "events", ["sweep_id"], unique=False)


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", INT, nullable=False, comment="Task"),
        sa.Column("kind", TEXT, nullable=False, comment="What is to be done: sample, ..."),
        sa.Column("pool_id", INT, nullable=False, comment="Pool"),
        sa.Column("sample_start", INT, nullable=False, comment="First sample"),
        sa.Column("sample_count", INT, nullable=False, comment="Number of samples"),
        sa.Column(
            "state",
            SMALL,
            nullable=False,
            server_default="0",
            comment="0 pending, 1 running, 2 done, 3 failed",
        ),
        sa.Column(
            "attempt", INT, nullable=False, server_default="0", comment="Number of leases so far: the fence"
        ),
        sa.Column("run_id", INT, nullable=True, comment="Run that holds or held the lease"),
        sa.Column("not_before", REAL, nullable=True, comment="Not to be claimed before this time"),
        sa.Column("error_kind", TEXT, nullable=True, comment="Why it failed, as one word"),
        sa.Column("error_text", TEXT, nullable=True, comment="Why it failed"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_tasks_pool_id_pools")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_tasks_run_id_runs")),
        sa.UniqueConstraint(
            "kind", "pool_id", "sample_start", name=op.f("uq_tasks_kind_pool_id_sample_start")
        ),
        comment="Units of dispatch: a span of samples of a pool",
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_tasks_failed"),
        "tasks",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 3"),
        postgresql_where=sa.text("state = 3"),
    )
    op.create_index(
        op.f("ix_tasks_pending"),
        "tasks",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 0"),
        postgresql_where=sa.text("state = 0"),
    )
    op.create_index(
        op.f("ix_tasks_running"),
        "tasks",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        op.f("ix_tasks_span"),
        "tasks",
        ["pool_id", "kind", "sample_start", "sample_count", "state"],
        unique=False,
    )
