"""What a running sweep shows: a snapshot of plain numbers, and the three ways to show it (terminal, lines, JSON).

Nothing here is on the hot path: the coordinator adds batches to a `Tally` and a reporter looks at it twice a second.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.execution.counters import RunCounters
from orchestrator.execution.pace import Pace, time_left_s
from orchestrator.terminal import Terminal, printable
from workers.types import (
    REDONE,
    FactBatch,
    Outcome,
    ReplicaHealth,
    Role,
    ScoreStatus,
    Trajectory,
    WorkerHealth,
)

RATE_WINDOW_S = 20.0
LINE_INTERVAL_S = 5.0
PREVIEW_CHARACTERS = 600
PROGRESS_LINE = re.compile(r"(?P<stored>\d+)/(?P<wanted>\d+) samples \(\d+%\) \| ")
"""How a line of progress begins, for whoever reads it from a log."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Progress of one run at one moment."""

    samples_wanted: int
    samples_stored: int
    """Stored in the pools of this sweep, this run's and earlier ones'."""
    run_samples: int
    """Stored by this run."""
    scores_wanted: int
    scores_stored: int
    """Scores that are not to be made again, this run's and earlier ones'."""
    run_scores: int
    """Stored by this run."""
    completion_tokens: int
    rate: float
    """Samples a second over the last `RATE_WINDOW_S`."""
    score_rate: float
    """Scores a second over the last `RATE_WINDOW_S`."""
    best_score_rate: float
    """The highest of them: scorers often wait for samples, and then their rate says nothing of how fast they are."""
    elapsed_s: float
    in_flight: int
    """Samples dispatched to workers and not yet durable."""
    outcomes: dict[str, int]
    """This run's samples by outcome, and its scores by status where that is not ok."""
    failures: dict[str, int]
    """Failed requests by kind, retried or not."""
    replicas: tuple[ReplicaHealth, ...]
    paused_reason: str | None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at the rates so far; None while unknown."""
        parts = [
            (self.samples_wanted - self.samples_stored, self.rate),
            (self.scores_wanted - self.scores_stored, self.best_score_rate),
        ]
        times = [left / rate if rate > 0 else None for left, rate in parts if left > 0]
        known = [each for each in times if each is not None]
        return max(known) if known and len(known) == len(times) else None


class Reporter(Protocol):
    """Where progress goes."""

    def note(self, message: str) -> None:
        """Say one thing that happened."""

    def first_sample(self, prompt: str, trajectory: Trajectory) -> None:
        """Show the first prompt and its completion before the run goes on."""

    def update(self, snapshot: Snapshot) -> None:
        """Show the progress."""

    def advance(self, work: str, done: int, total: int) -> None:
        """Show how far some other long work is; any thread may call it."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


@dataclass(slots=True)
class Tally:
    """Sums of one run, fed with committed batches and with the workers' answers to the watchdog."""

    samples_wanted: int
    samples_before: int
    scores_wanted: int = 0
    scores_before: int = 0
    started_at_s: float = field(default_factory=time.monotonic)
    run_samples: int = 0
    run_scores: int = 0
    completion_tokens: int = 0
    requests: int = 0
    retries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    health: dict[int, WorkerHealth] = field(default_factory=dict)
    counters: RunCounters = field(default_factory=RunCounters)
    _history: deque[tuple[float, int, int]] = field(default_factory=deque)
    _best_score_rate: float = 0.0

    def add(self, batch: FactBatch, lanes: Mapping[int, int] | None = None) -> None:
        """Count a committed batch; `lanes` says of which lane its tasks are."""
        self.counters.add(batch, lanes or {})
        self.run_samples += len(batch.trajectories)
        self.outcomes.update(str(each.outcome) for each in batch.trajectories)
        searched = {
            each.task_id for each in batch.trajectories
        }  # a search brings the scores of what it found along
        self.run_scores += sum(
            each.status not in REDONE and each.task_id not in searched for each in batch.scores
        )
        self.outcomes.update(
            f"score {each.status}" for each in batch.scores if each.status is not ScoreStatus.OK
        )
        for usage in batch.usage:
            if usage.role is Role.POLICY:
                self.completion_tokens += usage.completion_tokens
            self.requests += usage.requests
            self.retries += usage.retries

    def lose(self, worker: int) -> None:
        """A worker is gone, and what it last said of itself with it."""
        self.counters.lose(self.health.pop(worker, None))

    def snapshot(self, in_flight: int) -> Snapshot:
        """The numbers now."""
        now = time.monotonic()
        failures = self.counters.failures(self.health)
        paused = [health.paused_reason for health in self.health.values()]
        rate, score_rate = self._rates(now)
        self._best_score_rate = max(self._best_score_rate, score_rate)
        return Snapshot(
            samples_wanted=self.samples_wanted,
            samples_stored=self.samples_before + self.run_samples,
            run_samples=self.run_samples,
            scores_wanted=self.scores_wanted,
            scores_stored=self.scores_before + self.run_scores,
            run_scores=self.run_scores,
            completion_tokens=self.completion_tokens,
            rate=rate,
            score_rate=score_rate,
            best_score_rate=self._best_score_rate,
            elapsed_s=now - self.started_at_s,
            in_flight=in_flight,
            outcomes=dict(self.outcomes),
            failures=dict(failures),
            replicas=merge_replicas([health.replicas for health in self.health.values()]),
            paused_reason=next((each for each in paused if each), None) if paused and all(paused) else None,
        )

    def _rates(self, now: float) -> tuple[float, float]:
        """Samples and scores a second."""
        self._history.append((now, self.run_samples, self.run_scores))
        while now - self._history[0][0] > RATE_WINDOW_S and len(self._history) > 2:
            self._history.popleft()
        since, samples, scores = self._history[0]
        elapsed_s = now - since
        if elapsed_s <= 0:
            return 0.0, 0.0
        return (self.run_samples - samples) / elapsed_s, (self.run_scores - scores) / elapsed_s


def merge_replicas(views: Sequence[Sequence[ReplicaHealth]]) -> tuple[ReplicaHealth, ...]:
    """One record a replica from the views of all workers: counts add up, and up means up for any of them."""
    merged: dict[str, ReplicaHealth] = {}
    for replica in (each for view in views for each in view):
        old = merged.get(replica.url)
        merged[replica.url] = replica if old is None else _joined(old, replica)
    return tuple(merged.values())


def _joined(left: ReplicaHealth, right: ReplicaHealth) -> ReplicaHealth:
    return ReplicaHealth(
        url=left.url,
        is_up=left.is_up or right.is_up,
        in_flight=left.in_flight + right.in_flight,
        limit=left.limit + right.limit,
        requests=left.requests + right.requests,
        failures=left.failures + right.failures,
        last_error=right.last_error or left.last_error,
    )


class TerminalReporter:
    """A live panel on a terminal."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._live: Live | None = None
        self._pace = Pace()

    def note(self, message: str) -> None:
        """Print above the panel."""
        self._console.print(Text(message, style="dim"))

    def first_sample(self, prompt: str, trajectory: Trajectory) -> None:
        """Print the first exchange, as text: model output is never markup."""
        self._console.print(Panel(Text(shortened(prompt)), title="first prompt", border_style="cyan"))
        title = f"first completion: {trajectory.outcome}, answer {printable(str(trajectory.answer))}"
        self._console.print(Panel(Text(shortened(trajectory.text)), title=Text(title), border_style="green"))

    def update(self, snapshot: Snapshot) -> None:
        """Redraw the panel."""
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(panel(self._name, snapshot))

    def advance(self, work: str, done: int, total: int) -> None:
        """Redraw a bar in place of the panel."""
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        rate = self._pace.rate(work, done, time.monotonic())
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(f"{work} {done:,} / {total:,}"),
            ProgressBar(total=max(1, total), completed=done),
            Text(_speed(done, total, rate)),
        )
        self._live.update(bar)

    def close(self) -> None:
        """Remove the panel."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class LineReporter:
    """Plain lines, for logs and pipes: one every `LINE_INTERVAL_S`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0
        self._work: dict[str, float] = {}
        self._pace = Pace()

    def note(self, message: str) -> None:
        """Write a line."""
        print(printable(message), file=self._stream, flush=True)

    def first_sample(self, prompt: str, trajectory: Trajectory) -> None:
        """Write the first exchange, control characters escaped."""
        self.note(f"first prompt: {shortened(prompt)!r}")
        self.note(
            f"first completion ({trajectory.outcome}, answer {trajectory.answer!r}): {shortened(trajectory.text)!r}"
        )

    def update(self, snapshot: Snapshot) -> None:
        """Write a line when the last one is old enough."""
        if snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + LINE_INTERVAL_S
            self.note(line(snapshot))

    def advance(self, work: str, done: int, total: int) -> None:
        """Write a line when the last one is old enough; nothing of work that is short."""
        now = time.monotonic()
        self._work.setdefault(work, now)
        rate = self._pace.rate(work, done, now)
        if now - self._work[work] >= LINE_INTERVAL_S:
            self._work[work] = now
            self.note(f"{work} {done:,}/{total:,} | {_speed(done, total, rate)}")

    def close(self) -> None:
        """Nothing to restore."""


class JsonReporter:
    """One JSON object a line, for machines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0

    def note(self, message: str) -> None:
        """Write an object with `note`."""
        self._write({"note": message})

    def first_sample(self, prompt: str, trajectory: Trajectory) -> None:
        """Write an object with the first exchange."""
        self._write(
            {"first_prompt": prompt, "first_completion": trajectory.text, "outcome": trajectory.outcome}
        )

    def update(self, snapshot: Snapshot) -> None:
        """Write an object with the progress."""
        if snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + LINE_INTERVAL_S
            self._write(
                {
                    "samples_wanted": snapshot.samples_wanted,
                    "samples_stored": snapshot.samples_stored,
                    "scores_wanted": snapshot.scores_wanted,
                    "scores_stored": snapshot.scores_stored,
                    "completion_tokens": snapshot.completion_tokens,
                    "rate": round(snapshot.rate, 2),
                    "score_rate": round(snapshot.score_rate, 2),
                    "eta_s": snapshot.eta_s,
                    "in_flight": snapshot.in_flight,
                    "outcomes": snapshot.outcomes,
                    "failures": snapshot.failures,
                    "replicas_up": sum(each.is_up for each in snapshot.replicas),
                    "paused_reason": snapshot.paused_reason,
                }
            )

    def advance(self, work: str, done: int, total: int) -> None:
        """Write an object with what is done."""
        self._write({"work": work, "done": done, "total": total})

    def close(self) -> None:
        """Nothing to restore."""

    def _write(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), file=self._stream, flush=True)


def make_reporter(name: str, *, is_json: bool, stream: TextIO) -> Reporter:
    """The reporter that fits the stream."""
    if is_json:
        return JsonReporter(stream)
    console = Terminal(file=stream)
    return TerminalReporter(console, name) if console.is_terminal else LineReporter(stream)


def shortened(text: str, limit: int = PREVIEW_CHARACTERS) -> str:
    """The beginning of a text, with what was left out said."""
    beginning = printable(text[:limit])
    return beginning if len(text) <= limit else f"{beginning}... ({len(text) - limit} more characters)"


def line(snapshot: Snapshot) -> str:
    """Progress as one line of text."""
    share = snapshot.samples_stored / max(1, snapshot.samples_wanted)
    parts = [
        f"{snapshot.samples_stored}/{snapshot.samples_wanted} samples ({share:.0%})",
        f"{snapshot.rate:.1f}/s",
        *_scores_part(snapshot),
        f"{snapshot.completion_tokens} tokens",
        f"dispatched {snapshot.in_flight}",
        f"ETA {duration(snapshot.eta_s)}",
    ]
    problems = {**_not_complete(snapshot), **snapshot.failures}
    if problems:
        parts.append(", ".join(f"{kind} {count}" for kind, count in problems.items()))
    if snapshot.paused_reason:
        parts.append(f"PAUSED: {snapshot.paused_reason}")
    return " | ".join(parts)


def _scores_part(snapshot: Snapshot) -> list[str]:
    """How far scoring is, in a sweep that has scorers."""
    if not snapshot.scores_wanted:
        return []
    return [f"{snapshot.scores_stored:,}/{snapshot.scores_wanted:,} scores, {snapshot.score_rate:,.1f}/s"]


def panel(name: str, snapshot: Snapshot) -> RenderableType:
    """Progress as a panel for a terminal."""
    share = snapshot.samples_stored / max(1, snapshot.samples_wanted)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{snapshot.samples_stored:,} / {snapshot.samples_wanted:,} samples", style="bold"),
        Text(f"{share:.0%}"),
        Text(f"{snapshot.rate:,.1f} samples/s"),
        Text(f"{snapshot.completion_tokens:,} tokens"),
        Text(f"ETA {duration(snapshot.eta_s)}"),
    )
    rows: list[RenderableType] = [
        head,
        ProgressBar(total=max(1, snapshot.samples_wanted), completed=snapshot.samples_stored),
        *_score_rows(snapshot),
        _counts_line("outcomes", _not_complete(snapshot), "yellow"),
        _counts_line("failed requests", snapshot.failures, "red"),
        _replica_table(snapshot.replicas),
    ]
    if snapshot.paused_reason:
        rows.append(Text(f"paused: {snapshot.paused_reason}", style="bold yellow"))
    return Panel(Group(*rows), title=Text(f"{name}  {duration(snapshot.elapsed_s)}"), border_style="blue")


def _score_rows(snapshot: Snapshot) -> list[RenderableType]:
    if not snapshot.scores_wanted:
        return []
    bar = ProgressBar(total=snapshot.scores_wanted, completed=snapshot.scores_stored)
    return [Text(_scores_part(snapshot)[0]), bar]


def _speed(done: int, total: int, rate: float | None) -> str:
    """Rate and time left, as far as they are known."""
    speed = "-" if rate is None else f"{rate:,.0f}"
    return f"{speed}/s | ETA {duration(time_left_s(done, total, rate))}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _not_complete(snapshot: Snapshot) -> dict[str, int]:
    return {kind: count for kind, count in snapshot.outcomes.items() if kind != Outcome.COMPLETE}


def _counts_line(label: str, counts: dict[str, int], style: str) -> Text:
    if not counts:
        return Text(f"{label}: none", style="dim")
    return Text(
        f"{label}: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items())), style=style
    )


def _replica_table(replicas: Sequence[ReplicaHealth]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for replica in replicas:
        table.add_row(
            Text("up" if replica.is_up else "DOWN", style="green" if replica.is_up else "bold red"),
            Text(replica.url),
            Text(f"{replica.in_flight} of {replica.limit} in flight"),
            Text(f"{replica.requests:,} requests"),
            Text(
                f"{replica.failures:,} failed"
                + (f" (last: {replica.last_error})" if replica.last_error else "")
            ),
        )
    return table
