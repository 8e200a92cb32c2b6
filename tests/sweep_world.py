"""Whole sweeps for tests: a folder with problems and a sweep file, ways to run it, and its rows by natural keys.

`run_here` runs a sweep in this process and event loop, beside a server of the test; `Command` is a real `ttc`
process. `rows_of` knows what two databases that saw different accidents must have in common.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

from orchestrator.execution.metrics.observation import Board
from orchestrator.execution.progress import JsonReporter
from orchestrator.problems.datasets import load_problems
from orchestrator.registration import recall, register
from orchestrator.spec.file import load_sweep
from orchestrator.store import Store
from orchestrator.store.patience import patiently
from orchestrator.sweep import RunOptions, RunReport, run_sweep
from workers.types import Trajectory

ROOT = Path(__file__).parents[1]
TTC = (sys.executable, "-c", "from orchestrator.cli import main; main()")
NAME = "whole"
PROBE_PROMPT = "What is 12 + 30?"
COMMAND_TIMEOUT_S = 120.0

PREFIX = "COALESCE(SUBSTR(y.text, 1, f.char_end), z.fingerprint, '')"
PREFIXED = """LEFT JOIN prefixes f ON f.id = p.prefix_id
    LEFT JOIN trajectory_texts y ON y.trajectory_id = f.trajectory_id
    LEFT JOIN procedures z ON z.id = p.procedure_id"""

TRAJECTORIES = f"""SELECT q.external_id, g.fingerprint, p.seed AS sweep_seed, t.sample_index, t.seed,
        t.outcome, t.finish_reason, t.completion_tokens, t.logprob_sum, t.error, t.parent_id,
        t.id - p.id * 1048576, x.text, x.step_ends, r.name, r.version, a.text AS answer, e.method, e.char_start,
        t.text_hash, {PREFIX} AS prefix
    FROM trajectories t JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id
    JOIN generators g ON g.id = p.generator_id {PREFIXED}
    LEFT JOIN trajectory_texts x ON x.trajectory_id = t.id
    LEFT JOIN extractions e ON e.trajectory_id = t.id LEFT JOIN extractors r ON r.id = e.extractor_id
    LEFT JOIN answers a ON a.id = e.answer_id
    ORDER BY q.external_id, g.fingerprint, p.seed, prefix, t.sample_index, r.name, r.version"""

TASKS = f"""SELECT q.external_id, COALESCE(g.fingerprint, c.fingerprint) AS fingerprint, p.seed, l.kind,
        k.sample_start, k.sample_count, k.state, k.error_kind,
        (SELECT COUNT(*) FROM trajectories t WHERE t.task_id = k.id AND t.pool_id = k.pool_id
            AND t.sample_index >= k.sample_start AND t.sample_index < k.sample_start + k.sample_count) AS samples,
        {PREFIX} AS prefix
    FROM tasks k JOIN lanes l ON l.id = k.lane_id JOIN pools p ON p.id = k.pool_id
    JOIN problems q ON q.id = p.problem_id
    LEFT JOIN generators g ON g.id = l.generator_id LEFT JOIN scorers c ON c.id = l.scorer_id {PREFIXED}
    ORDER BY q.external_id, l.kind, fingerprint, p.seed, prefix, k.sample_start"""

ANSWERS = """SELECT q.external_id, q.gold_status, a.text, r.name, r.version, d.verdict, d.method, d.detail, c.text
    FROM answers a JOIN problems q ON q.id = a.problem_id LEFT JOIN grades d ON d.answer_id = a.id
    LEFT JOIN graders r ON r.id = d.grader_id LEFT JOIN answers c ON c.id = d.cluster_id
    ORDER BY q.external_id, a.text, r.name, r.version"""

SCORES = """SELECT q.external_id, g.fingerprint, COALESCE(z.fingerprint, '') AS search, t.sample_index, c.fingerprint,
        s.values_json, s.status, s.detail
    FROM scores s JOIN scorers c ON c.id = s.scorer_id JOIN trajectories t ON t.id = s.trajectory_id
    JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id
    JOIN generators g ON g.id = p.generator_id LEFT JOIN procedures z ON z.id = p.procedure_id
    ORDER BY q.external_id, g.fingerprint, search, t.sample_index, c.fingerprint"""

NODES = """SELECT q.external_id, z.fingerprint, n.path, n.parent_path, n.child_index, n.depth, n.text,
        n.completion_tokens, n.ended, n.finish_reason, n.seed, n.is_greedy, s.value, r.reason
    FROM nodes n JOIN pools p ON p.id = n.pool_id JOIN procedures z ON z.id = p.procedure_id
    JOIN problems q ON q.id = p.problem_id
    LEFT JOIN node_scores s ON s.pool_id = n.pool_id AND s.path = n.path
    LEFT JOIN prunings r ON r.pool_id = n.pool_id AND r.path = n.path
    ORDER BY q.external_id, z.fingerprint, n.path"""

LABELS = """SELECT q.external_id, t.sample_index, v.strategy, v.step_index, v.prefix_id, v.rollouts, v.correct
    FROM v_labels v JOIN trajectories t ON t.id = v.trajectory_id JOIN problems q ON q.id = v.problem_id
    ORDER BY q.external_id, t.sample_index, v.strategy, v.step_index"""

RESULTS = """SELECT s.name, r.strategy, c.name, r.budget, r.level, r.metric, r.estimator_version, r.problems, r.value,
        r.std_error, r.low, r.high, r.mc_error
    FROM results r JOIN sweeps s ON s.id = r.sweep_id JOIN selectors c ON c.id = r.selector_id
    ORDER BY s.name, r.strategy, c.name, r.budget, r.level, r.metric"""

TABLES = {
    "trajectories": TRAJECTORIES,
    "tasks": TASKS,
    "answers": ANSWERS,
    "scores": SCORES,
    "nodes": NODES,
    "labels": LABELS,
    "results": RESULTS,
}
"""All columns but ids that depend on the order of arrival, times, replica, retries, attempt and run."""

Rows = dict[str, list[tuple[Any, ...]]]


async def rows_of(database: str) -> Rows:
    """Everything a sweep must end with, in an order of its own, named by natural keys.

    A store that a killed process has just left may be locked for a moment: that is tried again, as a run does.
    """
    return await patiently(lambda: _rows_of(database), print)


async def _rows_of(database: str) -> Rows:
    async with await Store.open(database, create=False) as store:
        return {
            name: (await store.query(sql, limit=1_000_000, timeout_s=600.0)).rows
            for name, sql in TABLES.items()
        }


def assert_same_rows(found: Rows, wanted: Rows, *, but: str = "") -> None:
    """Fail with the first rows that differ, not with a diff of thousands; `but` names a table to leave out."""
    for table, rows in wanted.items():
        if table == but:
            continue
        found_rows, wanted_rows = set(found[table]), set(rows)
        missing = [row for row in rows if row not in found_rows]
        surplus = [row for row in found[table] if row not in wanted_rows]
        assert not missing, f"{table}: {len(missing)} rows are missing or different, first {missing[:2]}"
        assert not surplus, f"{table}: {len(surplus)} rows too many, first {surplus[:2]}"
        assert found[table] == rows, f"{table}: the same rows, but some of them more often"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run in this process ended."""

    report: RunReport
    notes: list[dict[str, Any]]
    """What the reporter wrote, one object a line."""


class _Reporter(JsonReporter):
    def __init__(self, stream: TextIO, on_first: Callable[[], None] | None) -> None:
        super().__init__(stream)
        self._on_first = on_first

    def first_sample(self, prompt: str, trajectory: Trajectory) -> None:
        if self._on_first is not None:
            self._on_first()
        super().first_sample(prompt, trajectory)


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """A sweep file, its problems and its database."""

    folder: Path

    @property
    def file(self) -> Path:
        """The sweep file."""
        return self.folder / "sweep.yaml"

    @property
    def database(self) -> str:
        """URL of a SQLite file in the folder."""
        return f"sqlite:///{self.folder / 'ttc.db'}"

    def write(
        self,
        urls: str | Sequence[str],
        *,
        problems: int = 3,
        samples: int = 40,
        sweep_limits: Mapping[str, Any] | None = None,
        rollouts: Mapping[str, Any] | None = None,
        searches: Sequence[Mapping[str, Any]] = (),
        more: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> Path:
        """Write problems and sweep.

        `sections` go into the model, `sweep_limits` are the sweep's own, `rollouts` label its solutions, `searches` are
        further strategies, `more` are sections of the sweep (scorers, selectors).
        """
        self.write_problems(problems)
        model = {
            "endpoints": urls,
            "model": "stub",
            "prompt": "{problem}\n\n",
            "sampling": {"max_tokens": 64},
            "samples_per_request": 4,
            **sections,
        }
        sweep: dict[str, Any] = {
            "name": NAME,
            "seed": 11,
            "problems": {"path": "problems.jsonl"},
            "models": {"policy": model},
            "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": samples}],
            "limits": {"workers": 2, "task_samples": 16, **(sweep_limits or {})},
            **(more or {}),
        }
        sweep["strategies"] += [{"policy": "policy", "scorer": "prm", **each} for each in searches]
        if rollouts is not None:
            labels = {"name": "values", "kind": "rollouts", "source": "sampling", "completer": "policy"}
            sweep["strategies"].append({**labels, **rollouts})
        self.file.write_text(yaml.safe_dump(sweep))
        return self.file

    def write_problems(self, count: int) -> None:
        """Write problems with one-digit answers, of two levels."""
        rows = [
            {"id": f"p{i:03}", "problem": f"What is {i} times 1?", "answer": str(i % 10), "level": i % 2 + 1}
            for i in range(count)
        ]
        lines = (json.dumps(row) for row in rows)
        (self.folder / "problems.jsonl").write_text("\n".join(lines) + "\n")

    async def run_here(
        self,
        database: str | None = None,
        *,
        on_first: Callable[[], None] | None = None,
        is_local: bool = True,
        board: Board | None = None,
        **options: Any,
    ) -> Ended:
        """What `ttc run` does, in this process and event loop; `on_first`: with the first completion."""
        spec = load_sweep(self.file)
        problems = load_problems(spec.problems, self.folder)
        written = io.StringIO()
        reporter = _Reporter(written, on_first)
        async with await Store.open(database or self.database) as store:
            registered = await register(spec, problems, store, reporter.note)
            chosen = RunOptions(is_local=is_local, **options)
            report = await run_sweep(spec, registered, store, chosen, reporter, board)
        return Ended(report, _lines(written))

    async def resume_here(self, database: str | None = None, **options: Any) -> Ended:
        """What `ttc resume --local` does; reads no file."""
        written = io.StringIO()
        reporter = JsonReporter(written)
        async with await Store.open(database or self.database, create=False) as store:
            spec, registered = await recall(NAME, store)
            report = await run_sweep(spec, registered, store, RunOptions(is_local=True, **options), reporter)
        return Ended(report, _lines(written))


def _lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


@dataclass(frozen=True, slots=True)
class Said:
    """What a process wrote and how it ended."""

    code: int
    out: str
    err: str


class Command:
    """A `ttc` process in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str | Path, folder: Path, **environment: str) -> Command:
        """Start `ttc ARGUMENTS` in `folder`."""
        process = await asyncio.create_subprocess_exec(
            *TTC, *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=folder, env={**_environment(), **environment}, start_new_session=True,
        )  # fmt: skip
        return cls(process)

    @property
    def has_ended(self) -> bool:
        """Is the process gone?"""
        return self.process.returncode is not None

    async def ended(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Said:
        """Wait for the end; a process that does not end is killed, and fails the test."""
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await self.process.communicate()
        except TimeoutError:
            self.kill()
            out, err = await self.process.communicate()
            raise AssertionError(f"ttc did not end: {out.decode()}\n{err.decode()}") from None
        assert self.process.returncode is not None
        return Said(self.process.returncode, out.decode(), err.decode())

    def kill(self) -> None:
        """SIGKILL for the whole process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


async def ttc(*arguments: str | Path, folder: Path, **environment: str) -> Said:
    """Run a command to its end."""
    return await (await Command.start(*arguments, folder=folder, **environment)).ended()


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "TTC_DATABASE_URL"}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
