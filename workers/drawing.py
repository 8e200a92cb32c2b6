"""Draws the samples of one task, request by request, and hands every finished request on.

It decides nothing about what is drawn: keys and seeds come with the task. It must not know other tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from workers.answers import extract
from workers.delivery import Deliveries, Delivery
from workers.errors import Draining
from workers.generation import Draw, ModelClient, Sample
from workers.steps import step_ends
from workers.types import GeneratorSettings, SampleTask, SearchTask, Trajectory, Usage


async def draw_samples(
    task: SampleTask, generator: GeneratorSettings, client: ModelClient, queue: Deliveries
) -> bool:
    """Deliver all samples of a task; False if some were not drawn because the worker drains."""
    async with asyncio.TaskGroup() as group:
        draws = [
            group.create_task(_draw(task, generator, client, start, count, queue))
            for start, count in _requests(task.spans, generator.samples_per_request)
        ]
    return all(each.result() for each in draws)


async def _draw(
    task: SampleTask,
    generator: GeneratorSettings,
    client: ModelClient,
    start: int,
    count: int,
    queue: Deliveries,
) -> bool:
    try:
        draw = await client.draw(
            generator,
            task.statement,
            seed=task.seed_base + start,
            count=count,
            affinity=task.problem_id,
            prefix=task.prefix,
        )
    except Draining:
        return False
    trajectories = tuple(
        _trajectory(task, start + offset, sample, draw) for offset, sample in enumerate(draw.samples)
    )
    queue.put_nowait(Delivery(trajectories=trajectories, usage=drawing_usage(task, draw)))
    return True


def _requests(spans: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Cut the missing spans of a task into requests of at most `size` samples."""
    for start, count in spans:
        for offset in range(0, count, size):
            yield start + offset, min(size, count - offset)


def _trajectory(task: SampleTask, index: int, sample: Sample, draw: Draw) -> Trajectory:
    extraction = extract(sample.text, sample.outcome)
    return Trajectory(
        task_id=task.task_id,
        pool_id=task.pool_id,
        problem_id=task.problem_id,
        sample_index=index,
        seed=task.seed_base + index,
        outcome=sample.outcome,
        text=sample.text,
        step_ends=step_ends(sample.text),
        answer=extraction.text if extraction else None,
        answer_method=extraction.method if extraction else None,
        answer_start=extraction.start if extraction else None,
        finish_reason=sample.finish_reason,
        completion_tokens=sample.completion_tokens,
        logprob_sum=sample.logprob_sum,
        latency_s=draw.latency_s,
        retries=draw.retries,
        replica=draw.replica,
        error=sample.error,
    )


def drawing_usage(task: SampleTask | SearchTask, draw: Draw) -> Usage:
    """What a request of a task has consumed."""
    return Usage(
        task_id=task.task_id,
        attempt=task.attempt,
        requests=1,
        prompt_tokens=draw.prompt_tokens,
        cached_tokens=draw.cached_tokens,
        completion_tokens=draw.completion_tokens,
        retries=draw.retries,
        wasted_requests=draw.wasted_requests,
        seconds=draw.latency_s,
    )
