"""YAML text as plain values, with the line and column of every one of them.

Why it exists: an error in a sweep file should point at a line, and YAML 1.1 should not turn `no` into false,
`1:30` into 90 or `012` into 10. Scalars follow the core schema of YAML 1.2 (plus `_` in whole numbers); tags,
repeated keys, merge keys and several documents are refused; size, depth and aliases are bounded. Nothing is
ever constructed but None, bool, int, float, str, list and dict. It must not know what the values mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from orchestrator.errors import Finding, SpecError, show_value
from orchestrator.spec.checks import Path

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 40

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9](?:_?[0-9])*\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z", re.ASCII)
_MAX_DIGITS = 18
_STR, _SEQ, _MAP = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """Parses only: without implicit resolvers every plain scalar stays text, so an explicit tag shows."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


class _Unwanted(yaml.MarkedYAMLError):
    """Valid YAML of a shape that no sweep file has."""


@dataclass(frozen=True, slots=True)
class Place:
    """Position in a file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a YAML file, and where each stands: keys of mappings by `keys`, values by `values`."""

    data: Any
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, of_key: bool = False) -> Place | None:
        """Where `path` stands; of what is not in the file, where its nearest ancestor stands."""
        for length in range(len(path), 0, -1):
            places = (self.keys, self.values) if of_key else (self.values, self.keys)
            found = places[0].get(path[:length]) or places[1].get(path[:length])
            if found is not None:
                return found
            of_key = True
        return self.values.get(())


def read_yaml(raw: bytes, file: str) -> Document:
    """The document in `raw`; `SpecError` with the position of what is not valid."""
    if len(raw) > MAX_BYTES:
        message = f"is {len(raw)} bytes long, and a sweep file has {MAX_BYTES} at most"
        raise SpecError.of(
            message, file=file, remedy="put the problems into a file of their own (problems.path)"
        )
    text = _decode(raw, file)
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"character U+{int(error.character):04X} is not allowed in YAML"
        raise SpecError.of(message, file=file, line=line, remedy="remove it") from None
    if root is None:
        raise SpecError.of("is empty", file=file, remedy="start from one of the files in examples/")
    return _Reader(file).document(root)


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02X}"
        remedy = "save the file as UTF-8"
        raise SpecError.of("is not UTF-8 text", file=file, line=line, value=found, remedy=remedy) from None


def _check_shape(text: str) -> None:
    """Bound nodes and depth before anything recursive sees the text."""
    depth = nodes = documents = 0
    for event in _events(text):
        nodes += isinstance(event, yaml.NodeEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(
                problem="too many or too deeply nested values", problem_mark=event.start_mark
            )
        if documents > 1:
            raise yaml.MarkedYAMLError(problem="a second document starts here", problem_mark=event.start_mark)


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_Loader)


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "is not valid YAML"
    remedy = "check the indentation, the colons and the quotes of this line and the one above"
    if "'\\t'" in problem:
        remedy = "indent with spaces, not with tabs"
    elif error.context:
        problem = f"{problem} ({error.context})"
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    message = f"is not valid YAML: {problem}"
    return SpecError(findings=[Finding(message, remedy, file=file, line=line, column=column)])


class _Reader:
    """Turns nodes into values and notes their places; aliases are read again wherever they stand."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._keys: dict[Path, Place] = {}
        self._values: dict[Path, Place] = {}

    def document(self, root: yaml.Node) -> Document:
        data = self._value(root, ())
        return Document(data, self._keys, self._values)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = _place(node)
        if len(self._values) > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._refuse("aliases make this file too large", node, path, "write the values out")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, _MAP)
            return {key: self._value(value, (*path, key)) for key, value in self._items(node, path)}
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, _SEQ)
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _items(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        for key_node, value in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise self._refuse("a key must be a name", key_node, path, "write NAME: VALUE")
            if key == "<<" and key_node.style is None:
                remedy = "write the fields out, or use an alias for a whole value"
                raise self._refuse("merge keys (<<) are not part of a sweep file", key_node, path, remedy)
            place = (*path, key)
            if place in self._keys:
                first = self._keys[place].line
                remedy = "remove one of the two, or put their fields under one"
                raise self._refuse(f"is there already, on line {first}", key_node, place, remedy)
            self._keys[place] = _place(key_node)
            yield key, value

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        self._check_tag(node, path, _STR)
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return plain_scalar(node.value) if is_plain else node.value

    def _check_tag(self, node: yaml.Node, path: Path, wanted: str) -> None:
        if node.tag != wanted:
            message = "tags (!) are not part of a sweep file"
            raise self._refuse(message, node, path, "remove it", show_value(node.tag))

    def _refuse(
        self, message: str, node: yaml.Node, path: Path, remedy: str, value: str | None = None
    ) -> SpecError:
        place = _place(node)
        where = dotted(path) or None
        finding = Finding(message, remedy, self._file, place.line, place.column, where, value)
        return SpecError(findings=[finding])


def plain_scalar(text: str) -> bool | int | float | str | None:
    """Value of an unquoted scalar by YAML 1.2's core schema; what is too long for a number stays text."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    if _INT.match(text) and sum(c.isdigit() for c in text) <= _MAX_DIGITS:
        return int(text.replace("_", ""))
    if _FLOAT.match(text) and math.isfinite(number := float(text)):
        return number
    return text


def dotted(path: Path) -> str:
    """`path` as a user writes it: `strategies[0].samples`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
