"""A real vLLM that ttc starts itself: killed in the middle of a sweep, started again, and gone when the sweep is."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.store import Store
from tests.chaos.processes import Traces
from tests.engine_world import marked, servers
from tests.sweep_world import SweepFolder
from tests.vllm.server import PYTHON, SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

MODEL = Path(__file__).parents[2] / "workers/embedded/models/arithmetic"
SERVE = "vllm.entrypoints.openai.api_server"
COMMAND = [
    *(str(PYTHON), "-m", SERVE, "--model", str(MODEL), "--served-model-name", "{model}"),
    *("--host", "{host}", "--port", "{port}", "--dtype", "float32", "--no-enable-chunked-prefill"),
    *("--max-model-len", "1024", "--generation-config", "vllm"),
]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Traces]:
    if not PYTHON.exists():
        pytest.skip("vLLM is not installed: run tests/vllm/setup.sh, or make test-vllm")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    with marked(monkeypatch, tmp_path) as found:
        yield found


async def test_a_killed_vllm_is_started_again_and_nothing_of_it_is_left(
    tmp_path: Path, traces: Traces
) -> None:
    folder = SweepFolder(tmp_path)
    sweep = {
        "name": "whole",
        "problems": {"preset": "arithmetic", "limit": 8},
        "models": {
            "policy": {
                "model": "arithmetic",
                "engine": {"command": shlex.join(COMMAND)},
                "sampling": {"max_tokens": 256},
                "limits": {"concurrency": 4},
            }
        },
        "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": 64}],
        "limits": {"task_samples": 16},
    }
    folder.file.write_text(yaml.safe_dump(sweep))
    victims: list[int] = []

    def strike() -> None:
        processes = [each for each in traces.left() if "vllm" in " ".join(each.cmdline()).lower()]
        assert len(processes) > 2  # the API server, its engine, and their guard at least
        victims.append(servers(traces, SERVE)[0].pid)
        os.kill(victims[0], signal.SIGKILL)

    ended = await folder.run_here(on_first=strike)
    assert len(victims) == 1
    report = ended.report
    assert (report.reason, report.samples_stored, report.failed_samples) == ("complete", 8 * 64, 0)
    assert not traces.left()
    async with await Store.open(folder.database) as store:
        found = await store.query("SELECT kind FROM events WHERE kind LIKE 'engine_%' ORDER BY id")
    kinds = [kind.removeprefix("engine_") for (kind,) in found.rows]
    assert kinds == ["started", "ready", "died", "started", "ready", "stopped"]
