"""Strategies by name: the built-in ones, `module:function` references, and entry points of installed packages.

A strategy of one's own is an async function of a `Search`, with options as keyword parameters where it has some. A
package offers one to everybody who installs it as an entry point of the group `ttc.strategies`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_type_hints

from workers.errors import StrategyError
from workers.strategies.base import Candidate, Strategy
from workers.strategies.beam import BeamOptions, beam
from workers.strategies.dvts import DvtsOptions, dvts
from workers.strategies.greedy import GreedyOptions, greedy
from workers.strategies.lookahead import LookaheadOptions, lookahead
from workers.strategies.mcts import MctsOptions, mcts
from workers.strategies.parallel import ParallelOptions, parallel
from workers.strategies.rebase import RebaseOptions, rebase

GROUP = "ttc.strategies"
"""Entry-point group under which packages offer strategies."""

StrategyFunction = Callable[..., Awaitable[Sequence[Candidate]]]
"""An async function of a search and of options."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A built-in strategy: its function, and the dataclass of its options."""

    run: StrategyFunction
    options: type


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "greedy": Kind(greedy, GreedyOptions),
        "parallel": Kind(parallel, ParallelOptions),
        "beam": Kind(beam, BeamOptions),
        "lookahead": Kind(lookahead, LookaheadOptions),
        "dvts": Kind(dvts, DvtsOptions),
        "rebase": Kind(rebase, RebaseOptions),
        "mcts": Kind(mcts, MctsOptions),
    }
)


def build(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy of a name with its options bound; `name` is a built-in kind or what `load` takes.

    Raises `StrategyError` for a name that leads nowhere and for options that the strategy does not take.
    """
    given = dict(options or {})
    if name in KINDS:
        return partial(KINDS[name].run, options=built_in_options(name, given))
    run = load(name)
    try:
        inspect.signature(run).bind(None, **given)
    except TypeError as error:
        raise StrategyError(f"strategy {name!r} does not take these options: {error}") from error
    return partial(run, **given)


def built_in_options(kind: str, given: Mapping[str, Any]) -> Any:
    """The options of a built-in kind, checked: known names, right types, allowed values. Else `StrategyError`."""
    options = KINDS[kind].options
    hints = get_type_hints(options)
    known = [field.name for field in fields(options)]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise StrategyError(f"strategy {kind!r} has no option {name!r}; it has {', '.join(known)}")
        values[name] = _checked(f"option {name!r} of strategy {kind!r}", value, hints[name])
    try:
        return options(**values)
    except ValueError as error:
        raise StrategyError(f"strategy {kind!r}: {error}") from error


def load(reference: str) -> StrategyFunction:
    """The strategy function behind `module:function` or behind the name of an entry point.

    The module is imported, which runs its code. Raises `StrategyError` if there is no such thing or if it is not an
    async function.
    """
    found = _imported(reference) if ":" in reference else _entry_point(reference)
    if not _is_async(found):
        raise StrategyError(f"{reference!r} is not a strategy: it must be an async function of a search")
    function: StrategyFunction = found
    return function


def names() -> list[str]:
    """The names that `build` knows: built-in kinds, then entry points; a built-in kind hides a namesake."""
    offered = {point.name for point in entry_points(group=GROUP)}
    return [*KINDS, *sorted(offered - set(KINDS))]


def _imported(reference: str) -> Any:
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise StrategyError(f"{reference!r} is not of the form module:function")
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StrategyError(f"the module of {reference!r} cannot be imported ({reason})") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise StrategyError(f"module {module_name!r} has no {attribute!r}")
    return found


def _entry_point(name: str) -> Any:
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise StrategyError(f"no strategy {name!r}; there are {', '.join(names())}, or write module:function")
    if len({point.value for point in points}) > 1:
        values = ", ".join(sorted(point.value for point in points))
        raise StrategyError(f"more than one installed package offers a strategy {name!r}: {values}")
    return _loaded(points[0])


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StrategyError(f"strategy {point.name!r} ({point.value}) cannot be loaded ({reason})") from error


def _is_async(found: Any) -> bool:
    return callable(found) and (
        inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    )


def _checked(what: str, value: Any, hint: Any) -> Any:
    """A value of the type that the hint asks for; text is read as neither number nor truth."""
    wanted = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for kind in wanted:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            if value in list(kind):
                return kind(value)
        elif kind is float and type(value) is int:
            return float(value)
        elif type(value) is kind:
            return value
    raise StrategyError(f"{what} is {value!r}; wanted: {' or '.join(map(_described, wanted))}")


def _described(kind: Any) -> str:
    """What a person is told to write."""
    if issubclass(kind, StrEnum):
        return " or ".join(kind)
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "null")
