"""What a run shows while it goes on: metrics, a log, and events in SQL; scraped, parsed and queried as users would."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.commands import run_file
from orchestrator.errors import SweepFailed, UsageError
from orchestrator.execution.journal import Journal
from orchestrator.execution.metrics.server import MetricsServer, MetricsSettings
from orchestrator.execution.pool import LocalPool, WorkerGone
from orchestrator.execution.progress import JsonReporter, Tally
from orchestrator.execution.watchdog import SILENCES_BEFORE_RESTART, Watchdog
from orchestrator.run_log import run_log
from orchestrator.store import Store
from orchestrator.sweep import RunOptions
from orchestrator.watching import observed
from tests.fault_server import Fault, FaultServer
from tests.store_world import build
from tests.sweep_world import NAME, PROBE_PROMPT, SweepFolder
from workers.types import Event, WorkerHealth
from workers.worker import WorkerSettings

TOKEN = "a-token-of-this-test"


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


async def scraped(url: str) -> dict[tuple[str, ...], float]:
    """Every sample that the run exports, by name and label values."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
        assert reply.status == 200
        families = text_string_to_metric_families(await reply.text())
        return {
            (each.name, *each.labels.values()): each.value for family in families for each in family.samples
        }


def logged(folder: SweepFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.folder / "run.log").read_text("ascii").splitlines()]


async def test_metrics_follow_a_run_and_its_log_tells_what_happened(folder: SweepFolder) -> None:
    notes: list[str] = []
    options = RunOptions(metrics=MetricsSettings("127.0.0.1", 0, TOKEN), log_file=folder.folder / "run.log")
    async with (
        FaultServer(latency_s=0.2) as server,
        observed(NAME, folder.database, options, notes.append) as board,
    ):
        folder.write(server.url, problems=6, samples=64, limits={"concurrency": 8}, parameters=1000)
        (url,) = [note.removeprefix("metrics at ") for note in notes]
        running = asyncio.create_task(folder.run_here(board=board))
        seen: dict[tuple[str, ...], float] = {}
        async with asyncio.timeout(60):
            while not (seen.get(("ttc_samples_total", "complete")) and seen["ttc_replicas_up",]):
                assert not running.done()
                seen = await scraped(url)
                await asyncio.sleep(0.05)
        server.latency_s = 0.0
        await running
        last = await scraped(url)
    assert seen["ttc_samples_wanted",] == 6 * 64
    assert 0 < seen["ttc_samples_done",] < 6 * 64
    assert seen["ttc_workers_up",] == 2
    assert seen["ttc_tasks_in_flight", "sample", "policy"] > 0
    assert seen["ttc_flops_total", "policy", "policy"] > 0
    assert seen["ttc_replica_request_limit", server.url] > 0
    assert last["ttc_samples_done",] == last["ttc_samples_total", "complete"] == 6 * 64
    assert last["ttc_workers_up",] == last["ttc_samples_in_flight", "sample", "policy"] == 0
    events = [each["event"] for each in logged(folder)]
    assert [events[0], events[-1]] == ["registered", "ended"]
    assert {"started", "claimed"} <= set(events)
    assert {each["sweep"] for each in logged(folder)} == {NAME}
    assert logged(folder)[-1]["outcome"] == "complete"
    assert TOKEN not in str(logged(folder))


async def test_every_ejection_pause_and_limit_change_is_an_event_even_of_a_short_run(
    folder: SweepFolder,
) -> None:
    """All of it happens within the first second, before the workers are asked how they are."""
    async with FaultServer() as server:
        server.script = [Fault.NONE] * 6 + [Fault.RATE_LIMIT] + [Fault.NONE] * 2 + [Fault.SERVER_ERROR] * 9
        limits = {"concurrency": 8, "max_attempts": 9}
        folder.write(server.url, samples=40, limits=limits, sweep_limits={"workers": 1})
        with run_log(folder.folder / "run.log", NAME):
            await folder.run_here()
    wanted = {"limit_cut", "replica_ejected", "replica_returned", "paused", "resumed"}
    async with await Store.open(folder.database, create=False) as store:
        kinds = {row[0] for row in (await store.query("SELECT DISTINCT kind FROM events")).rows}
    assert wanted <= kinds
    assert wanted <= {each["event"] for each in logged(folder)}


async def test_a_failed_run_says_so_in_its_log(folder: SweepFolder) -> None:
    async with FaultServer(
        choose=lambda prompt: None if PROBE_PROMPT in prompt else Fault.BAD_PARAMETER
    ) as server:
        folder.write(server.url)
        with pytest.raises(SweepFailed), run_log(folder.folder / "run.log", NAME):
            await folder.run_here()
    ends = {each["event"]: each for each in logged(folder)}
    assert ends["ended"]["outcome"] == "failed"
    assert ends["ended_with_error"]["level"] == "error"
    assert "temperature" in ends["ended_with_error"]["message"]


async def test_what_cannot_be_watched_is_told_before_anything_is_written(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url)
        options = RunOptions(is_local=True, log_file=folder.folder / "no" / "run.log")
        with pytest.raises(UsageError, match="--log-file"):
            await run_file(folder.file, folder.database, options)
        async with MetricsServer(MetricsSettings("127.0.0.1", 0)) as taken:
            port = int(taken.url.split(":")[2].split("/")[0])
            options = RunOptions(is_local=True, metrics=MetricsSettings("127.0.0.1", port))
            with pytest.raises(UsageError, match="--metrics-port"):
                await run_file(folder.file, folder.database, options)
        assert server.requests == 0
    assert not (folder.folder / "ttc.db").exists()


class Silent(LocalPool):
    """Workers that do not answer the watchdog."""

    async def health(self, worker: int, timeout_s: float) -> WorkerHealth:
        raise WorkerGone(f"worker {worker} is silent")


async def test_a_silent_worker_is_given_up_after_several_questions_and_then_forgotten(store: Store) -> None:
    world = await build(store, count=1, samples=1)
    journal = Journal(JsonReporter(io.StringIO()), store, world.sweep_id, world.run_id)
    tally = Tally(samples_wanted=1, samples_before=0)
    async with Silent(WorkerSettings(()), 1) as pool:
        watchdog = Watchdog(pool, tally, journal)
        answers = [await watchdog.check(0) for _ in range(SILENCES_BEFORE_RESTART)]
        assert answers == [None, None, "worker 0 is silent"]
        watchdog.forget(0)
        assert await watchdog.check(0) is None
    assert tally.counters.worker_restarts == 1
    journal.tell("worker 0 is silent", "worker_lost", "worker 0")
    journal.keep([Event("limit_cut", "policy", "20 to 16 (429)")])
    await journal.flush()
    await journal.flush()
    found = (await store.query("SELECT kind, subject, detail FROM events ORDER BY id")).rows
    assert found == [
        ("worker_lost", "worker 0", "worker 0 is silent"),
        ("limit_cut", "policy", "20 to 16 (429)"),
    ]
