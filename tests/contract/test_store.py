"""What every store must do, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import (
    LEASE_S,
    GoldStatus,
    GradeRecord,
    NewTask,
    ProblemRecord,
    ProcedureRecord,
    QueryRefused,
    ResultRecord,
    ScorerRecord,
    SelectorRecord,
    Store,
    StoreError,
    StoreRefused,
)
from tests.store_world import World, build, indices, problems, sample, whole
from workers.identity import seed_base, trajectory_id
from workers.types import (
    Event,
    FactBatch,
    NodeScore,
    Outcome,
    Pruning,
    SampleTask,
    SearchTask,
    Task,
    TaskEnd,
    Trajectory,
    TreeNode,
    Usage,
)


async def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return (await store.query(sql)).rows


async def value(store: Store, sql: str) -> Any:
    return (await rows(store, sql))[0][0]


def spans(task: Task | None) -> tuple[tuple[int, int], ...]:
    assert isinstance(task, SampleTask)
    return task.spans


async def write(store: Store, world: World, batch: FactBatch, sequence: int | None = None) -> Any:
    return await store.write(batch, run_id=world.run_id, extractor_id=world.extractor_id, sequence=sequence)


# Names ----------------------------------------------------------------------------------------------------


async def test_a_sweep_keeps_its_id_and_takes_the_new_configuration(store: Store) -> None:
    first = await store.register_sweep("s", '{"n": 1}', "h1", 7)
    again = await store.register_sweep("s", '{"n": 2}', "h2", 7)
    assert (again.id, again.config_json, again.config_hash) == (first.id, '{"n": 2}', "h2")
    assert await store.find_sweep("s") == again
    assert await store.find_sweep("other") is None
    assert [s.name for s in await store.sweeps()] == ["s"]


async def test_a_request_to_cancel_lasts_until_the_next_run(store: Store) -> None:
    sweep = await store.register_sweep("s", "{}", "h", 7)
    await store.request_cancel(sweep.id)
    again = await store.register_sweep("s", "{}", "h", 7)
    assert again.cancel_requested
    await store.start_run(sweep.id, "host", 1)
    found = await store.find_sweep("s")
    assert found is not None
    assert not found.cancel_requested
    assert found.state == "running"


async def test_only_problems_with_a_readable_gold_are_usable(store: Store) -> None:
    rows = [ProblemRecord("d", str(i), f"s{i}", f"a{i}", f"h{i}") for i in range(3)]
    ids = await store.register_problems(rows)
    assert [each.external_id for each in await store.unverified_problems(ids)] == ["0", "1", "2"]
    await store.set_gold_status({ids[0]: GoldStatus.OK, ids[1]: GoldStatus.UNPARSABLE, ids[2]: GoldStatus.OK})
    assert await store.usable_problems(ids[::-1]) == [ids[2], ids[0]]
    assert await store.unverified_problems(ids) == []


async def test_pools_a_sweep_no_longer_wants_are_forgotten_but_their_samples_stay(store: Store) -> None:
    world = await build(store)
    kept, dropped = world.pool_ids
    (first, *_) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    await write(store, world, whole(first))
    assert await store.forget_pools(world.sweep_id, {(kept, "best_of_n")}, keeps_prefixes=True) == 1
    assert {each.pool_id for each in await store.coverage(world.sweep_id)} == {kept}
    assert await value(store, f"SELECT COUNT(*) FROM tasks WHERE pool_id = {dropped}") == 2
    assert await value(store, "SELECT COUNT(*) FROM trajectories") == 4


async def test_runs_that_never_ended_are_open_with_the_tasks_they_hold(store: Store) -> None:
    world = await build(store)
    await store.claim(world.sweep_id, world.lane_id, world.run_id, 3)
    ended = await store.start_run(world.sweep_id, "host", 2)
    await store.end_run(ended, "complete")
    (run,) = await store.open_runs(world.sweep_id)
    assert (run.run_id, run.host, run.pid, run.tasks) == (world.run_id, "host", 1, 3)
    assert 0 <= run.silent_s < LEASE_S


async def test_a_forecast_sees_what_the_pools_of_a_generator_hold_without_errors(store: Store) -> None:
    world = await build(store)
    (first, *_) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    failed = sample(first, 3, outcome=Outcome.ERROR)
    batch = FactBatch(
        trajectories=(*(sample(first, index) for index in range(3)), failed),
        usage=(Usage(first.task_id, first.attempt, requests=2, completion_tokens=55),),
    )
    await write(store, world, batch, sequence=1)
    held = await store.pool_contents("fp-g", 7)
    (content,) = held.values()
    assert (content.samples, content.completion_tokens, content.latency_s) == (3, 30, pytest.approx(1.5))
    assert await store.pool_contents("fp-g", 8) == {}
    assert await store.samples_failed(world.sweep_id) == 1
    assert await store.tokens_generated(world.sweep_id) == 55


async def test_only_problems_with_new_answers_are_to_be_clustered_and_graders_are_compared(
    store: Store,
) -> None:
    world = await build(store)
    strict = await store.register_grader("strict", "1")
    (first, *_) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    await write(
        store, world, FactBatch(trajectories=(sample(first, 0, answer="4"), sample(first, 1, answer="8/2")))
    )
    answers = await store.ungraded(world.grader_id, world.sweep_id, 10)
    await store.write_grades(world.grader_id, [GradeRecord(each.answer_id, "correct") for each in answers])
    await store.write_grades(
        strict, [GradeRecord(each.answer_id, "correct" if each.text == "4" else "wrong") for each in answers]
    )
    assert await store.unclustered_problems(world.grader_id, world.sweep_id) == [first.problem_id]
    await store.write_clusters(world.grader_id, {each.answer_id: answers[0].answer_id for each in answers})
    assert await store.unclustered_problems(world.grader_id, world.sweep_id) == []
    found = await store.agreement(world.sweep_id, world.grader_id, strict)
    assert (found.answers, found.agreed) == (2, 1)


async def test_problems_get_ids_in_order_and_an_edited_one_is_another(store: Store) -> None:
    given = problems(1200)
    ids = await store.register_problems(given)
    assert len(set(ids)) == 1200
    shuffled = [*reversed(given), given[0]]
    assert await store.register_problems(shuffled) == [*reversed(ids), ids[0]]
    edited = replace(given[0], statement="another", content_hash="x")
    assert (await store.register_problems([edited]))[0] not in ids


async def test_gold_status_is_remembered(store: Store) -> None:
    ids = await store.register_problems(problems(3))
    await store.set_gold_status({ids[0]: "ok", ids[2]: "gold_unparsable"})
    assert [(g.problem_id, g.answer) for g in await store.unverified_problems(ids)] == [(ids[1], "2")]
    with pytest.raises(StoreError):
        await store.set_gold_status({ids[1]: "nonsense"})


async def test_the_same_fingerprint_is_the_same_model(store: Store) -> None:
    world = await build(store)
    again = await build(store, name="other")
    assert (again.generator_id, again.pool_ids, again.extractor_id, again.grader_id) == (
        world.generator_id, world.pool_ids, world.extractor_id, world.grader_id,
    )  # fmt: skip
    scorer = ScorerRecord("prm", "fp", "prm", "{}")
    assert await store.register_scorer(scorer) == await store.register_scorer(replace(scorer, name="new"))
    assert await value(store, "SELECT name FROM scorers") == "new"


# Planning and leases --------------------------------------------------------------------------------------


async def test_coverage_says_what_each_strategy_wants(store: Store) -> None:
    world = await build(store, count=2, samples=8)
    await store.register_pools(world.sweep_id, world.generator_id, 7, "majority", world.problem_ids[:1], 32)
    wanted = await store.coverage(world.sweep_id)
    assert [(w.pool_id, w.problem_id, w.strategy, w.samples_wanted) for w in wanted] == [
        (world.pool_ids[0], world.problem_ids[0], "best_of_n", 8),
        (world.pool_ids[0], world.problem_ids[0], "majority", 32),
        (world.pool_ids[1], world.problem_ids[1], "best_of_n", 8),
    ]
    spans = await store.task_spans(world.sweep_id)
    assert [(s.pool_id, s.sample_start, s.sample_count, s.state) for s in spans] == [
        (pool, start, 4, 0) for pool in world.pool_ids for start in (0, 4)
    ]


async def test_claims_go_by_id_and_say_all_a_worker_needs(store: Store) -> None:
    world = await build(store)
    first = await store.claim(world.sweep_id, world.lane_id, world.run_id, 3)
    assert [(t.pool_id, spans(t), t.attempt) for t in first] == [
        (world.pool_ids[0], ((0, 4),), 1),
        (world.pool_ids[0], ((4, 4),), 1),
        (world.pool_ids[1], ((0, 4),), 1),
    ]
    assert first[0].statement == "0 + 0?"
    assert isinstance(first[0], SampleTask)
    assert first[0].seed_base == seed_base(7, problems(1)[0].content_hash, "fp-g")
    assert first[0].prefix == ""
    assert len(await store.claim(world.sweep_id, world.lane_id, world.run_id, 3)) == 1
    assert await store.claim(world.sweep_id, world.lane_id, world.run_id, 3) == []


async def test_a_claim_sees_only_its_sweep(store: Store) -> None:
    world = await build(store, count=2)
    other = await store.register_sweep("other", "{}", "h", 8)
    assert await store.claim(other.id, world.lane_id, await store.start_run(other.id, "h", 1), 10) == []


async def test_concurrent_claims_share_no_task(store: Store) -> None:
    world = await build(store, count=10, samples=16, task_size=2)
    runs = [await store.start_run(world.sweep_id, "h", i) for i in range(4)]
    claims = await asyncio.gather(*(store.claim(world.sweep_id, world.lane_id, run, 7) for run in runs * 4))
    ids = [task.task_id for claim in claims for task in claim]
    assert len(ids) == len(set(ids)) == 80


async def test_what_is_stored_is_not_owed_again(store: Store) -> None:
    world = await build(store, samples=8, task_size=8)
    (task, _) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 2)
    stored = FactBatch(tuple(sample(task, i) for i in (0, 3, 4)))
    await write(store, world, stored)
    failed = FactBatch((sample(task, 6, outcome=Outcome.ERROR),))
    await write(store, world, failed)
    assert await store.release(world.run_id) == 2
    (again, _) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 2)
    assert (again.task_id, again.attempt, spans(again)) == (task.task_id, 2, ((1, 2), (5, 3)))


async def test_a_task_that_owes_nothing_is_done_at_once(store: Store) -> None:
    world = await build(store)
    tasks = await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    for task in tasks[:3]:
        await write(store, world, replace(whole(task), ends=()))
    await store.release(world.run_id)
    left = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    assert [t.task_id for t in left] == [tasks[3].task_id]
    assert [s.state for s in await store.task_spans(world.sweep_id)] == [2, 2, 2, 1]


async def test_leases_end_with_the_heartbeat_of_their_run(store: Store) -> None:
    world = await build(store)
    held = await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    other = await store.start_run(world.sweep_id, "h", 2)
    assert await store.claim(world.sweep_id, world.lane_id, other, 4) == []
    late = time.time() + LEASE_S + 1
    taken = await store.claim(world.sweep_id, world.lane_id, other, 4, now=late)
    assert [(t.task_id, t.attempt) for t in taken] == [(t.task_id, 2) for t in held]
    receipt = await write(store, world, whole(held[0]))
    assert receipt.stale == ((held[0].task_id, 1),)
    assert receipt.ended == ()
    assert await value(store, "SELECT COUNT(*) FROM trajectories") == 4  # facts need no fence


async def test_tasks_of_a_run_that_ended_are_free(store: Store) -> None:
    world = await build(store)
    await store.claim(world.sweep_id, world.lane_id, world.run_id, 4)
    await store.end_run(world.run_id, "interrupted")
    assert (await store.sweeps())[0].state == "interrupted"
    other = await store.start_run(world.sweep_id, "h", 2)
    assert (await store.sweeps())[0].state == "running"
    assert len(await store.claim(world.sweep_id, world.lane_id, other, 4)) == 4


async def test_a_heartbeat_hears_of_a_cancel_request(store: Store) -> None:
    world = await build(store)
    assert await store.heartbeat(world.run_id) is False
    await store.request_cancel(world.sweep_id)
    assert await store.heartbeat(world.run_id) is True


async def test_requeue_fences_off_the_lost_worker(store: Store) -> None:
    world = await build(store)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    await write(store, world, FactBatch((sample(task, 1),)))
    again = await store.requeue(task.task_id, task.attempt, world.run_id)
    assert again is not None
    assert (again.attempt, spans(again)) == (2, ((0, 1), (2, 2)))
    assert (await write(store, world, whole(task))).stale == ((task.task_id, 1),)
    assert await store.requeue(task.task_id, 1, world.run_id) is None
    done = await store.requeue(task.task_id, 2, world.run_id)
    assert done is not None
    assert done.size == 0
    assert [s.state for s in await store.task_spans(world.sweep_id)] == [2, 0, 0, 0]


async def test_a_failed_task_waits_for_its_time_or_for_the_next_run(store: Store) -> None:
    world = await build(store, count=1)
    a, b = await store.claim(world.sweep_id, world.lane_id, world.run_id, 2)
    later = time.time() + 1000
    assert await store.fail_task(a.task_id, a.attempt, "unreachable", "no", not_before=later)
    assert await store.fail_task(b.task_id, b.attempt, "misconfigured", "404")
    assert not await store.fail_task(b.task_id, b.attempt, "misconfigured", "404")
    assert await store.claim(world.sweep_id, world.lane_id, world.run_id, 2) == []
    (again,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 2, now=later + 1)
    assert again.task_id == a.task_id
    assert await store.reopen_failed(world.sweep_id) == 1
    (other,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 2)
    assert (other.task_id, other.attempt) == (b.task_id, 2)


async def test_a_sweep_grows(store: Store) -> None:
    world = await build(store, count=1, samples=4)
    for task in await store.claim(world.sweep_id, world.lane_id, world.run_id, 9):
        await write(store, world, whole(task))
    await store.register_pools(world.sweep_id, world.generator_id, 7, "best_of_n", world.problem_ids, 12)
    await store.add_tasks([NewTask(world.lane_id, world.pool_ids[0], start, 4) for start in (0, 4, 8)])
    owed = await store.claim(world.sweep_id, world.lane_id, world.run_id, 9)
    assert [spans(task) for task in owed] == [((4, 4),), ((8, 4),)]
    (progress,) = await store.progress(world.sweep_id)
    assert (progress.samples_wanted, progress.samples_stored) == (12, 4)
    assert (progress.tasks_done, progress.tasks_running) == (1, 2)


# Facts ----------------------------------------------------------------------------------------------------


async def test_a_batch_is_stored_whole(store: Store) -> None:
    world = await build(store, count=1)
    scorer = await store.register_scorer(ScorerRecord("prm", "fp", "prm", "{}"))
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    receipt = await write(store, world, whole(task, scorer_id=scorer))
    assert (receipt.stored, receipt.ended, receipt.stale) == (4, ((task.task_id, 1),), ())
    key = trajectory_id(task.pool_id, 2)
    steps = await rows(
        store, f"SELECT step_index, text FROM v_steps WHERE trajectory_id = {key} ORDER BY step_index"
    )
    assert steps == [(0, f"pool {task.pool_id} sample 2\n"), (1, "so 4")]
    scores = f"SELECT step_index, value, scorer FROM v_step_scores WHERE trajectory_id = {key} ORDER BY 1"
    assert await rows(store, scores) == [(0, 0.25, "prm"), (1, 0.75, "prm")]
    assert await value(store, "SELECT COUNT(*) FROM answers") == 1
    assert await value(store, "SELECT url FROM replicas") == "http://replica/v1"
    cost = await rows(store, "SELECT requests, completion_tokens, generation_flops FROM v_cost")
    assert cost == [(1, 40, 2.0 * 1_000_000 * 40)]


async def test_writing_twice_changes_nothing(store: Store) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    batch = whole(task)
    first = await write(store, world, batch, sequence=1)
    before = await dump(store)
    assert await write(store, world, batch, sequence=1) == first
    assert await dump(store) == before
    other = FactBatch(tuple(replace(t, text="other", latency_s=9.0) for t in batch.trajectories))
    await write(store, world, other, sequence=2)
    assert await dump(store) == before


async def dump(store: Store) -> list[list[tuple[Any, ...]]]:
    tables = {
        "trajectories": "id", "trajectory_texts": "trajectory_id", "answers": "id",
        "extractions": "trajectory_id", "usage": "task_id", "tasks": "id",
    }  # fmt: skip
    return [await rows(store, f"SELECT * FROM {name} ORDER BY {order}") for name, order in tables.items()]


async def test_usage_adds_up(store: Store) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    spent = Usage(task.task_id, 1, requests=2, prompt_tokens=30, seconds=1.5)
    await write(store, world, FactBatch(usage=(spent, spent)), sequence=1)
    await write(store, world, FactBatch(usage=(spent,)), sequence=2)
    assert await rows(store, "SELECT requests, prompt_tokens, seconds FROM usage") == [(6, 90, 4.5)]


async def test_an_error_is_replaced_by_a_sample_and_never_the_other_way(store: Store) -> None:
    world = await build(store, count=1, samples=4)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    failed = FactBatch(tuple(sample(task, i, outcome=Outcome.ERROR) for i in indices(task)))
    await write(store, world, replace(failed, ends=(TaskEnd(task.task_id, 1),)))
    assert await rows(store, "SELECT outcome, error FROM trajectories") == [("error", "refused")] * 4
    assert await value(store, "SELECT COUNT(*) FROM trajectory_texts") == 0
    assert await value(store, "SELECT COUNT(*) FROM extractions") == 0

    assert await store.reopen_failed(world.sweep_id) == 1
    (again,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    assert spans(again) == ((0, 4),)
    await write(store, world, whole(again))
    await write(store, world, failed)
    assert await rows(store, "SELECT outcome, error FROM trajectories") == [("complete", None)] * 4
    assert await value(store, "SELECT COUNT(*) FROM trajectory_texts") == 4
    assert await value(store, "SELECT COUNT(*) FROM extractions WHERE answer_id IS NOT NULL") == 4
    assert await store.reopen_failed(world.sweep_id) == 0


async def test_within_a_batch_too_a_sample_beats_an_error(store: Store) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    error, good = sample(task, 0, outcome=Outcome.ERROR), sample(task, 0)
    await write(store, world, FactBatch((error, good, error)))
    assert await rows(store, "SELECT outcome FROM trajectories") == [("complete",)]


async def test_a_task_that_gives_up_is_failed(store: Store) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    end = TaskEnd(task.task_id, 1, "misconfigured", "404: no such model")
    assert (await write(store, world, FactBatch(ends=(end,)))).ended == ((task.task_id, 1),)
    state = await rows(store, f"SELECT state, error_kind, error_text FROM tasks WHERE id = {task.task_id}")
    assert state == [(3, "misconfigured", "404: no such model")]


async def test_a_bad_fact_takes_its_whole_batch_with_it(store: Store) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    orphan = replace(sample(task, 1), pool_id=10**6)
    with pytest.raises(StoreError) as caught:
        await write(store, world, FactBatch((sample(task, 0), orphan), ends=(TaskEnd(task.task_id, 1),)))
    assert not caught.value.retryable
    assert await value(store, "SELECT COUNT(*) FROM trajectories") == 0
    assert (await store.task_spans(world.sweep_id))[0].state == 1
    assert (await write(store, world, whole(task))).stored == 4


@pytest.mark.parametrize(
    "text",
    [
        "👩‍🔬 proves é\nso 𝟜",
        "\u202eright to left\u202c\nשלום 4",
        "'; DROP TABLE trajectories; --\n% %s :x $1 ?",
        "broken \ufffd\nnul \x00 and lone \ud83d",
        "\n",
    ],
)
async def test_hostile_text_comes_back_as_it_went(store: Store, text: str) -> None:
    world = await build(store, count=1)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    await write(store, world, FactBatch((sample(task, 0, text=text, answer=text),)))
    held = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)
    assert await value(store, "SELECT text FROM trajectory_texts") == held
    assert await value(store, "SELECT answer FROM v_samples") == held
    steps = await rows(store, "SELECT text FROM v_steps ORDER BY step_index")
    cut = text.find("\n") + 1
    assert [step for (step,) in steps] == [held[:cut], held[cut:]]


async def test_a_tree_shows_the_text_from_the_root(store: Store) -> None:
    world = await build(store, count=1)
    pool_id = await register_search(store, world)
    nodes = (
        node(pool_id, "0", "a\n"), node(pool_id, "0.0", "b\n"), node(pool_id, "0.10", "c\n"),
        node(pool_id, "0.10.0", "d", ended="finished"),
    )  # fmt: skip
    batch = FactBatch(
        nodes=nodes,
        node_scores=(NodeScore(pool_id, "0.10", 1, 0.25),),
        prunings=(Pruning(pool_id, "0.0", "beaten"),),
    )
    await write(store, world, batch)
    await write(store, world, batch)
    tree = await rows(
        store,
        f"SELECT path, full_text, kept, score, depth FROM v_tree WHERE pool_id = {pool_id} ORDER BY depth, child_index",
    )
    assert [(path, text, bool(kept), score, depth) for path, text, kept, score, depth in tree] == [
        ("0", "a\n", True, None, 1), ("0.0", "a\nb\n", False, None, 2), ("0.10", "a\nc\n", True, 0.25, 2),
        ("0.10.0", "a\nc\nd", True, None, 3),
    ]  # fmt: skip


async def test_a_search_task_comes_with_the_tree_of_earlier_attempts(store: Store) -> None:
    world = await build(store, count=1)
    pool_id = await register_search(store, world)
    assert await store.add_search_tasks(world.sweep_id) == 1
    assert await store.add_search_tasks(world.sweep_id) == 0
    lane = next(lane for lane in await store.sweep_lanes(world.sweep_id) if lane.kind == "search")
    (task,) = await store.claim(world.sweep_id, lane.id, world.run_id, 5)
    assert isinstance(task, SearchTask)
    assert (task.budget, task.kind, task.nodes, task.scores) == (4, "beam", (), ())
    drawn = node(pool_id, "1", "x\n")
    score = NodeScore(pool_id, "1", task.scorer_id, 0.5)
    await write(store, world, FactBatch(nodes=(drawn,), node_scores=(score,)))
    again = await store.requeue(task.task_id, task.attempt, world.run_id)
    assert isinstance(again, SearchTask)
    assert (again.attempt, again.nodes, again.scores) == (task.attempt + 1, (drawn,), (score,))
    await write(store, world, FactBatch(ends=(TaskEnd(task.task_id, task.attempt),)))  # the fence
    assert await value(store, f"SELECT state FROM tasks WHERE id = {task.task_id}") == 1
    await write(store, world, FactBatch(ends=(TaskEnd(task.task_id, again.attempt),)))
    assert await value(store, f"SELECT state FROM tasks WHERE id = {task.task_id}") == 2


def node(pool_id: int, path: str, text: str, ended: str = "step") -> TreeNode:
    return TreeNode(pool_id, path, path.count(".") + 1, text, 1, ended, "stop", 7, -0.5, False)


async def register_search(store: Store, world: World) -> int:
    scorer_id = await store.register_scorer(ScorerRecord("prm", "s", "prm", "{}"))
    await store.register_lanes(world.sweep_id, [world.generator_id], [], [(world.generator_id, scorer_id)])
    procedure_id = await store.register_procedure(
        ProcedureRecord("f", "beam", 4, '{"options": {}, "limits": {}}', scorer_id)
    )
    pools = await store.register_searches(
        world.sweep_id, world.generator_id, procedure_id, 7, "beam@4", world.problem_ids[:1], 4
    )
    return pools[world.problem_ids[0]]


async def test_events_are_kept(store: Store) -> None:
    world = await build(store)
    await store.add_events(world.sweep_id, world.run_id, [Event("ejected", "http://r", "5 failures")])
    assert await rows(store, "SELECT kind, subject FROM events") == [("ejected", "http://r")]


# Grades and views -----------------------------------------------------------------------------------------


async def graded_world(store: Store) -> World:
    """One problem of each kind of sample: right twice, wrong, no answer, truncated, error, ungraded."""
    world = await build(store, count=1, samples=8, task_size=8)
    (task,) = await store.claim(world.sweep_id, world.lane_id, world.run_id, 1)
    drawn = (
        sample(task, 0, answer="0"),
        sample(task, 1, answer="0.0"),
        sample(task, 2, answer="5"),
        sample(task, 3, answer=None),
        sample(task, 4, answer=None, outcome=Outcome.TRUNCATED),
        sample(task, 5, outcome=Outcome.ERROR),
        sample(task, 6, answer="?"),
        sample(task, 7, answer=None, outcome=Outcome.TIMED_OUT),
    )
    await write(store, world, FactBatch(drawn, ends=(TaskEnd(task.task_id, 1),)))
    verdicts = {"0": "correct", "0.0": "correct", "5": "wrong"}
    found = await store.ungraded(world.grader_id, world.sweep_id, 100)
    assert {(a.text, a.gold) for a in found} == {(text, "0") for text in ("0", "0.0", "5", "?")}
    grades = [GradeRecord(a.answer_id, verdicts[a.text], "exact") for a in found if a.text in verdicts]
    await store.write_grades(world.grader_id, grades)
    return world


async def test_every_sample_has_one_verdict(store: Store) -> None:
    await graded_world(store)
    verdicts = await rows(store, "SELECT verdict FROM v_samples ORDER BY sample_index")
    assert [v for (v,) in verdicts] == [
        "correct", "correct", "wrong", "no_answer", "truncated", "error", "ungraded", "truncated",
    ]  # fmt: skip
    counts = """SELECT samples, correct, wrong, no_answer, truncated, errors, ungraded, pass_at_1, mean_tokens
        FROM v_accuracy WHERE sweep = 's'"""
    ((*numbers, pass_at_1, mean_tokens),) = await rows(store, counts)
    assert [int(n) for n in numbers] == [8, 2, 1, 1, 2, 1, 1]
    assert float(pass_at_1) == pytest.approx(2 / 6)
    assert float(mean_tokens) == pytest.approx(10.0)
    per_problem = "SELECT n, correct, ungraded FROM v_problem_counts"
    assert [tuple(map(int, row)) for row in await rows(store, per_problem)] == [(8, 2, 1)]


@pytest.mark.parametrize("seed", range(4))
async def test_counts_are_those_of_samples_one_by_one(store: Store, seed: int) -> None:
    """However samples ended, answered or not, and whatever a grader said; with two sweeps and two extractors."""
    rng = random.Random(seed)
    world = await build(store, count=3, samples=60, task_size=60)
    small = await store.register_sweep("small", "{}", "h", 7)
    await store.register_pools(small.id, world.generator_id, 7, "best_of_n", world.problem_ids, 25)
    for task in await store.claim(world.sweep_id, world.lane_id, world.run_id, 3):
        drawn = tuple(
            sample(task, index, answer=rng.choice([None, *"abcde"]), outcome=rng.choice(list(Outcome)))
            for index in rng.sample(range(60), 50)
        )
        await write(store, world, FactBatch(drawn))
    words = dict(zip("abcde", ["correct", "wrong", "unparsable", "timeout", None], strict=True))
    grades = [
        GradeRecord(each.answer_id, word)
        for each in await store.ungraded(world.grader_id, world.sweep_id, 100)
        if (word := words[each.text]) is not None
    ]
    await store.write_grades(world.grader_id, grades)
    await store.set_gold_status({world.problem_ids[2]: "gold_unparsable"})
    if seed % 2:  # of which nothing is known yet: no answer was looked for
        await store.choose_grading(
            small.id, extractor_id=await store.register_extractor("other", "1"), grader_id=world.grader_id
        )
    columns = ("correct", "wrong", "truncated", "no_answer", "error")
    found = {
        (sweep, pool): Counter(
            {name: int(n) for name, n in zip(("all", "tokens", *columns), counts, strict=True) if n}
        )
        for sweep, pool, *counts in await rows(
            store,
            "SELECT sweep_id, pool_id, n, completion_tokens, correct, wrong, truncated, no_answer, errors"
            " FROM v_problem_counts",
        )
    }
    wanted: dict[tuple[int, int], Counter[str]] = {}
    for sweep, pool, verdict, tokens in await rows(
        store, "SELECT sweep_id, pool_id, verdict, completion_tokens FROM v_samples"
    ):
        cell = wanted.setdefault((sweep, pool), Counter())
        cell.update({"all": 1, "tokens": tokens or 0} | ({verdict: 1} if verdict in columns else {}))
    assert found == wanted
    assert len(found) == 6


async def test_an_unreadable_reference_makes_nobody_wrong(store: Store) -> None:
    world = await graded_world(store)
    await store.set_gold_status({world.problem_ids[0]: "gold_unparsable"})
    ((correct, wrong, ungraded),) = await rows(store, "SELECT correct, wrong, ungraded FROM v_accuracy")
    assert [int(correct), int(wrong), int(ungraded)] == [0, 0, 4]


async def test_a_sweep_looks_only_at_the_samples_it_wants(store: Store) -> None:
    world = await graded_world(store)
    small = await store.register_sweep("small", "{}", "h", 7)
    await store.register_pools(small.id, world.generator_id, 7, "best_of_n", world.problem_ids, 3)
    seen = await rows(store, "SELECT sample_index FROM v_samples WHERE sweep = 'small' ORDER BY 1")
    assert seen == [(0,), (1,), (2,)]
    (progress,) = await store.progress(small.id)
    assert (progress.samples_wanted, progress.samples_stored) == (3, 3)


async def test_estimators_get_samples_with_answers_and_clusters(store: Store) -> None:
    world = await graded_world(store)
    answers = await store.answers_of(world.problem_ids[0], world.grader_id)
    ids = {answer.text: answer.answer_id for answer in answers}
    assert await store.write_clusters(world.grader_id, {ids["0.0"]: ids["0"], ids["0"]: ids["0"]}) == 2
    (pool,) = await store.sample_pools(world.sweep_id)
    assert (pool.pool_id, pool.samples_wanted, pool.level) == (world.pool_ids[0], 8, "1")
    known = await store.sweep_answers(world.sweep_id, world.grader_id)
    by_id = {each.answer_id: each for each in known[world.problem_ids[0]]}
    (found,) = await store.pool_samples([pool], [], world.extractor_id)
    indices, answer_ids, tokens = (
        json.loads(f"[{text}]")
        for text in (found.samples.indices, found.samples.answers, found.samples.tokens)
    )
    assert indices == list(range(8))
    cells = Counter(
        (outcome, by_id[answer].cluster_id or answer, by_id[answer].verdict)
        if answer
        else (outcome, None, None)
        for outcome, answer in zip(found.samples.outcomes.split(","), answer_ids, strict=True)
    )
    assert cells == {
        ("complete", ids["0"], "correct"): 2,
        ("complete", ids["5"], "wrong"): 1,
        ("complete", ids["?"], None): 1,
        ("complete", None, None): 1,
        ("truncated", None, None): 1,
        ("timed_out", None, None): 1,
        ("error", None, None): 1,
    }
    assert sum(count or 0 for count in tokens) == 70


async def test_a_new_grader_version_reads_no_old_verdict(store: Store) -> None:
    world = await graded_world(store)
    second = await store.register_grader("exact", "2")
    assert len(await store.ungraded(second, world.sweep_id, 100)) == 4
    assert int(await value(store, "SELECT ungraded FROM v_accuracy")) == 4
    await store.choose_grading(world.sweep_id, extractor_id=None, grader_id=world.grader_id)
    assert int(await value(store, "SELECT ungraded FROM v_accuracy")) == 1


async def test_graders_are_compared_over_what_both_decided(store: Store) -> None:
    world = await graded_world(store)
    second = await store.register_grader("other", "1")
    for answer in await store.ungraded(second, world.sweep_id, 100):
        verdict = {"0": "correct", "?": "correct"}.get(answer.text, "wrong")
        await store.write_grades(second, [GradeRecord(answer.answer_id, verdict)])
    ((answers, agreed, only_a, rate),) = await rows(
        store, "SELECT answers, agreed, only_a_correct, agreement FROM v_agreement"
    )
    assert [int(answers), int(agreed), int(only_a)] == [3, 2, 1]
    assert float(rate) == pytest.approx(2 / 3)


async def test_results_of_a_version_are_replaced_and_the_newest_version_shown(store: Store) -> None:
    world = await build(store)
    (selector,) = await store.register_selectors([SelectorRecord("majority", "majority", None, None)])
    result = ResultRecord("best_of_n", selector, 8, "accuracy", "1", 0.5, 0.1, 0.3, 0.7, 0.0, 2)
    await store.write_results(world.sweep_id, [result])
    await store.write_results(world.sweep_id, [replace(result, value=0.6)])
    assert await rows(store, "SELECT selector, value FROM v_results") == [("majority", 0.6)]
    await store.write_results(world.sweep_id, [replace(result, value=0.7, estimator_version="2")])
    assert await rows(store, "SELECT value, estimator_version FROM v_results") == [(0.7, "2")]
    assert await value(store, "SELECT COUNT(*) FROM results") == 2


# People ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM problems",
        "INSERT INTO graders (name, version) VALUES ('x', '1') RETURNING id",
        "UPDATE sweeps SET name = 'x'",
        "DROP TABLE problems",
        "CREATE TEMPORARY TABLE x (a INTEGER)",
        "VACUUM",
        "COMMIT",
        "SELECT 1; DELETE FROM problems",
        "not sql at all",
        "",
    ],
)
async def test_a_query_cannot_write(store: Store, sql: str) -> None:
    await build(store)
    with pytest.raises(QueryRefused):
        await store.query(sql)
    assert await value(store, "SELECT COUNT(*) FROM problems") == 2
    assert await value(store, "SELECT name FROM sweeps") == "s"


async def test_a_query_cannot_reach_other_files_or_programs(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    attempts = [f"ATTACH '{target}' AS x", f"VACUUM INTO '{target}'"]
    if store.shown_url.startswith("postgresql"):
        attempts = [f"COPY (SELECT 1) TO PROGRAM 'cat > {target}'", f"COPY (SELECT 1) TO '{target}'"]
    for attempt in attempts:
        with pytest.raises(QueryRefused):
            await store.query(attempt)
    assert not target.exists()


async def test_a_query_is_limited_in_rows_and_time(store: Store) -> None:
    await store.register_problems(problems(20))
    found = await store.query("SELECT id, dataset FROM problems ORDER BY id", limit=3)
    assert found.columns == ["id", "dataset"]
    assert len(found.rows) == 3
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i > 0) SELECT MAX(i) FROM n"
    )
    if store.shown_url.startswith("postgresql"):
        endless = "SELECT pg_sleep(60)"
    with pytest.raises(QueryRefused, match="longer than"):
        await store.query(endless, timeout_s=0.2)


async def test_every_table_view_and_column_is_explained(store: Store) -> None:
    known = {(a, b): c for a, b, c in (await store.query("SELECT * FROM schema_comments", limit=9999)).rows}
    assert all(known.values())
    views = {name for name, column in known if name.startswith("v_") and not column}
    for view in views:
        columns = (await store.query(f"SELECT * FROM {view}")).columns
        assert columns == [column for name, column in known if name == view and column] or set(columns) == {
            column for name, column in known if name == view and column
        }
    assert {"v_samples", "v_accuracy", "v_steps", "v_tree", "v_cost", "v_progress"} <= views


# Opening --------------------------------------------------------------------------------------------------


async def test_a_store_opened_for_reading_cannot_write(store: Store, store_url: str) -> None:
    await build(store)
    async with await Store.open(store_url, read_only=True) as reader:
        assert len(await reader.sweeps()) == 1
        with pytest.raises(StoreError):
            await reader.register_sweep("x", "{}", "h", 1)


async def test_a_password_is_never_shown() -> None:
    with pytest.raises(StoreError) as caught:
        await Store.open("postgresql://user:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StoreRefused) as refused:
        await Store.open("mysql://user:hunter2@h/none")
    assert "hunter2" not in str(refused.value)


def test_records_of_the_world_differ() -> None:
    assert len({p.content_hash for p in problems(50)}) == 50
    assert isinstance(problems(1)[0], ProblemRecord)
    assert Trajectory.__slots__


# Files ------------------------------------------------------------------------------------------------


async def test_a_file_that_was_abandoned_while_it_was_created_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "abandoned.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert path.stat().st_size > 0
    with pytest.raises(StoreRefused, match="ttc db upgrade"):
        await Store.open(str(path), create=False)
    async with await Store.open(str(path)) as store:
        assert await store.sweeps() == []
