"""The jobs of sweeps on a Ray cluster: what `ttc watch`, `logs`, `status`, `cancel` with an address do.

They need no database, only the cluster, so they work from any machine. This module must not know how jobs are sent or
what is in them (`submission`, `ray_jobs`), nor what a log means (`job_view` shows it).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from orchestrator.console import note, show, show_json, show_line
from orchestrator.errors import (
    EndpointProblem,
    Interrupted,
    StoreError,
    SweepFailed,
    TtcError,
    UsageError,
)
from orchestrator.execution.ray_jobs import Job, JobState, RayJobs
from orchestrator.execution.ray_runtime import RayUnavailable
from orchestrator.jobs.view import JsonView, PersonView, View, as_plain, jobs_table
from orchestrator.nearest import suggestion
from orchestrator.terminal import Terminal, printable

RECONNECTIONS = 30
"""Times in a row that a lost connection is tried again before `ttc watch` gives up."""
_BY_EXIT_CODE = {
    each.exit_code: each for each in (UsageError, StoreError, EndpointProblem, SweepFailed, Interrupted)
}


def cancel_jobs(name: str, address: str, *, is_json: bool) -> None:
    """`ttc cancel --address`: SIGTERM for every job of the sweep that has not ended."""
    jobs = RayJobs(address)
    running = [job for job in _jobs_of(name, jobs) if not job.is_over]
    if not running:
        raise UsageError(
            f"no job of {name!r} is running at {address}",
            remedy=f"see `ttc status {name} --address {address}`",
        )
    for job in running:
        jobs.stop(job.id)
    if is_json:
        show_json({"sweep": name, "is_asked_to_stop": True, "jobs": [job.id for job in running]})
        return
    for job in running:
        show_line(f"{job.id}: asked to stop; `ttc resume {name} --address {address}` goes on with it")


def show_jobs(name: str | None, address: str, *, is_json: bool) -> None:
    """`ttc status --address`: the jobs that the cluster remembers, the latest first."""
    jobs = RayJobs(address)
    found = jobs.jobs() if name is None else _jobs_of(name, jobs)
    if is_json:
        show_json([as_plain(job) for job in found])
    else:
        show(jobs_table(found))


def _jobs_of(name: str, jobs: RayJobs) -> list[Job]:
    """The jobs of a sweep, the latest first; raises `UsageError` if there is none."""
    every = jobs.jobs()
    found = [job for job in every if job.sweep == name]
    if not found:
        raise UsageError.of(
            "is no sweep that was submitted to this cluster", field="NAME", value=repr(name),
            remedy=suggestion(name, dict.fromkeys(job.sweep for job in every), "it has jobs of"),
        )  # fmt: skip
    return found


def show_log(name: str, address: str, *, is_json: bool) -> None:
    """`ttc logs`: all that the latest job of a sweep has written."""
    jobs = RayJobs(address)
    job = _jobs_of(name, jobs)[0]
    log = jobs.log(job.id)
    if is_json:
        show_json({**as_plain(job), "log": log})
    else:
        sys.stdout.write(printable(log.expandtabs()))


async def watch(name: str, address: str, *, is_json: bool) -> None:
    """`ttc watch`: follow the latest job of a sweep, and end as it ends."""
    jobs = await asyncio.to_thread(RayJobs, address)
    job = (await asyncio.to_thread(_jobs_of, name, jobs))[0]
    view: View = JsonView() if is_json else PersonView(Terminal())
    view.job(job)
    try:
        async with aclosing(lines_of(job.id, jobs)) as lines:
            async for line in lines:
                view.line(line)
    finally:
        view.close()
    ended = await asyncio.to_thread(jobs.job, job.id)
    view.job(ended)
    if (error := end_of(ended)) is not None:
        raise error


class LogSource(Protocol):
    """Where a job's log comes from."""

    def follow(self, job_id: str) -> AsyncGenerator[str, None]:
        """Pieces of the log from its beginning; ends with the job, and may end or raise `RayUnavailable` before."""

    def job(self, job_id: str) -> Job:
        """The job as it is now."""


async def lines_of(job_id: str, source: LogSource, pause_s: float = 2.0) -> AsyncGenerator[str, None]:
    """The lines of a job's log until the job has ended; a lost connection is made again, and repeats no line."""
    seen = failures = 0
    while True:
        count = 0
        try:
            async with aclosing(_whole_lines(source.follow(job_id))) as lines:
                async for line in lines:
                    count += 1
                    if count > seen:
                        seen, failures = count, 0
                        yield line
            if (await asyncio.to_thread(source.job, job_id)).is_over:
                return
        except RayUnavailable as error:
            failures += 1
            if failures > RECONNECTIONS:
                raise
            note(f"{error.message}; trying again")
        await asyncio.sleep(pause_s)


async def _whole_lines(pieces: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Lines without their ends; the rest of a log that does not end with one is a line, too."""
    rest = ""
    async with aclosing(pieces):
        async for piece in pieces:
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                yield line
    if rest:
        yield rest


def end_of(job: Job) -> TtcError | None:
    """What `ttc watch` ends with: nothing for a job that succeeded, else an error with the exit code of the job."""
    if job.state is JobState.SUCCEEDED:
        return None
    again = f"`ttc submit` or `ttc resume {job.sweep} --address ...` goes on from what is stored"
    if job.state is JobState.STOPPED:
        return Interrupted(f"{job.id} was stopped", remedy=again)
    if job.exit_code is None:
        last = (job.message.strip().splitlines() or ["Ray does not say why"])[-1]
        return TtcError(f"{job.id} failed: {printable(last)}", remedy=again)
    if job.exit_code < 0:
        return TtcError(f"{job.id} was killed by signal {-job.exit_code}", remedy=again)
    kind = _BY_EXIT_CODE.get(job.exit_code, TtcError)
    return kind(f"{job.id} ended with exit code {job.exit_code}; its log, above, says why")
