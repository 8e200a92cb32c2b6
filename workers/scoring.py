"""Scores the samples of one task, request by request, and hands every finished request on.

Equal texts are asked about once, and texts that begin alike stand together, so that a server with a prefix cache reads
a beginning once. It must not know other tasks, nor how any scorer is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from workers.delivery import Deliveries, Delivery
from workers.errors import Draining
from workers.rewards import RewardClient, Score, Scoring, Solution
from workers.steps import spans
from workers.types import (
    Role,
    ScoreItem,
    ScorerKind,
    ScorerSettings,
    ScoreTask,
    SearchTask,
    StepScores,
    Usage,
)


async def score_samples(
    task: ScoreTask, scorer: ScorerSettings, client: RewardClient, queue: Deliveries
) -> bool:
    """Deliver a score of every sample of a task; False if some were not scored because the worker drains."""
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_score(task, scorer, client, batch, queue))
            for batch in _batches(_grouped(task.items, scorer.kind), scorer.texts_per_request)
        ]
    return all(each.result() for each in asked)


Group = tuple[Solution, tuple[ScoreItem, ...]]
"""A solution, and the samples that are it."""


def _grouped(items: Sequence[ScoreItem], kind: ScorerKind) -> list[Group]:
    """Samples by what is asked about them, in the order of their texts; only judges are shown the answer."""
    groups: dict[tuple[str, str | None], list[ScoreItem]] = {}
    for item in items:
        groups.setdefault((item.text, item.answer if kind is ScorerKind.JUDGE else None), []).append(item)
    ordered = sorted(groups.items(), key=lambda group: (group[0][0], group[0][1] or ""))
    return [
        (Solution(tuple(text[start:end] for start, end in spans(same[0].step_ends)), answer), tuple(same))
        for (text, answer), same in ordered
    ]


def _batches(groups: Sequence[Group], size: int) -> Iterator[Sequence[Group]]:
    return (groups[start : start + size] for start in range(0, len(groups), size))


async def _score(
    task: ScoreTask,
    scorer: ScorerSettings,
    client: RewardClient,
    batch: Sequence[Group],
    queue: Deliveries,
) -> bool:
    try:
        scoring = await client.score(
            scorer, task.statement, [solution for solution, _ in batch], affinity=task.problem_id
        )
    except Draining:
        return False
    scores = tuple(
        _step_scores(task, item, score)
        for score, (_, items) in zip(scoring.scores, batch, strict=True)
        for item in items
    )
    queue.put_nowait(Delivery(scores=scores, usage=scoring_usage(task, scoring)))
    return True


def _step_scores(task: ScoreTask, item: ScoreItem, score: Score) -> StepScores:
    return StepScores(
        task.task_id, item.trajectory_id, task.scorer_id, score.values, score.status, score.detail
    )


def scoring_usage(task: ScoreTask | SearchTask, scoring: Scoring) -> Usage:
    """What a scoring of a task has consumed."""
    return Usage(
        task_id=task.task_id,
        attempt=task.attempt,
        role=Role.SCORER,
        requests=scoring.requests,
        prompt_tokens=scoring.prompt_tokens,
        cached_tokens=scoring.cached_tokens,
        completion_tokens=scoring.completion_tokens,
        retries=scoring.retries,
        wasted_requests=scoring.wasted_requests,
        seconds=scoring.seconds,
    )
