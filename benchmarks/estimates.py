"""How long the results of a large scored sweep take: every selector at twelve budgets from a million stored samples.

Nothing is generated or scored here: the store is filled with the rows that a run would have left. The floor is reading
the same rows with bare `sqlite3` and throwing them away.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Figure, Target
from orchestrator.problems.datasets import load_problems
from orchestrator.registration import Registered, register
from orchestrator.spec.file import load_sweep
from orchestrator.store import Store
from workers.identity import SAMPLES_PER_POOL_BITS

GROUP = "estimates"
NAME = "estimates"
SAMPLES, STEPS, ANSWERS = 2048, 8, 24
SCORERS = ("prm", "other")
NEW_BUDGET = 96


@dataclass(frozen=True, slots=True)
class _Run:
    """One command, seen from outside."""

    seconds: float
    cpu_s: float
    peak_gib: float


def measure_estimates(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Seconds and memory of `ttc results`: first, again, and with one budget more."""
    problems = 50 if is_quick else 500
    place = folder / "estimates"
    place.mkdir(parents=True)
    store = fill(place, problems)
    floor = _read_s(store)
    first, again, more = (_results(store, *budgets) for budgets in ((), (), ("--budgets", str(NEW_BUDGET))))
    size = f"{problems} problems x {SAMPLES} samples x {len(SCORERS)} scorers"
    what = "reading the same rows"
    yield Figure(
        GROUP,
        f"{size}, 10 selectors x 12 budgets",
        "s",
        (first.seconds,),
        floor,
        what,
        Target(60, is_ceiling=True),
    )
    yield Figure(GROUP, f"{size}, CPU", "CPU-s", (first.cpu_s,), floor, what)
    yield Figure(GROUP, f"{size}, peak memory", "GiB", (first.peak_gib,), target=Target(4, is_ceiling=True))
    yield Figure(GROUP, "the same again, nothing to estimate", "s", (again.seconds,), floor, what)
    yield Figure(
        GROUP, "one budget more", "s", (more.seconds,), floor, what, target=Target(10, is_ceiling=True)
    )


def fill(folder: Path, problems: int) -> Path:
    """A store with a scored sweep; the samples of a problem fall into `ANSWERS` answers of very unlike sizes."""
    lines = (
        json.dumps({"problem": f"Problem {i}", "answer": str(i), "level": 1 + i % 5}) for i in range(problems)
    )
    (folder / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sweep = folder / "sweep.yaml"
    sweep.write_text(json.dumps(_sweep()), encoding="utf-8")
    path = folder / "estimates.db"
    registered = asyncio.run(_register(sweep, path))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        rng = np.random.default_rng(20261125)
        for demand in registered.demands:
            _fill_pool(db, registered, demand.pool_id, demand.problem_id, rng)
        db.execute("UPDATE sweeps SET state = 'complete'")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def _sweep() -> dict[str, Any]:
    prm = {"kind": "prm", "endpoints": "http://127.0.0.1:9/v1", "format": "qwen", "label_type": "soft"}
    scored = [
        {"kind": kind, "scorer": name}
        for kind in ("best-of-n", "weighted", "filter-vote")
        for name in SCORERS
    ]
    return {
        "name": NAME,
        "problems": {"path": "problems.jsonl"},
        "models": {"policy": {"endpoints": "http://127.0.0.1:9/v1", "model": "policy"}},
        "scorers": {name: {**prm, "model": name} for name in SCORERS},
        "strategies": [{"name": "parallel", "kind": "parallel", "policy": "policy", "samples": SAMPLES}],
        "selectors": [
            "pass",
            "majority",
            *scored,
            {"kind": "filter-vote", "scorer": "prm", "share": 0.25},
            {"kind": "hierarchical", "scorer": "prm", "chain": 4},
        ],
        "budgets": [1 << bit for bit in range(12)],
    }


async def _register(sweep: Path, path: Path) -> Registered:
    spec = load_sweep(sweep)
    async with await Store.open(f"sqlite:///{path}") as store:
        return await register(spec, load_problems(spec.problems, sweep.parent), store, lambda message: None)


def _fill_pool(
    db: sqlite3.Connection, registered: Registered, pool: int, problem: int, rng: np.random.Generator
) -> None:
    """Samples that answer, one of which answers is right, and scores that know a little of it."""
    rules = registered.rules
    answers = [(problem << 8) + number for number in range(ANSWERS)]
    right = int(min(rng.geometric(0.5) - 1, ANSWERS - 1))
    db.executemany(
        "INSERT INTO answers (id, problem_id, text) VALUES (?, ?, ?)",
        [(answer, problem, f"answer {answer}") for answer in answers],
    )
    db.executemany(
        "INSERT INTO grades (answer_id, grader_id, verdict, cluster_id, graded_at) VALUES (?, ?, ?, ?, 0)",
        [
            (answer, grader, "correct" if number == right else "wrong", answer)
            for number, answer in enumerate(answers)
            for grader in rules.grader_ids.values()
        ],
    )
    shares = 1.0 / np.arange(1, ANSWERS + 1)
    drawn = rng.choice(ANSWERS, size=SAMPLES, p=shares / shares.sum())
    first = pool << SAMPLES_PER_POOL_BITS
    db.executemany(
        "INSERT INTO trajectories (id, pool_id, sample_index, seed, outcome, completion_tokens, latency_s, retries,"
        " created_at) VALUES (?, ?, ?, ?, 'complete', 300, 1, 0, 0)",
        [(first + index, pool, index, index) for index in range(SAMPLES)],
    )
    db.executemany(
        "INSERT INTO extractions (trajectory_id, extractor_id, answer_id) VALUES (?, ?, ?)",
        [(first + index, rules.extractor_id, answers[number]) for index, number in enumerate(drawn.tolist())],
    )
    for scorer in registered.scorers:
        logits = rng.normal(size=(SAMPLES, STEPS)) + (drawn == right)[:, None]
        values = np.round(1.0 / (1.0 + np.exp(-logits)), 6).tolist()
        db.executemany(
            "INSERT INTO scores (trajectory_id, scorer_id, values_json, status) VALUES (?, ?, ?, 'ok')",
            [(first + index, scorer, json.dumps(each)) for index, each in enumerate(values)],
        )


def _read_s(path: Path) -> float:
    started = time.perf_counter()
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "SELECT t.id, t.outcome, x.answer_id FROM trajectories t JOIN extractions x ON x.trajectory_id = t.id"
        ).fetchall()
        db.execute("SELECT trajectory_id, scorer_id, values_json FROM scores").fetchall()
    return time.perf_counter() - started


def _results(path: Path, *options: str) -> _Run:
    """Run `ttc results`, and ask the operating system what it took."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "results", NAME]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--json", "--db", str(path), *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"ttc results ended with {process.returncode}")
    return _Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / (1 << 30))
