"""Search trees: a search is a pool whose samples a procedure finds; nodes are named by their path."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INT = sa.Integer()
SMALL = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text()
STRICT = {"sqlite_strict": True}
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False}

POOLS = "The samples of one problem (or of one beginning of a solution, or of one search) by one generator; "
POOLS += "shared by all sweeps with the same seed"
OLD_POOLS = (
    "The samples of one problem (or of one beginning of a solution) by one generator; shared by all sweeps "
)
OLD_POOLS += "with the same seed"


def upgrade() -> None:
    """The old tables of trees were never filled."""
    for table in ("node_scores", "nodes", "searches"):
        op.drop_table(table)
    _create_procedures()
    _give_pools_a_procedure()
    _comment_lanes(
        "Kind and numbers of the models: sample:3, score:2, search:3:2",
        "What its tasks are: sample, score or search",
    )
    _comment("tasks", "Units of dispatch: a span of samples of a pool, to be drawn, found or scored")
    _create_nodes()


def downgrade() -> None:
    for table in ("node_scores", "prunings", "nodes"):
        op.drop_table(table)
    _comment("tasks", "Units of dispatch: a span of samples of a pool, to be drawn or to be scored")
    _comment_lanes("Kind and number of the model: sample:3, score:2", "What its tasks are: sample or score")
    _take_procedure_from_pools()
    op.drop_table("procedures")
    _create_old_trees()


def _create_procedures() -> None:
    op.create_table(
        "procedures",
        sa.Column("id", INT, nullable=False, comment="Procedure"),
        sa.Column(
            "fingerprint", TEXT, nullable=False, comment="Hash of all that changes what a search finds"
        ),
        sa.Column("kind", TEXT, nullable=False, comment="Algorithm: beam, rebase, ..."),
        sa.Column("budget", INT, nullable=False, comment="Budget N, in generations"),
        sa.Column("params_json", TEXT, nullable=False, comment="Parameters of the algorithm, as JSON"),
        sa.Column("scorer_id", INT, nullable=False, comment="Scorer that guides it"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_procedures")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_procedures_fingerprint")),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name=op.f("fk_procedures_scorer_id_scorers")),
        comment="Ways to search: algorithm, parameters, budget and the scorer that guides",
        **STRICT,
    )


def _partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        op.f(name),
        "pools",
        columns,
        unique=True,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )


def _drop_pool_indexes(*more: str) -> None:
    for name in ("uq_pools_whole", "uq_pools_prefix", "ix_pools_generator_id", *more):
        op.drop_index(op.f(name), table_name="pools")


def _give_pools_a_procedure() -> None:
    _drop_pool_indexes()
    with op.batch_alter_table("pools", table_kwargs=STRICT) as batch:
        batch.add_column(
            sa.Column(
                "procedure_id", INT, nullable=True, comment="Procedure that finds its samples; NULL: none"
            )
        )
        batch.create_foreign_key(
            op.f("fk_pools_procedure_id_procedures"), "procedures", ["procedure_id"], ["id"]
        )
    _comment("pools", POOLS)
    op.create_index(op.f("ix_pools_generator_id"), "pools", ["generator_id"], unique=False)
    columns = ["generator_id", "seed"]
    _partial("uq_pools_whole", ["problem_id", *columns], "prefix_id IS NULL AND procedure_id IS NULL")
    _partial("uq_pools_prefix", ["prefix_id", *columns], "prefix_id IS NOT NULL")
    _partial("uq_pools_search", ["problem_id", *columns, "procedure_id"], "procedure_id IS NOT NULL")


def _take_procedure_from_pools() -> None:
    """What searches found has no place in the older schema: it goes, with all that hangs on it."""
    of_search = "SELECT id FROM pools WHERE procedure_id IS NOT NULL"
    found = f"SELECT id FROM trajectories WHERE pool_id IN ({of_search})"
    for table, column in (
        ("extractions", "trajectory_id"),
        ("trajectory_texts", "trajectory_id"),
        ("scores", "trajectory_id"),
        ("trajectories", "id"),
    ):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({found})")
    op.execute(f"DELETE FROM usage WHERE task_id IN (SELECT id FROM tasks WHERE pool_id IN ({of_search}))")
    for table, column in (("tasks", "pool_id"), ("sweep_pools", "pool_id"), ("pools", "id")):
        op.execute(f"DELETE FROM {table} WHERE {column} IN ({of_search})")
    op.execute("DELETE FROM sweep_lanes WHERE lane_id IN (SELECT id FROM lanes WHERE kind = 'search')")
    op.execute("DELETE FROM lanes WHERE kind = 'search'")
    _drop_pool_indexes("uq_pools_search")
    with op.batch_alter_table("pools", table_kwargs=STRICT) as batch:
        batch.drop_constraint(op.f("fk_pools_procedure_id_procedures"), type_="foreignkey")
        batch.drop_column("procedure_id")
    _comment("pools", OLD_POOLS)
    op.create_index(op.f("ix_pools_generator_id"), "pools", ["generator_id"], unique=False)
    _partial("uq_pools_whole", ["problem_id", "generator_id", "seed"], "prefix_id IS NULL")
    _partial("uq_pools_prefix", ["prefix_id", "generator_id", "seed"], "prefix_id IS NOT NULL")


def _comment(table: str, comment: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.create_table_comment(table, comment)


def _comment_lanes(name: str, kind: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("lanes", "name", existing_type=TEXT, comment=name)
        op.alter_column("lanes", "kind", existing_type=TEXT, comment=kind)


def _create_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("pool_id", INT, nullable=False, comment="Search: the pool of what it finds"),
        sa.Column("path", TEXT, nullable=False, comment="Child indices from the root, with dots: 0.3.1"),
        sa.Column("parent_path", TEXT, nullable=False, comment="Path of its parent; empty: the root"),
        sa.Column("child_index", INT, nullable=False, comment="Which child of its parent"),
        sa.Column("depth", SMALL, nullable=False, comment="Steps from the root"),
        sa.Column("text", TEXT, nullable=False, comment="This step only; v_tree shows the whole path"),
        sa.Column("completion_tokens", INT, nullable=False, comment="Tokens generated for this step"),
        sa.Column(
            "ended",
            TEXT,
            nullable=False,
            comment="step (the solution goes on), finished, truncated, empty or error",
        ),
        sa.Column("finish_reason", TEXT, nullable=True, comment="The server's finish reason"),
        sa.Column("seed", BIG, nullable=False, comment="Seed of its draw"),
        sa.Column("logprob_sum", REAL, nullable=True, comment="Sum of the log-probabilities of its tokens"),
        sa.Column("is_greedy", FLAG, nullable=False, comment="Drawn at temperature 0, to look ahead"),
        sa.PrimaryKeyConstraint("pool_id", "path", name=op.f("pk_nodes")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_nodes_pool_id_pools")),
        comment="Steps of search trees; the root is the problem, and has no row",
        **KEYED,
    )
    op.create_table(
        "prunings",
        sa.Column("pool_id", INT, nullable=False, comment="Search"),
        sa.Column("path", TEXT, nullable=False, comment="Node"),
        sa.Column("reason", TEXT, nullable=False, comment="Why it was not gone on with"),
        sa.PrimaryKeyConstraint("pool_id", "path", name=op.f("pk_prunings")),
        sa.ForeignKeyConstraint(
            ["pool_id", "path"], ["nodes.pool_id", "nodes.path"], name=op.f("fk_prunings_pool_id_path_nodes")
        ),
        comment="Nodes that a search gave up",
        **KEYED,
    )
    op.create_table(
        "node_scores",
        sa.Column("pool_id", INT, nullable=False, comment="Search"),
        sa.Column("path", TEXT, nullable=False, comment="Node"),
        sa.Column("scorer_id", INT, nullable=False, comment="Scorer"),
        sa.Column("value", REAL, nullable=False, comment="Score of the beginning that ends with the node"),
        sa.PrimaryKeyConstraint("pool_id", "path", "scorer_id", name=op.f("pk_node_scores")),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name=op.f("fk_node_scores_scorer_id_scorers")),
        sa.ForeignKeyConstraint(
            ["pool_id", "path"],
            ["nodes.pool_id", "nodes.path"],
            name=op.f("fk_node_scores_pool_id_path_nodes"),
        ),
        comment="Scores of nodes",
        **KEYED,
    )


def _create_old_trees() -> None:
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
        **STRICT,
    )
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
        **KEYED,
    )
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
        **KEYED,
    )
