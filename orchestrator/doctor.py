"""`ttc doctor`: tries every part a sweep will need, and says what to fix. It changes nothing and stops at nothing."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from orchestrator.checkup import Check, failed
from orchestrator.cluster_checkup import judge
from orchestrator.commands import database_of
from orchestrator.errors import TtcError
from orchestrator.execution.local_ray import prepare_local_ray
from orchestrator.problems.datasets import ProblemSet, load_problems
from orchestrator.spec.engine_settings import EngineGroup, engine_group
from orchestrator.spec.file import load_sweep
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.scorer_settings import scorer_settings
from orchestrator.spec.scorers import AnyScorer, ScorerSpec
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import DEFAULT_STORE, generator_settings, store_url
from orchestrator.store import Store, database_exists
from orchestrator.terminal import Terminal
from workers.engines import fill
from workers.errors import EndpointError
from workers.grading import GraderPool
from workers.http import open_session
from workers.probe import probe
from workers.rewards import probe_scorer
from workers.types import EndpointSettings

RAY_TIMEOUT_S = 90.0


async def examine(
    sweep: Path | None, database: str | None, address: str | None, *, checks_ray: bool, is_json: bool
) -> None:
    """Run all checks and print them; ends with exit code 1 if one failed."""
    checks = [each async for each in _checks(sweep, database, address, checks_ray)]
    if is_json:
        sys.stdout.write(json.dumps([asdict(each) for each in checks], indent=2) + "\n")
    else:
        Terminal().print(_table(checks))
    if not all(each.is_ok for each in checks):
        raise SystemExit(1)


async def _checks(
    sweep: Path | None, database: str | None, address: str | None, checks_ray: bool
) -> AsyncIterator[Check]:
    yield Check("python", True, f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    spec: SweepSpec | None = None
    url = database or store_url(DEFAULT_STORE, Path.cwd())
    if sweep is not None:
        try:
            spec = load_sweep(sweep)
            url = database_of(spec, sweep, database)
            yield Check("sweep file", True, f"{spec.name}: {len(spec.strategies)} strategies")
        except TtcError as error:
            yield failed("sweep file", error)
    yield await _tried("database", _database(url))
    if spec is not None and sweep is not None:
        async for check in _parts(spec, sweep.parent):
            yield check
    if address is not None:
        async for check in _cluster(address, spec, url):
            yield check
    elif checks_ray:
        prepare_local_ray()
        yield await _tried("ray", _ray())


async def _parts(spec: SweepSpec, folder: Path) -> AsyncIterator[Check]:
    """What the sweep file names: problems and servers, the latter asked from here."""
    try:
        problems = load_problems(spec.problems, folder)
        yield await _tried("problems", _golds(problems))
    except TtcError as error:
        yield failed("problems", error)
    for name, model in spec.models.items():
        async for check in _endpoints(name, model):
            yield check
    for name, scorer in spec.scorers.items():
        async for check in _scorer_endpoints(name, scorer):
            yield check


async def _tried(subject: str, work: Awaitable[str]) -> Check:
    try:
        return Check(subject, True, await work)
    except TtcError as error:
        return failed(subject, error)


async def _database(url: str) -> str:
    if not database_exists(url):
        return "does not exist yet; the first run creates it"
    async with await Store.open(url, create=False, read_only=True) as store:
        return f"{store.shown_url}: at head, {len(await store.sweeps())} sweeps"


async def _golds(problems: ProblemSet) -> str:
    async with GraderPool() as graders:
        verdicts = await asyncio.gather(*(graders.verify_gold(each.answer) for each in problems.problems))
    bad = [each.external_id for each, is_ok in zip(problems.problems, verdicts, strict=True) if not is_ok]
    text = f"{problems.dataset}: {len(problems.problems)} problems, {len(problems.problems) - len(bad)} golds verify"
    return text + (f"; left out: {', '.join(bad[:5])}" if bad else "")


async def _endpoints(name: str, model: ModelSpec) -> AsyncIterator[Check]:
    known = _known(f"model {name}", "models", name, model)
    if known is not None:
        yield known
        return
    settings = generator_settings(name, model, 0)
    for url in model.endpoints:
        try:
            async with open_session() as session:
                found = await probe(session, url, settings)
        except EndpointError as error:
            yield Check(
                f"model {name}", False, f"{url}: {error}", "start the server, or correct endpoints and model"
            )
            continue
        seeds = "derived as in vLLM" if found.child_seeds else "not derived: one sample a request"
        yield Check(f"model {name}", True, f"{url}: context {found.max_model_len or '?'}, seeds {seeds}")


async def _scorer_endpoints(name: str, scorer: AnyScorer) -> AsyncIterator[Check]:
    """Scores of known solutions: as many as steps, in [0, 1], the same twice and in a batch."""
    known = _known(f"scorer {name}", "scorers", name, scorer)
    if known is not None:
        yield known
        return
    settings = scorer_settings(name, scorer, 0)
    for url in scorer.endpoints:
        try:
            async with open_session() as session:
                found = await probe_scorer(session, url, settings)
        except EndpointError as error:
            remedy = "start the server, or correct format, endpoints and model"
            yield Check(f"scorer {name}", False, f"{url}: {error}", remedy)
            continue
        notes = "".join(f"; {each}" for each in found.notes)
        same = "the same twice" if found.is_deterministic else "about the same twice"
        yield Check(f"scorer {name}", True, f"{url}: {settings.format} by {found.transport}, {same}{notes}")


def _known(subject: str, section: str, name: str, served: ModelSpec | ScorerSpec) -> Check | None:
    """What can be said without asking a server; None: it has to be asked."""
    if served.engine:
        return _startable(subject, engine_group(section, name, served))
    if served.built_in:
        return Check(subject, True, f"embedded {served.built_in}; ttc starts it")
    if served.imported:
        return Check(subject, True, "imported: nothing is asked of it")
    if served.api_key_env and not os.environ.get(served.api_key_env):
        remedy = f"export {served.api_key_env}=..."
        return Check(subject, False, f"the variable {served.api_key_env} is not set", remedy)
    return None


def _startable(subject: str, group: EngineGroup) -> Check:
    """Is the program of an engine here? On a cluster it must be on the machines that run engines, which nobody asks."""
    command = fill(group.settings.command, {"python": sys.executable})
    unset = [name for name in group.settings.environment if name not in os.environ]
    if unset:
        remedy = f"export {unset[0]}=..., or take it out of engine.env"
        return Check(subject, False, f"the variable {unset[0]} is not set", remedy)
    if shutil.which(command[0]) is None:
        remedy = (
            f"install {command[0]} here, write its path, or see that it is on the machines of the cluster"
        )
        return Check(subject, False, f"there is no program {command[0]} on the PATH", remedy)
    scale = group.scale
    count = f"{scale.least}" if scale.least == scale.most else f"{scale.least} to {scale.most}"
    return Check(subject, True, f"ttc starts {count} x {shlex.join(command)} (needs {group.needs} each)")


async def _ray() -> str:
    from orchestrator.execution.ray_pool import RayPool
    from workers.worker import WorkerSettings

    try:
        async with asyncio.timeout(RAY_TIMEOUT_S), RayPool(WorkerSettings(()), 1) as pool:
            await pool.wait_ready(0)
            await pool.health(0, RAY_TIMEOUT_S)
    except TimeoutError:
        raise TtcError(
            f"no actor answered within {RAY_TIMEOUT_S:.0f} s", remedy="use --local, or see Ray's logs"
        ) from None
    return "a local Ray starts, and an actor answers"


async def _cluster(address: str, spec: SweepSpec | None, url: str) -> AsyncIterator[Check]:
    """The cluster at an address: an actor answers, and every node has and reaches what the sweep needs."""
    from orchestrator.execution.ray_nodes import look_at_nodes, versions_here
    from orchestrator.execution.ray_pool import RayPool
    from workers.worker import WorkerSettings

    try:
        async with asyncio.timeout(RAY_TIMEOUT_S), RayPool(WorkerSettings(()), 1, address=address) as pool:
            await pool.wait_ready(0)
            reports = await look_at_nodes(_asked_of(spec))
    except TimeoutError:
        found = f"no actor answered within {RAY_TIMEOUT_S:.0f} s at {address}"
        yield Check("ray", False, found, "see `ray status`, and whether any node has a free slot")
        return
    except TtcError as error:
        yield failed("ray", error)
        return
    yield Check("ray", True, f"{address}: {len(reports)} nodes, and an actor answers")
    workers = spec.limits.workers if spec is not None else None
    for check in judge(reports, versions_here(), workers, await _clock_of(url)):
        yield check


def _asked_of(spec: SweepSpec | None) -> list[EndpointSettings]:
    """The servers that every node has to reach."""
    if spec is None:
        return []
    models = [
        generator_settings(name, each, 0).endpoint for name, each in spec.models.items() if each.endpoints
    ]
    scorers = [
        scorer_settings(name, each, 0).endpoint for name, each in spec.scorers.items() if each.endpoints
    ]
    return [*models, *scorers]


async def _clock_of(url: str) -> float | None:
    """How far the clock of the database is ahead of ours; None while there is no database."""
    if not database_exists(url):
        return None
    try:
        async with await Store.open(url, create=False, read_only=True) as store:
            before_s = time.time()
            there_s = await store.clock()
            return there_s - (before_s + time.time()) / 2
    except TtcError:
        return None  # another check says why


def _table(checks: list[Check]) -> Table:
    table = Table("", "check", "found", box=None)
    for each in checks:
        mark = Text("ok", style="green") if each.is_ok else Text("FIX", style="bold red")
        is_told = each.is_ok or not each.remedy or each.remedy in each.found
        table.add_row(
            mark, Text(each.subject), Text(each.found if is_told else f"{each.found}\n    -> {each.remedy}")
        )
    return table
