"""Handing a sweep to a Ray cluster: what `ttc submit` and `ttc resume --address http://...` do.

A job is `ttc run` or `ttc resume` on the head of the cluster, so everything that holds for those holds for it: its
state is in the database, two of them share a sweep in peace, and one that was killed is followed by another that goes
on. This module decides what the command of a job says. It must not know how jobs are sent (`ray_jobs`), what travels
(`package`) or how a sweep runs.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.console import note, show_json, show_line
from orchestrator.environment import DATABASE_VARIABLE
from orchestrator.errors import UsageError, mask_secrets
from orchestrator.execution.ray_jobs import RayJobs
from orchestrator.jobs.package import SCRIPT, Package, bare_package, is_sent, package_of
from orchestrator.problems.datasets import load_problems
from orchestrator.registration import check_strategies
from orchestrator.spec.fields import check_store
from orchestrator.spec.file import load_sweep
from orchestrator.spec.sections import SweepSpec

_BY_REFERENCE = (
    "put the URL into a variable where `ray start` runs on the head, and name that variable: --db-env NAME"
)


@dataclass(frozen=True, slots=True)
class JobWords:
    """What the command line says of a job, not checked yet."""

    address: str
    database: str | None = None
    """`--db`."""
    database_variable: str | None = None
    """`--db-env`."""
    python: str | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class JobDatabase:
    """Which database a job uses: arguments for `ttc`, or the name of a variable on the head."""

    arguments: tuple[str, ...] = ()
    variable: str = ""


@dataclass(frozen=True, slots=True)
class _Work:
    """What a job does: `ttc` with these arguments, on this database, beside these files."""

    arguments: tuple[str, ...]
    package: Package
    database: JobDatabase


def submit_file(path: Path, words: JobWords, *, is_json: bool) -> None:
    """`ttc submit`: the sweep runs on the cluster, whatever becomes of this process."""
    spec = load_sweep(path)
    package = package_of(spec, path)
    check_strategies(spec)
    if is_sent(spec.problems.path):
        load_problems(spec.problems, path.parent)  # what is wrong with them is said here, not by the job
    elif spec.problems.path is not None:
        note(f"problems.path is absolute, so it is read on the cluster: {spec.problems.path}")
    database = choose_database(words, spec, os.environ)
    _submit(spec.name, _Work(("run", str(package.sweep)), package, database), words, is_json=is_json)


def submit_resume(name: str, words: JobWords, *, is_json: bool) -> None:
    """`ttc resume --address http://...`: a job that goes on with what the database knows."""
    database = choose_database(words, None, os.environ)
    _submit(name, _Work(("resume", name), bare_package(), database), words, is_json=is_json)


def choose_database(words: JobWords, spec: SweepSpec | None, environ: Mapping[str, str]) -> JobDatabase:
    """The database of a job: named here without a password, or by a variable of the head.

    Raises `UsageError` for a password, which everybody who may look at the cluster's jobs would see, and for a path
    that means nothing there.
    """
    if spec is not None and spec.store is not None:
        _refuse_password("store", spec.store)  # the file travels, whatever overrides it
    if words.database and words.database_variable:
        raise UsageError.of("excludes --db", field="--db-env", remedy="keep one of the two")
    if words.database_variable:
        return JobDatabase(variable=_checked_variable(words.database_variable))
    for place, url in (("--db", words.database), (DATABASE_VARIABLE, environ.get(DATABASE_VARIABLE))):
        if url:
            return JobDatabase(arguments=("--db", _checked_url(place, url)))
    if spec is not None and spec.store is not None:
        _checked_url("store", spec.store)
        return JobDatabase()
    return JobDatabase(variable=DATABASE_VARIABLE)


def _checked_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError.of(
            "wants the name of a variable on the head, not its value", field="--db-env", remedy=_BY_REFERENCE
        )
    return name


def _refuse_password(place: str, url: str) -> None:
    if mask_secrets(url) != url:
        raise UsageError.of(
            "holds a password, which whoever may look at the cluster's jobs would see",
            field=place, value=mask_secrets(url), remedy=_BY_REFERENCE,
        )  # fmt: skip


def _checked_url(place: str, url: str) -> str:
    """A URL that may be seen, of a database that the head can reach."""
    _refuse_password(place, url)
    if "://" not in url:
        url = f"sqlite:///{url}"
    scheme, _, path = url.partition("://")
    if scheme.startswith("sqlite") and not path.startswith("//"):
        raise UsageError.of(
            "is a relative path, and the folder of a job is deleted with it", field=place, value=repr(url),
            remedy="name a path on the head: sqlite:////DIRECTORY/ttc.db; for others to reach it, use PostgreSQL",
        )  # fmt: skip
    try:
        return check_store(url)
    except ValueError:
        raise UsageError.of(
            "is not the URL of a SQLite or PostgreSQL database", field=place, value=repr(url),
            remedy="write sqlite:////DIRECTORY/ttc.db or postgresql://USER@HOST/DATABASE",
        ) from None  # fmt: skip


def _command_of(work: _Work, words: JobWords, own_python: str) -> list[str]:
    """The command of a job, as `job.sh` takes it; `own_python` is tried there where nobody names an interpreter."""
    options = ["--address", "auto", *work.database.arguments]
    if words.workers is not None:
        options += ["--workers", str(words.workers)]
    return ["sh", SCRIPT, words.python or "", own_python, work.database.variable, *work.arguments, *options]


def _submit(name: str, work: _Work, words: JobWords, *, is_json: bool) -> None:
    command = _command_of(work, words, sys.executable)
    sent, size_bytes = work.package.files, work.package.size_bytes
    with tempfile.TemporaryDirectory(prefix="ttc-submit-") as folder:
        work.package.write(Path(folder))
        job_id = RayJobs(words.address).submit(name, command, Path(folder))
    if is_json:
        show_json({"id": job_id, "sweep": name, "files": [each.shown for each in sent], "bytes": size_bytes})
        return
    show_line(f"{name}: submitted as {job_id} ({len(sent)} files, {size_bytes / 1000:,.0f} kB)")
    note(
        f"it goes on without this machine; `ttc watch {name} --address {words.address}` shows it from anywhere"
    )
