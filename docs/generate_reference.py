"""Writes the pages of docs/reference that only repeat what the code declares: commands, sweep file, SQL schema.

Why it exists: a reference that is typed by hand is wrong after the next change. `python docs/generate_reference.py`
writes the pages; tests/unit/test_docs.py fails while they differ from what this would write. It must not know how
anything works: help texts, JSON Schema and table comments are its only sources.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import typer.main
from sqlalchemy.dialects import postgresql

from orchestrator import cli, environment
from orchestrator.spec.file import sweep_schema
from orchestrator.store import facts, findings, schema
from orchestrator.store.views import VIEWS

REFERENCE = Path(__file__).parent / "reference"
GENERATED = "<!-- Written by docs/generate_reference.py; edit the code it comes from, not this page. -->"

Node = Mapping[str, Any]

NOT_YET: Final = frozenset[str]()
"""Tables and views that nothing fills in this version."""

SECTIONS: Final = (
    ("ProblemsSpec", "problems"),
    ("FieldMap", "problems.fields"),
    ("AnswerField", "problems.fields.answer"),
    ("HubFile", "problems.hub"),
    ("ModelSpec", "models.NAME"),
    ("ImportedSpec", "models.NAME.imported"),
    ("EngineSpec", "models.NAME.engine"),
    ("ReplicaRange", "models.NAME.engine.replicas"),
    ("SamplingSpec", "models.NAME.sampling"),
    ("EndpointLimits", "models.NAME.limits"),
    ("PrmScorer", "scorers.NAME (kind: prm)"),
    ("OrmScorer", "scorers.NAME (kind: orm)"),
    ("JudgeScorer", "scorers.NAME (kind: judge)"),
    ("ParallelStrategy", "strategies[] (kind: parallel)"),
    ("RolloutsStrategy", "strategies[] (kind: rollouts)"),
    ("MajoritySelector", "selectors[] (kind: majority)"),
    ("PassSelector", "selectors[] (kind: pass)"),
    ("BestOfNSelector", "selectors[] (kind: best-of-n)"),
    ("WeightedSelector", "selectors[] (kind: weighted)"),
    ("FilterVoteSelector", "selectors[] (kind: filter-vote)"),
    ("HierarchicalSelector", "selectors[] (kind: hierarchical)"),
    ("SweepLimits", "limits"),
)
"""Sections of the sweep file in the order of reading, by the name of their class."""


def pages() -> dict[str, str]:
    """Every generated page: file name and text."""
    writers: dict[str, Callable[[], Iterator[str]]] = {
        "cli.md": cli_page,
        "sweep-file.md": sweep_file_page,
        "sql-schema.md": sql_schema_page,
    }
    return {name: "\n".join(write()).rstrip() + "\n" for name, write in writers.items()}


# --- commands -----------------------------------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    """All commands with their arguments and options."""
    yield from _head(
        "Command line",
        "`ttc COMMAND --help` prints the same; `ttc --version` the version. Exit codes are on a "
        "[page of their own](exit-codes.md).",
    )
    root = typer.main.get_command(cli.app)
    for path, command in _leaves(root, ("ttc",)):
        yield from _command(path, command)
    yield from _environment()


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _leaves(child, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    shown = [_argument(each) for each in arguments]
    yield from (f"## {' '.join(path)}", "", _sentence(command.help), "")
    yield from ("```text", " ".join([*path, *shown, "[OPTIONS]" if options else ""]).strip(), "```", "")
    if arguments:
        rows = [(f"`{name}`", each.help) for name, each in zip(shown, arguments, strict=True)]
        yield from _table(("argument", "meaning"), rows)
    if options:
        yield from _table(
            ("option", "default", "meaning"),
            [(_flags(each), _default(each.default), each.help) for each in options],
        )


def _argument(parameter: Any) -> str:
    name = str(parameter.name).upper()
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    both = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{both}`" if parameter.is_flag else f"`{both} {_kind(parameter)}`"


def _kind(parameter: Any) -> str:
    names = {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}
    annotation = parameter.type_descriptor.annotation
    return names.get(getattr(annotation, "__name__", ""), "TEXT")


def _default(value: object) -> str:
    if value is None or value is False:
        return ""
    return "yes" if value is True else f"`{value}`"


def _environment() -> Iterator[str]:
    yield from ("## Environment variables", "")
    yield from _table(
        ("variable", "meaning"),
        [
            (
                f"`{environment.DATABASE_VARIABLE}`",
                "The store, where `--db` is not given; it overrides the sweep file.",
            ),
            (
                "`TTC_CACHE_DIR`",
                "Where downloaded problem sets are kept; default: `ttc` in the user's cache.",
            ),
            (
                f"`{environment.METRICS_TOKEN_VARIABLE}`",
                "Token that readers of a run's metrics must send; needed to serve them beyond this machine.",
            ),
            ("`HF_ENDPOINT`", "Another host that serves the problem sets of the Hub."),
            ("`HF_HUB_OFFLINE`", "`1`: never download; what is in the cache is used."),
            (f"`{environment.TRACEBACK_VARIABLE}`", "`1`: show the traceback of an internal error."),
            (
                f"`{environment.STOP_WINDOW_VARIABLE}`",
                "Seconds between SIGTERM and SIGKILL where ttc runs, if that is little; jobs have it set.",
            ),
            (
                f"`{environment.API_VARIABLE}`",
                "Dashboard of a cluster, where `ttc submit`, `watch` and `logs` are given none.",
            ),
            (
                f"`{environment.PYTHON_VARIABLE}`",
                "Interpreter on the head that jobs run with, here or on the head.",
            ),
            (
                "`RAY_AUTH_MODE`, `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH`",
                "How Ray is shown the token of a cluster.",
            ),
            ("the names under `api_key_env`", "Keys of model servers, read by the workers when they start."),
        ],
    )


# --- sweep file ---------------------------------------------------------------------------------------------------


def sweep_file_page() -> Iterator[str]:
    """Every field of the sweep file."""
    tree = sweep_schema()
    definitions = tree["$defs"]
    yield from _head(
        "The sweep file",
        "YAML, read as YAML 1.2: `no`, `on` and `1:30` are text. Unknown fields are errors, and every error "
        "names the line. `ttc schema` prints the JSON Schema that this page is made of, for editors.",
    )
    yield from ("## Top level", "")
    yield from _fields(tree, definitions)
    for name, title in SECTIONS:
        node = definitions[name]
        yield from (f"## {title}", "", _sentence(node["description"]), "")
        yield from _fields(node, definitions)


def _fields(node: Node, definitions: Node) -> Iterator[str]:
    required = set(node.get("required", ()))
    rows = [
        (
            f"`{name}`" + (" (required)" if name in required else ""),
            _type(field, definitions),
            _yaml(field),
            field.get("description", ""),
        )
        for name, field in node["properties"].items()
    ]
    yield from _table(("field", "value", "default", "meaning"), rows)


def _type(field: Node, definitions: Node) -> str:
    """What may be written, in words."""
    if "$ref" in field:
        target = definitions[field["$ref"].rsplit("/", 1)[-1]]
        return _type(target, definitions) if "enum" in target else "fields"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{each}`" for each in field["enum"])
    if "anyOf" in field or "oneOf" in field:
        options = [_type(each, definitions) for each in field.get("anyOf") or field["oneOf"]]
        return " or ".join(dict.fromkeys(each for each in options if each))
    return _plain_type(field, definitions)


def _plain_type(field: Node, definitions: Node) -> str:
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field['items'], definitions)}"
    if kind == "object":
        return "fields by name"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "",
    }
    bounds = [
        f"{sign} {_short(field[key])}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in field
    ]
    return " ".join([words.get(str(kind), ""), ", ".join(bounds)]).strip()


def _short(bound: float) -> str:
    if isinstance(bound, int) and bound >= 2**20 and bound & (bound - 1) == 0:
        return f"2^{bound.bit_length() - 1}"
    return f"{bound:g}" if bound < 10_000 else f"{bound:,.0f}"


def _yaml(field: Node) -> str:
    default = field.get("default")
    if default is None or isinstance(default, (dict, list)):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# --- SQL ----------------------------------------------------------------------------------------------------------


def sql_schema_page() -> Iterator[str]:
    """Every view and table with its columns."""
    yield from _head(
        "SQL schema",
        "The same in SQLite and PostgreSQL (types as PostgreSQL names them). The comments are in the database too: "
        "`select * from schema_comments`. Times are seconds since 1970-01-01 UTC. Begin with the views; they follow "
        "the sweep's own choice of samples, grader and extractor, and the tables do not. Worked queries are in "
        "[Export with SQL](../how-to/export-with-sql.md).",
    )
    yield from ("## Views", "")
    for view in VIEWS:
        rows = [(f"`{name}`", comment) for name, comment in view.column_comments().items()]
        yield from _relation(view.name, view.comment, ("column", "meaning"), rows)
    yield from ("## Tables", "")
    for table in _tables():
        columns = [
            (f"`{each.name}`", _sql_type(each), _keys(each), each.comment or "") for each in table.columns
        ]
        yield from _relation(table.name, table.comment or "", ("column", "type", "key", "meaning"), columns)


def _tables() -> Sequence[sa.Table]:
    declared = [*vars(schema).values(), *vars(facts).values(), *vars(findings).values()]
    found = {each.name: each for each in declared if isinstance(each, sa.Table)}
    return list(found.values())


def _relation(name: str, comment: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    note = " Nothing fills it in this version." if name in NOT_YET else ""
    yield from (f"### {name}", "", _sentence(comment) + note, "")
    yield from _table(header, rows)


def _sql_type(column: sa.Column[Any]) -> str:
    shown = column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    return shown.lower() + ("" if not column.nullable else ", may be NULL")


def _keys(column: sa.Column[Any]) -> str:
    targets = [f"-> `{each.target_fullname}`" for each in column.foreign_keys]
    return " ".join([*(["primary"] if column.primary_key else []), *targets])


# --- Markdown -----------------------------------------------------------------------------------------------------


def _head(title: str, text: str) -> Iterator[str]:
    yield from (f"# {title}", "", GENERATED, "", text, "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(_cell(each or "") for each in row) + " |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str | None) -> str:
    clean = " ".join((text or "").split())
    return clean if clean.endswith((".", "?")) else f"{clean}."


def main() -> None:
    """Write the pages, and name those that changed."""
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            sys.stdout.write(f"{path.name} written\n")


if __name__ == "__main__":
    main()
