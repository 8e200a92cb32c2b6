"""A job that is watched: lines arrive once whatever the connection does, and the watching ends as the job does."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console

from orchestrator.execution.progress import Snapshot, line
from orchestrator.execution.ray_jobs import Job, JobState
from orchestrator.execution.ray_runtime import RayUnavailable
from orchestrator.jobs.following import RECONNECTIONS, end_of, lines_of
from orchestrator.jobs.view import JsonView, PersonView, jobs_table

JOB = Job("first-1", "first", JobState.RUNNING, started_s=1e9, ended_s=None, exit_code=None, message="")
DONE = replace(JOB, state=JobState.SUCCEEDED, ended_s=1e9 + 90, exit_code=0)


@dataclass
class Connections:
    """A log that comes over several connections: pieces of text, and whether each connection ends with an error."""

    pieces: Sequence[tuple[Sequence[str], bool]]
    made: int = 0
    asked: list[str] = field(default_factory=list)

    async def follow(self, job_id: str) -> AsyncGenerator[str, None]:
        texts, is_lost = self.pieces[min(self.made, len(self.pieces) - 1)]
        self.made += 1
        for text in texts:
            yield text
        if is_lost:
            raise RayUnavailable("gone")

    def job(self, job_id: str) -> Job:
        self.asked.append(job_id)
        return DONE if self.made >= len(self.pieces) else JOB


async def read(source: Connections) -> list[str]:
    return [text async for text in lines_of("first-1", source, pause_s=0.0)]


async def test_lines_are_whole_however_they_are_cut() -> None:
    source = Connections([(["one\ntw", "o\n", "\nthr", "ee"], False)])
    assert await read(source) == ["one", "two", "", "three"]
    assert source.asked == ["first-1"]


async def test_a_lost_connection_repeats_no_line_and_loses_none(capsys: pytest.CaptureFixture[str]) -> None:
    source = Connections(
        [
            (["one\ntwo\nthr"], True),
            (["one\n"], True),
            (["one\ntwo\nthree\n"], False),
            (["one\ntwo\nthree\n4\n"], False),
        ]
    )
    assert await read(source) == ["one", "two", "three", "4"]
    assert capsys.readouterr().err.count("trying again") == 2


async def test_a_cluster_that_stays_away_is_given_up() -> None:
    source = Connections([(["one\n"], False), *[((), True)] * (RECONNECTIONS + 5)])
    with pytest.raises(RayUnavailable):
        await read(source)
    assert source.made == 1 + RECONNECTIONS + 1


@pytest.mark.parametrize(
    ("state", "exit_code", "message", "code", "said"),
    [
        (JobState.STOPPED, None, "", 130, "was stopped"),
        (JobState.FAILED, 2, "", 2, "exit code 2"),
        (JobState.FAILED, 3, "", 3, "exit code 3"),
        (JobState.FAILED, 5, "", 5, "exit code 5"),
        (JobState.FAILED, 130, "", 130, "exit code 130"),
        (JobState.FAILED, 77, "", 1, "exit code 77"),
        (JobState.FAILED, -9, "", 1, "killed by signal 9"),
        (JobState.FAILED, None, "Traceback\nthe node died\n", 1, "failed: the node died"),
        (JobState.FAILED, None, "", 1, "does not say why"),
    ],
)
def test_watching_ends_with_the_exit_code_of_the_job(
    state: JobState, exit_code: int | None, message: str, code: int, said: str
) -> None:
    error = end_of(replace(JOB, state=state, exit_code=exit_code, message=message))
    assert error is not None
    assert error.exit_code == code
    assert said in str(error)


def test_a_job_that_succeeded_is_no_error() -> None:
    assert end_of(DONE) is None
    assert DONE.is_over
    assert not JOB.is_over


SNAPSHOT = Snapshot(
    samples_wanted=100, samples_stored=25, run_samples=25, scores_wanted=0, scores_stored=0, run_scores=0,
    completion_tokens=900, rate=5.0, score_rate=0.0, best_score_rate=0.0, elapsed_s=5.0, in_flight=8, outcomes={},
    failures={}, replicas=(), paused_reason=None,
)  # fmt: skip


def shown(*, is_terminal: bool) -> str:
    stream = io.StringIO()
    view = PersonView(Console(file=stream, force_terminal=is_terminal, width=100))
    view.job(JOB)
    for stored in (25, 50):
        view.line(line(replace(SNAPSHOT, samples_stored=stored)))
    view.line("a\tnote\x1b]0;title\x07 [bold]")
    view.close()
    view.job(DONE)
    return stream.getvalue()


def test_a_log_stays_a_log_in_a_pipe() -> None:
    assert shown(is_terminal=False).splitlines() == [
        "first-1: running",
        line(SNAPSHOT),
        line(replace(SNAPSHOT, samples_stored=50)),
        "a       note\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER} [bold]",
        "first-1: succeeded",
    ]


def test_progress_is_a_bar_on_a_terminal() -> None:
    text = shown(is_terminal=True)
    assert "50/100 samples" in text
    assert "━" in text
    assert "\x1b]0;" not in text


def test_machines_get_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonView()
    view.job(JOB)
    view.line("text")
    view.job(DONE)
    first, second, third = (json.loads(each) for each in capsys.readouterr().out.splitlines())
    assert (first["id"], first["sweep"], first["state"], first["exit_code"]) == (
        "first-1",
        "first",
        "running",
        None,
    )
    assert second == {"log": "text"}
    assert (third["state"], third["exit_code"]) == ("succeeded", 0)


def test_jobs_are_a_line_each() -> None:
    stream = io.StringIO()
    cancelled = replace(DONE, id="arithmetic-demo-20261126-034353-e622", state=JobState.FAILED, exit_code=130)
    Console(file=stream, width=80).print(jobs_table([DONE, JOB, cancelled]))
    _, done, running, failed = stream.getvalue().splitlines()
    assert "failed (130)" in failed
    assert cancelled.id in failed
    assert "succeeded" in done
    assert "1 min 30 s" in done
    assert "09-09 01:46" in running
