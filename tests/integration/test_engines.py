"""Whole sweeps on engines: whatever happens to a server, the rows are those of a sweep that nobody disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator.errors import EndpointProblem
from orchestrator.execution.engines.fleet import Fleet
from orchestrator.execution.engines.pool import LocalEngines
from orchestrator.execution.pool import LocalPool
from orchestrator.spec.engine_settings import EngineGroup, Needs, Scale
from orchestrator.store import Store
from tests.chaos.processes import Traces, start_run
from tests.engine_world import TINY, marked, servers, tiny, until
from tests.sweep_world import Ended, Rows, SweepFolder, assert_same_rows, rows_of
from workers.types import EngineLoad, Event, WorkerHealth
from workers.worker import WorkerSettings

SAMPLES = 32
SERVE = "workers.embedded.serve"
EMBEDDED = {"template": "embedded"}
PRM = {"kind": "prm", "model": "arithmetic-prm-soft", "engine": EMBEDDED}


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Traces]:
    with marked(monkeypatch, tmp_path) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the sweep comes to on `embedded: arithmetic`, undisturbed."""
    folder = SweepFolder(tmp_path_factory.mktemp("calm"))
    write(folder, {})
    sweep = yaml.safe_load(folder.file.read_text())
    del sweep["models"]["policy"]["engine"], sweep["models"]["policy"]["model"]
    sweep["models"]["policy"]["embedded"] = "arithmetic"
    folder.file.write_text(yaml.safe_dump(sweep))

    async def rows() -> Rows:
        await folder.run_here()
        return await rows_of(folder.database)

    return asyncio.run(rows())


def write(folder: SweepFolder, engine: Mapping[str, Any], *, is_slow: bool = False, **more: Any) -> None:
    """A sweep over sums that the embedded model was trained on; slow: one sample after the other."""
    sweep = {
        "name": "whole",
        "seed": 11,
        "problems": {"preset": "arithmetic", "limit": 6},
        "models": {
            "policy": {
                "model": "arithmetic",
                "engine": dict(engine),
                "sampling": {"max_tokens": 128},
                "samples_per_request": 1 if is_slow else "auto",
                "limits": {"concurrency": 1 if is_slow else 4},
            }
        },
        "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": SAMPLES}],
        "limits": {"workers": 2, "task_samples": 16},
        **more,
    }
    folder.file.write_text(yaml.safe_dump(sweep))


async def events(folder: SweepFolder) -> list[tuple[str, str, str]]:
    async with await Store.open(folder.database) as store:
        found = await store.query(
            "SELECT kind, subject, detail FROM events WHERE kind LIKE 'engine_%' ORDER BY id"
        )
    return [(row[0].removeprefix("engine_"), row[1], row[2]) for row in found.rows]


def assert_complete(ended: Ended, traces: Traces) -> None:
    report = ended.report
    assert (report.reason, report.failed_samples, report.failed_tasks) == ("complete", 0, 0)
    assert not servers(traces, SERVE)


async def test_policy_and_scorer_are_served_side_by_side_and_give_the_samples_of_the_embedded_model(
    folder: SweepFolder, traces: Traces, wanted: Rows
) -> None:
    write(folder, {**EMBEDDED, "replicas": 2}, scorers={"prm": PRM})
    ended = await folder.run_here()
    assert_complete(ended, traces)
    assert [each.settled for each in ended.report.scoring] == [6 * SAMPLES]
    found = await rows_of(folder.database)
    assert found["trajectories"] == wanted["trajectories"]
    subjects = {"models.policy/0", "models.policy/1", "scorers.prm/0"}
    told = await events(folder)
    for kind in ("started", "ready", "stopped"):
        assert {subject for each, subject, _ in told if each == kind} == subjects
    told_ready = [str(each["note"]) for each in ended.notes if ": ready: " in str(each.get("note"))]
    assert {text.split(":")[0] for text in told_ready} == subjects


async def test_requests_wait_for_the_successor_of_a_killed_engine(
    folder: SweepFolder, traces: Traces, wanted: Rows
) -> None:
    write(folder, EMBEDDED)
    ended = await folder.run_here(on_first=lambda: strike(traces, signal.SIGKILL))
    assert_complete(ended, traces)
    assert_same_rows(await rows_of(folder.database), wanted)
    told = await events(folder)
    assert [each for each, _, _ in told] == ["started", "ready", "died", "started", "ready", "stopped"]
    assert "SIGKILL" in told[2][2]


async def test_one_of_two_engines_hangs_and_is_replaced(
    folder: SweepFolder, traces: Traces, wanted: Rows
) -> None:
    write(folder, {**EMBEDDED, "replicas": 2, "hang_timeout_s": 1}, is_slow=True)
    ended = await folder.run_here(on_first=lambda: strike(traces, signal.SIGSTOP))
    assert_complete(ended, traces)
    assert_same_rows(await rows_of(folder.database), wanted)
    deaths = [detail for each, _, detail in await events(folder) if each == "died"]
    assert "unanswered for 1 s" in deaths[0]


def strike(traces: Traces, number: signal.Signals) -> None:
    """A signal for the oldest server that is asked for something; another one may still be starting."""
    asked = [each for each in servers(traces, SERVE) if is_connected(each)]
    os.kill(asked[0].pid, number)


def is_connected(process: psutil.Process) -> bool:
    """Has somebody a connection to it?"""
    return any(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections(kind="tcp"))


async def test_an_engine_that_never_serves_ends_the_run_with_the_end_of_its_log(
    folder: SweepFolder, traces: Traces
) -> None:
    script = "import sys; print('out of memory on', sys.argv[1]); sys.exit(3)"
    write(folder, {"command": f'{{python}} -c "{script}" {{port}}', "max_restarts": 1})
    with pytest.raises(EndpointProblem) as caught:
        await folder.run_here()
    text = str(caught.value)
    assert "models.policy/0" in text
    assert "exit status 3" in text
    assert "out of memory on " in text
    assert "ttc doctor" in text
    assert [each for each, _, _ in await events(folder)] == [
        "started",
        "died",
        "started",
        "failed",
    ]


async def test_an_engine_that_is_lost_for_good_ends_the_run_and_keeps_what_is_stored(
    folder: SweepFolder, traces: Traces
) -> None:
    write(folder, {**EMBEDDED, "max_restarts": 0})
    with pytest.raises(EndpointProblem, match=r"models\.policy/0: its server does not stay up.*SIGKILL"):
        await folder.run_here(on_first=lambda: strike(traces, signal.SIGKILL))
    assert not servers(traces, SERVE)
    async with await Store.open(folder.database) as store:
        (progress,) = await store.progress(1)
    assert 0 < progress.samples_stored < 6 * SAMPLES


@pytest.mark.ray
@pytest.mark.timeout(180)
async def test_a_killed_run_on_ray_leaves_no_server_and_is_gone_on_with(
    folder: SweepFolder, traces: Traces, wanted: Rows
) -> None:
    write(folder, {**EMBEDDED, "replicas": 2})
    run = await start_run(traces, folder.file, folder.database, HOME=str(folder.folder))
    await until(lambda: is_stored(folder) or run.has_ended, "something was stored")
    assert len(servers(traces, SERVE)) == 2
    run.process.send_signal(signal.SIGKILL)
    await run.ended()
    await until(lambda: not servers(traces, SERVE), "no server was left")
    assert_complete(await folder.run_here(), traces)
    assert_same_rows(await rows_of(folder.database), wanted)


def is_stored(folder: SweepFolder) -> bool:
    """Has the run stored a sample?"""
    with contextlib.closing(sqlite3.connect(folder.folder / "ttc.db")) as connection:
        try:
            return bool(connection.execute("SELECT 1 FROM trajectories LIMIT 1").fetchall())
        except sqlite3.OperationalError:  # it is being made
            return False


# --- size -------------------------------------------------------------------------------------------------------------


def health(requests: int) -> dict[int, WorkerHealth]:
    """What a worker says that has so many requests."""
    load = EngineLoad("models.policy", 0, requests)
    return {0: WorkerHealth((), 0, 0, None, (), {}, (load,))}


async def test_a_fleet_grows_with_the_requests_and_shrinks_when_they_are_fewer(traces: Traces) -> None:
    told: list[Event] = []
    now = {"requests": 25}

    async def record(events: Any) -> None:
        told.extend(events)

    group = EngineGroup(tiny(), Needs(), Scale(least=1, most=3, requests=10, idle_s=0.5))
    fleet = Fleet(LocalEngines(), [group], lambda _: None, record, scaling_s=0.1)
    async with LocalPool(WorkerSettings(()), 1) as workers, fleet:
        await fleet.ready()
        assert len(servers(traces, TINY)) == 1
        keeping = asyncio.ensure_future(fleet.run(workers, lambda: health(now["requests"])))
        await until(lambda: len(fleet.urls("models.policy")) == 3, "there were three")
        now["requests"] = 5
        await until(lambda: len(servers(traces, TINY)) == 1, "there was one")
        assert len(fleet.urls("models.policy")) == 1
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    kinds = [event.kind for event in told]
    assert kinds.count("engine_retired") == 2
    assert not servers(traces, TINY)
    assert {event.subject for event in told if event.kind == "engine_retired"} == {
        "models.policy/1",
        "models.policy/2",
    }
