"""The sweep file on disk: YAML in, a `SweepSpec` or all that is wrong with it out.

Why it exists: pydantic says what is wrong in terms of classes, and a user thinks in lines and fields; this
module translates. It must not know what a field means (that is `spec`), nor open any file but the given one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import Finding, SpecError, is_secret_field, show_value
from orchestrator.nearest import nearest, suggestion
from orchestrator.spec.checks import Issue, Path, disagreements
from orchestrator.spec.fields import NAME_PATTERN
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.yaml_text import Document, dotted, read_yaml

NAME_FORM = "use letters, digits, '.', '_' and '-', starting with a letter or a digit"
MAX_DETAILS = 200
"""Errors of pydantic that are looked at; a file with more is wrong in some more general way."""
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def load_sweep(path: FilePath) -> SweepSpec:
    """The sweep in `path`; `SpecError` names every wrong field with its line, and what to write instead."""
    return validated(read_document(path), str(path))


def read_document(path: FilePath) -> Document:
    """The values of a YAML file with their places, not checked yet."""
    return read_yaml(_read(path), str(path))


def sweep_from(data: Mapping[str, Any]) -> SweepSpec:
    """The sweep that plain values describe, as a YAML file would; `SpecError` without lines."""
    return validated(Document(dict(data)), None)


def sweep_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the sweep file, for editors."""
    schema = SweepSpec.model_json_schema()
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "ttc sweep",
        **{k: v for k, v in schema.items() if k != "title"},
    }


def _read(path: FilePath) -> bytes:
    if path.is_dir():
        raise SpecError.of(
            "is a directory, not a sweep file", file=str(path), remedy="name the YAML file in it"
        )
    if not path.exists():
        raise SpecError.of("does not exist", file=str(path), remedy=_similar_file(path))
    if not path.is_file():
        raise SpecError.of("is not a regular file", file=str(path), remedy="name a YAML file")
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise SpecError.of(message, file=str(path), remedy="check the permissions of the file") from None


def _similar_file(path: FilePath) -> str:
    found = [other.name for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = nearest(path.name, found)
    return (
        f"did you mean {path.parent / near}?" if near else "check the path; it is relative to where ttc runs"
    )


def validated(document: Document, file: str | None) -> SweepSpec:
    """The sweep that a document describes; `SpecError` names every wrong field."""
    if not isinstance(document.data, dict):
        value = show_value(document.data)
        remedy = "start with name:, problems:, models: and strategies:"
        raise SpecError.of("is not a mapping", file=file, line=1, value=value, remedy=remedy)
    try:
        # As JSON, so that strict types still take a list for a tuple and a name for an enumeration.
        sweep = SweepSpec.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise SpecError(findings=_findings(error, document, file)) from None
    if issues := disagreements(sweep):
        findings = [_of_issue(issue, document, file) for issue in issues]
        raise SpecError(findings=sorted(findings, key=_position))
    return sweep


def _findings(error: ValidationError, document: Document, file: str | None) -> list[Finding]:
    details = error.errors(include_url=False)[:MAX_DETAILS]
    wrong_kinds = {
        _section(_known(item["loc"], document.data)[0]) for item in details if _is_wrong_kind(item)
    }
    found: dict[str | None, Finding] = {}
    for item in details:
        path, _ = _known(item["loc"], document.data)
        # What belongs to another kind is noise beside the wrong kind itself.
        is_noise = not _is_wrong_kind(item) and any(path[: len(above)] == above for above in wrong_kinds)
        if not is_noise and not _is_echo(item, path, document.data):
            finding = _of_detail(item, document, file)
            found[finding.field] = _merged(found.get(finding.field), finding)
    return sorted(found.values(), key=_position)


def _position(finding: Finding) -> tuple[int, int]:
    return finding.line or 0, finding.column or 0


def _merged(first: Finding | None, other: Finding) -> Finding:
    """One finding for a field that several forms of the same value (say, a number or `auto`) refuse."""
    if first is None or first.remedy is None or other.remedy is None or other.remedy in first.remedy:
        return first or other
    return replace(first, remedy=f"{first.remedy}, or {other.remedy}")


def _is_wrong_kind(item: ErrorDetails) -> bool:
    return item["type"].startswith("union_tag") or item["loc"][-1:] == ("kind",)


def _section(path: Path) -> Path:
    return path[:-1] if path[-1:] == ("kind",) else path


def _is_echo(item: ErrorDetails, path: Path, data: Any) -> bool:
    """Whether this is a list that is short only because its items were refused."""
    value = _lookup(path, data)
    return item["type"] == "too_short" and isinstance(value, list) and len(value) >= item["ctx"]["min_length"]


def _known(loc: tuple[str | int, ...], data: Any) -> tuple[Path, tuple[str | int, ...]]:
    """`loc` without the names of union branches: the path that exists in `data`, and what is left of it."""
    path: Path = ()
    for index, part in enumerate(loc):
        if _has(data, part):
            data, path = data[part], (*path, part)
        elif index == len(loc) - 1:
            return path, (part,)
    return path, ()


def _has(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list) and part < len(data)
    return isinstance(data, dict) and part in data


def _lookup(path: Path, data: Any) -> Any:
    for part in path:
        data = data[part] if _has(data, part) else None
    return data


def _of_issue(issue: Issue, document: Document, file: str | None) -> Finding:
    related = ""
    if issue.related is not None and (place := document.place(issue.related)):
        related = f" (see {dotted(issue.related)} on line {place.line})"
    return _finding(issue.path, f"{issue.message}{related}", issue.remedy, document, file)


def _of_detail(item: ErrorDetails, document: Document, file: str | None) -> Finding:
    path, rest = _known(item["loc"], document.data)
    kind, context = item["type"], item.get("ctx", {})
    if kind == "ttc":
        full = (*path, *context["at"])
        secret = bool(context["is_secret"])
        return _finding(full, context["message"], context["remedy"], document, file, is_secret=secret)
    if kind == "missing":
        return _finding((*path, *rest), "is required", f"add {rest[-1] if rest else 'it'}", document, file)
    if rest[-1:] == ("[key]",):
        return _finding(path, "is not a name", NAME_FORM, document, file, of_key=True)
    if kind == "extra_forbidden":
        remedy = suggestion(str(path[-1]), _siblings(path, document.data))
        return _finding(path, "is not a field that is known here", remedy, document, file, of_key=True)
    if _is_wrong_kind(item):
        return _wrong_kind(_section(path), context, document, file)
    message, remedy = _words(kind, context, item)
    return _finding(path, message, remedy, document, file)


def _wrong_kind(section: Path, context: Mapping[str, Any], document: Document, file: str | None) -> Finding:
    kinds = _listed(str(context.get("expected_tags") or context.get("expected") or ""))
    value = _lookup(section, document.data)
    found = value.get("kind") if isinstance(value, dict) else value
    if found is None:
        return _finding((*section, "kind"), "is required", suggestion("", kinds, "available"), document, file)
    where = (*section, "kind") if isinstance(value, dict) else section
    message = "is not a kind that runs in this version"
    return _finding(where, message, suggestion(str(found), kinds, "available"), document, file)


def _listed(expected: str) -> list[str]:
    """The values in pydantic's `'a', 'b' or 'c'`."""
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",") if part.strip(" '")]


def _siblings(path: Path, data: Any) -> list[str]:
    """Names that are valid where the unknown name `path` stands, by asking the schema."""
    node: Any = _schema()
    definitions = node.get("$defs", {})
    for index, part in enumerate(path[:-1]):
        node = _descend(node, part, definitions, _lookup(path[: index + 1], data))
    return list(_branch(node, definitions, _lookup(path[:-1], data)).get("properties", {}))


@cache
def _schema() -> dict[str, Any]:
    return SweepSpec.model_json_schema()


def _descend(node: Any, part: str | int, definitions: Mapping[str, Any], value: Any) -> Any:
    node = _branch(node, definitions, None)
    if isinstance(part, int):
        return _branch(node.get("items", {}), definitions, value)
    named = list(node.get("patternProperties", {}).values())
    below = node.get("properties", {}).get(part) or next(iter(named), node.get("additionalProperties", {}))
    return _branch(below, definitions, value)


def _branch(node: Any, definitions: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The object or array that a schema node stands for; of several, the one whose kind `value` has."""
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _branch(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, value)
    options = [_branch(option, definitions, value) for option in node.get("anyOf") or node.get("oneOf") or []]
    kind = value.get("kind") if isinstance(value, dict) else None
    for option in options:
        if kind is not None and option.get("properties", {}).get("kind", {}).get("const") == kind:
            return option
    return next((option for option in options if "properties" in option or "items" in option), node)


def _finding(
    path: Path,
    message: str,
    remedy: str | None,
    document: Document,
    file: str | None,
    *,
    of_key: bool = False,
    is_secret: bool = False,
) -> Finding:
    place = document.place(path, of_key=of_key)
    field = dotted(path)
    raw = _lookup(path, document.data)
    is_shown = raw is not None and not of_key
    value = (
        "***" if is_shown and (is_secret or is_secret_field(field)) else show_value(raw) if is_shown else None
    )
    line, column = (place.line, place.column) if place else (None, None)
    return Finding(message, remedy, file, line, column, field or None, value)


_Words = Callable[[Mapping[str, Any]], tuple[str, str]]
_TEXT = ("wants text", "put the value in quotes")
_WORDS: dict[str, _Words] = {
    "string_type": lambda _: _TEXT,
    "string_sub_type": lambda _: _TEXT,
    "int_type": lambda _: ("wants a whole number", "write digits without quotes or a decimal point"),
    "int_from_float": lambda _: ("wants a whole number", "write digits without a decimal point"),
    "float_type": lambda _: ("wants a number", "write it without quotes"),
    "bool_type": lambda _: ("wants true or false", "write true or false, without quotes"),
    "tuple_type": lambda _: ("wants a list", "write [a, b] or one '- item' a line"),
    "list_type": lambda _: ("wants a list", "write [a, b] or one '- item' a line"),
    "dict_type": lambda _: ("wants fields", "write NAME: VALUE on lines of their own, indented"),
    "model_type": lambda _: ("wants fields", "write NAME: VALUE on lines of their own, indented"),
    "model_attributes_type": lambda _: ("wants fields", "write NAME: VALUE on lines of their own, indented"),
    "greater_than_equal": lambda c: (f"is below {c['ge']}", f"write {c['ge']} or more"),
    "greater_than": lambda c: (f"is not above {c['gt']}", f"write more than {c['gt']}"),
    "less_than_equal": lambda c: (f"is above {c['le']}", f"write {c['le']} or less"),
    "less_than": lambda c: (f"is not below {c['lt']}", f"write less than {c['lt']}"),
    "string_too_short": lambda _: ("is empty", "write something, or remove the line"),
    "too_short": lambda _: ("is empty", "add an item"),
    "too_long": lambda c: (f"has more than {c['max_length']} items", f"keep {c['max_length']} at most"),
    "finite_number": lambda _: ("is not a finite number", "write a number"),
}


def _words(kind: str, context: Mapping[str, Any], item: ErrorDetails) -> tuple[str, str]:
    if kind in _WORDS:
        return _WORDS[kind](context)
    if kind in ("literal_error", "enum"):
        remedy = suggestion(str(item["input"]), _listed(str(context["expected"])))
        return "is not one of the values that are known here", remedy
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME_PATTERN:
            return "is not a name", NAME_FORM
        return "has a form that is not allowed here", f"it must match {context['pattern']}"
    return item["msg"][:1].lower() + item["msg"][1:], "see `ttc schema` for what is valid here"
