"""What the commands do, once their arguments are known: open the store, do the work, show it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.analysis.comparison import compare, parse_way, strategy_of
from orchestrator.analysis.conclusion import Conclusions, conclude
from orchestrator.analysis.forecast import forecast
from orchestrator.analysis.grading_service import GradingService
from orchestrator.analysis.results_tables import difference_table
from orchestrator.analysis.search_costs import Axis
from orchestrator.analysis.training_data import LabelType, Layout
from orchestrator.analysis.vote_scaling.scaling import to_json as vote_scaling_json
from orchestrator.analysis.vote_scaling.strategy import scale_strategy
from orchestrator.analysis.vote_scaling.tables import render as vote_scaling_tables
from orchestrator.errors import Interrupted, SweepFailed, UsageError
from orchestrator.execution.progress import duration, make_reporter
from orchestrator.exporting import FORMATS as EXPORT_FORMATS
from orchestrator.exporting import ExportOptions, export_labels
from orchestrator.importing import ImportOptions, import_file
from orchestrator.output import (
    FORMATS,
    conclusions_json,
    forecast_table,
    note,
    show,
    show_conclusions,
    show_json,
    show_line,
    show_rows,
    status_table,
)
from orchestrator.problems.datasets import load_problems
from orchestrator.registration import extend, recall, register, unknown_sweep
from orchestrator.spec.file import load_sweep, read_document
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import DEFAULT_STORE, store_url
from orchestrator.store import Store
from orchestrator.sweep import NOTHING_TO_DO, RunOptions, RunReport, run_sweep
from orchestrator.tree_view import tree_view
from orchestrator.watching import observed
from workers.collector import calm_collector
from workers.grading import GraderPool
from workers.identity import MAX_SAMPLES_PER_POOL


async def run_file(path: Path, database: str | None, options: RunOptions) -> None:
    """`ttc run`: from a sweep file to a table of results."""
    spec = load_sweep(path)
    problems = load_problems(spec.problems, path.parent)
    url = database_of(spec, path, database)
    reporter = make_reporter(spec.name, is_json=options.is_json, stream=sys.stderr)
    async with observed(spec.name, url, options, reporter.note) as board, await Store.open(url) as store:
        registered = await register(spec, problems, store, reporter.note)
        report = await run_sweep(spec, registered, store, options, reporter, board)
    _finish(spec.name, report, options)


async def resume_sweep(name: str, url: str, options: RunOptions) -> None:
    """`ttc resume`: the same, from what the store knows."""
    reporter = make_reporter(name, is_json=options.is_json, stream=sys.stderr)
    async with (
        observed(name, url, options, reporter.note) as board,
        await Store.open(url, create=False) as store,
    ):
        spec, registered = await recall(name, store)
        report = await run_sweep(spec, registered, store, options, reporter, board)
    _finish(name, report, options)


async def score_sweep(name: str, url: str, scorers: Path | None, options: RunOptions) -> None:
    """`ttc score`: scores of what is stored, by the sweep's own scorers or by those of another file."""
    reporter = make_reporter(name, is_json=options.is_json, stream=sys.stderr)
    async with (
        observed(name, url, options, reporter.note) as board,
        await Store.open(url, create=False) as store,
    ):
        if scorers is None:
            spec, registered = await recall(name, store)
        else:
            spec, registered = await extend(name, read_document(scorers), str(scorers), store)
        if not spec.scorers:
            raise UsageError(
                f"the sweep {name!r} has no scorer",
                remedy=f"name a file that has some: ttc score {name} SCORERS.yaml",
            )
        report = await run_sweep(spec, registered, store, options, reporter, board)
    _finish(name, report, options)


async def import_trajectories(path: Path, url: str, options: ImportOptions, *, is_json: bool) -> None:
    """`ttc import`: solutions made elsewhere become a sweep of their own, and its results are shown."""
    async with await Store.open(url) as store:
        found = await import_file(path, options, store, note)
        conclusions = await _conclude(options.name, store, is_json=is_json)
    if is_json:
        show_json({**asdict(found), **conclusions_json(conclusions)})
        return
    show_conclusions(conclusions, is_json=False)
    if found.unlike_steps:
        note(
            f"{found.unlike_steps:,} of {found.scored:,} scored samples have another number of scores than steps: "
            "their origin cuts steps differently"
        )
    show_line(
        f"{found.sweep}: {found.samples:,} samples of {found.problems:,} problems, {found.added:,} of them new, "
        f"{found.scored:,} with scores"
    )


@dataclass(frozen=True, slots=True)
class ExportWords:
    """What the command line says of an export, not checked yet."""

    layout: str
    file_format: str
    strategy: str | None
    label: str | None
    keeps_repeated: bool


async def export_training_set(
    name: str, folder: Path, url: str, wanted: ExportWords, *, is_json: bool
) -> None:
    """`ttc export`: labelled steps as a training set."""
    options = ExportOptions(
        layout=Layout(_one_of("--layout", wanted.layout, Layout)),
        file_format=_one_of("--format", wanted.file_format, EXPORT_FORMATS),
        strategy=wanted.strategy,
        label_type=None if wanted.label is None else LabelType(_one_of("--label", wanted.label, LabelType)),
        keeps_repeated=wanted.keeps_repeated,
    )
    async with await Store.open(url, create=False) as store:
        found = await export_labels(name, folder, options, store)
    census = found.census
    if is_json:
        show_json(
            {"path": str(found.path), "strategy": found.strategy, "label": found.label_type, **asdict(census)}
        )
        return
    show_line(
        f"{found.path}: {census.solutions:,} solutions, {census.steps:,} steps with {found.label_type} labels; "
        f"left out: {census.repeated:,} repeated, {census.unfinished:,} unfinished, "
        f"{census.undecided:,} without a verdict"
    )


def _one_of(option: str, value: str, known: Iterable[str]) -> str:
    names = [str(each) for each in known]
    if value not in names:
        raise UsageError.of(f"is one of {', '.join(names)}", field=option, value=repr(value))
    return value


async def plan_file(path: Path, database: str | None, *, is_json: bool) -> None:
    """`ttc plan`: what is stored, what is missing, and what that costs."""
    spec = load_sweep(path)
    problems = load_problems(spec.problems, path.parent)
    found = await forecast(spec, problems, database_of(spec, path, database))
    if is_json:
        show_json([asdict(each) for each in found])
    else:
        show(forecast_table(spec.name, found))


async def show_status(name: str | None, url: str, *, is_json: bool) -> None:
    """`ttc status`: how far the sweeps are."""
    async with await Store.open(url, create=False, read_only=True) as store:
        sweeps = [each for each in await store.sweeps() if name in (None, each.name)]
        rows = [row for each in sweeps for row in await store.progress(each.id)]
        silent = {each.id: await _silence(store, each.id) for each in sweeps}
    if name is not None and not rows:
        raise unknown_sweep(name)
    if is_json:
        show_json([{**asdict(row), "silent_s": silent[row.sweep_id]} for row in rows])
    else:
        show(status_table(rows, silent))


async def _silence(store: Store, sweep_id: int) -> float | None:
    """Seconds since the last sign of life of a sweep's run; None if none is open."""
    open_runs = await store.open_runs(sweep_id)
    return min((run.silent_s for run in open_runs if run.sweep_id == sweep_id), default=None)


def parse_budgets(text: str | None) -> tuple[int, ...]:
    """Budgets as a user writes them; none: those of the sweep. Raises UsageError for what are no budgets."""
    parts = text.split(",") if text else []
    for part in parts:
        is_number = part.strip().isdecimal() and len(part) < 10
        if not (is_number and 0 < int(part) < MAX_SAMPLES_PER_POOL):
            raise UsageError.of("is no budget", field="--budgets", value=repr(part), remedy="write 1,16,256")
    return tuple(sorted({int(part) for part in parts}))


async def show_results(
    name: str,
    url: str,
    budgets: Sequence[int] = (),
    *,
    shows_first: bool = False,
    axis: str | None = None,
    is_json: bool,
) -> None:
    """`ttc results`: estimates from what is stored now, at the budgets of the sweep or at others."""
    chosen = None if axis is None else Axis(_one_of("--by", axis, Axis))
    async with await Store.open(url, create=False) as store:
        conclusions = await _conclude(name, store, budgets, is_json=is_json)
    show_conclusions(conclusions, shows_first=shows_first, axis=chosen, is_json=is_json)


async def grade_sweep(name: str, url: str, *, is_json: bool) -> None:
    """`ttc grade`: verdicts that are missing, then the results."""
    await show_results(name, url, is_json=is_json)


async def compare_ways(name: str, url: str, first: str, second: str, *, is_json: bool) -> None:
    """`ttc compare`: one way to spend and select against another, on the same problems."""
    async with await Store.open(url, create=False) as store:
        ways = [parse_way(text) for text in (first, second)]
        budgets = sorted({way.budget for way in ways if way.budget is not None})
        conclusions = await _conclude(name, store, budgets, is_json=is_json)
    rows = compare(conclusions.strategies, *ways)
    if is_json:
        show_json([asdict(row) for row in rows])
    else:
        show(difference_table(rows))


async def show_scaling(
    name: str,
    url: str,
    strategy: str | None,
    judge: str | None,
    calls: int,
    budgets: Sequence[int],
    *,
    is_json: bool,
) -> None:
    """`ttc scaling`: how votes scale with the number of calls, measured, modelled, and predicted from few calls."""
    async with await Store.open(url, create=False) as store:
        conclusions = await _conclude(name, store, is_json=is_json)
    found = strategy_of([each for each in conclusions.strategies if not each.is_search], strategy)
    scaling = scale_strategy(found, judge, calls, budgets)
    if is_json:
        show_json(vote_scaling_json(scaling))
        return
    for table in vote_scaling_tables(scaling):
        show(table)


async def show_tree(
    name: str, problem: str, strategy: str | None, url: str, *, shows_all: bool, is_json: bool
) -> None:
    """`ttc tree`: the tree of a search."""
    async with await Store.open(url, create=False) as store:
        _, registered = await recall(name, store)
        found = await store.searches_for(registered.sweep_id, problem)
        if not found:
            raise UsageError.of(
                "is not a problem that the sweep has searched", field="problem", value=repr(problem),
                remedy="`select external_id from problems` lists the ids",
            )  # fmt: skip
        if strategy is None and len(found) == 1:
            (strategy,) = found
        if strategy not in found:
            raise UsageError.of(
                "is none of its searches", field="--strategy", value=repr(strategy),
                remedy=f"name one of {', '.join(found)}",
            )  # fmt: skip
        pool_id, statement = found[strategy]
        nodes = await store.tree(pool_id)
    if is_json:
        show_json([asdict(node) for node in nodes])
    else:
        show(tree_view(f"{strategy}: {statement}", nodes, shows_all=shows_all))


async def cancel_sweep(name: str, url: str, *, is_json: bool) -> None:
    """`ttc cancel`: the running coordinator sees it within seconds."""
    async with await Store.open(url, create=False) as store:
        found = await store.find_sweep(name)
        if found is None:
            raise unknown_sweep(name)
        await store.request_cancel(found.id)
    if is_json:
        show_json({"sweep": name, "is_asked_to_stop": True})
    else:
        show_line(f"{name}: asked to stop; `ttc resume {name}` goes on with it")


async def run_query(query: str, url: str, output: str, limit: int, timeout_s: float) -> None:
    """`ttc sql`: a table, CSV or JSON of a read-only query."""
    if output not in FORMATS:
        raise UsageError.of(f"--format is one of {', '.join(FORMATS)}", field="--format", value=repr(output))
    async with await Store.open(url, create=False, read_only=True) as store:
        found = await store.query(query, limit=limit, timeout_s=timeout_s)
    show_rows(found.columns, found.rows, output)


def serve_model(model: str, host: str, port: int, slots: int, api_key_env: str | None) -> None:
    """`ttc models serve`: until Ctrl-C."""
    from workers.embedded.serve import run_server

    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise UsageError.of(
                "the environment variable is not set", field="--api-key-env", value=api_key_env
            )
    run_server(model, host, port, slots=slots, api_key=key, announce=_announce)


def _announce(announcement: Mapping[str, str]) -> None:
    show_line(f"serving {announcement['model']} at {announcement['url']}; Ctrl-C stops it")


def list_models() -> Sequence[str]:
    """`ttc models list`."""
    from workers.embedded.catalog import built_in_models

    return built_in_models()


def database_of(spec: SweepSpec, path: Path, chosen: str | None) -> str:
    """The database of a sweep: what the command line or the environment says, else its file, else ./ttc.db."""
    if chosen is not None:
        return chosen
    if spec.store is not None:
        return store_url(spec.store, path.parent)
    return store_url(DEFAULT_STORE, Path.cwd())


async def _conclude(
    name: str, store: Store, budgets: Sequence[int] = (), *, is_json: bool = False
) -> Conclusions:
    """Results of a sweep at its own budgets, or at others."""
    calm_collector()  # millions of numbers come in at once: collections would walk them again and again
    spec, registered = await recall(name, store)
    if budgets:
        spec = spec.model_copy(update={"budgets": tuple(budgets)})
    reporter = make_reporter(name, is_json=is_json, stream=sys.stderr)
    async with GraderPool() as graders:
        grading = GradingService(store, graders, registered.sweep_id, registered.rules, note)
        try:
            return await conclude(
                spec, registered, store, grading, partial(reporter.advance, "problems estimated")
            )
        finally:
            reporter.close()


def _finish(name: str, report: RunReport, options: RunOptions) -> None:
    """Print the results, then end with the exit code of how the run ended."""
    if options.is_json:
        show_json({"sweep": name, **_report_json(report)})
    else:
        if report.conclusions is not None:
            show_conclusions(report.conclusions, is_json=False)
        show_line(_last_line(name, report))
    if report.reason in ("interrupted", "cancelled"):
        raise Interrupted(
            f"{report.reason}; everything drawn so far is stored: `ttc resume {name}` goes on from here"
        )
    if report.failed_tasks:
        raise SweepFailed(
            f"{report.failed_tasks} tasks gave up before all their samples were drawn",
            remedy="see `select error_kind, error_text, count(*) from tasks where state = 3 group by 1, 2`; "
            "running the sweep again tries them again",
        )
    if report.failed_scores:
        raise SweepFailed(
            f"{report.failed_scores} samples could not be scored: the scorer failed, or broke its contract",
            remedy="see `select status, detail, count(*) from scores where status in ('error', 'invalid') "
            "group by 1, 2`; running the sweep again asks again",
        )
    if report.failed_samples:
        raise SweepFailed(
            f"{report.failed_samples} samples failed at the endpoint",
            remedy="see `select error, count(*) from trajectories where outcome = 'error' group by error`; "
            "running the sweep again draws them again",
        )


def _last_line(name: str, report: RunReport) -> str:
    if report.reason == NOTHING_TO_DO:
        stored = f"all {report.samples_wanted:,} samples are stored"
        return f"{name}: nothing to do, {stored}; `ttc results {name}` shows them"
    rate = report.samples_drawn / report.elapsed_s if report.elapsed_s else 0.0
    made = f", {report.scores_made:,} scores" if report.scoring else ""
    return (
        f"{name}: {report.reason}; {report.samples_stored:,} of {report.samples_wanted:,} samples stored, "
        f"{report.samples_drawn:,}{made} by this run in {duration(report.elapsed_s)} ({rate:,.0f}/s)"
    )


def _report_json(report: RunReport) -> dict[str, Any]:
    plain = asdict(replace(report, conclusions=None))  # they hold whole pools of samples
    del plain["conclusions"]
    return {**plain, **(conclusions_json(report.conclusions) if report.conclusions else {})}
