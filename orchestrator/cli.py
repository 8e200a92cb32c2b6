"""The command `ttc`: arguments in, exit code out. It knows no algorithm; every command is a few calls.

Heavy modules (Ray, SQLAlchemy, NumPy) are imported by the commands that need them, so that `ttc --help` is quick.
An error of ours is printed as one screen of text and ends with its exit code; `docs/reference/cli.md` lists them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestrator.environment import (
    API_VARIABLE,
    DATABASE_VARIABLE,
    PYTHON_VARIABLE,
    STOP_WINDOW_VARIABLE,
    TRACEBACK_VARIABLE,
)
from orchestrator.errors import Interrupted, TtcError, UsageError, mask_secrets

if TYPE_CHECKING:
    from orchestrator.submission import JobWords

Result = TypeVar("Result")

app = typer.Typer(
    name="ttc",
    help="Run test-time-compute sweeps: one YAML in, graded trajectories in SQL out, resumable at any moment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
db_app = typer.Typer(help="Look after the database.", no_args_is_help=True)
models_app = typer.Typer(help="The models that come with ttc.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(models_app, name="models")

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


@app.command()
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
    from orchestrator.execution.metrics_server import metrics_settings
    from orchestrator.sweep import RunOptions

    options = RunOptions(
        workers=workers,
        is_local=local,
        ray_address=_ray_address(address),
        is_previewed=preview,
        is_json=as_json,
        stop_window_s=_stop_window_s(),
        metrics=metrics_settings(metrics_port, metrics_host, os.environ),
        log_file=log_file,
    )
    _await(run_file(sweep, _chosen_database(db), options))


@app.command()
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
    from orchestrator.submission import submit_file

    submit_file(sweep, _job_words(address, db, db_env, python, workers), is_json=as_json)


@app.command()
def watch(name: SweepName, address: JobApi = None, as_json: AsJson = False) -> None:
    """Follow the latest job of a sweep, from any machine; Ctrl-C ends the watching, not the job.

    Ends as the job ends, with its exit code.
    """
    from orchestrator.jobs import watch as watch_job

    try:
        _await(watch_job(name, _job_api(address), is_json=as_json))
    except KeyboardInterrupt:
        raise Interrupted("no longer watched; the job goes on") from None


@app.command()
def logs(name: SweepName, address: JobApi = None, as_json: AsJson = False) -> None:
    """Print all that the latest job of a sweep has written."""
    from orchestrator.jobs import show_log

    show_log(name, _job_api(address), is_json=as_json)


@app.command()
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
    from orchestrator.execution.metrics_server import metrics_settings
    from orchestrator.sweep import RunOptions

    if _is_job_api(address):
        from orchestrator.submission import submit_resume

        if metrics_port is not None or log_file is not None:
            raise UsageError("--metrics-port and --log-file are for runs on this machine, not for jobs")
        submit_resume(name, _job_words(address, db, db_env, python, workers), is_json=as_json)
        return
    if db_env or python:
        raise UsageError("--db-env and --python are for jobs", remedy="add --address http://HEAD:8265")
    options = RunOptions(
        workers=workers,
        is_local=local,
        ray_address=address,
        is_previewed=False,
        is_json=as_json,
        stop_window_s=_stop_window_s(),
        metrics=metrics_settings(metrics_port, metrics_host, os.environ),
        log_file=log_file,
    )
    _await(resume_sweep(name, _database(db), options))


@app.command()
def plan(sweep: SweepFile, db: Database = None, as_json: AsJson = False) -> None:
    """Show what is stored, what is missing and what that will cost; calls no model and writes nothing."""
    from orchestrator.commands import plan_file

    _await(plan_file(sweep, _chosen_database(db), is_json=as_json))


@app.command()
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
        from orchestrator.jobs import show_jobs

        show_jobs(name, address, is_json=as_json)
        return
    _await(show_status(name, _database(db), is_json=as_json))


@app.command()
def results(
    name: SweepName,
    budgets: Annotated[
        str | None, typer.Option(help="Budgets instead of the sweep's, say 1,16,256.", metavar="K,K,...")
    ] = None,
    first_k: Annotated[
        bool, typer.Option("--first-k", help="Also what the first k samples come to: one draw, no estimate.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Order the costs of searches by generations, tokens, policy-flops, all-flops or seconds, and mark "
            "what is right more often than all that is cheaper."
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compute and show a sweep's results from what is stored, now: every selector at every budget."""
    from orchestrator.commands import parse_budgets, show_results

    chosen = parse_budgets(budgets)
    _await(show_results(name, _database(db), chosen, shows_first=first_k, axis=by, is_json=as_json))


@app.command()
def compare(
    name: SweepName,
    first: Annotated[
        str,
        typer.Argument(help="[STRATEGY/]SELECTOR[@BUDGET], say weighted:prm.last@64.", show_default=False),
    ],
    second: Annotated[
        str, typer.Argument(help="What it is compared with, say majority.", show_default=False)
    ],
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compare two selectors, strategies or budgets on the same problems: paired differences with intervals."""
    from orchestrator.commands import compare_ways

    _await(compare_ways(name, _database(db), first, second, is_json=as_json))


@app.command()
def scaling(
    name: SweepName,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy that draws solutions; needed where there are several.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="Selector of kind filter-vote with a threshold; else the first of the sweep, if any.",
        ),
    ] = None,
    calls: Annotated[
        int, typer.Option(min=1, help="First calls of each problem that the predictions are made from.")
    ] = 40,
    budgets: Annotated[
        str | None, typer.Option(help="Numbers of calls; default: 20 from 2 to 1000.", metavar="K,K,...")
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show how votes scale with calls: easy and hard problems, two-level models, curves predicted from few calls."""
    from orchestrator.commands import parse_budgets, show_scaling

    chosen = parse_budgets(budgets)
    _await(show_scaling(name, _database(db), strategy, judge, calls, chosen, is_json=as_json))


@app.command()
def tree(
    name: SweepName,
    problem: Annotated[str, typer.Argument(help="Id of a problem, as in its file.", show_default=False)],
    strategy: Annotated[
        str | None, typer.Option(help="Strategy and budget, say beam@16; needed where there are several.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Pruned leaves as well, not just their number.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show the tree of a search for one problem: steps with their scores, pruned ones dim.

    ■ the solution ends here; ✂ it was cut; ∅ a step without text.
    """
    from orchestrator.commands import show_tree

    _await(show_tree(name, problem, strategy, _database(db), shows_all=whole, is_json=as_json))


@app.command()
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
        from orchestrator.jobs import cancel_jobs

        cancel_jobs(name, address, is_json=as_json)
        return
    _await(cancel_sweep(name, _database(db), is_json=as_json))


@app.command()
def grade(name: SweepName, db: Database = None, as_json: AsJson = False) -> None:
    """Give every stored answer the verdicts it lacks (after an upgrade of the grader); generates nothing."""
    from orchestrator.commands import grade_sweep

    _await(grade_sweep(name, _database(db), is_json=as_json))


@app.command()
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
    from orchestrator.execution.metrics_server import metrics_settings
    from orchestrator.sweep import RunOptions

    options = RunOptions(
        workers=workers,
        is_local=local,
        ray_address=_ray_address(address),
        is_previewed=False,
        is_json=as_json,
        only_scores=True,
        stop_window_s=_stop_window_s(),
        metrics=metrics_settings(metrics_port, metrics_host, os.environ),
        log_file=log_file,
    )
    _await(score_sweep(name, _database(db), scorers, options))


@app.command("import")
def import_samples(
    file: Annotated[Path, typer.Argument(help="Samples: .jsonl, .csv or .parquet.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the sweep they become.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of the model that wrote them.")] = "imported",
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="ROLE=COLUMN",
            help="Which column holds what, where it has no usual name: id, problem, gold, level, subject, samples, "
            "text, steps, answer, verdict, scores, score, tokens, finish_reason.",
        ),
    ] = None,
    answer_after: Annotated[
        str | None, typer.Option(help="The answer is what follows the last occurrence of this in the text.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Name of the scorer that gave the scores.")] = None,
    label_type: Annotated[
        str | None, typer.Option(help="What the labels of that scorer were: hard or soft.")
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Scores are logits, not probabilities.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Store samples made elsewhere, with their scores, as a sweep; then votes, scores and SQL work on them."""
    from orchestrator.commands import import_trajectories
    from orchestrator.importing import ImportOptions, reading_of

    reading = reading_of(fields or [], answer_after, are_logits=logits)
    options = ImportOptions(name, model, reading, scorer, label_type)
    _await(import_trajectories(file, _database(db), options, is_json=as_json))


@app.command()
def export(
    name: SweepName,
    folder: Annotated[Path, typer.Argument(help="Folder for the file.", show_default=False)],
    layout: Annotated[str, typer.Option(help="trl (stepwise supervision) or math-shepherd.")] = "trl",
    output: Annotated[str, typer.Option("--format", help="parquet or jsonl.")] = "parquet",
    strategy: Annotated[
        str | None, typer.Option(help="Strategy of kind rollouts; needed where there are several.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="hard or soft; else as the sweep file says (math-shepherd: hard).")
    ] = None,
    repeated: Annotated[
        bool, typer.Option("--repeated", help="Write a solution as often as it was drawn, not once.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Write the labelled steps of a sweep as a training set for process reward models."""
    from orchestrator.commands import ExportWords, export_training_set

    wanted = ExportWords(layout, output, strategy, label, repeated)
    _await(export_training_set(name, folder, _database(db), wanted, is_json=as_json))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT statement.", show_default=False)],
    db: Database = None,
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 10_000,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds at most.")] = 60.0,
) -> None:
    """Query the store, read-only. `ttc sql "select * from schema_comments"` explains every table and column."""
    from orchestrator.commands import run_query

    _await(run_query(query, _database(db), "json" if as_json else output, limit, timeout_s))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from orchestrator.spec.file import sweep_schema

    _print_json(sweep_schema())


@app.command()
def doctor(
    sweep: Annotated[Path | None, typer.Argument(help="A sweep file whose parts to check.")] = None,
    db: Database = None,
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Start Ray and one actor, as a check.")] = True,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster to check, instead of a local Ray.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, Ray, the database, the problems' golds and the endpoints; say what to fix.

    With --address: that all nodes have the same versions and clocks, and reach the endpoints.
    """
    from orchestrator.doctor import examine

    _await(examine(sweep, _chosen_database(db), address, checks_ray=ray, is_json=as_json))


@db_app.command("upgrade")
def db_upgrade(db: Database = None) -> None:
    """Create the database, or bring it to the version this program needs."""
    from orchestrator.store import upgrade

    url = _database(db)
    _await(upgrade(url))
    typer.echo("the database is at head")


@db_app.command("check")
def db_check(db: Database = None, as_json: AsJson = False) -> None:
    """Say which version the database has; exit code 3 if this program needs another."""
    from orchestrator.store import check

    revision = _await(check(_database(db)))
    if as_json:
        _print_json({"revision": revision})
    else:
        typer.echo(f"at head: {revision}")


@db_app.command("copy")
def db_copy(
    source: Annotated[
        str, typer.Argument(help="Database to copy: URL or SQLite file; it is only read.", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(help="Empty database to copy into; created if missing.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Copy a whole store into another database, SQLite or PostgreSQL, and compare every table by checksum."""
    from orchestrator.upkeep import copy_database

    try:
        _await(copy_database(_as_url(source), _as_url(target), is_json=as_json))
    except KeyboardInterrupt:
        raise Interrupted(
            "the copy is not finished, and refused until the same command was run again"
        ) from None


@db_app.command("roles")
def db_roles(
    writer: Annotated[str, typer.Option(help="Role that runs sweeps.")] = "ttc_writer",
    reader: Annotated[str, typer.Option(help="Role that only reads.")] = "ttc_reader",
    timeout_s: Annotated[
        int, typer.Option("--timeout", min=1, help="Seconds that a statement of the reader may take.")
    ] = 300,
    is_applied: Annotated[bool, typer.Option("--apply", help="Run the SQL instead of printing it.")] = False,
    db: Database = None,
) -> None:
    """Print the SQL of two PostgreSQL roles, one that runs sweeps and one that only reads; changes nothing."""
    from orchestrator.store import Roles
    from orchestrator.upkeep import make_roles

    _await(make_roles(_database(db), Roles(writer, reader, timeout_s), is_applied=is_applied))


@models_app.command("serve")
def models_serve(
    model: Annotated[str, typer.Argument(help="A built-in model, or the path of a small Llama checkpoint.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless you say otherwise.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, help="Sequences decoded at once.")] = 128,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable with the key that requests must carry.")
    ] = None,
) -> None:
    """Serve a built-in model as an OpenAI-compatible server."""
    from orchestrator.commands import serve_model

    serve_model(model, host, port, slots, api_key_env)


@models_app.command("list")
def models_list() -> None:
    """List the built-in models."""
    from orchestrator.commands import list_models

    for name in list_models():
        typer.echo(name)


def main() -> None:
    """Entry point: run the command line, and turn our errors into text and an exit code."""
    # What a user should know is said by reporters and errors; a library's log line would break JSON and panels.
    logging.getLogger("orchestrator").addHandler(logging.NullHandler())
    logging.getLogger("orchestrator").propagate = False
    try:
        app()
    except TtcError as error:
        from orchestrator.terminal import printable

        typer.echo(printable(f"error: {error}"), err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; everything drawn so far is stored", err=True)
        raise SystemExit(Interrupted.exit_code) from None
    except BrokenPipeError:  # `ttc sql ... | head`
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        from orchestrator.terminal import printable

        text = mask_secrets(f"{type(error).__name__}: {error}".splitlines()[0])
        typer.echo(printable(f"internal error: {text}"), err=True)
        typer.echo(
            f"    -> this is a defect of ttc; set {TRACEBACK_VARIABLE}=1 for the traceback to report",
            err=True,
        )
        raise SystemExit(TtcError.exit_code) from None


def _await(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        from orchestrator.execution.coordinator import root_cause

        raise root_cause(group) from None


def _chosen_database(option: str | None) -> str | None:
    chosen = option or os.environ.get(DATABASE_VARIABLE)
    return _as_url(chosen) if chosen else None


def _database(option: str | None) -> str:
    from orchestrator.spec.settings import DEFAULT_STORE

    return _chosen_database(option) or DEFAULT_STORE


def _as_url(option: str) -> str:
    if "://" in option:
        return option
    return f"sqlite:///{Path(option).resolve()}"


def _is_job_api(address: str | None) -> bool:
    return address is not None and address.startswith(("http://", "https://"))


def _ray_address(address: str | None) -> str | None:
    if _is_job_api(address):
        raise UsageError.of(
            "is the address of a dashboard, which takes jobs", field="--address", value=address,
            remedy="`ttc submit` sends one; to run the coordinator here, name the cluster itself, say HEAD:6379",
        )  # fmt: skip
    return address


def _job_api(address: str | None) -> str:
    chosen = address or os.environ.get(API_VARIABLE)
    if not chosen:
        raise UsageError.of(
            "is missing: which cluster?", field="--address",
            remedy=f"name its dashboard, say http://HEAD:8265, here or in {API_VARIABLE}",
        )  # fmt: skip
    return chosen


def _job_words(
    address: str | None, db: str | None, db_env: str | None, python: str | None, workers: int | None
) -> JobWords:
    from orchestrator.submission import JobWords

    return JobWords(_job_api(address), db, db_env, python or os.environ.get(PYTHON_VARIABLE), workers)


def _stop_window_s() -> float | None:
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


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
