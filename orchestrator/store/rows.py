"""Facts made into rows: pure, one function a table. Must not know how rows are inserted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from orchestrator.store.text import storable, storable_or_none
from workers.identity import answer_id, content_hash, text_hash, trajectory_id
from workers.types import REDONE, FactBatch, Outcome, StepScores, Trajectory, merged_usage

Row = tuple[Any, ...]


def distinct_trajectories(trajectories: Iterable[Trajectory]) -> dict[int, Trajectory]:
    """Trajectories by id; of one sample drawn twice the first that is no error."""
    found: dict[int, Trajectory] = {}
    for item in trajectories:
        key = trajectory_id(item.pool_id, item.sample_index)
        if key not in found or found[key].outcome is Outcome.ERROR:
            found[key] = item
    return found


def replica_id(url: str) -> int | None:
    """Key (63 bits) of a replica; no look-up is needed to name it."""
    return int(content_hash("replica", url)[:16], 16) >> 1 if url else None


def replica_rows(trajectories: Iterable[Trajectory]) -> list[Row]:
    """Rows of `replicas`."""
    return [(replica_id(url), url) for url in sorted({t.replica for t in trajectories if t.replica})]


def trajectory_rows(trajectories: dict[int, Trajectory], now: float) -> list[Row]:
    """Rows of `trajectories`."""
    replicas = {url: replica_id(url) for url in {t.replica for t in trajectories.values()}}
    return [
        (
            key, t.pool_id, t.sample_index, t.seed, t.task_id, t.outcome.value, t.finish_reason,
            t.completion_tokens, t.logprob_sum, t.latency_s, t.retries, replicas[t.replica], None,
            storable_or_none(t.error), now, text_hash(t.text) if t.outcome is Outcome.COMPLETE else None,
        )
        for key, t in trajectories.items()
    ]  # fmt: skip


def text_rows(trajectories: dict[int, Trajectory]) -> list[Row]:
    """Rows of `trajectory_texts`; errors have none."""
    return [
        (key, storable(t.text), orjson.dumps(t.step_ends).decode())
        for key, t in trajectories.items()
        if t.outcome is not Outcome.ERROR
    ]


def answer_rows(trajectories: dict[int, Trajectory], extractor_id: int) -> tuple[list[Row], list[Row]]:
    """Rows of `answers` and of `extractions`."""
    answers: dict[tuple[int, str], int] = {}
    extractions: list[Row] = []
    for key, t in trajectories.items():
        if t.outcome is Outcome.ERROR:
            continue
        named = None
        if t.answer is not None:
            subject = (t.problem_id, storable(t.answer))
            named = answers[subject] = answers.get(subject) or answer_id(*subject)
        extractions.append((key, extractor_id, named, t.answer_method, t.answer_start))
    return [(named, problem, text) for (problem, text), named in answers.items()], extractions


def node_rows(batch: FactBatch) -> list[Row]:
    """Rows of `nodes`."""
    distinct = {(n.pool_id, n.path): n for n in reversed(batch.nodes)}
    return [
        (
            n.pool_id, n.path, *_place(n.path), n.depth, storable(n.text), n.completion_tokens, n.ended,
            n.finish_reason, n.seed, n.logprob_sum, n.is_greedy,
        )
        for n in distinct.values()
    ]  # fmt: skip


def _place(path: str) -> tuple[str, int]:
    """Path of the parent, and which of its children this is."""
    parent, _, child = path.rpartition(".")
    return parent, int(child)


def node_score_rows(batch: FactBatch) -> list[Row]:
    """Rows of `node_scores`."""
    distinct = {(s.pool_id, s.path, s.scorer_id): s.value for s in reversed(batch.node_scores)}
    return [(*key, value) for key, value in distinct.items()]


def pruning_rows(batch: FactBatch) -> list[Row]:
    """Rows of `prunings`."""
    distinct = {(p.pool_id, p.path): p.reason for p in reversed(batch.prunings)}
    return [(*key, storable(reason)) for key, reason in distinct.items()]


def score_rows(batch: FactBatch) -> list[Row]:
    """Rows of `scores`; of one score sent twice the first that is final."""
    distinct: dict[tuple[int, int], StepScores] = {}
    for item in batch.scores:
        key = (item.trajectory_id, item.scorer_id)
        if key not in distinct or distinct[key].status in REDONE:
            distinct[key] = item
    return [
        (*key, orjson.dumps(s.values).decode(), s.status.value, storable_or_none(s.detail))
        for key, s in distinct.items()
    ]


def usage_rows(batch: FactBatch) -> list[Row]:
    """Rows of `usage`, added up for each attempt and role."""
    return [
        (
            u.task_id, u.attempt, u.role.value, u.requests, u.prompt_tokens, u.cached_tokens, u.completion_tokens,
            u.retries, u.wasted_requests, u.seconds,
        )
        for u in merged_usage(batch.usage)
    ]  # fmt: skip
