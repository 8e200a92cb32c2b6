"""The large tables: what workers found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INT = sa.Integer()
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text()
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_replicas()
    _create_answers()
    _create_grades()
    _create_searches()
    _create_nodes()
    _create_node_scores()
    _create_trajectories()
    _create_usage()
    _create_extractions()
    _create_rollout_labels()
    _create_scores()
    _create_trajectory_texts()


def downgrade() -> None:
    for table in (
        "trajectory_texts",
        "scores",
        "rollout_labels",
        "extractions",
        "usage",
        "trajectories",
        "node_scores",
        "nodes",
        "searches",
        "grades",
        "answers",
        "replicas",
    ):
        op.drop_table(table)


def _create_replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", BIG, nullable=False, autoincrement=False, comment="Replica: hash of its URL"),
        sa.Column("url", TEXT, nullable=False, comment="Base URL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
        comment="Model servers that drew samples",
        sqlite_strict=True,
    )


def _create_answers() -> None:
    op.create_table(
        "answers",
        sa.Column("id", BIG, nullable=False, autoincrement=False, comment="Answer: hash of problem and text"),
        sa.Column("problem_id", INT, nullable=False, comment="Problem"),
        sa.Column("text", TEXT, nullable=False, comment="The answer as extracted"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.id"], name=op.f("fk_answers_problem_id_problems")),
        comment="Distinct answer strings of each problem: what is graded, once",
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_answers_problem_id"), "answers", ["problem_id"], unique=False)


def _create_grades() -> None:
    op.create_table(
        "grades",
        sa.Column("answer_id", BIG, nullable=False, comment="Answer"),
        sa.Column("grader_id", INT, nullable=False, comment="Grader"),
        sa.Column(
            "verdict",
            TEXT,
            nullable=False,
            comment="correct or wrong; any other word: the grader could not decide",
        ),
        sa.Column("method", TEXT, nullable=True, comment="Rule that decided"),
        sa.Column("detail", TEXT, nullable=True, comment="Why, if it could not decide"),
        sa.Column(
            "cluster_id",
            BIG,
            nullable=True,
            comment="Answer that stands for all answers equivalent to this one",
        ),
        sa.Column("graded_at", REAL, nullable=False, comment="When"),
        sa.PrimaryKeyConstraint("answer_id", "grader_id", name=op.f("pk_grades")),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name=op.f("fk_grades_answer_id_answers")),
        sa.ForeignKeyConstraint(["grader_id"], ["graders.id"], name=op.f("fk_grades_grader_id_graders")),
        comment="Verdicts on distinct answers",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_searches() -> None:
    op.create_table(
        "searches",
        sa.Column("id", INT, nullable=False, comment="Search"),
        sa.Column("sweep_id", INT, nullable=False, comment="Sweep"),
        sa.Column("problem_id", INT, nullable=False, comment="Problem"),
        sa.Column("generator_id", INT, nullable=False, comment="Generator"),
        sa.Column("strategy", TEXT, nullable=False, comment="Strategy"),
        sa.Column("params_json", TEXT, nullable=False, comment="Parameters of the strategy, as JSON"),
        sa.Column("seed", BIG, nullable=False, comment="Seed"),
        sa.Column("budget", INT, nullable=False, comment="Generations allowed"),
        sa.Column(
            "state",
            TEXT,
            nullable=False,
            server_default="pending",
            comment="pending, running, done or failed",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_searches")),
        sa.ForeignKeyConstraint(
            ["generator_id"], ["generators.id"], name=op.f("fk_searches_generator_id_generators")
        ),
        sa.ForeignKeyConstraint(
            ["problem_id"], ["problems.id"], name=op.f("fk_searches_problem_id_problems")
        ),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_searches_sweep_id_sweeps")),
        sa.UniqueConstraint(
            "sweep_id",
            "problem_id",
            "generator_id",
            "strategy",
            "params_json",
            "seed",
            "budget",
            name=op.f("uq_searches_sweep_id_problem_id_generator_id_strategy_params_json_seed_budget"),
        ),
        comment="Tree searches, one a problem",
        sqlite_strict=True,
    )


def _create_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("search_id", INT, nullable=False, comment="Search"),
        sa.Column("node_index", INT, nullable=False, comment="Node, in order of creation"),
        sa.Column("parent_index", INT, nullable=True, comment="Parent node; NULL: the root"),
        sa.Column("child_index", INT, nullable=False, comment="Which child of its parent"),
        sa.Column("depth", INT, nullable=False, comment="Steps from the root"),
        sa.Column("text", TEXT, nullable=False, comment="This step only; v_tree shows the whole path"),
        sa.Column("completion_tokens", INT, nullable=False, comment="Tokens generated for this step"),
        sa.Column("finish_reason", TEXT, nullable=True, comment="The server's finish reason"),
        sa.Column("kept", FLAG, nullable=False, comment="Not pruned"),
        sa.Column("pruned_reason", TEXT, nullable=True, comment="Why it was pruned"),
        sa.PrimaryKeyConstraint("search_id", "node_index", name=op.f("pk_nodes")),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_nodes_search_id_searches")),
        sa.UniqueConstraint(
            "search_id",
            "parent_index",
            "child_index",
            name=op.f("uq_nodes_search_id_parent_index_child_index"),
        ),
        comment="Steps of search trees",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_node_scores() -> None:
    op.create_table(
        "node_scores",
        sa.Column("search_id", INT, nullable=False, comment="Search"),
        sa.Column("node_index", INT, nullable=False, comment="Node"),
        sa.Column("scorer_id", INT, nullable=False, comment="Scorer"),
        sa.Column("value", REAL, nullable=False, comment="Score"),
        sa.PrimaryKeyConstraint("search_id", "node_index", "scorer_id", name=op.f("pk_node_scores")),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name=op.f("fk_node_scores_scorer_id_scorers")),
        sa.ForeignKeyConstraint(
            ["search_id", "node_index"],
            ["nodes.search_id", "nodes.node_index"],
            name=op.f("fk_node_scores_search_id_node_index_nodes"),
        ),
        comment="Scores of nodes",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_trajectories() -> None:
    op.create_table(
        "trajectories",
        sa.Column(
            "id",
            BIG,
            nullable=False,
            autoincrement=False,
            comment="Trajectory = pool_id * 2^20 + sample_index",
        ),
        sa.Column("pool_id", INT, nullable=False, comment="Pool"),
        sa.Column("sample_index", INT, nullable=False, comment="Which sample of the pool"),
        sa.Column("seed", BIG, nullable=False, comment="Seed sent with the request"),
        sa.Column("task_id", INT, nullable=True, comment="Task that drew it; NULL: imported"),
        sa.Column(
            "outcome",
            TEXT,
            nullable=False,
            comment="complete, truncated, overflow, refused, empty, timed_out or error",
        ),
        sa.Column("finish_reason", TEXT, nullable=True, comment="The server's finish reason"),
        sa.Column("completion_tokens", INT, nullable=True, comment="Tokens generated"),
        sa.Column("logprob_sum", REAL, nullable=True, comment="Sum of the log-probabilities of its tokens"),
        sa.Column("latency_s", REAL, nullable=False, comment="Seconds from request to reply"),
        sa.Column("retries", SMALL, nullable=False, comment="Attempts beyond the first"),
        sa.Column("replica_id", BIG, nullable=True, comment="Replica that drew it"),
        sa.Column("parent_id", BIG, nullable=True, comment="Trajectory this one revises"),
        sa.Column("error", TEXT, nullable=True, comment="Last error, if the outcome is error or timed_out"),
        sa.Column("created_at", REAL, nullable=False, comment="When it was stored"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trajectories")),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["trajectories.id"], name=op.f("fk_trajectories_parent_id_trajectories")
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_trajectories_pool_id_pools")),
        sa.ForeignKeyConstraint(
            ["replica_id"], ["replicas.id"], name=op.f("fk_trajectories_replica_id_replicas")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_trajectories_task_id_tasks")),
        comment="Samples, one row each; the text is in trajectory_texts",
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_trajectories_error"),
        "trajectories",
        ["id"],
        unique=False,
        sqlite_where=sa.text("outcome = 'error'"),
        postgresql_where=sa.text("outcome = 'error'"),
    )
    op.create_index(
        op.f("ix_trajectories_parent"),
        "trajectories",
        ["parent_id"],
        unique=False,
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("task_id", INT, nullable=False, comment="Task"),
        sa.Column("attempt", INT, nullable=False, comment="Attempt"),
        sa.Column("requests", BIG, nullable=False, comment="Requests sent"),
        sa.Column("prompt_tokens", BIG, nullable=False, comment="Prompt tokens"),
        sa.Column("cached_tokens", BIG, nullable=False, comment="Prompt tokens the server had in its cache"),
        sa.Column("completion_tokens", BIG, nullable=False, comment="Tokens generated"),
        sa.Column("retries", BIG, nullable=False, comment="Requests sent again"),
        sa.Column(
            "wasted_requests", BIG, nullable=False, comment="Requests whose reply was lost or unusable"
        ),
        sa.Column("scorer_tokens", BIG, nullable=False, server_default="0", comment="Tokens read by scorers"),
        sa.Column("seconds", REAL, nullable=False, comment="Sum over requests of the time to reply"),
        sa.PrimaryKeyConstraint("task_id", "attempt", name=op.f("pk_usage")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_usage_task_id_tasks")),
        comment="What each attempt of each task consumed",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_extractions() -> None:
    op.create_table(
        "extractions",
        sa.Column("trajectory_id", BIG, nullable=False, comment="Trajectory"),
        sa.Column("extractor_id", INT, nullable=False, comment="Extractor"),
        sa.Column("answer_id", BIG, nullable=True, comment="Answer; NULL: the text holds none"),
        sa.Column("method", TEXT, nullable=True, comment="How the answer was found"),
        sa.Column(
            "char_start", INT, nullable=True, comment="Offset, in characters, of the answer in the text"
        ),
        sa.PrimaryKeyConstraint("trajectory_id", "extractor_id", name=op.f("pk_extractions")),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name=op.f("fk_extractions_answer_id_answers")),
        sa.ForeignKeyConstraint(
            ["extractor_id"], ["extractors.id"], name=op.f("fk_extractions_extractor_id_extractors")
        ),
        sa.ForeignKeyConstraint(
            ["trajectory_id"], ["trajectories.id"], name=op.f("fk_extractions_trajectory_id_trajectories")
        ),
        comment="The final answer of each sample that did not end in error",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


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
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_scores() -> None:
    op.create_table(
        "scores",
        sa.Column("trajectory_id", BIG, nullable=False, comment="Trajectory"),
        sa.Column("scorer_id", INT, nullable=False, comment="Scorer"),
        sa.Column(
            "values_json",
            TEXT,
            nullable=False,
            comment="JSON array: one value a step (prm), or one in all (orm, judge)",
        ),
        sa.Column("status", TEXT, nullable=False, comment="ok, or why there is no value"),
        sa.PrimaryKeyConstraint("trajectory_id", "scorer_id", name=op.f("pk_scores")),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name=op.f("fk_scores_scorer_id_scorers")),
        sa.ForeignKeyConstraint(
            ["trajectory_id"], ["trajectories.id"], name=op.f("fk_scores_trajectory_id_trajectories")
        ),
        comment="Scores of samples, one array each; v_step_scores shows one row a step",
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_trajectory_texts() -> None:
    op.create_table(
        "trajectory_texts",
        sa.Column("trajectory_id", BIG, nullable=False, autoincrement=False, comment="Trajectory"),
        sa.Column("text", TEXT, nullable=False, comment="What the model wrote"),
        sa.Column(
            "step_ends",
            TEXT,
            nullable=False,
            comment="JSON array: offset, in characters, of the end of each step",
        ),
        sa.PrimaryKeyConstraint("trajectory_id", name=op.f("pk_trajectory_texts")),
        sa.ForeignKeyConstraint(
            ["trajectory_id"],
            ["trajectories.id"],
            name=op.f("fk_trajectory_texts_trajectory_id_trajectories"),
        ),
        comment="Texts of all samples but those that ended in error",
        sqlite_strict=True,
    )
