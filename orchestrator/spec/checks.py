"""What several fields of a sweep file must agree on; each disagreement names both places.

Pure: a sweep in, issues out. It must not know YAML, positions or files; `spec_file` turns paths into lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.nearest import suggestion
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_fingerprint

RUNNABLE_SCORERS: frozenset[str] = frozenset()
"""Kinds of scorers that this version runs; the others are declared in `spec` but refused here."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Issue:
    """A disagreement: where it shows, what it is, what to do, and the other place that is involved."""

    path: Path
    message: str
    remedy: str
    related: Path | None = None


def disagreements(sweep: SweepSpec) -> tuple[Issue, ...]:
    """All disagreements of a sweep whose fields are each valid."""
    return tuple(issue for check in _CHECKS for issue in check(sweep))


def _policies(sweep: SweepSpec) -> Iterator[Issue]:
    for index, strategy in enumerate(sweep.strategies):
        if strategy.policy not in sweep.models:
            remedy = suggestion(strategy.policy, sweep.models, "name one of the models")
            yield Issue(("strategies", index, "policy"), "is not the name of a model", remedy, ("models",))


def _greedy(sweep: SweepSpec) -> Iterator[Issue]:
    for index, strategy in enumerate(sweep.strategies):
        model = sweep.models.get(strategy.policy)
        if model is not None and model.sampling.temperature == 0 and strategy.samples > 1:
            message = f"temperature 0 draws the same sample {strategy.samples} times"
            remedy = "raise the temperature, or draw 1 sample"
            place = ("models", strategy.policy, "sampling", "temperature")
            yield Issue(place, message, remedy, ("strategies", index, "samples"))


def _greedy_requests(sweep: SweepSpec) -> Iterator[Issue]:
    for name, model in sweep.models.items():
        count = model.samples_per_request
        if model.sampling.temperature == 0 and isinstance(count, int) and count > 1:
            message = "servers refuse more than one sample a request at temperature 0"
            related: Path = ("models", name, "sampling", "temperature")
            yield Issue(("models", name, "samples_per_request"), message, "use 1 or auto", related)


def _budgets(sweep: SweepSpec) -> Iterator[Issue]:
    sizes = [strategy.samples for strategy in sweep.strategies]
    largest = max(sizes)
    for index, budget in enumerate(sweep.budgets):
        if budget > largest:
            message = f"is more than the {largest} samples that are drawn"
            remedy = f"lower it, or raise samples to {budget}"
            place = ("strategies", sizes.index(largest), "samples")
            yield Issue(("budgets", index), message, remedy, place)
    yield from _repeated(sweep.budgets, "budgets", ())


def _names(sweep: SweepSpec) -> Iterator[Issue]:
    yield from _repeated([strategy.name for strategy in sweep.strategies], "strategies", ("name",))


def _repeated(values: Sequence[object], field: str, below: Path) -> Iterator[Issue]:
    for index, value in enumerate(values):
        first = values.index(value)
        if first != index:
            yield Issue(
                (field, index, *below), "is there already", "remove or change one", (field, first, *below)
            )


def _same_generators(sweep: SweepSpec) -> Iterator[Issue]:
    seen: dict[str, str] = {}
    for name, model in sweep.models.items():
        first = seen.setdefault(generator_fingerprint(model), name)
        if first != name:
            message = f"draws the same samples as {first}: model, prompt and sampling are equal"
            remedy = "keep one, with the URLs of both under endpoints"
            yield Issue(("models", name), message, remedy, ("models", first))


def _endpoints(sweep: SweepSpec) -> Iterator[Issue]:
    owners: Iterable[tuple[str, str, tuple[str, ...]]] = [
        *(("models", name, model.endpoints) for name, model in sweep.models.items()),
        *(("scorers", name, scorer.endpoints) for name, scorer in sweep.scorers.items()),
    ]
    for section, name, urls in owners:
        for index, url in enumerate(urls):
            if urls.index(url) != index:
                place = (section, name, "endpoints")
                yield Issue((*place, index), "is listed twice", "remove one", (*place, urls.index(url)))


def _scorers(sweep: SweepSpec) -> Iterator[Issue]:
    runnable = ", ".join(sorted(RUNNABLE_SCORERS)) or "none yet"
    for name, scorer in sweep.scorers.items():
        if scorer.kind not in RUNNABLE_SCORERS:
            message = f"scorers of kind {scorer.kind} do not run in this version (available: {runnable})"
            yield Issue(("scorers", name, "kind"), message, "remove the scorer")


def _selectors(sweep: SweepSpec) -> Iterator[Issue]:
    yield from _repeated(sweep.selectors, "selectors", ())


_CHECKS: tuple[Callable[[SweepSpec], Iterator[Issue]], ...] = (
    _policies,
    _greedy,
    _greedy_requests,
    _budgets,
    _names,
    _same_generators,
    _endpoints,
    _scorers,
    _selectors,
)
