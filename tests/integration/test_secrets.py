"""A key and a password that are planted, and then looked for everywhere that a run leaves something."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import sqlalchemy as sa
from aiohttp import web

from orchestrator.commands import ExportWords, export_training_set, run_query, show_results
from orchestrator.errors import EndpointProblem
from orchestrator.run_log import run_log
from tests.fault_server import Fault, FaultServer
from tests.sweep_world import NAME, PROBE_PROMPT, Command, SweepFolder, rows_of, ttc

KEY = "planted/key+4711"
VARIABLE = "PLANTED"
"""A name that does not say that it holds a secret."""
PASSWORD = "planted-word-4711"
MARK = b"4711"
"""Both hold it, and nothing else does."""
HELPERS = ("workers.grading.process", "workers.embedded.serve")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


class Echoing(FaultServer):
    """Quotes the key in whatever it answers: errors, headers, errors inside of a 200, escaped, and in texts."""

    async def _answer(self, request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        reply = await super()._answer(request, payload)
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not isinstance(reply, web.Response) or not key:
            return reply
        body = json.loads(reply.body or b"{}")  # type: ignore[arg-type]
        body["you_sent"] = key
        if "error" in body:
            body["error"]["message"] = f"{body['error']['message']}: {key}"
        for choice in body.get("choices", ()):
            choice["text"] = f"{key} {choice['text']}"
        text = json.dumps(body).replace("/", "\\/" if self.requests % 2 else "/")
        headers = {
            "X-Echo": key,
            "WWW-Authenticate": f"Bearer {key}",
            "Retry-After": "0",
            "Set-Cookie": f"k={key}",
        }
        return web.Response(
            body=text.encode(), status=reply.status, headers=headers, content_type="application/json"
        )


def leaks(what: bytes | str) -> bool:
    data = what.encode("utf-8", "surrogateescape") if isinstance(what, str) else what
    return MARK in data


def files_with_leaks(folder: Path) -> list[str]:
    """Every file below a folder that holds a secret: databases with their logs, exports, logs, sweep files."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and leaks(path.read_bytes())]


async def test_a_server_that_echoes_the_key_gets_it_into_no_row_file_note_or_log(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    async with Echoing(api_key=KEY) as server:
        server.script = [Fault.NONE] * 6 + [
            Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.WRAPPED_ERROR, Fault.ODD_REFUSAL, Fault.CONTENT_FILTER,
            Fault.OVERFLOW,
        ]  # fmt: skip
        folder.write(
            server.url, problems=2, samples=16, samples_per_request=1, api_key_env=VARIABLE,
            limits={"max_attempts": 2}, rollouts={"solutions": 2, "rollouts": 2},
        )  # fmt: skip
        with run_log(folder.folder / "run.log", NAME):
            ended = await folder.run_here()
    assert ended.report.samples_stored >= 32
    assert not leaks(json.dumps(ended.notes))
    words = ExportWords("trl", "jsonl", None, None, keeps_repeated=False)
    await export_training_set(NAME, folder.folder / "out", folder.database, words, is_json=True)
    await show_results(NAME, folder.database, is_json=True)
    await run_query("SELECT * FROM trajectories", folder.database, "csv", 1000, 60.0)
    shown = capsys.readouterr()
    assert (
        "*** " in (folder.folder / "out").glob("*.jsonl").__next__().read_text()
    )  # it was there, and was masked
    assert not leaks(shown.out + shown.err)
    assert not files_with_leaks(folder.folder)


async def test_a_refused_key_is_not_repeated(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    async with Echoing(api_key="another") as server:
        folder.write(server.url, api_key_env=VARIABLE)
        with pytest.raises(EndpointProblem, match="401") as caught, run_log(folder.folder / "run.log", NAME):
            await folder.run_here()
    assert not leaks(f"{caught.value} {caught.value!r} {caught.value.__cause__!r}")
    assert not files_with_leaks(folder.folder)


async def test_a_key_that_is_a_word_takes_nothing_out_of_a_text(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers of one's own often want any key, say EMPTY; what the model wrote must stay what it wrote."""
    monkeypatch.setenv(VARIABLE, "EMPTY")
    async with FaultServer(
        api_key="EMPTY", text=lambda prompt, seed: "The set is EMPTY: \\boxed{0}"
    ) as server:
        folder.write(server.url, problems=1, samples=4, api_key_env=VARIABLE)
        await folder.run_here()
    rows = (await rows_of(folder.database))["trajectories"]
    assert {row[12] for row in rows} == {"The set is EMPTY: \\boxed{0}"}


async def test_no_key_is_so_short_that_an_error_may_repeat_it(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "k/4711")
    wrapped = Echoing(
        api_key="k/4711", choose=lambda prompt: None if PROBE_PROMPT in prompt else Fault.WRAPPED_ERROR
    )
    async with wrapped as server:
        folder.write(server.url, problems=1, samples=4, api_key_env=VARIABLE, limits={"max_attempts": 1})
        assert (await folder.run_here()).report.failed_samples == 4
    assert not files_with_leaks(folder.folder)


@pytest.mark.postgres
async def test_no_process_row_or_output_of_a_run_holds_the_secrets_it_does_not_need(
    folder: SweepFolder, postgres_url: str
) -> None:
    """As a user would: the key and the database's URL in the environment, a run, and a look at all its processes."""
    url = sa.make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)
    environment = {VARIABLE: KEY, "TTC_DATABASE_URL": url}
    async with FaultServer(api_key=KEY, latency_s=0.2, text=surd) as server:
        folder.write(
            server.url, problems=4, samples=64, api_key_env=VARIABLE, limits={"concurrency": 4},
            more={"scorers": {"prm": {"kind": "prm", "embedded": "arithmetic-prm-soft"}}},
        )  # fmt: skip
        command = await Command.start(
            "run", folder.file, "--local", "--json", "--log-file", folder.folder / "run.log", "--metrics-port", "0",
            folder=folder.folder, **environment,
        )  # fmt: skip
        top = psutil.Process(command.process.pid)
        await until(lambda: all(any(name in line for line in helpers_of(top)) for name in HELPERS))
        helpers = helpers_of(top)
        arguments = [" ".join(top.cmdline()), *helpers]
        server.latency_s = 0.0
        said = await command.ended()
    assert said.code == 0, said.err
    assert not [line for line, environ in helpers.items() if leaks(json.dumps(environ))]
    assert not [line for line in arguments if leaks(line)]
    assert not leaks(said.out + said.err)
    assert not files_with_leaks(folder.folder)
    assert not [table async for table in tables_with_leaks(postgres_url)]
    refused = await ttc("status", folder=folder.folder, TTC_DATABASE_URL=url.replace("/ttc_", "/no_such_"))
    assert refused.code == 3
    assert not leaks(refused.out + refused.err)


def helpers_of(process: psutil.Process) -> dict[str, dict[str, str]]:
    """Environments of the processes that a run has started, by their command line."""
    found = {}
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[" ".join(each.cmdline())] = each.environ()
    return found


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 -- another process, which has no event to wait for
            await asyncio.sleep(0.05)


def surd(prompt: str, seed: int) -> str:
    """Answers that no short cut of the grader reads, so that it starts its processes."""
    return f"The answer is \\boxed{{\\sqrt{{{seed % 7 + 2}}}}}."


async def tables_with_leaks(url: str) -> AsyncIterator[str]:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(tables) > 20
        for (table,) in tables:
            for row in await connection.fetch(f"SELECT CAST(t AS text) FROM {table} t"):
                if leaks(row[0]):
                    yield table
    finally:
        await connection.close()
