"""What a model may write to do harm: it is stored as text, graded as an answer, and shown without effect."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from orchestrator.commands import run_query, show_results, show_status
from orchestrator.execution.progress import JsonReporter, LineReporter, TerminalReporter
from orchestrator.store import Store
from orchestrator.terminal import Terminal
from tests.fault_server import FaultServer
from tests.sweep_world import NAME, PROBE_PROMPT, SweepFolder
from tests.unit.test_progress import trajectory
from tests.unit.test_terminal import HOSTILE, Tty, steers

SIZE = 10_000_000
TEXTS = [
    *(f"{text} \\boxed{{{text}}}" for text in HOSTILE.values()),
    "<script>alert(1)</script> \\boxed{<img src=x onerror=alert(1)>}",
    "'; DROP TABLE trajectories; -- \\boxed{'; DELETE FROM answers; --}",
    "{problem} %s %(x)s $(reboot) `reboot` \\boxed{__import__('os').abort()}",
    "[bold red]not markup[/] [link=file:///]x[/link] \\boxed{[/]}",
    "\udfff\ud800\ufffe broken \\boxed{\ud800}",
    "x" * SIZE + "\x1b[2J\\boxed{1}",
]


def hostile(prompt: str, seed: int) -> str:
    return "\\boxed{42}" if PROBE_PROMPT in prompt else TEXTS[seed % len(TEXTS)]


async def test_hostile_text_is_stored_and_shown_as_text(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer(text=hostile) as server:
        folder.write(
            server.url, problems=1, samples=len(TEXTS), samples_per_request=1, sampling={"max_tokens": 20_000}
        )
        ended = await folder.run_here(store_url)
    assert (ended.report.reason, ended.report.failed_samples) == ("complete", 0)
    async with await Store.open(store_url, create=False) as store:
        found = await store.query("SELECT x.text, t.outcome FROM trajectory_texts x JOIN trajectories t ON "
                                  "t.id = x.trajectory_id")  # fmt: skip
    texts = [str(text) for text, _ in found.rows]
    assert len(texts) == len(TEXTS)
    assert max(map(len, texts)) > SIZE
    assert not [text for text in texts if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)]
    assert sum("DROP TABLE" in text for text in texts) == 1
    capsys.readouterr()
    for output, query in (
        ("table", "SELECT text FROM trajectory_texts UNION ALL SELECT text FROM answers"),
        ("json", "SELECT SUBSTR(text, 1, 1000) AS text FROM trajectory_texts"),
    ):
        await run_query(query, store_url, output, 1000, 60.0)
        assert not steers(capsys.readouterr().out)
    await show_results(NAME, store_url, is_json=False)
    await show_status(None, store_url, is_json=False)
    assert not steers(capsys.readouterr().out)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_first_sample_is_shown_without_effect(text: str) -> None:
    sample = trajectory(text)
    stream, screen, lines = io.StringIO(), Tty(), io.StringIO()
    TerminalReporter(Terminal(file=stream, width=120), "demo").first_sample(text, sample)
    LineReporter(screen).first_sample(text, sample)
    LineReporter(screen).note(f"server said {text[:100]}")
    JsonReporter(lines).first_sample(text, sample)
    for shown in (stream, screen):
        assert not steers(shown.getvalue())
        assert 0 < len(shown.getvalue()) < 10_000
    assert json.loads(lines.getvalue())["first_completion"] == text
    assert lines.getvalue().isascii()
