"""What several commands have in common: their options, and what those mean together with the environment."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestrator.environment import (
    API_VARIABLE,
    DATABASE_VARIABLE,
    PYTHON_VARIABLE,
    STOP_WINDOW_VARIABLE,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.jobs.submission import JobWords

Result = TypeVar("Result")

SweepFile = Annotated[Path, typer.Argument(help="The sweep file (YAML).", show_default=False)]
SweepName = Annotated[str, typer.Argument(help="Name of the sweep, as in its file.", show_default=False)]
Database = Annotated[
    str | None,
    typer.Option(
        "--db", help=f"Database URL or SQLite file; else ${DATABASE_VARIABLE}, else the sweep file's."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
IsLocal = Annotated[bool, typer.Option("--local", help="Run the workers in this process, without Ray.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of workers; else the sweep file's.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster; else a local Ray is started.")
]
JobApi = Annotated[
    str | None,
    typer.Option("--address", help=f"Dashboard of the cluster, say http://HEAD:8265; else ${API_VARIABLE}."),
]
DatabaseVariable = Annotated[
    str | None,
    typer.Option(
        "--db-env",
        help="Variable on the head of the cluster that holds the database URL; keeps passwords there.",
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        help=f"Interpreter on the head that has ttc; else ${PYTHON_VARIABLE}, else one is looked for there."
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Serve Prometheus metrics of the run at this port; 0 takes a free one."
    ),
]
MetricsHost = Annotated[
    str | None,
    typer.Option(
        help="Address to serve metrics on, else 127.0.0.1; another needs a token in $TTC_METRICS_TOKEN."
    ),
]
LogFile = Annotated[
    Path | None, typer.Option(help="Append what happens to this file, one JSON object a line.")
]
Preview = Annotated[bool, typer.Option(help="Wait for the first completion, and show it, before going on.")]


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; of a group of errors the first of ours is raised."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        from orchestrator.execution.coordinator import root_cause

        raise root_cause(group) from None


def chosen_database(option: str | None) -> str | None:
    """URL of the store that option or environment name; None: neither does."""
    chosen = option or os.environ.get(DATABASE_VARIABLE)
    return as_url(chosen) if chosen else None


def database_url(option: str | None) -> str:
    """URL of the store: what option or environment say, else ./ttc.db."""
    from orchestrator.spec.settings import DEFAULT_STORE

    return chosen_database(option) or DEFAULT_STORE


def as_url(option: str) -> str:
    """A URL, or the path of a SQLite file made one."""
    if "://" in option:
        return option
    return f"sqlite:///{Path(option).resolve()}"


def is_job_api(address: str | None) -> bool:
    """Is it the address of a dashboard, which takes jobs, and not of the cluster itself?"""
    return address is not None and address.startswith(("http://", "https://"))


def ray_address(address: str | None) -> str | None:
    """The address of a cluster; raises UsageError for that of a dashboard."""
    if is_job_api(address):
        raise UsageError.of(
            "is the address of a dashboard, which takes jobs", field="--address", value=address,
            remedy="`ttc submit` sends one; to run the coordinator here, name the cluster itself, say HEAD:6379",
        )  # fmt: skip
    return address


def job_api(address: str | None) -> str:
    """The dashboard that option or environment name; raises UsageError if neither does."""
    chosen = address or os.environ.get(API_VARIABLE)
    if not chosen:
        raise UsageError.of(
            "is missing: which cluster?", field="--address",
            remedy=f"name its dashboard, say http://HEAD:8265, here or in {API_VARIABLE}",
        )  # fmt: skip
    return chosen


def job_words(
    address: str | None, db: str | None, db_env: str | None, python: str | None, workers: int | None
) -> JobWords:
    """What the command line says of a job."""
    from orchestrator.jobs.submission import JobWords

    return JobWords(job_api(address), db, db_env, python or os.environ.get(PYTHON_VARIABLE), workers)


def stop_window_s() -> float | None:
    """What whoever started this process leaves between SIGTERM and SIGKILL, if it says so."""
    text = os.environ.get(STOP_WINDOW_VARIABLE)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError.of(
            "is no number of seconds", field=STOP_WINDOW_VARIABLE, value=repr(text), remedy="write 30"
        ) from None


def print_json(value: Any) -> None:
    """Print for machines."""
    typer.echo(json.dumps(value, indent=2))
