"""A sweep as a job of a real cluster: handed over, left alone, watched from elsewhere, stopped, and gone on with.

The cluster has a dashboard and asks for a token. Its patience with a job that is to stop is long, so that how quickly a
busy machine comes to the end of a run decides nothing here.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.jobs.package import package_of
from orchestrator.spec.file import load_sweep
from orchestrator.store import Store
from tests.chaos.processes import RayNode, Traces, free_port
from tests.fault_server import FaultServer
from tests.reward_server import RewardServer
from tests.step_server import StepServer
from tests.sweep_world import NAME, ROOT, TTC, Command, Said, SweepFolder, assert_same_rows, rows_of, ttc

pytest.importorskip("ray.dashboard.optional_deps", reason="the job API needs ray[default]")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

TOKEN = "f" * 32
VARIABLE = "SWEEP_DATABASE"
PROBLEMS, SAMPLES = 3, 64


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, and the database that its head knows by a variable."""

    address: str
    folder: Path
    database: str

    @property
    def access(self) -> dict[str, str]:
        """What a process needs to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(self.folder)}

    async def ttc(self, *arguments: str | Path, folder: Path, **environment: str) -> Said:
        """`ttc` with an address, to its end."""
        return await ttc(
            *arguments, "--address", self.address, folder=folder, **{**self.access, **environment}
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """One node; its folder has a short path, since Ray's sockets are in it."""
    traces = Traces()
    with tempfile.TemporaryDirectory(prefix="ttc-jobs-", ignore_cleanup_errors=True) as name:
        folder, port, dashboard = Path(name), free_port(), free_port()
        database = f"sqlite:///{folder / 'head.db'}"
        head = RayNode(
            traces, folder, "--head", f"--port={port}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1",
            "--include-dashboard=true", f"--dashboard-port={dashboard}",
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, RAY_JOB_STOP_WAIT_TIME_S="60", **{VARIABLE: database},
        )  # fmt: skip
        await head.start()
        try:
            yield Cluster(f"http://127.0.0.1:{dashboard}", folder, database)
        finally:
            traces.clear()  # at once: nothing of it is to be kept
            await head.stop()


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """A sweep whose problems lie in a folder beside its own."""
    (tmp_path / "sweeps").mkdir()
    return SweepFolder(tmp_path / "sweeps")


def write(sweep: SweepFolder, url: str, *, samples: int = SAMPLES, **sections: Any) -> None:
    limits = {"concurrency": 2}
    sweep.write(url, problems=PROBLEMS, samples=samples, limits=limits, samples_per_request=2, **sections)
    data = sweep.folder.parent / "data"
    data.mkdir()
    (sweep.folder / "problems.jsonl").rename(data / "problems.jsonl")
    sweep.file.write_text(sweep.file.read_text().replace("problems.jsonl", "../data/problems.jsonl"))


async def test_a_sweep_is_left_alone_watched_stopped_and_gone_on_with(
    cluster: Cluster, sweep: SweepFolder, tmp_path: Path
) -> None:
    ttc = partial(cluster.ttc, folder=tmp_path)
    async with FaultServer(latency_s=0.3) as server:
        write(sweep, server.url)
        first = await hand_over_and_die(cluster, sweep.file, elsewhere=tmp_path)
        await watch_a_while(cluster, first, elsewhere=tmp_path)
        watched, cancelled = await asyncio.gather(ttc("watch", NAME), ttc("cancel", NAME))
        assert cancelled.code == 0, cancelled.err
        assert watched.code == 130, watched.err
        assert f"{first} was stopped" in watched.err
        assert "Accuracy" not in watched.out  # whoever is told to stop has no time for results
        outcomes, samples = await how_it_stands(cluster)
        assert outcomes == ["interrupted"]
        assert 0 < samples < PROBLEMS * SAMPLES

        server.latency_s = 0.0
        resumed = await ttc("resume", NAME, "--db-env", VARIABLE, "--json")
        assert resumed.code == 0, resumed.err
        watched, _ = await asyncio.gather(ttc("watch", NAME), sweep.run_here())
    assert watched.code == 0, watched.err
    assert "Accuracy" in watched.out
    assert f"{NAME}: complete; {PROBLEMS * SAMPLES} of {PROBLEMS * SAMPLES} samples stored" in watched.out
    assert_same_rows(await rows_of(cluster.database), await rows_of(sweep.database))

    status, logs = await asyncio.gather(ttc("status", "--json"), ttc("logs", NAME, "--json"))
    second = json.loads(resumed.out)["id"]
    jobs = [(job["id"], job["sweep"], job["state"]) for job in json.loads(status.out)]
    assert jobs == [(second, NAME, "succeeded"), (first, NAME, "stopped")]
    said = json.loads(logs.out)
    assert said["id"] == second
    assert f"{NAME}: complete" in said["log"]
    assert VARIABLE in said["log"]
    assert cluster.database not in said["log"]


async def test_what_travels_is_all_that_a_sweep_needs(
    sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Problems beside the sweep's folder, and a strategy of one's own: run from the package, as Ray unpacks it."""
    library, there = tmp_path / "library", tmp_path / "there"
    library.mkdir()
    (library / "travelling.py").write_text(
        "from workers.strategies import Candidate, NodeEnd\n\n\n"
        "async def first_step(search):\n"
        "    children = await search.sample(search.root, search.budget)\n"
        "    scores = await search.score(children)\n"
        "    return [Candidate(*each) for each in zip(children, scores) if each[0].end is NodeEnd.FINISHED]\n"
    )
    monkeypatch.syspath_prepend(str(library))
    async with StepServer() as policy, RewardServer() as scorer:
        prm = {
            "kind": "prm",
            "format": "qwen",
            "model": "scorer",
            "endpoints": scorer.url,
            "label_type": "soft",
        }
        own = {"name": "own", "kind": "custom", "function": "travelling:first_step", "budgets": [8]}
        write(sweep, policy.url, samples=4, searches=[own], more={"scorers": {"prm": prm}})
        package = package_of(load_sweep(sweep.file), sweep.file)
        package.write(there)
        database = f"sqlite:///{tmp_path / 'there.db'}"
        command = [
            "sh",
            "job.sh",
            sys.executable,
            "",
            "",
            "run",
            str(package.sweep),
            "--local",
            "--db",
            database,
        ]
        job = await asyncio.create_subprocess_exec(
            *command, cwd=there, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{there}:{ROOT}"},
        )  # fmt: skip
        (said, _), _ = await asyncio.gather(job.communicate(), sweep.run_here())
        assert job.returncode == 0, said.decode()
    found = await rows_of(database)
    assert found["nodes"]
    assert_same_rows(found, await rows_of(sweep.database))


async def hand_over_and_die(cluster: Cluster, file: Path, *, elsewhere: Path) -> str:
    """`ttc submit` in a session that is killed with all it has started, as when a laptop is shut; the job's id."""
    submit = ["submit", str(file), "--address", cluster.address, "--db-env", VARIABLE, "--json"]
    caller = await asyncio.create_subprocess_exec(
        "sh", "-c", f"{shlex.join([*TTC, *submit])}; echo submitted; sleep 1000",
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL, cwd=elsewhere, start_new_session=True,
        env={**os.environ, **cluster.access, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert caller.stdout is not None
    said = (await caller.stdout.readuntil(b"submitted\n")).decode()
    os.killpg(caller.pid, signal.SIGKILL)
    await caller.wait()
    sent = json.loads(said.removesuffix("submitted\n"))
    assert sent["files"] == ["job.sh", "sweep/up/sweep.yaml", "sweep/data/problems.jsonl"]
    return str(sent["id"])


async def watch_a_while(cluster: Cluster, job: str, *, elsewhere: Path) -> None:
    """`ttc watch` until the first completion is there; then it is killed, which is nothing to the job."""
    watcher = await Command.start(
        "watch", NAME, "--address", cluster.address, "--json", folder=elsewhere, **cluster.access
    )
    assert watcher.process.stdout is not None
    async with asyncio.timeout(90):
        began = json.loads(await watcher.process.stdout.readline())
        assert (began["id"], began["sweep"], began["exit_code"]) == (job, NAME, None)
        while "first completion" not in json.loads(await watcher.process.stdout.readline())["log"]:
            assert not watcher.has_ended
    watcher.kill()
    await watcher.ended()


async def how_it_stands(cluster: Cluster) -> tuple[list[str], int]:
    """How the runs ended, and the number of stored samples."""
    async with await Store.open(cluster.database) as store:
        runs = await store.query("SELECT outcome FROM runs ORDER BY id")
        samples = await store.query("SELECT COUNT(*) FROM trajectories")
    return [row[0] for row in runs.rows], samples.rows[0][0]


async def test_who_is_not_let_in_and_what_is_not_there_is_said(cluster: Cluster, tmp_path: Path) -> None:
    stranger, unknown = await asyncio.gather(
        cluster.ttc("status", folder=tmp_path, RAY_AUTH_TOKEN="e" * 32),
        cluster.ttc("watch", "wohle", folder=tmp_path),
    )
    assert (stranger.code, stranger.out, unknown.code, unknown.out) == (1, "", 2, "")
    assert "refuses the token" in stranger.err
    assert "RAY_AUTH_TOKEN_PATH" in stranger.err
    assert "'wohle'" in unknown.err
    for said in (stranger, unknown):
        assert "    -> " in said.err
        assert "Traceback" not in said.err
