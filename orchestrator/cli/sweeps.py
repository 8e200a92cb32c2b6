"""Commands that move a sweep along: run, submit, watch, resume, plan, status, cancel, grade, score."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Address,
    AsJson,
    Database,
    DatabaseVariable,
    IsLocal,
    JobApi,
    LogFile,
    MetricsHost,
    MetricsPort,
    Preview,
    Python,
    SweepFile,
    SweepName,
    Workers,
    chosen_database,
    database_url,
    is_job_api,
    job_api,
    job_words,
    ray_address,
    run_async,
    stop_window_s,
)
from orchestrator.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from orchestrator.sweep import RunOptions


@dataclass(frozen=True, slots=True)
class _Where:
    """What run, resume and score are told alike: where to run, and how to be watched."""

    is_local: bool
    workers: int | None
    ray_address: str | None
    metrics_port: int | None
    metrics_host: str | None
    log_file: Path | None
    is_json: bool

    def options(self, *, is_previewed: bool, only_scores: bool = False) -> RunOptions:
        """The options of a run."""
        from orchestrator.execution.metrics.server import metrics_settings
        from orchestrator.sweep import RunOptions

        return RunOptions(
            workers=self.workers,
            is_local=self.is_local,
            ray_address=self.ray_address,
            is_previewed=is_previewed,
            is_json=self.is_json,
            only_scores=only_scores,
            stop_window_s=stop_window_s(),
            metrics=metrics_settings(self.metrics_port, self.metrics_host, os.environ),
            log_file=self.log_file,
        )


def run(
    sweep: SweepFile,
    db: Database = None,
    local: IsLocal = False,
    workers: Workers = None,
    address: Address = None,
    preview: Preview = True,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or go on with it: what is stored is never drawn again, and Ctrl-C is safe."""
    from orchestrator.commands import run_file

    where = _Where(local, workers, ray_address(address), metrics_port, metrics_host, log_file, as_json)
    options = where.options(is_previewed=preview)
    run_async(run_file(sweep, chosen_database(db), options))


def submit(
    sweep: SweepFile,
    address: JobApi = None,
    db: Database = None,
    db_env: DatabaseVariable = None,
    python: Python = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep as a job of a Ray cluster, which goes on without this machine; submitted again, it resumes."""
    from orchestrator.jobs.submission import submit_file

    submit_file(sweep, job_words(address, db, db_env, python, workers), is_json=as_json)


def watch(name: SweepName, address: JobApi = None, as_json: AsJson = False) -> None:
    """Follow the latest job of a sweep, from any machine; Ctrl-C ends the watching, not the job.

    Ends as the job ends, with its exit code.
    """
    from orchestrator.jobs.following import watch as watch_job

    try:
        run_async(watch_job(name, job_api(address), is_json=as_json))
    except KeyboardInterrupt:
        raise Interrupted("no longer watched; the job goes on") from None


def logs(name: SweepName, address: JobApi = None, as_json: AsJson = False) -> None:
    """Print all that the latest job of a sweep has written."""
    from orchestrator.jobs.following import show_log

    show_log(name, job_api(address), is_json=as_json)


def resume(
    name: SweepName,
    db: Database = None,
    local: IsLocal = False,
    workers: Workers = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster; http://HEAD:8265 submits a job; else a local Ray is started."
        ),
    ] = None,
    db_env: DatabaseVariable = None,
    python: Python = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a sweep by its name, from what the database knows of it; needs no file."""
    from orchestrator.commands import resume_sweep

    if is_job_api(address):
        from orchestrator.jobs.submission import submit_resume

        if metrics_port is not None or log_file is not None:
            raise UsageError("--metrics-port and --log-file are for runs on this machine, not for jobs")
        submit_resume(name, job_words(address, db, db_env, python, workers), is_json=as_json)
        return
    if db_env or python:
        raise UsageError("--db-env and --python are for jobs", remedy="add --address http://HEAD:8265")
    where = _Where(local, workers, address, metrics_port, metrics_host, log_file, as_json)
    options = where.options(is_previewed=False)
    run_async(resume_sweep(name, database_url(db), options))


def plan(sweep: SweepFile, db: Database = None, as_json: AsJson = False) -> None:
    """Show what is stored, what is missing and what that will cost; calls no model and writes nothing."""
    from orchestrator.commands import plan_file

    run_async(plan_file(sweep, chosen_database(db), is_json=as_json))


def status(
    name: Annotated[str | None, typer.Argument(help="Name of a sweep; without it, all of them.")] = None,
    db: Database = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Dashboard of a cluster, say http://HEAD:8265: shows its jobs, without the database."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far sweeps are."""
    from orchestrator.commands import show_status

    if address is not None:
        from orchestrator.jobs.following import show_jobs

        show_jobs(name, address, is_json=as_json)
        return
    run_async(show_status(name, database_url(db), is_json=as_json))


def cancel(
    name: SweepName,
    db: Database = None,
    address: Annotated[
        str | None,
        typer.Option(help="Dashboard of a cluster, say http://HEAD:8265: stops the jobs of the sweep there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a running sweep to stop in order; `ttc resume` goes on with it."""
    from orchestrator.commands import cancel_sweep

    if address is not None:
        from orchestrator.jobs.following import cancel_jobs

        cancel_jobs(name, address, is_json=as_json)
        return
    run_async(cancel_sweep(name, database_url(db), is_json=as_json))


def grade(name: SweepName, db: Database = None, as_json: AsJson = False) -> None:
    """Give every stored answer the verdicts it lacks (after an upgrade of the grader); generates nothing."""
    from orchestrator.commands import grade_sweep

    run_async(grade_sweep(name, database_url(db), is_json=as_json))


def score(
    name: SweepName,
    scorers: Annotated[
        Path | None,
        typer.Argument(help="YAML file with scorers to add (and selectors); a sweep file will do."),
    ] = None,
    db: Database = None,
    local: IsLocal = False,
    workers: Workers = None,
    address: Address = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Score what a sweep has stored, by its own scorers or by others as well; generates nothing."""
    from orchestrator.commands import score_sweep

    where = _Where(local, workers, ray_address(address), metrics_port, metrics_host, log_file, as_json)
    options = where.options(is_previewed=False, only_scores=True)
    run_async(score_sweep(name, database_url(db), scorers, options))
