"""`python -m benchmarks` (`make bench`): all figures in one run, each beside its floor.

Everything runs on this machine against a stub that waits instead of drawing; see
docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.estimates import measure_estimates
from benchmarks.memory import measure_memory
from benchmarks.million import measure_million
from benchmarks.replicas import measure_replicas
from benchmarks.report import Figure, as_json, show
from benchmarks.resume import measure_resume
from benchmarks.scaling import measure_scaling
from benchmarks.search import measure_search
from benchmarks.throughput import measure_throughput
from benchmarks.utilisation import measure_utilisation
from benchmarks.volume import measure_volume
from benchmarks.writer import measure_writer


def measure(only: set[str], folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Figures of the chosen groups, as they come."""
    groups: dict[str, Callable[[], Iterator[Figure]]] = {
        "floor": lambda: measure_throughput(folder, is_quick=is_quick, with_ttc=False),
        "writer": lambda: measure_writer(folder, is_quick=is_quick),
        "throughput": lambda: measure_throughput(folder, is_quick=is_quick),
        "utilisation": lambda: measure_utilisation(folder, is_quick=is_quick),
        "replicas": lambda: measure_replicas(folder, is_quick=is_quick),
        "search": lambda: measure_search(folder, is_quick=is_quick),
        "scaling": lambda: measure_scaling(folder, is_quick=is_quick),
        "memory": lambda: measure_memory(folder, is_quick=is_quick),
        "resume": lambda: measure_resume(folder, is_quick=is_quick),
        "million": lambda: measure_million(folder, is_quick=is_quick),
        "volume": lambda: measure_volume(folder, is_quick=is_quick),
        "estimates": lambda: measure_estimates(folder, is_quick=is_quick),
    }
    if unknown := only - groups.keys():
        raise SystemExit(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(groups)}")
    for name, run in groups.items():
        if name in (only or groups.keys() - {"floor"}):  # throughput measures the floor anyway
            yield from run()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        default="",
        help="floor,writer,throughput,utilisation,replicas,search,scaling,memory,resume,million,volume,estimates",
    )
    parser.add_argument(
        "--quick", action="store_true", help="smaller and once: minutes instead of three quarters of an hour"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--keep", type=Path, help="folder to keep the stores in; else a temporary one")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ttc-bench-") as temporary:
        only = {name for name in arguments.only.split(",") if name}
        for figure in measure(only, arguments.keep or Path(temporary), is_quick=arguments.quick):
            progress.print(f"{figure.group}: {figure.what}: {figure.value:,.3f} {figure.unit}", style="dim")
            figures.append(figure)
    if arguments.json:
        print(as_json(figures))
    else:
        show(figures, Console(width=None if Console().is_terminal else 160))


if __name__ == "__main__":
    main()
