"""Runs `ttc run` for real on a generated sweep against the stub, and says what came of it.

The figures are taken from outside: from the stub (first call, slots), from the store (what is committed, and
when) and from the operating system (CPU, memory). Nothing of `ttc` is asked how fast it was.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.draws import gold
from benchmarks.floor import IN_FLIGHT, MAX_TOKENS
from benchmarks.launch import StubProcess
from benchmarks.stub import MODEL
from benchmarks.watch import Usage, Watch

TIMEOUT_S = 1800.0
TEMPLATE = "{problem}\n\n"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep to run, and how."""

    problems: int
    samples: int
    """A problem."""
    n: int
    """Samples a request."""
    is_local: bool = False
    concurrency: int = IN_FLIGHT
    workers: int = 1
    name: str = "bench"

    @property
    def size(self) -> int:
        """Samples of all problems."""
        return self.problems * self.samples


@dataclass(frozen=True, slots=True)
class SweepRun:
    """How a run went; times are seconds since 1970-01-01 UTC."""

    started: float
    ended: float
    first_call: float | None
    last_commit: float
    stored: int
    new: int
    """Samples that this run has committed."""
    stub: dict[str, Any]
    usage: Usage

    @property
    def samples_per_second(self) -> float:
        """Durable samples a second, first call to last commit."""
        return self.new / (self.last_commit - self._first)

    @property
    def cpu_per_1000(self) -> float:
        """CPU-seconds of coordinator, workers and graders a thousand samples, first call to last commit."""
        return 1000 * self.usage.cpu_between(self._first, self.last_commit) / self.new

    @property
    def seconds_to_first_call(self) -> float:
        """From the start of the process to the first request that reached the stub."""
        return self._first - self.started

    @property
    def _first(self) -> float:
        if self.first_call is None:
            raise RuntimeError("the run made no call")
        return self.first_call


class SweepDirectory:
    """A folder with problems, sweep file and SQLite store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store.db"

    def run(self, stub: StubProcess, sweep: Sweep) -> SweepRun:
        """Write the sweep, run it and read what it left; RuntimeError if samples are missing."""
        self._write(stub.url, sweep)
        stub.reset()
        before = self._count()[0]
        started = time.time()
        usage = run_ttc(self.folder, self.store, workers=sweep.workers, is_local=sweep.is_local)
        ended = time.time()
        stored, last_commit = self._count()
        if stored != sweep.size:
            raise RuntimeError(f"ttc run: {stored} of {sweep.size} samples stored\n{_log_of(self.folder)}")
        stats = stub.stats()
        return SweepRun(
            started, ended, stats["first_start"], last_commit, stored, stored - before, stats, usage
        )

    def _count(self) -> tuple[int, float]:
        if not self.store.exists():
            return 0, 0.0
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as connection:
            count, last = connection.execute("SELECT COUNT(*), MAX(created_at) FROM trajectories").fetchone()
            return count, last or 0.0

    def _write(self, url: str, sweep: Sweep) -> None:
        write_sweep(self.folder, sweep.problems, spec_of([url], sweep))


def write_sweep(folder: Path, problems: int, spec: dict[str, Any]) -> None:
    """Write a sweep file and its problems."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_problem(number)) for number in range(problems)]
    (folder / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")


def run_ttc(folder: Path, store: Path | str, *, workers: int = 1, is_local: bool = False) -> Usage:
    """Run the sweep of a folder to its end, into a SQLite file or the store at a URL; RuntimeError if it fails."""
    database = f"sqlite:///{store}" if isinstance(store, Path) else store
    command = [
        str(Path(sys.executable).with_name("ttc")), "run", str(folder / "sweep.yaml"),
        "--json", "--no-preview", f"--workers={workers}", "--db", database,
        *(["--local"] if is_local else []),
    ]  # fmt: skip
    with (folder / "run.log").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        with Watch(process.pid) as watch:
            code = _wait(process)
    if code:
        raise RuntimeError(f"ttc run: exit code {code}\n{_log_of(folder)}")
    return watch.usage


def _log_of(folder: Path) -> str:
    return (folder / "run.log").read_text(errors="replace")[-2000:]


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _problem(number: int) -> dict[str, str]:
    statement = f"Problem {number}: which number stands in the list of this benchmark at place {number}?"
    answer = str(gold(TEMPLATE.replace("{problem}", statement)))
    return {"id": f"bench/{number}", "problem": statement, "answer": answer}


def spec_of(urls: Sequence[str], sweep: Sweep) -> dict[str, Any]:
    """The sweep file of a sweep that the servers at `urls` draw for."""
    policy = {
        "endpoints": list(urls),
        "model": MODEL,
        "api": "completions",
        "prompt": TEMPLATE,
        "sampling": {"temperature": 1.0, "max_tokens": MAX_TOKENS},
        "samples_per_request": sweep.n,
        "parameters": 1_000_000,
        "limits": {"concurrency": sweep.concurrency, "adaptive": False},
    }
    return {
        "name": sweep.name,
        "seed": 1,
        "problems": {"path": "problems.jsonl"},
        "models": {"policy": policy},
        "strategies": [
            {"name": "sampling", "kind": "parallel", "policy": "policy", "samples": sweep.samples}
        ],
        "budgets": [1, sweep.samples],
    }
