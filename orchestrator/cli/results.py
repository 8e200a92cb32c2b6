"""Commands that look at what is stored, or bring it in and out: results, comparisons, trees, SQL, import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Database, SweepName, database_url, run_async


def results(
    name: SweepName,
    budgets: Annotated[
        str | None, typer.Option(help="Budgets instead of the sweep's, say 1,16,256.", metavar="K,K,...")
    ] = None,
    first_k: Annotated[
        bool, typer.Option("--first-k", help="Also what the first k samples come to: one draw, no estimate.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Order the costs of searches by generations, tokens, policy-flops, all-flops or seconds, and mark "
            "what is right more often than all that is cheaper."
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compute and show a sweep's results from what is stored, now: every selector at every budget."""
    from orchestrator.commands import parse_budgets, show_results

    chosen = parse_budgets(budgets)
    run_async(show_results(name, database_url(db), chosen, shows_first=first_k, axis=by, is_json=as_json))


def compare(
    name: SweepName,
    first: Annotated[
        str,
        typer.Argument(help="[STRATEGY/]SELECTOR[@BUDGET], say weighted:prm.last@64.", show_default=False),
    ],
    second: Annotated[
        str, typer.Argument(help="What it is compared with, say majority.", show_default=False)
    ],
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compare two selectors, strategies or budgets on the same problems: paired differences with intervals."""
    from orchestrator.commands import compare_ways

    run_async(compare_ways(name, database_url(db), first, second, is_json=as_json))


def scaling(
    name: SweepName,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy that draws solutions; needed where there are several.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="Selector of kind filter-vote with a threshold; else the first of the sweep, if any.",
        ),
    ] = None,
    calls: Annotated[
        int, typer.Option(min=1, help="First calls of each problem that the predictions are made from.")
    ] = 40,
    budgets: Annotated[
        str | None, typer.Option(help="Numbers of calls; default: 20 from 2 to 1000.", metavar="K,K,...")
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show how votes scale with calls: easy and hard problems, two-level models, curves predicted from few calls."""
    from orchestrator.commands import parse_budgets, show_scaling

    chosen = parse_budgets(budgets)
    run_async(show_scaling(name, database_url(db), strategy, judge, calls, chosen, is_json=as_json))


def tree(
    name: SweepName,
    problem: Annotated[str, typer.Argument(help="Id of a problem, as in its file.", show_default=False)],
    strategy: Annotated[
        str | None, typer.Option(help="Strategy and budget, say beam@16; needed where there are several.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Pruned leaves as well, not just their number.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show the tree of a search for one problem: steps with their scores, pruned ones dim.

    ■ the solution ends here; ✂ it was cut; ∅ a step without text.
    """
    from orchestrator.commands import show_tree

    run_async(show_tree(name, problem, strategy, database_url(db), shows_all=whole, is_json=as_json))


def import_samples(
    file: Annotated[Path, typer.Argument(help="Samples: .jsonl, .csv or .parquet.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the sweep they become.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of the model that wrote them.")] = "imported",
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="ROLE=COLUMN",
            help="Which column holds what, where it has no usual name: id, problem, gold, level, subject, samples, "
            "text, steps, answer, verdict, scores, score, tokens, finish_reason.",
        ),
    ] = None,
    answer_after: Annotated[
        str | None, typer.Option(help="The answer is what follows the last occurrence of this in the text.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Name of the scorer that gave the scores.")] = None,
    label_type: Annotated[
        str | None, typer.Option(help="What the labels of that scorer were: hard or soft.")
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Scores are logits, not probabilities.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Store samples made elsewhere, with their scores, as a sweep; then votes, scores and SQL work on them."""
    from orchestrator.commands import import_trajectories
    from orchestrator.importing import ImportOptions, reading_of

    reading = reading_of(fields or [], answer_after, are_logits=logits)
    options = ImportOptions(name, model, reading, scorer, label_type)
    run_async(import_trajectories(file, database_url(db), options, is_json=as_json))


def export(
    name: SweepName,
    folder: Annotated[Path, typer.Argument(help="Folder for the file.", show_default=False)],
    layout: Annotated[str, typer.Option(help="trl (stepwise supervision) or math-shepherd.")] = "trl",
    output: Annotated[str, typer.Option("--format", help="parquet or jsonl.")] = "parquet",
    strategy: Annotated[
        str | None, typer.Option(help="Strategy of kind rollouts; needed where there are several.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="hard or soft; else as the sweep file says (math-shepherd: hard).")
    ] = None,
    repeated: Annotated[
        bool, typer.Option("--repeated", help="Write a solution as often as it was drawn, not once.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Write the labelled steps of a sweep as a training set for process reward models."""
    from orchestrator.commands import ExportWords, export_training_set

    wanted = ExportWords(layout, output, strategy, label, repeated)
    run_async(export_training_set(name, folder, database_url(db), wanted, is_json=as_json))


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT statement.", show_default=False)],
    db: Database = None,
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 10_000,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds at most.")] = 60.0,
) -> None:
    """Query the store, read-only. `ttc sql "select * from schema_comments"` explains every table and column."""
    from orchestrator.commands import run_query

    run_async(run_query(query, database_url(db), "json" if as_json else output, limit, timeout_s))
