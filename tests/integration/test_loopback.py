"""Whatever ttc starts listens on loopback only, a local Ray included, which survives the loss of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.store import Store
from tests.fault_server import FaultServer
from tests.sweep_world import PROBE_PROMPT, Command, SweepFolder

pytestmark = pytest.mark.timeout(180)
SECRET = "planted-word-4711"
RAY_SERVERS = {"gcs_server", "raylet"}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(90):
        while not is_so():  # noqa: ASYNC110 -- another process, which has no event to wait for
            await asyncio.sleep(0.1)


def tree(command: Command) -> list[psutil.Process]:
    """A process of ours with all that it has started."""
    top = psutil.Process(command.process.pid)
    return [top, *top.children(recursive=True)]


def listening(command: Command) -> dict[str, set[str]]:
    """Addresses that the processes of a tree listen on, by the name of the process."""
    found: dict[str, set[str]] = {}
    for process in tree(command):
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in process.net_connections(kind="inet"):
                if each.status == psutil.CONN_LISTEN:
                    found.setdefault(process.name(), set()).add(each.laddr.ip)
    return found


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def drawn(server: FaultServer) -> int:
    return sum(PROBE_PROMPT not in prompt for prompt, _ in server.served)


@pytest.mark.ray
async def test_a_run_on_a_local_ray_listens_on_loopback_and_survives_its_workers(folder: SweepFolder) -> None:
    environment = {
        "HOME": str(folder.folder),
        "TTC_METRICS_TOKEN": SECRET,
        "TTC_DATABASE_URL": folder.database,
    }
    async with FaultServer(latency_s=0.3) as server:
        folder.write(
            server.url, problems=5, samples=64, limits={"concurrency": 8},
            more={"scorers": {"prm": {"kind": "prm", "embedded": "arithmetic-prm-soft"}}},
        )  # fmt: skip
        log = folder.folder / "run.log"
        command = await Command.start(
            "run", folder.file, "--json", "--workers", "1", "--metrics-port", "0", "--log-file", log,
            folder=folder.folder, **environment,
        )  # fmt: skip
        await until(lambda: drawn(server) >= 16)
        found = listening(command)
        workers = [each for each in tree(command) if "WorkerActor" in " ".join(each.cmdline())]
        environments = [each.environ() for each in tree(command)[1:]]
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        server.latency_s = 0.05
        said = await command.ended()
    assert said.code == 0, said.err
    assert found.keys() >= RAY_SERVERS
    assert not {name: ips for name, ips in found.items() if not all(map(is_loopback, ips))}
    assert len(workers) == 1
    assert not [each for each in environments if SECRET in each.values() or folder.database in each.values()]
    async with await Store.open(folder.database, create=False) as store:
        rows = (await store.query("SELECT kind, subject FROM events ORDER BY id")).rows
    assert [row for row in rows if "worker" in row[0]] == [
        ("worker_lost", "worker 0"), ("worker_restarted", "worker 0"),
    ]  # fmt: skip
    logged = [json.loads(line)["event"] for line in log.read_text("ascii").splitlines()]
    assert {"worker_lost", "worker_restarted"} <= set(logged)


async def test_the_server_of_a_model_listens_on_loopback(folder: SweepFolder) -> None:
    command = await Command.start("models", "serve", "arithmetic", "--port", "0", folder=folder.folder)
    await until(lambda: bool(listening(command)))
    found = listening(command)
    command.process.send_signal(signal.SIGTERM)
    assert (await command.ended()).code == 0
    assert {address for each in found.values() for address in each} == {"127.0.0.1"}
