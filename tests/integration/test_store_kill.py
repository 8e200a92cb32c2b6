"""A process that writes is killed at random points; whatever is there afterwards is whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from orchestrator.store import Store, StoreUnavailable, Writer
from orchestrator.store.postgres import VANISHED_S, postgres_engine
from tests.store_world import World, build, whole

KILLS = 4
SAMPLES = 512

CHECKS = {
    "a trajectory without text": """SELECT COUNT(*) FROM trajectories t
        LEFT JOIN trajectory_texts x ON x.trajectory_id = t.id WHERE x.text IS NULL""",
    "a trajectory without extraction": """SELECT COUNT(*) FROM trajectories t
        LEFT JOIN extractions x ON x.trajectory_id = t.id WHERE x.trajectory_id IS NULL""",
    "a done task that lacks a sample": """SELECT COUNT(*) FROM tasks k WHERE k.state = 2 AND k.sample_count <> (
        SELECT COUNT(*) FROM trajectories t WHERE t.id >= CAST(k.pool_id AS BIGINT) * 1048576 + k.sample_start
        AND t.id < CAST(k.pool_id AS BIGINT) * 1048576 + k.sample_start + k.sample_count)""",
    "usage that does not match": """SELECT COUNT(*) FROM (SELECT t.task_id, COUNT(*) AS n FROM trajectories t
        GROUP BY t.task_id) s LEFT JOIN usage u ON u.task_id = s.task_id AND u.completion_tokens = 10 * s.n
        WHERE u.task_id IS NULL""",
}


@pytest.mark.chaos
async def test_a_killed_writer_leaves_whole_facts(store_url: str) -> None:
    async with await Store.open(store_url) as store:
        await build(store, count=4, samples=SAMPLES, task_size=2)
    for seed in range(KILLS):
        await run_and_kill(store_url, after_s=random.Random(seed).uniform(0.05, 0.5))
        async with await Store.open(store_url) as store:
            for fault, sql in CHECKS.items():
                assert (await store.query(sql)).rows == [(0,)], fault
    async with await Store.open(store_url) as store:
        stored = (await store.progress())[0].samples_stored
        assert stored > 0
        await finish(store)
        (progress,) = await store.progress()
        assert (progress.samples_stored, progress.tasks_done) == (4 * SAMPLES, 4 * SAMPLES // 2)


@pytest.mark.postgres
async def test_lost_connections_lose_and_repeat_nothing(postgres_url: str) -> None:
    """As when the server restarts: every connection is cut, again and again, while the writer commits."""
    async with await Store.open(postgres_url) as store:
        world = await build(store, count=4, samples=SAMPLES, task_size=2)
        cutter = await asyncpg.connect(postgres_url)
        working = asyncio.create_task(work(store, world, limit=10_000, announce=False))
        cuts = 0
        while not await cutter.fetchval("SELECT EXISTS (SELECT 1 FROM trajectories)"):
            await asyncio.wait([working], timeout=0.02)  # the claim, made once, is not what is tested here
        while not working.done():
            cuts += await cutter.fetchval(
                """SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
            await asyncio.wait([working], timeout=0.2)
        await cutter.close()
        await working
        assert cuts > 0
        for fault, sql in CHECKS.items():
            assert (await store.query(sql)).rows == [(0,)], fault
        (progress,) = await store.progress()
        assert (progress.samples_stored, progress.tasks_done) == (4 * SAMPLES, 4 * SAMPLES // 2)


@pytest.mark.postgres
async def test_a_standby_is_waited_for_and_left(postgres_url: str) -> None:
    """As when a failover leads to a server that only reads, until it is promoted or the address moves on."""
    async with await Store.open(postgres_url) as store:
        world = await build(store)
        name = sa.make_url(postgres_url).database
        admin = await asyncpg.connect(postgres_url)
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await admin.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store.heartbeat(world.run_id)
        assert (await store.progress())[0].tasks_pending == 4
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await admin.close()
        with contextlib.suppress(
            StoreUnavailable
        ):  # at most once: the connection that reading has left behind
            await store.heartbeat(world.run_id)
        assert await store.heartbeat(world.run_id) is False


@pytest.mark.postgres
async def test_a_host_that_vanishes_is_noticed_by_the_system(postgres_url: str) -> None:
    """No network can be cut here: that the system was asked to look is all that can be tested."""
    url = sa.make_url(postgres_url)
    path = f"{url.query['host']}/.s.PGSQL.5432"

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_unix_connection(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, to_server[1]))
            group.create_task(pump(to_server[0], writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        over_tcp = url.set(drivername="postgresql+asyncpg", host=host, port=port, query={})
        engine = postgres_engine(over_tcp)
        async with engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            found = raw._transport.get_extra_info("socket")
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == VANISHED_S * 1000
        await engine.dispose()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def run_and_kill(url: str, after_s: float) -> None:
    """Kill the writing process `after_s` after its first acknowledged commit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.test_store_kill", url,
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"writing\n"
    await asyncio.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()


async def finish(store: Store) -> None:
    (sweep,) = await store.sweeps()
    (lane,) = await store.sweep_lanes(sweep.id)
    extractor_id = await store.register_extractor("boxed", "1")
    run_id = await store.start_run(sweep.id, "host", os.getpid())
    world = World(sweep.id, lane.id, run_id, extractor_id, 1, 1, [], [])
    await work(store, world, limit=10_000, announce=False)


async def work(store: Store, world: World, limit: int, *, announce: bool) -> None:
    """Claim everything that may be claimed and write it, a task a batch."""
    async with Writer(store, run_id=world.run_id, extractor_id=world.extractor_id) as writer:
        far_ahead = 4e9  # leases of the killed have run out
        tasks = await store.claim(world.sweep_id, world.lane_id, world.run_id, limit, now=far_ahead)
        for start in range(0, len(tasks), 8):
            async with asyncio.TaskGroup() as group:
                for task in tasks[start : start + 8]:
                    group.create_task(writer.put(whole(task)))
            if announce and start == 0:
                print("writing", flush=True)


async def main(url: str) -> None:
    async with await Store.open(url) as store:
        (sweep,) = await store.sweeps()
        (lane,) = await store.sweep_lanes(sweep.id)
        extractor_id = await store.register_extractor("boxed", "1")
        run_id = await store.start_run(sweep.id, "host", os.getpid())
        await work(
            store, World(sweep.id, lane.id, run_id, extractor_id, 1, 1, [], []), limit=400, announce=True
        )
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
