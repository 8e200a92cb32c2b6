"""A small world to store: problems, a generator, pools, tasks, and samples whose texts say who they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.store import GeneratorRecord, NewTask, ProblemRecord, Store
from workers.identity import content_hash, trajectory_id
from workers.types import (
    FactBatch,
    Outcome,
    SampleTask,
    ScoreStatus,
    StepScores,
    Task,
    TaskEnd,
    Trajectory,
    Usage,
)


@dataclass(frozen=True, slots=True)
class World:
    """Ids of what `build` registered."""

    sweep_id: int
    lane_id: int
    run_id: int
    extractor_id: int
    grader_id: int
    generator_id: int
    problem_ids: list[int]
    pool_ids: list[int]


def problems(count: int) -> list[ProblemRecord]:
    return [
        ProblemRecord("d", f"p{i}", f"{i} + {i}?", str(2 * i), content_hash(str(i)), level=str(1 + i % 5))
        for i in range(count)
    ]


async def build(
    store: Store, *, count: int = 2, samples: int = 8, task_size: int = 4, name: str = "s", tasks: bool = True
) -> World:
    sweep = await store.register_sweep(name, "{}", "h", seed=7)
    ids = await store.register_problems(problems(count))
    generator = GeneratorRecord("g", "fp-g", "m", "{}", parameters=1_000_000)
    generator_id = await store.register_generator(generator)
    pools = await store.register_pools(sweep.id, generator_id, 7, "best_of_n", ids, samples)
    (lane,) = await store.register_lanes(sweep.id, [generator_id], [])
    if tasks:
        spans = range(0, samples, task_size)
        await store.add_tasks([NewTask(lane.id, p, s, task_size) for p in pools.values() for s in spans])
    return World(
        sweep.id,
        lane.id,
        await store.start_run(sweep.id, "host", 1),
        await store.register_extractor("boxed", "1"),
        await store.register_grader("exact", "1"),
        generator_id,
        ids,
        list(pools.values()),
    )


def sample(
    task: Task,
    index: int,
    *,
    outcome: Outcome = Outcome.COMPLETE,
    text: str | None = None,
    answer: str | None = "4",
) -> Trajectory:
    assert isinstance(task, SampleTask)
    body = f"pool {task.pool_id} sample {index}\nso {answer}" if text is None else text
    failed = outcome is Outcome.ERROR
    return Trajectory(
        task.task_id, task.pool_id, task.problem_id, index, task.seed_base + index, outcome,
        "" if failed else body, () if failed else (body.find("\n") + 1, len(body)),
        None if failed else answer, None if failed or answer is None else "boxed", None,
        None if failed else "stop", None if failed else 10, None, 0.5, 0, "http://replica/v1",
        "refused" if failed else None,
    )  # fmt: skip


def indices(task: Task) -> Iterable[int]:
    assert isinstance(task, SampleTask)
    return (index for start, count in task.spans for index in range(start, start + count))


def whole(task: Task, *, scorer_id: int | None = None, answer: str | None = "4") -> FactBatch:
    """All the task owes, its usage and its end."""
    drawn = tuple(sample(task, index, answer=answer) for index in indices(task))
    scores: tuple[StepScores, ...] = ()
    if scorer_id is not None:
        keys = [trajectory_id(t.pool_id, t.sample_index) for t in drawn]
        scores = tuple(StepScores(task.task_id, key, scorer_id, (0.25, 0.75), ScoreStatus.OK) for key in keys)
    usage = Usage(task.task_id, task.attempt, requests=1, completion_tokens=10 * len(drawn), seconds=0.5)
    return FactBatch(drawn, scores=scores, usage=(usage,), ends=(TaskEnd(task.task_id, task.attempt),))
