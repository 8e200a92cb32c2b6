"""Figures and how they are shown: a table for people, JSON for programs. Must not know how they came about."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed at, for the value or for its ratio to the floor."""

    bound: float
    is_ceiling: bool = False
    is_ratio: bool = False

    def is_met(self, value: float, floor: float | None) -> bool | None:
        """Is it reached; None where the ratio has no floor."""
        if self.is_ratio:
            if not floor:
                return None
            value = value / floor
        return value <= self.bound if self.is_ceiling else value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.is_ceiling else ">="
        return f"{sign} {self.bound:g}" + (" of floor" if self.is_ratio else "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number beside its floor: the same work with as little as possible round it, in the same run."""

    group: str
    what: str
    unit: str
    values: tuple[float, ...]
    """One a repetition; the median is shown."""
    floor: float | None = None
    floor_is: str = ""
    target: Target | None = None
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Load average of the machine at the end of the measurement."""

    @property
    def value(self) -> float:
        """Median of the repetitions."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """Value over floor."""
        return self.value / self.floor if self.floor else None

    @property
    def is_met(self) -> bool | None:
        """Is the target met; None without a target."""
        return None if self.target is None else self.target.is_met(self.value, self.floor)


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print a table."""
    table = Table(title=f"benchmarks on {_machine()}")
    for name in ("", "what", "measured", "range", "floor", "floor is", "ratio", "target", "load"):
        table.add_column(name, justify="left" if name in ("", "what", "floor is", "target") else "right")
    previous = ""
    for figure in figures:
        if previous and figure.group != previous:
            table.add_section()
        table.add_row(*_row(figure, is_first=figure.group != previous))
        previous = figure.group
    console.print(table)


def as_json(figures: Sequence[Figure]) -> str:
    """All figures as one JSON document."""
    rows = [
        asdict(figure) | {"value": figure.value, "ratio": figure.ratio, "is_met": figure.is_met}
        for figure in figures
    ]
    return json.dumps({"machine": _machine(), "figures": rows}, indent=2)


def _row(figure: Figure, *, is_first: bool) -> list[str]:
    low, high = min(figure.values), max(figure.values)
    met = {True: " [green]met[/]", False: " [red]missed[/]", None: ""}[figure.is_met]
    return [
        figure.group if is_first else "",
        figure.what,
        f"{_number(figure.value)} {figure.unit}",
        f"{_number(low)} to {_number(high)}" if len(figure.values) > 1 else "",
        "" if figure.floor is None else _number(figure.floor),
        figure.floor_is,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else f"{figure.target}{met}",
        f"{figure.load:.1f}",
    ]


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _machine() -> str:
    return f"{os.cpu_count()} cores ({_cpu()}), Python {platform.python_version()}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
