"""What every pool of engines must do, in this process and on Ray; and what happens where holders can die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from orchestrator.errors import EndpointProblem
from orchestrator.execution.engines.pool import EngineGone, EnginePool, LocalEngines
from orchestrator.spec.engine_settings import EngineGroup, Needs, Scale
from tests.chaos.processes import Traces, title_of
from tests.engine_world import PATIENCE_S, TINY, marked, servers, tiny, until
from tests.sweep_world import SweepFolder, rows_of
from workers.engines import EngineReport, EngineSettings, Phase

pytestmark = pytest.mark.timeout(180)

GPUS = "0,1"


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """What this module starts."""
    with pytest.MonkeyPatch.context() as patch, marked(patch, tmp_path_factory.mktemp("marks")) as found:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        yield found


@pytest.fixture(scope="module")
def started_ray(traces: Traces, start_ray: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """One Ray for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", GPUS)
        with start_ray(num_gpus=2):
            yield


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ray":
        request.getfixturevalue("started_ray")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS)
    return str(request.param)


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[EnginePool]:
    pool: EnginePool
    if kind == "ray":
        from orchestrator.execution.engines.ray_engines import RayEngines

        pool = RayEngines()
    else:
        pool = LocalEngines()
    async with pool:
        yield pool


def group(settings: EngineSettings, gpus: float = 0.0) -> EngineGroup:
    return EngineGroup(settings, Needs(gpus=gpus), Scale(1, 1, 1))


async def reported(pool: EnginePool, number: int, phase: Phase) -> EngineReport:
    """The report of an engine once it is so far."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                report = await pool.report(number, 5.0)
            except EngineGone:
                report = None
            if report is not None and report.phase is phase:
                return report
            await asyncio.sleep(0.05)


async def lost(pool: EnginePool, number: int) -> None:
    """Return when the holder of an engine is known to be gone."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await pool.report(number, 5.0)
            except EngineGone:
                return


async def test_engines_come_up_and_go_one_by_one_and_all_together(kind: str, traces: Traces) -> None:
    async with opened(kind) as pool:
        for number in range(3):
            pool.start(number, number, group(tiny()))
        reports = await asyncio.gather(*(reported(pool, number, Phase.UP) for number in range(3)))
        assert len({report.url for report in reports}) == 3
        await pool.stop(1)
        pids = {each.pid for each in servers(traces, TINY)}
        assert pids == {reports[0].pid, reports[2].pid}
    await until(lambda: not servers(traces, TINY), "nothing was left")


async def test_a_killed_server_is_replaced(kind: str, traces: Traces) -> None:
    async with opened(kind) as pool:
        pool.start(0, 0, group(tiny()))
        first = await reported(pool, 0, Phase.UP)
        os.kill(first.pid or 0, signal.SIGKILL)
        await reported(pool, 0, Phase.BACKING_OFF) if kind == "local" else None
        second = await reported(pool, 0, Phase.UP)
        while second.pid == first.pid:
            second = await reported(pool, 0, Phase.UP)
        assert second.url != first.url


async def test_one_that_gives_up_says_why(kind: str, traces: Traces) -> None:
    async with opened(kind) as pool:
        script = "import sys; print('no weights'); sys.exit(int(len(sys.argv[1]) > 0))"
        settings = EngineSettings("models.policy", ("{python}", "-c", script, "{port}"), max_restarts=0)
        pool.start(0, 0, group(settings))
        report = await reported(pool, 0, Phase.FAILED)
    assert report.log_tail == ("no weights",)
    assert report.error == "it ended with exit status 1"


async def test_each_has_gpus_of_its_own(kind: str, traces: Traces) -> None:
    async with opened(kind) as pool:
        for number in range(2):
            pool.start(number, number, group(tiny(), gpus=1.0))
        await asyncio.gather(*(reported(pool, number, Phase.UP) for number in range(2)))
        given = {each.environ()["CUDA_VISIBLE_DEVICES"] for each in servers(traces, TINY)}
        assert given == {"0", "1"}


async def test_what_will_never_fit_is_refused(kind: str, traces: Traces) -> None:
    async with opened(kind) as pool:
        with pytest.raises(EndpointProblem, match=r"models\.policy: a replica needs 3 GPU"):
            pool.start(0, 0, group(tiny(), gpus=3.0))


@pytest.mark.ray
@pytest.mark.usefixtures("started_ray")
async def test_a_killed_holder_takes_its_server_along_and_comes_back_with_another(traces: Traces) -> None:
    async with opened("ray") as pool:
        pool.start(0, 0, group(tiny("--child")))
        first = await reported(pool, 0, Phase.UP)
        ours = psutil.Process().children(recursive=True)
        (actor,) = [each for each in ours if title_of(each).startswith("ray::EngineActor")]
        actor.kill()
        await lost(pool, 0)
        second = await reported(pool, 0, Phase.UP)
        assert second.pid != first.pid
        for word in (TINY, "sleep(600)"):
            await until(lambda word=word: len(servers(traces, word)) == 1, "the first server was gone")  # type: ignore[misc]


@pytest.mark.ray
@pytest.mark.usefixtures("started_ray")
async def test_a_whole_sweep_on_two_engines(tmp_path: Path, traces: Traces) -> None:
    folder = SweepFolder(tmp_path)
    sweep = {
        "name": "whole",
        "problems": {"preset": "arithmetic", "limit": 4},
        "models": {"policy": {"model": "arithmetic", "engine": {"template": "embedded", "replicas": 2}}},
        "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 16}],
    }
    folder.file.write_text(yaml.safe_dump(sweep))
    ended = await folder.run_here(is_local=False)
    assert (ended.report.reason, ended.report.samples_stored) == ("complete", 64)
    rows = await rows_of(folder.database)
    assert len(rows["trajectories"]) == 64
    assert not servers(traces, "workers.embedded.serve")
