"""What every pool of workers must do, in this process and on Ray; and what only happens where there are processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from orchestrator.execution.pool import LocalPool, WorkerGone, WorkerPool
from tests.fault_server import FaultServer, default_text
from workers.types import (
    DRAINED,
    Api,
    EndpointSettings,
    EngineLoad,
    FactBatch,
    GeneratorSettings,
    Outcome,
    ReplicaSet,
    SampleTask,
    Sampling,
)
from workers.worker import WorkerSettings

if TYPE_CHECKING:
    from orchestrator.execution.ray_pool import RayPool

pytestmark = pytest.mark.timeout(180)
TEMPLATE = "{problem}\n\n"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def started_ray(start_ray: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """One Ray for all tests here."""
    with start_ray():
        yield


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("started_ray")
    return str(request.param)


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as started:
        yield started


def settings(server: FaultServer, *, concurrency: int = 16, n: int = 4) -> WorkerSettings:
    endpoint = EndpointSettings("policy", (server.url,), concurrency=concurrency)
    generator = GeneratorSettings(
        1, "fingerprint", server.model, Api.COMPLETIONS, TEMPLATE, None, Sampling(max_tokens=64), n, endpoint
    )
    return WorkerSettings((generator,))


@asynccontextmanager
async def opened(kind: str, given: WorkerSettings, count: int) -> AsyncIterator[WorkerPool]:
    """A pool whose workers are ready."""
    pool: WorkerPool
    if kind == "ray":
        from orchestrator.execution.ray_pool import RayPool

        pool = RayPool(given, count)
    else:
        pool = LocalPool(given, count)
    async with pool:
        await asyncio.gather(*(pool.wait_ready(number) for number in pool.workers))
        yield pool


@asynccontextmanager
async def ray_pool(given: WorkerSettings, count: int = 1) -> AsyncIterator[RayPool]:
    from orchestrator.execution.ray_pool import RayPool

    async with opened("ray", given, count) as pool:
        assert isinstance(pool, RayPool)
        yield pool


def task(number: int, samples: int = 16) -> SampleTask:
    return SampleTask(number, 1, 1, number, number, f"What is {number}?", 1, 1000 * number, ((0, samples),))


async def facts(pool: WorkerPool, worker: int, lot: Sequence[SampleTask]) -> list[FactBatch]:
    return [batch async for batch in pool.run(worker, lot)]


def drawn(batches: Sequence[FactBatch]) -> Counter[tuple[int, int]]:
    """How often each (task, sample) was delivered."""
    return Counter((each.task_id, each.sample_index) for batch in batches for each in batch.trajectories)


def wanted(lot: Sequence[SampleTask]) -> Counter[tuple[int, int]]:
    return Counter(
        (each.task_id, start + k) for each in lot for start, count in each.spans for k in range(count)
    )


async def test_a_lot_streams_every_fact_once_and_ends_every_task(kind: str, server: FaultServer) -> None:
    lot = [task(1), task(2, 10), SampleTask(3, 7, 1, 3, 3, "What is 3?", 1, 3000, ((2, 3), (9, 1)))]
    async with opened(kind, settings(server), 1) as pool:
        batches = await facts(pool, 0, lot)
    assert drawn(batches) == wanted(lot)
    ends = [(end.task_id, end.attempt, end.error_kind) for batch in batches for end in batch.ends]
    assert sorted(ends) == [(1, 1, None), (2, 1, None), (3, 7, None)]
    for batch in batches:
        for each in batch.trajectories:
            assert each.outcome is Outcome.COMPLETE
            assert each.seed == 1000 * each.task_id + each.sample_index
            assert each.text == default_text(f"What is {each.problem_id}?\n\n", each.seed)
    spent = Counter[int]()
    for batch in batches:
        for usage in batch.usage:
            spent[usage.task_id] += usage.completion_tokens
    tokens = Counter[int]()
    for batch in batches:
        for each in batch.trajectories:
            tokens[each.task_id] += each.completion_tokens or 0
    assert spent == tokens


async def test_a_task_ends_with_or_after_its_last_fact(kind: str, server: FaultServer) -> None:
    lot = [task(number) for number in range(1, 9)]
    async with opened(kind, settings(server), 1) as pool:
        batches = await facts(pool, 0, lot)
    ended: set[int] = set()
    for batch in batches:
        assert ended.isdisjoint(each.task_id for each in batch.trajectories)
        ended |= {end.task_id for end in batch.ends}
    assert ended == set(range(1, 9))


async def test_many_lots_at_once_on_several_workers(kind: str, server: FaultServer) -> None:
    server.latency_s = 0.01
    lots = [[task(3 * lot + k) for k in (1, 2, 3)] for lot in range(20)]
    async with opened(kind, settings(server), 2) as pool:
        found = await asyncio.gather(*(facts(pool, number % 2, lot) for number, lot in enumerate(lots)))
    for batches, lot in zip(found, lots, strict=True):
        assert drawn(batches) == wanted(lot)


async def test_an_error_of_the_sweep_ends_its_task_with_a_reason(kind: str, server: FaultServer) -> None:
    server.api_key = "right"
    async with opened(kind, settings(server), 1) as pool:
        batches = await facts(pool, 0, [task(1)])
    (end,) = [end for batch in batches for end in batch.ends]
    assert end.error_kind == "misconfigured"
    assert "401" in str(end.error_text)


async def test_health_shows_what_is_under_way(kind: str, server: FaultServer) -> None:
    server.latency_s = 30.0
    async with opened(kind, settings(server, concurrency=3), 1) as pool:
        idle = await pool.health(0, PATIENCE_S)
        assert (idle.in_flight, [each.url for each in idle.replicas]) == (0, [server.url])
        stream = asyncio.ensure_future(facts(pool, 0, [task(1, 40)]))
        await until(lambda: server.in_flight == 3)
        busy = await pool.health(0, PATIENCE_S)
        assert (busy.in_flight, busy.queued_samples, busy.paused_reason) == (3, 40, None)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


async def test_a_restarted_worker_serves_again(kind: str, server: FaultServer) -> None:
    async with opened(kind, settings(server), 1) as pool:
        await facts(pool, 0, [task(1)])
        await pool.restart(0)
        batches = await served(pool, 0, [task(2)])
    assert drawn(batches) == wanted([task(2)])


async def test_the_streams_of_a_restarted_worker_end_as_lost(kind: str, server: FaultServer) -> None:
    server.latency_s = 30.0
    async with opened(kind, settings(server), 1) as pool:
        stream = asyncio.ensure_future(facts(pool, 0, [task(1)]))
        await until(lambda: server.in_flight > 0)
        await pool.restart(0)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(WorkerGone):
                await stream
        server.latency_s = 0.0
        assert drawn(await served(pool, 0, [task(2)])) == wanted([task(2)])


async def test_a_drained_worker_delivers_what_is_under_way_and_sends_nothing_more(
    kind: str, server: FaultServer
) -> None:
    server.latency_s = 0.5
    async with opened(kind, settings(server, concurrency=3), 1) as pool:
        stream = asyncio.ensure_future(facts(pool, 0, [task(1, 40), task(2, 40)]))
        await until(lambda: server.in_flight == 3)
        await pool.drain(0)
        async with asyncio.timeout(PATIENCE_S):
            batches = await stream
    assert server.requests == 3
    assert set(drawn(batches).values()) == {1}
    assert drawn(batches).total() == server.served.total() == 12
    ends = {end.task_id: end.error_kind for batch in batches for end in batch.ends}
    assert ends == {1: DRAINED, 2: DRAINED}


def engine_settings(url: str) -> WorkerSettings:
    """Workers whose endpoint is served by engines."""
    endpoint = EndpointSettings("policy", (url,), concurrency=4, engines="models.policy")
    generator = GeneratorSettings(
        1, "fingerprint", "stub", Api.COMPLETIONS, TEMPLATE, None, Sampling(max_tokens=64), 4, endpoint
    )
    return WorkerSettings((generator,))


async def test_requests_go_where_engines_serve_now(kind: str, server: FaultServer) -> None:
    async with FaultServer() as other, opened(kind, engine_settings(server.url), 1) as pool:
        await facts(pool, 0, [task(1)])
        before = server.requests
        await pool.set_replicas(0, ReplicaSet("models.policy", (other.url,), 2))
        await pool.set_replicas(0, ReplicaSet("models.policy", (server.url,), 1))  # overtaken
        await pool.set_replicas(0, ReplicaSet("scorers.policy", (server.url,), 9))  # another's
        assert drawn(await facts(pool, 0, [task(2)])) == wanted([task(2)])
        assert (server.requests, other.requests) == (before, 4)


async def test_without_an_engine_requests_wait_and_do_not_fail(kind: str, server: FaultServer) -> None:
    async with opened(kind, engine_settings(server.url), 1) as pool:
        await pool.set_replicas(0, ReplicaSet("models.policy", (), 1))
        stream = asyncio.ensure_future(facts(pool, 0, [task(1)]))
        load = await loaded(pool)
        assert (load.in_flight, load.waiting) == (0, 4)
        health = await pool.health(0, PATIENCE_S)
        assert health.paused_reason == "no engine of policy is up"
        await pool.set_replicas(0, ReplicaSet("models.policy", (server.url,), 2))
        assert drawn(await stream) == wanted([task(1)])
        kinds = [event.kind for event in (*health.events, *(await pool.health(0, PATIENCE_S)).events)]
    assert [kind for kind in kinds if kind in ("paused", "resumed")][-1] == "resumed"


async def loaded(pool: WorkerPool) -> EngineLoad:
    """What a worker has for its engines, once it has something."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (load,) = (await pool.health(0, PATIENCE_S)).loads
            if load.waiting == 4:
                return load
            await asyncio.sleep(0.01)


async def test_a_restarted_worker_knows_where_engines_serve(kind: str, server: FaultServer) -> None:
    async with FaultServer() as other, opened(kind, engine_settings(server.url), 1) as pool:
        await pool.set_replicas(0, ReplicaSet("models.policy", (other.url,), 1))
        await pool.restart(0)
        assert drawn(await served(pool, 0, [task(1)])) == wanted([task(1)])
        assert (server.requests, other.requests) == (0, 4)


@pytest.mark.ray
@pytest.mark.usefixtures("started_ray")
async def test_what_was_delivered_before_a_worker_was_killed_arrives(server: FaultServer) -> None:
    lot = [task(number, 64) for number in range(1, 9)]
    server.latency_s = 0.02
    async with ray_pool(settings(server, concurrency=4)) as pool:
        first_pid = await pool.pid(0)
        batches: list[FactBatch] = []
        with pytest.raises(WorkerGone, match="worker 0"):
            await take(pool, lot, batches, kill=first_pid)
        found = drawn(batches)
        assert 0 < len(found) < 8 * 64
        assert set(found.values()) == {1}
        server.latency_s = 0.0
        assert drawn(await served(pool, 0, lot)) == wanted(lot)
        assert await pool.pid(0) != first_pid


async def take(pool: WorkerPool, lot: Sequence[SampleTask], into: list[FactBatch], *, kill: int) -> None:
    """Take the batches of a lot; with the third one, kill a process."""
    async for batch in pool.run(0, lot):
        into.append(batch)
        if len(into) == 3:
            os.kill(kill, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.usefixtures("started_ray")
async def test_the_death_of_one_worker_disturbs_no_other(server: FaultServer) -> None:
    server.latency_s = 0.05
    async with ray_pool(settings(server, concurrency=4), count=2) as pool:
        streams = [asyncio.ensure_future(facts(pool, number, [task(number + 1, 64)])) for number in (0, 1)]
        await until(lambda: server.requests > 8)
        os.kill(await pool.pid(0), signal.SIGKILL)
        with pytest.raises(WorkerGone):
            await streams[0]
        assert drawn(await streams[1]) == wanted([task(2, 64)])


@pytest.mark.ray
@pytest.mark.usefixtures("started_ray")
async def test_a_worker_that_does_not_answer_is_noticed_and_replaced(server: FaultServer) -> None:
    async with ray_pool(settings(server)) as pool:
        pid = await pool.pid(0)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerGone):
            await pool.health(0, 1.0)
        await pool.restart(0)
        assert drawn(await served(pool, 0, [task(1)])) == wanted([task(1)])
        assert await pool.pid(0) != pid


async def served(pool: WorkerPool, worker: int, lot: Sequence[SampleTask]) -> list[FactBatch]:
    """Facts of a lot from a worker that is about to be replaced: what the coordinator does, without its bookkeeping."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await pool.wait_ready(worker)
                return await facts(pool, worker, lot)
            except WorkerGone:
                await asyncio.sleep(0.1)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition that workers bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 -- other processes have no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.ray
async def test_every_node_says_what_it_has_and_what_it_reaches(
    started_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.execution.ray_nodes import look_at_nodes, versions_here

    monkeypatch.delenv("TTC_TEST_KEY", raising=False)
    async with FaultServer() as server:
        gone = EndpointSettings("gone", ("http://127.0.0.1:9/v1",))
        keyed = EndpointSettings("keyed", (server.url,), api_key_env="TTC_TEST_KEY")
        there = EndpointSettings("there", (server.url,))
        (report,) = await look_at_nodes([gone, keyed, there])
    assert report.error is None
    assert report.versions == versions_here()
    assert abs(report.ahead_s) <= report.uncertainty_s + 0.1  # one machine, one clock
    errors = {each.subject: each.error for each in report.reached}
    assert errors["there"] is None
    assert "TTC_TEST_KEY" in str(errors["keyed"])
    assert "9" in str(errors["gone"])
