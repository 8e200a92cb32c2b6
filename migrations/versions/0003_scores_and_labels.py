"""Lanes of tasks, prefixes and their completions, scores that say why there are none, selectors and estimates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INT = sa.Integer()
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text()
STRICT = {"sqlite_strict": True}
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False}


def upgrade() -> None:
    _create_lanes()
    _move_tasks_to_lanes()
    _create_prefixes()
    _give_pools_a_prefix()
    _give_usage_a_role()
    _extend_scores()
    op.drop_table("rollout_labels")
    _create_findings()


def downgrade() -> None:
    _drop_findings()
    _create_rollout_labels()
    _shorten_scores()
    _take_role_from_usage()
    _take_prefix_from_pools()
    for table in ("trajectory_prefixes", "prefixes"):
        op.drop_table(table)
    _move_tasks_from_lanes()
    for table in ("sweep_lanes", "lanes"):
        op.drop_table(table)


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        op.f(name),
        table,
        columns,
        unique=unique,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )


def _create_lanes() -> None:
    op.create_table(
        "lanes",
        sa.Column("id", INT, nullable=False, comment="Lane"),
        sa.Column("name", TEXT, nullable=False, comment="Kind and number of the model: sample:3, score:2"),
        sa.Column("kind", TEXT, nullable=False, comment="What its tasks are: sample or score"),
        sa.Column("generator_id", INT, nullable=True, comment="Generator that draws; NULL: none"),
        sa.Column("scorer_id", INT, nullable=True, comment="Scorer that scores; NULL: none"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lanes")),
        sa.UniqueConstraint("name", name=op.f("uq_lanes_name")),
        sa.ForeignKeyConstraint(
            ["generator_id"], ["generators.id"], name=op.f("fk_lanes_generator_id_generators")
        ),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name=op.f("fk_lanes_scorer_id_scorers")),
        comment="What serves a task: lanes are claimed and filled apart, so that a slow model does not hold up "
        "another",
        **STRICT,
    )
    op.create_table(
        "sweep_lanes",
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("lane_id", INT, nullable=False, comment="Lane"),
        sa.PrimaryKeyConstraint("sweep_id", "lane_id", name=op.f("pk_sweep_lanes")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_lanes_sweep_id_sweeps")),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"], name=op.f("fk_sweep_lanes_lane_id_lanes")),
        comment="Which models a sweep draws from and is scored by",
        **KEYED,
    )
    op.execute(
        """INSERT INTO lanes (name, kind, generator_id)
        SELECT 'sample:' || CAST(g.id AS TEXT), 'sample', g.id FROM generators g
        WHERE EXISTS (SELECT 1 FROM pools p WHERE p.generator_id = g.id) ORDER BY g.id"""
    )
    op.execute(
        """INSERT INTO sweep_lanes (sweep_id, lane_id)
        SELECT DISTINCT sp.sweep_id, l.id FROM sweep_pools sp JOIN pools p ON p.id = sp.pool_id
        JOIN lanes l ON l.generator_id = p.generator_id"""
    )


def _move_tasks_to_lanes() -> None:
    _drop_task_indexes()
    op.add_column("tasks", sa.Column("lane_id", INT, nullable=True))
    op.execute(
        """UPDATE tasks SET lane_id = (SELECT l.id FROM lanes l JOIN pools p ON p.generator_id = l.generator_id
            WHERE p.id = tasks.pool_id)"""
    )
    with op.batch_alter_table("tasks", table_kwargs=STRICT) as batch:
        batch.drop_constraint(op.f("uq_tasks_kind_pool_id_sample_start"), type_="unique")
        batch.drop_column("kind")
        batch.alter_column(
            "lane_id",
            existing_type=INT,
            nullable=False,
            comment="What serves it: says whether samples are drawn or scored, and by which model",
        )
        batch.create_foreign_key(op.f("fk_tasks_lane_id_lanes"), "lanes", ["lane_id"], ["id"])
        batch.create_unique_constraint(
            op.f("uq_tasks_lane_id_pool_id_sample_start"), ["lane_id", "pool_id", "sample_start"]
        )
    _comment_tasks("Units of dispatch: a span of samples of a pool, to be drawn or to be scored")
    _partial("ix_tasks_pending", "tasks", ["lane_id", "id"], "state = 0")
    _create_other_task_indexes("lane_id")


def _move_tasks_from_lanes() -> None:
    op.execute(
        "DELETE FROM usage WHERE task_id IN (SELECT t.id FROM tasks t JOIN lanes l ON l.id = t.lane_id"
        " WHERE l.kind <> 'sample')"
    )
    op.execute("DELETE FROM tasks WHERE lane_id IN (SELECT id FROM lanes WHERE kind <> 'sample')")
    _drop_task_indexes()
    op.add_column("tasks", sa.Column("kind", TEXT, nullable=True))
    op.execute("UPDATE tasks SET kind = 'sample'")
    with op.batch_alter_table("tasks", table_kwargs=STRICT) as batch:
        batch.drop_constraint(op.f("uq_tasks_lane_id_pool_id_sample_start"), type_="unique")
        batch.drop_constraint(op.f("fk_tasks_lane_id_lanes"), type_="foreignkey")
        batch.drop_column("lane_id")
        batch.alter_column(
            "kind", existing_type=TEXT, nullable=False, comment="What is to be done: sample, ..."
        )
        batch.create_unique_constraint(
            op.f("uq_tasks_kind_pool_id_sample_start"), ["kind", "pool_id", "sample_start"]
        )
    _comment_tasks("Units of dispatch: a span of samples of a pool")
    _partial("ix_tasks_pending", "tasks", ["id"], "state = 0")
    _create_other_task_indexes("kind")


def _comment_tasks(comment: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("tasks", comment)


def _drop_task_indexes() -> None:
    for name in ("pending", "running", "failed", "span"):
        op.drop_index(op.f(f"ix_tasks_{name}"), table_name="tasks")


def _create_other_task_indexes(what: str) -> None:
    _partial("ix_tasks_running", "tasks", ["run_id"], "state = 1")
    _partial("ix_tasks_failed", "tasks", ["id"], "state = 3")
    op.create_index(
        op.f("ix_tasks_span"),
        "tasks",
        ["pool_id", what, "sample_start", "sample_count", "state"],
        unique=False,
    )


def _create_prefixes() -> None:
    op.create_table(
        "prefixes",
        sa.Column("id", BIG, nullable=False, autoincrement=False, comment="Prefix: hash of problem and text"),
        sa.Column("problem_id", INT, nullable=False, comment="Problem"),
        sa.Column("trajectory_id", BIG, nullable=False, comment="A sample that begins with it"),
        sa.Column(
            "char_end",
            INT,
            nullable=False,
            comment="Its length in characters: where it ends in the text of that sample",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prefixes")),
        sa.ForeignKeyConstraint(
            ["problem_id"], ["problems.id"], name=op.f("fk_prefixes_problem_id_problems")
        ),
        sa.ForeignKeyConstraint(
            ["trajectory_id"], ["trajectories.id"], name=op.f("fk_prefixes_trajectory_id_trajectories")
        ),
        comment="Beginnings of solutions that completions are drawn from, whole steps each; equal ones are one row",
        **STRICT,
    )
    op.create_table(
        "trajectory_prefixes",
        sa.Column("trajectory_id", BIG, nullable=False, comment="Trajectory"),
        sa.Column("step_index", SMALL, nullable=False, comment="The prefix ends with this step, from 0"),
        sa.Column("prefix_id", BIG, nullable=False, comment="Prefix"),
        sa.PrimaryKeyConstraint("trajectory_id", "step_index", name=op.f("pk_trajectory_prefixes")),
        sa.ForeignKeyConstraint(
            ["trajectory_id"],
            ["trajectories.id"],
            name=op.f("fk_trajectory_prefixes_trajectory_id_trajectories"),
        ),
        sa.ForeignKeyConstraint(
            ["prefix_id"], ["prefixes.id"], name=op.f("fk_trajectory_prefixes_prefix_id_prefixes")
        ),
        comment="Which prefixes a labelled sample consists of; the whole sample is none of them",
        **KEYED,
    )
    op.create_index(
        op.f("ix_trajectory_prefixes_prefix_id"), "trajectory_prefixes", ["prefix_id"], unique=False
    )


def _give_pools_a_prefix() -> None:
    op.drop_index(op.f("ix_pools_generator_id"), table_name="pools")
    with op.batch_alter_table("pools", table_kwargs=STRICT) as batch:
        batch.add_column(
            sa.Column(
                "prefix_id", BIG, nullable=True, comment="Beginning that its samples complete; NULL: none"
            )
        )
        batch.drop_constraint(op.f("uq_pools_problem_id_generator_id_seed"), type_="unique")
        batch.create_foreign_key(op.f("fk_pools_prefix_id_prefixes"), "prefixes", ["prefix_id"], ["id"])
    _comment_pools(
        "The samples of one problem (or of one beginning of a solution) by one generator; shared by all sweeps "
        "with the same seed"
    )
    op.create_index(op.f("ix_pools_generator_id"), "pools", ["generator_id"], unique=False)
    columns = ["generator_id", "seed"]
    _partial("uq_pools_whole", "pools", ["problem_id", *columns], "prefix_id IS NULL", unique=True)
    _partial("uq_pools_prefix", "pools", ["prefix_id", *columns], "prefix_id IS NOT NULL", unique=True)
    op.add_column(
        "trajectories",
        sa.Column(
            "text_hash",
            BIG,
            nullable=True,
            comment="Hash of its text: equal texts are scored once; NULL: not known",
        ),
    )


def _take_prefix_from_pools() -> None:
    """Completions of prefixes have no place in the older schema: they go, with all that hangs on them."""
    of_prefix = "SELECT id FROM pools WHERE prefix_id IS NOT NULL"
    drawn = f"SELECT id FROM trajectories WHERE pool_id IN ({of_prefix})"
    for table, column in (
        ("extractions", "trajectory_id"),
        ("trajectory_texts", "trajectory_id"),
        ("scores", "trajectory_id"),
        ("trajectories", "id"),
    ):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({drawn})")
    op.execute(f"DELETE FROM usage WHERE task_id IN (SELECT id FROM tasks WHERE pool_id IN ({of_prefix}))")
    for table, column in (("tasks", "pool_id"), ("sweep_pools", "pool_id"), ("pools", "id")):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({of_prefix})")
    for name in ("uq_pools_whole", "uq_pools_prefix", "ix_pools_generator_id"):
        op.drop_index(op.f(name), table_name="pools")
    with op.batch_alter_table("pools", table_kwargs=STRICT) as batch:
        batch.drop_constraint(op.f("fk_pools_prefix_id_prefixes"), type_="foreignkey")
        batch.drop_column("prefix_id")
        batch.create_unique_constraint(
            op.f("uq_pools_problem_id_generator_id_seed"), ["problem_id", "generator_id", "seed"]
        )
    _comment_pools("The samples of one problem by one generator; shared by all sweeps with the same seed")
    op.create_index(op.f("ix_pools_generator_id"), "pools", ["generator_id"], unique=False)
    op.drop_column("trajectories", "text_hash")


def _comment_pools(comment: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("pools", comment)


def _give_usage_a_role() -> None:
    with op.batch_alter_table("usage", table_kwargs=KEYED) as batch:
        batch.add_column(
            sa.Column(
                "role",
                TEXT,
                nullable=False,
                server_default="policy",
                comment="Which model consumed it: policy or scorer",
            )
        )
        batch.drop_column("scorer_tokens")
        batch.drop_constraint(op.f("pk_usage"), type_="primary")
        batch.create_primary_key(op.f("pk_usage"), ["task_id", "attempt", "role"])
    with op.batch_alter_table("usage", table_kwargs=KEYED) as batch:
        batch.alter_column("role", existing_type=TEXT, existing_nullable=False, server_default=None)
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("usage", "What each attempt of each task consumed, by the role of the model")


def _take_role_from_usage() -> None:
    op.execute("DELETE FROM usage WHERE role <> 'policy'")
    with op.batch_alter_table("usage", table_kwargs=KEYED) as batch:
        batch.drop_constraint(op.f("pk_usage"), type_="primary")
        batch.drop_column("role")
        batch.add_column(
            sa.Column(
                "scorer_tokens", BIG, nullable=False, server_default="0", comment="Tokens read by scorers"
            )
        )
        batch.create_primary_key(op.f("pk_usage"), ["task_id", "attempt"])
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment("usage", "What each attempt of each task consumed")


def _extend_scores() -> None:
    op.add_column(
        "scores", sa.Column("detail", TEXT, nullable=True, comment="What was wrong, if it is not ok")
    )
    _comment_status("ok, truncated (first steps only), or why there is no value")
    _partial("ix_scores_redone", "scores", ["scorer_id", "trajectory_id"], "status IN ('error', 'invalid')")
    op.add_column(
        "scorers",
        sa.Column(
            "parameters",
            BIG,
            nullable=True,
            comment="Number of parameters; 2 x this = FLOPs of a token it reads",
        ),
    )
    _comment_scorers(
        "What its labels were: hard or soft; NULL: not known",
        "Model, wire format, prompt and what else changes a score, as JSON",
    )


def _shorten_scores() -> None:
    op.drop_index(op.f("ix_scores_redone"), table_name="scores")
    op.drop_column("scores", "detail")
    op.drop_column("scorers", "parameters")
    _comment_status("ok, or why there is no value")
    _comment_scorers(
        "What the value estimates: probability, reward, Monte Carlo value, ...",
        "Model, wire format and aggregation, as JSON",
    )


def _comment_status(comment: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("scores", "status", existing_type=TEXT, comment=comment)


def _comment_scorers(label_type: str, config: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("scorers", "label_type", existing_type=TEXT, comment=label_type)
        op.alter_column("scorers", "config_json", existing_type=TEXT, comment=config)


def _create_rollout_labels() -> None:
    op.create_table(
        "rollout_labels",
        sa.Column("trajectory_id", BIG, nullable=False, comment="Trajectory"),
        sa.Column("step_index", SMALL, nullable=False, comment="Step, from 0"),
        sa.Column("generator_id", INT, nullable=False, comment="Generator that completed the prefix"),
        sa.Column("rollouts", INT, nullable=False, comment="Completions drawn from the end of this step"),
        sa.Column("correct", INT, nullable=False, comment="Completions that reached the reference answer"),
        sa.Column("hard", REAL, nullable=False, comment="Hard estimate: 1 if any is correct"),
        sa.Column("soft", REAL, nullable=False, comment="Soft estimate: correct / rollouts"),
        sa.PrimaryKeyConstraint(
            "trajectory_id", "step_index", "generator_id", name=op.f("pk_rollout_labels")
        ),
        sa.ForeignKeyConstraint(
            ["generator_id"], ["generators.id"], name=op.f("fk_rollout_labels_generator_id_generators")
        ),
        sa.ForeignKeyConstraint(
            ["trajectory_id"], ["trajectories.id"], name=op.f("fk_rollout_labels_trajectory_id_trajectories")
        ),
        comment="Monte Carlo value of the prefix that ends with a step",
        **KEYED,
    )


def _create_findings() -> None:
    """The old results are dropped: they are computed from facts, and will be again."""
    op.drop_table("results")
    op.create_table(
        "selectors",
        sa.Column("id", INT, nullable=False, comment="Selector"),
        sa.Column("name", TEXT, nullable=False, comment="Name in results, parameters included"),
        sa.Column(
            "kind",
            TEXT,
            nullable=False,
            comment="majority, pass, best-of-n, weighted, filter-vote or hierarchical",
        ),
        sa.Column("scorer", TEXT, nullable=True, comment="Name of the scorer it uses; NULL: none"),
        sa.Column(
            "aggregation",
            TEXT,
            nullable=True,
            comment="How step scores become one: last, min, prod, mean or max",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selectors")),
        sa.UniqueConstraint("name", name=op.f("uq_selectors_name")),
        comment="Ways to choose one answer from many samples",
        **STRICT,
    )
    _create_results(
        sa.Column("selector_id", INT, nullable=False, comment="Selector"),
        "selector_id",
        [
            sa.Column("std_error", REAL, nullable=True, comment="Standard error, clustered by problem"),
            sa.Column("low", REAL, nullable=True, comment="Lower end of the 95% interval"),
            sa.Column("high", REAL, nullable=True, comment="Upper end of the 95% interval"),
            sa.Column(
                "mc_error",
                REAL,
                nullable=False,
                comment="Part of the error that is due to resampling; 0: exact",
            ),
        ],
        "Estimates over problems, computed from what is stored",
        sa.ForeignKeyConstraint(
            ["selector_id"], ["selectors.id"], name=op.f("fk_results_selector_id_selectors")
        ),
    )
    op.create_table(
        "estimates",
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("strategy", TEXT, nullable=False, comment="Strategy"),
        sa.Column("selector_id", INT, nullable=False, comment="Selector"),
        sa.Column("budget", INT, nullable=False, comment="Generations"),
        sa.Column("problem_id", INT, nullable=False, comment="Problem"),
        sa.Column(
            "value", REAL, nullable=False, comment="Chance that the selector is right with that budget"
        ),
        sa.Column(
            "mc_error",
            REAL,
            nullable=False,
            comment="Standard error that is due to resampling; 0: exact",
        ),
        sa.Column(
            "signature",
            BIG,
            nullable=False,
            comment="Hash of what it was computed from: an estimate of something else is made again",
        ),
        sa.PrimaryKeyConstraint(
            "sweep_id", "strategy", "selector_id", "budget", "problem_id", name=op.f("pk_estimates")
        ),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_estimates_sweep_id_sweeps")),
        sa.ForeignKeyConstraint(
            ["selector_id"], ["selectors.id"], name=op.f("fk_estimates_selector_id_selectors")
        ),
        sa.ForeignKeyConstraint(
            ["problem_id"], ["problems.id"], name=op.f("fk_estimates_problem_id_problems")
        ),
        comment="Estimates of single problems: any two selectors, strategies or budgets can be compared pair by "
        "pair",
        **KEYED,
    )


def _drop_findings() -> None:
    for table in ("estimates", "results", "selectors"):
        op.drop_table(table)
    _create_results(
        sa.Column("selector", TEXT, nullable=False, comment="Selector: majority, best-of-n, pass@k, ..."),
        "selector",
        [sa.Column("std_error", REAL, nullable=True, comment="Standard error of the estimate")],
        "Estimates computed from what is stored; may be deleted and computed again at any time",
    )


def _create_results(
    selector: sa.Column[object],
    selector_name: str,
    errors: list[sa.Column[object]],
    comment: str,
    *constraints: sa.Constraint,
) -> None:
    op.create_table(
        "results",
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("strategy", TEXT, nullable=False, comment="Strategy"),
        selector,
        sa.Column("budget", INT, nullable=False, comment="Generations a problem"),
        sa.Column("level", TEXT, nullable=False, comment="Difficulty level; empty: all problems"),
        sa.Column("metric", TEXT, nullable=False, comment="Metric"),
        sa.Column("estimator_version", TEXT, nullable=False, comment="Version of the estimator"),
        sa.Column("value", REAL, nullable=True, comment="Estimate"),
        *errors,
        sa.Column("problems", INT, nullable=False, comment="Problems it rests on"),
        sa.Column("computed_at", REAL, nullable=False, comment="When it was computed"),
        sa.PrimaryKeyConstraint(
            "sweep_id",
            "strategy",
            selector_name,
            "budget",
            "level",
            "metric",
            "estimator_version",
            name=op.f("pk_results"),
        ),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_results_sweep_id_sweeps")),
        *constraints,
        comment=comment,
        **KEYED,
    )
