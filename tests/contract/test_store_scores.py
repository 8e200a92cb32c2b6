"""What every store must do with scores, score tasks and completions of prefixes, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.store import (
    GradeRecord,
    LaneRecord,
    RolloutDemand,
    ScorerRecord,
    Store,
    UngradedAnswer,
)
from tests.store_world import World, build, sample, whole
from workers.identity import trajectory_id
from workers.types import (
    FactBatch,
    Outcome,
    SampleTask,
    ScoreStatus,
    ScoreTask,
    StepScores,
    Task,
    TaskEnd,
    Usage,
)
from workers.types import Role as Roles


@dataclass(frozen=True, slots=True)
class Scored:
    """A world with two scorers."""

    world: World
    draw: LaneRecord
    first: LaneRecord
    second: LaneRecord


async def scored(store: Store, **sizes: Any) -> Scored:
    world = await build(store, **sizes)
    scorers = [
        await store.register_scorer(ScorerRecord(name, f"fp-{name}", "prm", "{}"))
        for name in ("soft", "hard")
    ]
    lanes = await store.register_lanes(world.sweep_id, [world.generator_id], scorers)
    return Scored(world, *lanes)


async def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return (await store.query(sql)).rows


async def write(store: Store, world: World, batch: FactBatch) -> None:
    await store.write(batch, run_id=world.run_id, extractor_id=world.extractor_id)


async def draw_all(store: Store, world: World, texts: Sequence[str] = ()) -> None:
    """Draw every sample; `texts`, by sample index, instead of texts that all differ."""
    for task in await store.claim(world.sweep_id, world.lane_id, world.run_id, 100):
        batch = whole(task)
        if texts:
            drawn = tuple(
                replace(t, text=texts[t.sample_index], step_ends=(1, 2)) for t in batch.trajectories
            )
            batch = replace(batch, trajectories=drawn)
        await write(store, world, batch)


def scoring(task: Task, *, status: ScoreStatus = ScoreStatus.OK, count: int | None = None) -> FactBatch:
    """Score the items of a task (the first `count` of them, without its end)."""
    assert isinstance(task, ScoreTask)
    items = task.items if count is None else task.items[:count]
    values = (0.25, 0.75) if status is ScoreStatus.OK else ()
    scores = tuple(
        StepScores(task.task_id, item.trajectory_id, task.scorer_id, values, status, None) for item in items
    )
    usage = Usage(task.task_id, task.attempt, Roles.SCORER, requests=1, prompt_tokens=100, seconds=0.1)
    ends = (TaskEnd(task.task_id, task.attempt),) if count is None else ()
    return FactBatch(scores=scores, usage=(usage,), ends=ends)


async def claim(store: Store, world: World, lane: LaneRecord, limit: int = 100) -> list[ScoreTask]:
    found = await store.claim(world.sweep_id, lane.id, world.run_id, limit)
    assert all(isinstance(task, ScoreTask) for task in found)
    return [task for task in found if isinstance(task, ScoreTask)]


async def test_score_tasks_follow_from_samples_that_are_drawn(store: Store) -> None:
    it = await scored(store, count=2, samples=8, task_size=4)
    assert await store.add_score_tasks(it.world.sweep_id) == 0
    first, *_ = await store.claim(it.world.sweep_id, it.world.lane_id, it.world.run_id, 4)
    await write(store, it.world, whole(first))
    assert await store.add_score_tasks(it.world.sweep_id) == 2  # one a scorer
    assert await store.add_score_tasks(it.world.sweep_id) == 0
    (task,) = await claim(store, it.world, it.first)
    assert (task.scorer_id, task.size, task.statement) == (it.first.scorer_id, 4, "0 + 0?")
    assert task.items[0].text == f"pool {task.pool_id} sample 0\nso 4"
    assert task.items[0].step_ends == (task.items[0].text.find("\n") + 1, len(task.items[0].text))
    assert task.items[0].answer == "4"


async def test_tasks_of_a_pool_are_scored_one_after_the_other(store: Store) -> None:
    it = await scored(store, count=2, samples=8, task_size=4)
    await draw_all(store, it.world)
    await store.add_score_tasks(it.world.sweep_id)
    taken = await claim(store, it.world, it.first)
    assert [task.pool_id for task in taken] == it.world.pool_ids  # the first of each pool, and no other
    assert await claim(store, it.world, it.first) == []
    await write(store, it.world, scoring(taken[0]))
    assert [task.pool_id for task in await claim(store, it.world, it.first)] == [taken[0].pool_id]
    assert len(await claim(store, it.world, it.second)) == 2  # another scorer has a turn of its own


async def test_equal_texts_of_a_pool_are_scored_once(store: Store) -> None:
    it = await scored(store, count=1, samples=8, task_size=4)
    await draw_all(store, it.world, ["a\nb", "a\nc", "a\nb", "a\nd", "a\nb", "a\nc", "a\nd", "a\nb"])
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    assert [item.text for item in task.items] == ["a\nb", "a\nc", "a\nb", "a\nd"]
    await write(store, it.world, scoring(task))
    assert await claim(store, it.world, it.first) == []  # the second half stands in the first
    assert await rows(store, "SELECT COUNT(*), COUNT(DISTINCT values_json) FROM scores") == [(8, 1)]
    assert await store.open_tasks(it.world.sweep_id, [it.first.id]) == 0


async def test_an_unfinished_score_task_owes_what_it_lacks_and_no_more(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world)
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    await write(store, it.world, scoring(task, count=3))
    again = await store.requeue(task.task_id, task.attempt, it.world.run_id)
    assert isinstance(again, ScoreTask)
    assert [item.trajectory_id for item in again.items] == [trajectory_id(task.pool_id, 3)]


async def test_failed_scores_are_asked_for_again_and_final_ones_are_not(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world)
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    statuses = [ScoreStatus.ERROR, ScoreStatus.INVALID, ScoreStatus.TOO_LONG, ScoreStatus.OK]
    parts = [
        scoring(replace(task, items=(item,)), status=status)
        for item, status in zip(task.items, statuses, strict=True)
    ]
    for part in parts:
        await write(store, it.world, replace(part, ends=()))
    await write(store, it.world, FactBatch(ends=(TaskEnd(task.task_id, task.attempt),)))
    assert await store.scores_failed(it.world.sweep_id) == 2
    (found,) = await store.scoring(it.world.sweep_id)
    assert (found.scored, found.too_long, found.invalid, found.errors, found.settled) == (1, 1, 1, 1, 2)
    assert await store.reopen_failed(it.world.sweep_id) == 1
    (again,) = await claim(store, it.world, it.first)
    assert [item.trajectory_id for item in again.items] == [i.trajectory_id for i in task.items[:2]]
    await write(store, it.world, scoring(again))
    assert await store.scores_failed(it.world.sweep_id) == 0
    await write(store, it.world, replace(parts[0], ends=()))  # late news of the first attempt
    assert await store.scores_failed(it.world.sweep_id) == 0


async def test_samples_that_are_drawn_again_are_scored_too(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    (draw,) = await store.claim(it.world.sweep_id, it.world.lane_id, it.world.run_id, 1)
    drawn = [sample(draw, k, outcome=Outcome.ERROR if k == 2 else Outcome.COMPLETE) for k in range(4)]
    end = (TaskEnd(draw.task_id, draw.attempt),)
    await write(store, it.world, FactBatch(tuple(drawn), ends=end))
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    assert task.size == 3
    await write(store, it.world, scoring(task))
    assert await store.reopen_failed(it.world.sweep_id) == 1
    (again,) = await store.claim(it.world.sweep_id, it.world.lane_id, it.world.run_id, 1)
    await write(store, it.world, whole(again))
    (more,) = await claim(store, it.world, it.first)
    assert [item.trajectory_id for item in more.items] == [trajectory_id(draw.pool_id, 2)]


async def test_only_samples_that_ended_by_themselves_are_scored(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    (draw,) = await store.claim(it.world.sweep_id, it.world.lane_id, it.world.run_id, 1)
    outcomes = [Outcome.COMPLETE, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.TIMED_OUT]
    drawn = tuple(sample(draw, k, outcome=each, answer=None) for k, each in enumerate(outcomes))
    await write(store, it.world, FactBatch(drawn, ends=(TaskEnd(draw.task_id, draw.attempt),)))
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    assert [item.trajectory_id for item in task.items] == [trajectory_id(draw.pool_id, 0)]


async def test_what_scorers_consume_is_counted_apart(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world)
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    await write(store, it.world, scoring(task))
    cost = await rows(store, "SELECT role, model, prompt_tokens, completion_tokens FROM v_cost ORDER BY role")
    assert cost == [("policy", "g", 0, 40), ("scorer", "soft", 100, 0)]
    assert await store.tokens_generated(it.world.sweep_id) == 40


async def test_step_scores_are_shown_made_into_one_in_every_way(store: Store) -> None:
    it = await scored(store, count=1, samples=2, task_size=2)
    await draw_all(store, it.world)
    await store.add_score_tasks(it.world.sweep_id)
    (task,) = await claim(store, it.world, it.first)
    one, other = scoring(task).scores
    scores = (
        replace(one, values=(0.5, 0.125, 1.0, 0.375)),
        replace(other, values=(), status=ScoreStatus.TOO_LONG),
    )
    await write(store, it.world, FactBatch(scores=scores))
    shown = "SELECT status, steps, last, lowest, mean, highest FROM v_scores ORDER BY trajectory_id"
    assert await rows(store, shown) == [
        ("ok", 4, 0.375, 0.125, 0.5, 1.0),
        ("too_long", 0, None, None, None, None),
    ]


# Prefixes -------------------------------------------------------------------------------------------------


def demand(it: Scored, *, rollouts: int = 2, solutions: int = 4) -> RolloutDemand:
    return RolloutDemand("values", "best_of_n", solutions, it.world.generator_id, it.draw.id, 7, rollouts)


async def label(store: Store, it: Scored, **changes: Any) -> int:
    wanted = demand(it, **changes)
    solutions = await store.unlabelled(it.world.sweep_id, wanted)
    return await store.add_rollouts(it.world.sweep_id, wanted, solutions) if solutions else 0


async def completions(store: Store, it: Scored) -> list[SampleTask]:
    tasks = await store.claim(it.world.sweep_id, it.world.lane_id, it.world.run_id, 100)
    assert all(isinstance(task, SampleTask) for task in tasks)
    return [task for task in tasks if isinstance(task, SampleTask)]


async def test_equal_beginnings_are_completed_once(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world, ["ab", "ac", "xb", "ab"])
    assert await label(store, it) == 2 * 2  # two beginnings, "a" and "x", twice each
    assert await label(store, it) == 0
    tasks = await completions(store, it)
    assert [(task.prefix, task.spans) for task in tasks] == [("a", ((0, 2),)), ("x", ((0, 2),))]
    assert len({task.seed_base for task in tasks}) == 2
    assert await rows(store, "SELECT COUNT(*), COUNT(DISTINCT prefix_id) FROM trajectory_prefixes") == [
        (4, 2)
    ]


async def test_more_rollouts_are_more_of_the_same_pool(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world, ["ab", "ac", "ad", "ae"])
    await label(store, it, rollouts=2)
    for task in await completions(store, it):
        await write(store, it.world, whole(task))
    assert await label(store, it, rollouts=5) == 3
    (more,) = await completions(store, it)
    assert more.spans == ((2, 3),)


async def test_labels_are_the_share_of_right_completions(store: Store) -> None:
    it = await scored(store, count=1, samples=2, task_size=2)
    await draw_all(store, it.world, ["ab", "cd"])
    await label(store, it, rollouts=4, solutions=2)
    right = {"a": 1, "c": 0}
    for task in await completions(store, it):
        batch = whole(task)
        answers = ["0" if k < right[task.prefix] else "4" for k in range(4)]
        drawn = tuple(replace(t, answer=answers[t.sample_index]) for t in batch.trajectories)
        await write(store, it.world, replace(batch, trajectories=drawn))
    await grade(store, it, await store.ungraded(it.world.grader_id, it.world.sweep_id, 10))
    labels = await rows(
        store,
        "SELECT trajectory_id & 1048575, step_index, rollouts, correct, soft, hard FROM v_labels ORDER BY 1",
    )
    assert labels == [(0, 0, 4, 1, 0.25, 1), (1, 0, 4, 0, 0.0, 0)]


async def test_a_completion_that_failed_says_nothing_and_one_that_was_cut_is_not_right(store: Store) -> None:
    it = await scored(store, count=1, samples=2, task_size=2)
    await draw_all(store, it.world, ["ab", "ab"])
    await label(store, it, rollouts=4, solutions=1)
    (task,) = await completions(store, it)
    drawn = (
        sample(task, 0, answer="0"),
        sample(task, 1, outcome=Outcome.TRUNCATED, answer=None),
        sample(task, 2, outcome=Outcome.ERROR),
        sample(task, 3, answer="?"),
    )
    await write(store, it.world, FactBatch(drawn, ends=(TaskEnd(task.task_id, task.attempt),)))
    found = await store.ungraded(it.world.grader_id, it.world.sweep_id, 10)
    await grade(store, it, [answer for answer in found if answer.text != "?"])
    labels = "SELECT rollouts, correct, soft, hard FROM v_labels WHERE trajectory_id & 1048575 = 0"
    assert await rows(store, labels) == [(2, 1, 0.5, 1)]
    await store.choose_grading(
        it.world.sweep_id, extractor_id=it.world.extractor_id, grader_id=it.world.grader_id
    )
    (solution, *_) = await store.labelled_solutions(it.world.sweep_id, "values", [(it.world.pool_ids[0], 2)])
    assert (solution.rollouts, solution.correct, solution.is_whole) == ((2,), (1,), False)


async def grade(store: Store, it: Scored, answers: Sequence[UngradedAnswer]) -> None:
    grades = [GradeRecord(a.answer_id, "correct" if a.text == a.gold else "wrong") for a in answers]
    await store.write_grades(it.world.grader_id, grades)


async def test_completions_are_no_solutions(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world, ["ab", "cd", "ef", "gh"])
    await label(store, it, rollouts=2)
    for task in await completions(store, it):
        await write(store, it.world, whole(task))
    assert await rows(store, "SELECT samples FROM v_accuracy") == [(4,)]
    assert await rows(store, "SELECT COUNT(*) FROM v_samples") == [(4,)]
    pools = await store.sample_pools(it.world.sweep_id)
    assert [pool.pool_id for pool in pools] == it.world.pool_ids
    assert [w.pool_id for w in await store.coverage(it.world.sweep_id)] == it.world.pool_ids
    (progress,) = await store.progress(it.world.sweep_id)
    assert (progress.samples_wanted, progress.samples_stored) == (4 + 8, 4 + 8)
    assert await store.add_score_tasks(it.world.sweep_id) == 2  # of the solutions, one a scorer


async def test_a_changed_sweep_forgets_completions_and_wants_them_anew(store: Store) -> None:
    it = await scored(store, count=1, samples=4)
    await draw_all(store, it.world, ["ab", "cd", "ef", "gh"])
    await label(store, it, rollouts=2)
    kept = {(it.world.pool_ids[0], "best_of_n")}
    assert await store.forget_pools(it.world.sweep_id, kept, keeps_prefixes=True) == 0
    assert await store.forget_pools(it.world.sweep_id, kept, keeps_prefixes=False) == 4
    assert await label(store, it, rollouts=2) == 0  # wanted again, but their tasks are there
    assert len(await completions(store, it)) == 4
