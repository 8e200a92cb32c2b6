"""The command `ttc`: arguments in, exit code out. It knows no algorithm; every command is a few calls.

Heavy modules (Ray, SQLAlchemy, NumPy) are imported by the commands that need them, so that `ttc --help` is quick.
An error of ours is printed as one screen of text and ends with its exit code; `docs/reference/cli.md` lists them.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from orchestrator.cli import results, sweeps, upkeep
from orchestrator.environment import TRACEBACK_VARIABLE
from orchestrator.errors import Interrupted, TtcError, mask_secrets

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


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"ttc {version('ttc')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and end."),
    ] = False,
) -> None:
    """Hold the options that need no command."""


app.command()(sweeps.run)
app.command()(sweeps.submit)
app.command()(sweeps.watch)
app.command()(sweeps.logs)
app.command()(sweeps.resume)
app.command()(sweeps.plan)
app.command()(sweeps.status)
app.command()(results.results)
app.command()(results.compare)
app.command()(results.scaling)
app.command()(results.tree)
app.command()(sweeps.cancel)
app.command()(sweeps.grade)
app.command()(sweeps.score)
app.command("import")(results.import_samples)
app.command()(results.export)
app.command()(results.sql)
app.command()(upkeep.schema)
app.command()(upkeep.doctor)
db_app.command("upgrade")(upkeep.db_upgrade)
db_app.command("check")(upkeep.db_check)
db_app.command("copy")(upkeep.db_copy)
db_app.command("roles")(upkeep.db_roles)
models_app.command("serve")(upkeep.models_serve)
models_app.command("list")(upkeep.models_list)


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
