"""What travels with a submitted sweep: its file, the local files it names, and the script that starts ttc.

Why it exists: a job runs on another machine, in a folder of its own. Only what the sweep names is sent, never a whole
folder, so that no database, environment or secret leaves by accident. Relative paths keep their meaning, so the sweep
file travels unchanged; absolute paths are paths of the cluster and stay there. It must not know Ray, SQL, a network.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from orchestrator.errors import UsageError
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.strategies import CustomStrategy

MAX_BYTES = 100_000_000
"""Bytes that may travel; the head keeps them in memory while the job runs."""
SCRIPT = "job.sh"
"""Starts ttc on the head."""
_SWEEP_FOLDER = PurePosixPath("sweep")
_OURS = ("orchestrator", "workers", "migrations")
_UP = "up"
"""Stands for a folder above the sweep file, so that `../problems.jsonl` leads to the same file there."""


@dataclass(frozen=True, slots=True)
class TravellingFile:
    """A file here, and where it lies in the package."""

    source: Path
    target: PurePosixPath
    """As the sweep file names it: every folder that leads there is made."""

    @property
    def shown(self) -> str:
        """Where it lies, without detours."""
        return os.path.normpath(self.target)


@dataclass(frozen=True, slots=True)
class Package:
    """Everything that travels."""

    files: tuple[TravellingFile, ...]
    sweep: PurePosixPath | None = None
    """The sweep file in it; None if the job needs none."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(each.source.stat().st_size for each in self.files)

    def write(self, folder: Path) -> None:
        """Lay the files out in an empty folder."""
        for each in self.files:
            target = folder / each.target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(each.source, target)


def bare_package() -> Package:
    """What a job needs that finds its sweep in the database."""
    return Package((_script(),))


def package_of(spec: SweepSpec, path: Path, *, max_bytes: int = MAX_BYTES) -> Package:
    """What the sweep in `path` needs elsewhere.

    Raises `UsageError` for a file that is missing, and for more than `max_bytes`.
    """
    named = spec.problems.path
    problems = named if named is not None and is_sent(named) else None
    place = _SWEEP_FOLDER.joinpath(*[_UP] * _steps_up(problems or ""))
    found = [_script(), TravellingFile(path, place / path.name)]
    if problems is not None:
        found.append(TravellingFile(path.parent / problems, place / problems))
    found += _modules(spec)
    package = Package(tuple(found), place / path.name)
    _check(package, max_bytes)
    return package


def is_sent(path: str | None) -> bool:
    """Does a file that a sweep names travel with it?"""
    return path is not None and not os.path.isabs(path)


def _script() -> TravellingFile:
    return TravellingFile(Path(str(files("orchestrator.jobs") / SCRIPT)), PurePosixPath(SCRIPT))


def _steps_up(path: str) -> int:
    """How far above its beginning a relative path leads."""
    return PurePosixPath(os.path.normpath(path)).parts.count("..")


def _modules(spec: SweepSpec) -> Iterator[TravellingFile]:
    """The modules of the sweep's own strategies, unless they are installed: then the cluster must have them, too."""
    functions = [each.function for each in spec.strategies if isinstance(each, CustomStrategy)]
    for name in sorted({each.partition(":")[0].partition(".")[0] for each in functions if ":" in each}):
        found = find_spec(name)
        if found is not None and not _is_installed(found):
            yield from _module(found)


def _module(found: ModuleSpec) -> Iterator[TravellingFile]:
    """A module, or the Python files of a package."""
    for folder in map(Path, found.submodule_search_locations or ()):
        for source in sorted(folder.rglob("*.py")):
            inner = source.relative_to(folder.parent)
            if not any(part.startswith(".") for part in inner.parts):
                yield TravellingFile(source, PurePosixPath(inner))
    if found.submodule_search_locations is None and found.origin is not None:
        source = Path(found.origin)
        yield TravellingFile(source, PurePosixPath(source.name))


def _is_installed(found: ModuleSpec) -> bool:
    """Is it part of Python, of ttc or of an installed package?"""
    if found.name in sys.stdlib_module_names or found.name in _OURS:
        return True
    places = [Path(each) for each in (*(found.submodule_search_locations or ()), found.origin) if each]
    libraries = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    return any(place.is_relative_to(library) for place in places for library in libraries)


def _check(package: Package, max_bytes: int) -> None:
    for each in package.files:
        if not each.source.is_file():
            raise UsageError.of(
                "is no file, so it cannot travel with the sweep", file=str(each.source),
                remedy="correct the path in the sweep file; it is relative to that file",
            )  # fmt: skip
    if package.size_bytes > max_bytes:
        largest = max(package.files, key=lambda each: each.source.stat().st_size)
        raise UsageError.of(
            f"the files of the sweep have {_megabytes(package.size_bytes)}, and {_megabytes(max_bytes)} may travel",
            file=str(largest.source),
            value=_megabytes(largest.source.stat().st_size),
            remedy="put it on a disk that the cluster sees, and name it in the sweep file by its absolute path there",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
