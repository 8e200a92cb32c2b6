"""The command line as real processes: output, exit codes, signals, and two runs of one sweep at the same time."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator.store import Store
from tests.fault_server import Fault, FaultServer
from tests.sweep_world import NAME, PROBE_PROMPT, Command, Said, SweepFolder, assert_same_rows, rows_of, ttc

LOCAL = ("--local", "--json")
FEW = {"concurrency": 4}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


def drawn(server: FaultServer) -> Counter[int]:
    """How often each seed was handed out, without what only tried the server."""
    seeds: Counter[int] = Counter()
    for (prompt, seed), count in server.served.items():
        if PROBE_PROMPT not in prompt:
            seeds[seed] += count
    return seeds


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 -- another process, which has no event to wait for
            await asyncio.sleep(0.02)


def tails(ends: Sequence[Said]) -> str:
    """The last things that processes said."""
    return "\n---\n".join(said.err[-1500:] for said in ends)


async def stored_seeds(folder: SweepFolder) -> set[int]:
    return {row[4] for row in (await rows_of(folder.database))["trajectories"]}


async def task_states(folder: SweepFolder) -> set[int]:
    return {row[6] for row in (await rows_of(folder.database))["tasks"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_run_in_order_and_the_next_completes_it(
    folder: SweepFolder, number: signal.Signals
) -> None:
    # Three seconds a reply: a process that is late in hearing its signal has not sent another round meanwhile.
    async with FaultServer(latency_s=3.0) as server:
        folder.write(server.url, problems=10, samples=64, limits=FEW)
        command = await Command.start(
            "run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder
        )
        await until(lambda: len(drawn(server)) >= 12)
        before = len(drawn(server))
        command.process.send_signal(number)
        said = await command.ended()
        assert said.code == 130, said.err
        assert "Traceback" not in said.err
        assert f"ttc resume {NAME}" in said.err
        assert json.loads(said.out)["reason"] == "interrupted"
        # In order: what was under way has arrived, and nothing is leased.
        assert await stored_seeds(folder) == set(drawn(server))
        assert (
            len(drawn(server)) <= before + 4 * FEW["concurrency"]
        )  # and what waited for a slot was not sent
        assert 1 not in await task_states(folder)
        server.latency_s = 0.0
        again = await ttc("run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder)
        assert again.code == 0, again.err
        assert set(drawn(server).values()) == {1}
    assert len(await stored_seeds(folder)) == 640


async def test_an_interrupted_run_does_not_wait_for_a_server_that_hangs(folder: SweepFolder) -> None:
    async with FaultServer(choose=hanging) as server:
        folder.write(server.url)
        command = await Command.start(
            "run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder
        )
        await until(lambda: server.faults[Fault.HANG] > 0)
        ended = asyncio.create_task(command.ended())
        while not ended.done():  # the first asks to stop in order, the second to stop at once
            command.process.send_signal(signal.SIGINT)
            await asyncio.wait({ended}, timeout=1.0)
        said = ended.result()
    assert said.code == 130, said.err
    assert "again stops at once" in said.err
    assert 1 not in await task_states(folder)


def hanging(prompt: str) -> Fault | None:
    return None if PROBE_PROMPT in prompt else Fault.HANG


async def test_a_run_interrupted_before_its_first_sample_leaves_no_failed_task(folder: SweepFolder) -> None:
    async with FaultServer(choose=unavailable) as server:
        folder.write(server.url)
        command = await Command.start(
            "run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder
        )
        await until(lambda: server.faults[Fault.UNAVAILABLE] >= 3)
        command.process.send_signal(signal.SIGINT)
        said = await command.ended()
    assert said.code == 130, said.err
    assert await task_states(folder) == {0}


def unavailable(prompt: str) -> Fault | None:
    return None if PROBE_PROMPT in prompt else Fault.UNAVAILABLE


async def test_cancel_from_another_process_ends_the_run_and_resume_goes_on(folder: SweepFolder) -> None:
    async with FaultServer(latency_s=0.2) as server:
        folder.write(server.url, problems=10, samples=64, limits=FEW)
        command = await Command.start(
            "run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder
        )
        await until(lambda: len(drawn(server)) >= 8)
        cancelled = await ttc("cancel", NAME, "--db", folder.database, folder=folder.folder)
        assert cancelled.code == 0, cancelled.err
        said = await command.ended()
        assert (said.code, json.loads(said.out)["reason"]) == (130, "cancelled"), said.err
        assert await stored_seeds(folder) == set(drawn(server))
        server.latency_s = 0.0
        resumed = await ttc("resume", NAME, "--db", folder.database, *LOCAL, folder=folder.folder)
        assert resumed.code == 0, resumed.err
        assert set(drawn(server).values()) == {1}
    assert len(await stored_seeds(folder)) == 640


async def test_two_coordinators_of_one_sweep_share_its_work(folder: SweepFolder) -> None:
    async with FaultServer(latency_s=0.1) as server:
        folder.write(server.url, problems=20, samples=64, limits=FEW)
        alone = f"sqlite:///{folder.folder / 'alone.db'}"
        server.latency_s = 0.0
        await folder.run_here(alone)
        server.served.clear()
        server.latency_s = 0.15
        run = ("run", folder.file, "--db", folder.database, *LOCAL)
        first = await Command.start(*run, folder=folder.folder)
        await until(lambda: len(drawn(server)) >= 1)
        second = await Command.start(*run, folder=folder.folder)
        ends = await asyncio.gather(first.ended(), second.ended())
        assert [said.code for said in ends] == [0, 0], tails(ends)
        shares = [json.loads(said.out)["samples_drawn"] for said in ends]
        assert min(shares) > 0
        assert sum(shares) == 20 * 64
        assert set(drawn(server).values()) == {1}
    assert_same_rows(await rows_of(folder.database), await rows_of(alone))


async def test_a_second_coordinator_takes_over_what_the_first_gives_back(folder: SweepFolder) -> None:
    async with FaultServer(latency_s=0.15) as server:
        folder.write(server.url, problems=20, samples=64, limits=FEW)
        run = ("run", folder.file, "--db", folder.database, *LOCAL)
        first = await Command.start(*run, folder=folder.folder)
        await until(lambda: len(drawn(server)) >= 8)
        second = await Command.start(*run, folder=folder.folder)
        await until(lambda: len(drawn(server)) >= 600)
        first.process.send_signal(signal.SIGINT)
        ends = await asyncio.gather(first.ended(), second.ended())
        assert [said.code for said in ends] == [130, 0], tails(ends)
        assert set(drawn(server).values()) == {1}
    assert len(await stored_seeds(folder)) == 20 * 64


@pytest.mark.parametrize(
    ("server", "sections", "code", "said"),
    [
        (FaultServer(api_key="right"), {}, 4, "401"),
        (FaultServer(), {"model": "nope"}, 4, "nope"),
        (FaultServer(choose=lambda p: Fault.SERVER_ERROR if p.startswith("What is 1 ") else None),
         {"limits": {"max_attempts": 1}}, 5, "40 samples failed"),
        (FaultServer(), {"prompt": "no place for it"}, 2, "{problem}"),
    ],
    ids=["key", "model", "errors", "file"],
)  # fmt: skip
async def test_what_goes_wrong_is_one_message_and_an_exit_code(
    folder: SweepFolder, server: FaultServer, sections: dict[str, Any], code: int, said: str
) -> None:
    async with server:
        folder.write(server.url, **sections)
        ended = await ttc("run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


async def test_commands_tell_what_is_stored_in_words_and_in_json(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url)
        db = ("--db", folder.database)

        async def say(*arguments: str | Path, code: int = 0) -> str:
            said = await ttc(*arguments, *db, folder=folder.folder)
            assert said.code == code, said.err
            assert "Traceback" not in said.err
            return said.out

        (before,) = json.loads(await say("plan", folder.file, "--json"))
        assert (before["missing"], server.requests) == (120, 0)
        assert not (folder.folder / "ttc.db").exists()
        await say("status", NAME, code=3)
        report = json.loads(await say("run", folder.file, "--local", "--json"))
        assert (report["sweep"], report["reason"], report["samples_stored"]) == (NAME, "complete", 120)
        assert report["strategies"]["sampling"]
        (after,) = json.loads(await say("plan", folder.file, "--json"))
        assert (after["missing"], after["stored"]) == (0, 120)
        (status,) = json.loads(await say("status", NAME, "--json"))
        assert (status["samples_stored"], status["tasks_done"]) == (120, 9)
        assert "120 of 120" in await say("status")
        assert json.loads(await say("results", NAME, "--json"))["strategies"] == report["strategies"]
        assert "majority" in await say("results", NAME)
        assert json.loads(await say("grade", NAME, "--json"))
        await say("results", "unknown", code=2)
        await say("cancel", "unknown", code=2)
        counted = "SELECT outcome, COUNT(*) AS n FROM trajectories GROUP BY outcome"
        assert json.loads(await say("sql", counted, "--json")) == [{"outcome": "complete", "n": 120}]
        assert list(csv.reader(io.StringIO(await say("sql", counted, "--format", "csv")))) == [
            ["outcome", "n"], ["complete", "120"],
        ]  # fmt: skip
        assert "complete" in await say("sql", counted)
        await say("sql", "DELETE FROM trajectories", code=3)
        await say("sql", counted, "--format", "yaml", code=2)
        assert json.loads(await say("db", "check", "--json"))["revision"]
        await say("db", "upgrade")
        checks = json.loads(await say("doctor", folder.file, "--no-ray", "--json"))
        assert all(check["is_ok"] for check in checks), checks
    broken = json.loads(await say("doctor", folder.file, "--no-ray", "--json", code=1))
    assert [check["subject"] for check in broken if not check["is_ok"]]
    assert len(await stored_seeds(folder)) == 120


async def test_the_schema_describes_the_sweep_file(folder: SweepFolder) -> None:
    said = await ttc("schema", folder=folder.folder)
    assert said.code == 0
    assert {"name", "problems", "models", "strategies"} <= set(json.loads(said.out)["properties"])


async def test_the_server_of_an_embedded_model_dies_with_its_run(folder: SweepFolder) -> None:
    sweep = {
        "name": NAME,
        "problems": {"preset": "arithmetic", "limit": 50},
        "models": {"policy": {"embedded": "arithmetic", "sampling": {"max_tokens": 400}}},
        "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 256}],
    }
    folder.file.write_text(yaml.safe_dump(sweep))
    command = await Command.start("run", folder.file, "--db", folder.database, *LOCAL, folder=folder.folder)
    process = psutil.Process(command.process.pid)
    await until(lambda: len(servers_of(process)) == 1)
    (server,) = servers_of(process)
    await until(lambda: (folder.folder / "ttc.db").exists())
    process.send_signal(signal.SIGKILL)
    assert (await command.ended()).code == -signal.SIGKILL
    await until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    async with await Store.open(folder.database, create=False):
        pass


def servers_of(process: psutil.Process) -> list[psutil.Process]:
    return [
        each
        for each in process.children(recursive=True)
        if "workers.embedded.serve" in " ".join(each.cmdline())
    ]
