"""Progress: sums of committed batches, one view of all workers, and text that no model output can disturb."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from orchestrator.execution.progress import (
    JsonReporter,
    LineReporter,
    Snapshot,
    Tally,
    TerminalReporter,
    duration,
    line,
    make_reporter,
    merge_replicas,
    panel,
)
from workers.types import FactBatch, Outcome, ReplicaHealth, Trajectory, Usage, WorkerHealth

REPLICA = ReplicaHealth("http://a/v1", True, 3, 8, 10, 1, "server_fault")
SNAPSHOT = Snapshot(
    samples_wanted=200,
    samples_stored=50,
    run_samples=40,
    scores_wanted=0,
    scores_stored=0,
    run_scores=0,
    completion_tokens=1234,
    rate=10.0,
    score_rate=0.0,
    best_score_rate=0.0,
    elapsed_s=7.0,
    in_flight=8,
    outcomes={"complete": 38, "truncated": 2},
    failures={"server_fault": 1},
    replicas=(REPLICA,),
    paused_reason=None,
)


def trajectory(text: str, outcome: Outcome = Outcome.COMPLETE) -> Trajectory:
    return Trajectory(
        1, 1, 1, 0, 7, outcome, text, (len(text),), "4", "boxed", 0, "stop", 9, -1.0, 0.5, 0, "a", None
    )  # fmt: skip


def test_a_tally_adds_up_batches() -> None:
    tally = Tally(samples_wanted=10, samples_before=4)
    tally.add(
        FactBatch(
            trajectories=(trajectory("x"), trajectory("y", Outcome.TRUNCATED)),
            usage=(Usage(1, 1, requests=2, completion_tokens=18, retries=3),),
        )
    )
    snapshot = tally.snapshot(in_flight=5)
    assert (snapshot.samples_stored, snapshot.run_samples, snapshot.completion_tokens) == (6, 2, 18)
    assert snapshot.outcomes == {"complete": 1, "truncated": 1}
    assert (tally.requests, tally.retries) == (2, 3)


def test_a_run_is_paused_only_when_every_worker_is() -> None:
    tally = Tally(samples_wanted=10, samples_before=0)
    healthy = WorkerHealth((REPLICA,), 3, 5, None, (), {})
    tally.health = {0: healthy, 1: replace(healthy, paused_reason="all replicas are down")}
    assert tally.snapshot(0).paused_reason is None
    tally.health[0] = replace(healthy, paused_reason="all replicas are down")
    assert tally.snapshot(0).paused_reason == "all replicas are down"


def test_replicas_of_all_workers_are_one_row_each() -> None:
    merged = merge_replicas([(REPLICA,), (replace(REPLICA, is_up=False, last_error=None),)])
    assert merged == (ReplicaHealth("http://a/v1", True, 6, 16, 20, 2, "server_fault"),)


def test_eta_is_what_is_left_over_the_rate() -> None:
    assert SNAPSHOT.eta_s == 15.0
    assert replace(SNAPSHOT, rate=0.0).eta_s is None
    assert replace(SNAPSHOT, samples_stored=200).eta_s is None
    idle = replace(SNAPSHOT, scores_wanted=200, scores_stored=50, score_rate=0.1, best_score_rate=5.0)
    assert idle.eta_s == 30.0  # scorers that wait for samples are not slow


def test_a_line_says_share_rate_failures_and_eta() -> None:
    assert line(SNAPSHOT) == (
        "50/200 samples (25%) | 10.0/s | 1234 tokens | dispatched 8 | ETA 15 s | truncated 2, server_fault 1"
    )
    assert line(replace(SNAPSHOT, paused_reason="down")).endswith("PAUSED: down")


def test_the_panel_shows_replicas_and_failures() -> None:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(
        panel("demo", replace(SNAPSHOT, replicas=(replace(REPLICA, is_up=False),), paused_reason="down"))
    )
    text = console.export_text()
    for part in (
        "50 / 200 samples",
        "25%",
        "10.0 samples/s",
        "server_fault 1",
        "DOWN",
        "paused: down",
        "15 s",
    ):
        assert part in text


def test_model_output_is_never_markup_nor_control_sequences() -> None:
    hostile = trajectory("[bold]x[/bold] \x1b[31mred")
    console = Console(file=io.StringIO(), width=100, record=True)
    TerminalReporter(console, "demo").first_sample("[red]prompt", hostile)
    shown = console.export_text()
    assert "[bold]x[/bold]" in shown
    assert "\x1b" not in shown
    stream = io.StringIO()
    LineReporter(stream).first_sample("p", hostile)
    assert "\x1b" not in stream.getvalue()


def test_json_lines_are_json_and_not_too_many() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    for second in range(12):
        reporter.update(replace(SNAPSHOT, elapsed_s=float(second)))
    reporter.first_sample("p", trajectory("text"))
    records = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [each["samples_stored"] for each in records[:-1]] == [50, 50, 50]
    assert records[-1]["first_completion"] == "text"


def test_a_pipe_gets_lines() -> None:
    assert isinstance(make_reporter("demo", is_json=False, stream=io.StringIO()), LineReporter)
    assert isinstance(make_reporter("demo", is_json=True, stream=io.StringIO()), JsonReporter)


def test_durations_are_what_people_say() -> None:
    assert [duration(each) for each in (None, 7.4, 95, 3700)] == ["-", "7 s", "1 min 35 s", "1 h 01 min"]
