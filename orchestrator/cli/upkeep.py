"""Commands that look after what sweeps need: doctor, database, schema, the models that come with ttc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    Database,
    as_url,
    chosen_database,
    database_url,
    print_json,
    run_async,
)
from orchestrator.errors import Interrupted


def schema() -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from orchestrator.spec.file import sweep_schema

    print_json(sweep_schema())


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

    run_async(examine(sweep, chosen_database(db), address, checks_ray=ray, is_json=as_json))


def db_upgrade(db: Database = None) -> None:
    """Create the database, or bring it to the version this program needs."""
    from orchestrator.store import upgrade

    url = database_url(db)
    run_async(upgrade(url))
    typer.echo("the database is at head")


def db_check(db: Database = None, as_json: AsJson = False) -> None:
    """Say which version the database has; exit code 3 if this program needs another."""
    from orchestrator.store import check

    revision = run_async(check(database_url(db)))
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"at head: {revision}")


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
        run_async(copy_database(as_url(source), as_url(target), is_json=as_json))
    except KeyboardInterrupt:
        raise Interrupted(
            "the copy is not finished, and refused until the same command was run again"
        ) from None


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

    run_async(make_roles(database_url(db), Roles(writer, reader, timeout_s), is_applied=is_applied))


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


def models_list() -> None:
    """List the built-in models."""
    from orchestrator.commands import list_models

    for name in list_models():
        typer.echo(name)
