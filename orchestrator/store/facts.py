"""The large tables: what workers found. Integer keys, text once, no column that can be derived.

A key names a fact before the work runs (invariant I2), so an insert that finds its key taken has nothing
to do. The one exception is a sample that ended in `error`: it has neither text nor extraction, and a
later draw replaces it. This module must not know how rows get there.
"""

from __future__ import annotations

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

replicas = sa.Table(
    "replicas",
    metadata,
    key("Replica: hash of its URL", BIG, autoincrement=False),
    col("url", TEXT, "Base URL"),
    comment="Model servers that drew samples",
    **STRICT,
)

trajectories = sa.Table(
    "trajectories",
    metadata,
    key("Trajectory = pool_id * 2^20 + sample_index", BIG, autoincrement=False),
    ref("pool_id", "pools.id", "Pool"),
    col("sample_index", INT, "Which sample of the pool"),
    col("seed", BIG, "Seed sent with the request"),
    ref("task_id", "tasks.id", "Task that drew it; NULL: imported", nullable=True),
    col("outcome", TEXT, "complete, truncated, overflow, refused, empty, timed_out or error"),
    col("finish_reason", TEXT, "The server's finish reason", nullable=True),
    col("completion_tokens", INT, "Tokens generated", nullable=True),
    col("logprob_sum", REAL, "Sum of the log-probabilities of its tokens", nullable=True),
    col("latency_s", REAL, "Seconds from request to reply"),
    col("retries", SMALL, "Attempts beyond the first"),
    ref("replica_id", "replicas.id", "Replica that drew it", kind=BIG, nullable=True),
    ref("parent_id", "trajectories.id", "Trajectory this one revises", kind=BIG, nullable=True),
    col("error", TEXT, "Last error, if the outcome is error or timed_out", nullable=True),
    col("created_at", REAL, "When it was stored"),
    col("text_hash", BIG, "Hash of its text: equal texts are scored once; NULL: not known", nullable=True),
    partial("ix_trajectories_error", "id", where="outcome = 'error'"),
    partial("ix_trajectories_parent", "parent_id", where="parent_id IS NOT NULL"),
    comment="Samples, one row each; the text is in trajectory_texts",
    **STRICT,
)

trajectory_texts = sa.Table(
    "trajectory_texts",
    metadata,
    ref("trajectory_id", "trajectories.id", "Trajectory", kind=BIG, primary_key=True, autoincrement=False),
    col("text", TEXT, "What the model wrote"),
    col("step_ends", TEXT, "JSON array: offset, in characters, of the end of each step"),
    comment="Texts of all samples but those that ended in error",
    **STRICT,
)

answers = sa.Table(
    "answers",
    metadata,
    key("Answer: hash of problem and text", BIG, autoincrement=False),
    ref("problem_id", "problems.id", "Problem", index=True),
    col("text", TEXT, "The answer as extracted"),
    comment="Distinct answer strings of each problem: what is graded, once",
    **STRICT,
)

extractions = sa.Table(
    "extractions",
    metadata,
    ref("trajectory_id", "trajectories.id", "Trajectory", kind=BIG, primary_key=True),
    ref("extractor_id", "extractors.id", "Extractor", primary_key=True),
    ref("answer_id", "answers.id", "Answer; NULL: the text holds none", kind=BIG, nullable=True),
    col("method", TEXT, "How the answer was found", nullable=True),
    col("char_start", INT, "Offset, in characters, of the answer in the text", nullable=True),
    comment="The final answer of each sample that did not end in error",
    **KEYED,
)

grades = sa.Table(
    "grades",
    metadata,
    ref("answer_id", "answers.id", "Answer", kind=BIG, primary_key=True),
    ref("grader_id", "graders.id", "Grader", primary_key=True),
    col("verdict", TEXT, "correct or wrong; any other word: the grader could not decide"),
    col("method", TEXT, "Rule that decided", nullable=True),
    col("detail", TEXT, "Why, if it could not decide", nullable=True),
    col("cluster_id", BIG, "Answer that stands for all answers equivalent to this one", nullable=True),
    col("graded_at", REAL, "When"),
    comment="Verdicts on distinct answers",
    **KEYED,
)

scores = sa.Table(
    "scores",
    metadata,
    ref("trajectory_id", "trajectories.id", "Trajectory", kind=BIG, primary_key=True),
    ref("scorer_id", "scorers.id", "Scorer", primary_key=True),
    col("values_json", TEXT, "JSON array: one value a step (prm), or one in all (orm, judge)"),
    col("status", TEXT, "ok, truncated (first steps only), or why there is no value"),
    col("detail", TEXT, "What was wrong, if it is not ok", nullable=True),
    partial("ix_scores_redone", "scorer_id", "trajectory_id", where="status IN ('error', 'invalid')"),
    comment="Scores of samples, one array each; v_step_scores shows one row a step",
    **KEYED,
)

prefixes = sa.Table(
    "prefixes",
    metadata,
    key("Prefix: hash of problem and text", BIG, autoincrement=False),
    ref("problem_id", "problems.id", "Problem"),
    ref("trajectory_id", "trajectories.id", "A sample that begins with it", kind=BIG),
    col("char_end", INT, "Its length in characters: where it ends in the text of that sample"),
    comment="Beginnings of solutions that completions are drawn from, whole steps each; equal ones are one row",
    **STRICT,
)

trajectory_prefixes = sa.Table(
    "trajectory_prefixes",
    metadata,
    ref("trajectory_id", "trajectories.id", "Trajectory", kind=BIG, primary_key=True),
    col("step_index", SMALL, "The prefix ends with this step, from 0", primary_key=True),
    ref("prefix_id", "prefixes.id", "Prefix", kind=BIG, index=True),
    comment="Which prefixes a labelled sample consists of; the whole sample is none of them",
    **KEYED,
)

nodes = sa.Table(
    "nodes",
    metadata,
    ref("pool_id", "pools.id", "Search: the pool of what it finds", primary_key=True),
    col("path", TEXT, "Child indices from the root, with dots: 0.3.1", primary_key=True),
    col("parent_path", TEXT, "Path of its parent; empty: the root"),
    col("child_index", INT, "Which child of its parent"),
    col("depth", SMALL, "Steps from the root"),
    col("text", TEXT, "This step only; v_tree shows the whole path"),
    col("completion_tokens", INT, "Tokens generated for this step"),
    col("ended", TEXT, "step (the solution goes on), finished, truncated, empty or error"),
    col("finish_reason", TEXT, "The server's finish reason", nullable=True),
    col("seed", BIG, "Seed of its draw"),
    col("logprob_sum", REAL, "Sum of the log-probabilities of its tokens", nullable=True),
    col("is_greedy", FLAG, "Drawn at temperature 0, to look ahead"),
    comment="Steps of search trees; the root is the problem, and has no row",
    **KEYED,
)

prunings = sa.Table(
    "prunings",
    metadata,
    col("pool_id", INT, "Search", primary_key=True),
    col("path", TEXT, "Node", primary_key=True),
    col("reason", TEXT, "Why it was not gone on with"),
    sa.ForeignKeyConstraint(["pool_id", "path"], ["nodes.pool_id", "nodes.path"]),
    comment="Nodes that a search gave up",
    **KEYED,
)

node_scores = sa.Table(
    "node_scores",
    metadata,
    col("pool_id", INT, "Search", primary_key=True),
    col("path", TEXT, "Node", primary_key=True),
    ref("scorer_id", "scorers.id", "Scorer", primary_key=True),
    col("value", REAL, "Score of the beginning that ends with the node"),
    sa.ForeignKeyConstraint(["pool_id", "path"], ["nodes.pool_id", "nodes.path"]),
    comment="Scores of nodes",
    **KEYED,
)

usage = sa.Table(
    "usage",
    metadata,
    ref("task_id", "tasks.id", "Task", primary_key=True),
    col("attempt", INT, "Attempt", primary_key=True),
    col("role", TEXT, "Which model consumed it: policy or scorer", primary_key=True),
    col("requests", BIG, "Requests sent"),
    col("prompt_tokens", BIG, "Prompt tokens"),
    col("cached_tokens", BIG, "Prompt tokens the server had in its cache"),
    col("completion_tokens", BIG, "Tokens generated"),
    col("retries", BIG, "Requests sent again"),
    col("wasted_requests", BIG, "Requests whose reply was lost or unusable"),
    col("seconds", REAL, "Sum over requests of the time to reply"),
    comment="What each attempt of each task consumed, by the role of the model",
    **KEYED,
)
