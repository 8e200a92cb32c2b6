"""What several fields of a sweep file must agree on; each disagreement names both places.

Pure: a sweep in, issues out. It must not know YAML, positions or files; `spec_file` turns paths into lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.nearest import suggestion
from orchestrator.spec.scorer_settings import scorer_fingerprint
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_fingerprint
from orchestrator.spec.strategies import RolloutsStrategy, SearchStrategy

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
        field = "completer" if isinstance(strategy, RolloutsStrategy) else "policy"
        if getattr(strategy, field) not in sweep.models:
            remedy = suggestion(getattr(strategy, field), sweep.models, "name one of the models")
            yield Issue(("strategies", index, field), "is not the name of a model", remedy, ("models",))


def _greedy(sweep: SweepSpec) -> Iterator[Issue]:
    for index, strategy in enumerate(sweep.strategies):
        if isinstance(strategy, SearchStrategy):
            continue  # _searches says more
        is_labelling = isinstance(strategy, RolloutsStrategy)
        name, count = (
            (strategy.completer, strategy.rollouts)
            if isinstance(strategy, RolloutsStrategy)
            else (strategy.policy, strategy.samples)
        )
        model = sweep.models.get(name)
        if model is not None and model.sampling.temperature == 0 and count > 1:
            message = f"temperature 0 draws the same sample {count} times"
            remedy = "raise the temperature, or draw 1 sample"
            place = ("models", name, "sampling", "temperature")
            yield Issue(
                place, message, remedy, ("strategies", index, "rollouts" if is_labelling else "samples")
            )


def _rollouts(sweep: SweepSpec) -> Iterator[Issue]:
    sources = {each.name: each for each in sweep.sampled}
    for index, strategy in enumerate(sweep.strategies):
        if not isinstance(strategy, RolloutsStrategy):
            continue
        place: Path = ("strategies", index)
        source = sources.get(strategy.source)
        if source is None:
            remedy = suggestion(strategy.source, sources, "name one of the parallel strategies")
            yield Issue((*place, "source"), "is not the name of a strategy that draws solutions", remedy)
        elif strategy.solutions > source.samples:
            message = f"is more than the {source.samples} solutions that {source.name} draws"
            related = ("strategies", sweep.strategies.index(source), "samples")
            yield Issue((*place, "solutions"), message, f"lower it to {source.samples}", related)
        completer = sweep.models.get(strategy.completer)
        if completer is not None and completer.imported is not None:
            message = "its samples were imported: it can complete nothing"
            yield Issue((*place, "completer"), message, "name a model that is served")


def _searches(sweep: SweepSpec) -> Iterator[Issue]:
    for index, strategy in enumerate(sweep.strategies):
        if not isinstance(strategy, SearchStrategy):
            continue
        place: Path = ("strategies", index)
        scorer = sweep.scorers.get(strategy.scorer)
        if scorer is None:
            remedy = suggestion(strategy.scorer, sweep.scorers, "name one of the scorers")
            yield Issue((*place, "scorer"), "is not the name of a scorer", remedy, ("scorers",))
        elif scorer.kind != "prm" or scorer.imported is not None:
            message = "a search is guided by a process reward model that is served"
            yield Issue((*place, "scorer"), message, "name one of kind prm", ("scorers", strategy.scorer))
        model = sweep.models.get(strategy.policy)
        if model is not None and model.imported is not None:
            yield Issue(
                (*place, "policy"),
                "its samples were imported: it can draw no steps",
                "name a model that is served",
            )
        elif model is not None and model.sampling.temperature == 0 and strategy.algorithm != "greedy":
            message = "temperature 0 draws the same child again and again"
            yield Issue(
                ("models", strategy.policy, "sampling", "temperature"),
                message,
                "raise the temperature",
                place,
            )
        yield from _repeated(strategy.budgets, "budgets", (), place)


def _greedy_requests(sweep: SweepSpec) -> Iterator[Issue]:
    for name, model in sweep.models.items():
        count = model.samples_per_request
        if model.sampling.temperature == 0 and isinstance(count, int) and count > 1:
            message = "servers refuse more than one sample a request at temperature 0"
            related: Path = ("models", name, "sampling", "temperature")
            yield Issue(("models", name, "samples_per_request"), message, "use 1 or auto", related)


def _budgets(sweep: SweepSpec) -> Iterator[Issue]:
    largest = max(sweep.sampled, key=lambda each: each.samples, default=None)
    for index, budget in enumerate(sweep.budgets):
        if largest is not None and budget > largest.samples:
            message = f"is more than the {largest.samples} samples that are drawn"
            remedy = f"lower it, or raise samples to {budget}"
            place = ("strategies", sweep.strategies.index(largest), "samples")
            yield Issue(("budgets", index), message, remedy, place)
    yield from _repeated(sweep.budgets, "budgets", ())


def _names(sweep: SweepSpec) -> Iterator[Issue]:
    yield from _repeated([strategy.name for strategy in sweep.strategies], "strategies", ("name",))


def _repeated(values: Sequence[object], field: str, below: Path, above: Path = ()) -> Iterator[Issue]:
    for index, value in enumerate(values):
        first = values.index(value)
        if first != index:
            place, related = ((*above, field, number, *below) for number in (index, first))
            yield Issue(place, "is there already", "remove or change one", related)


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


def _same_scorers(sweep: SweepSpec) -> Iterator[Issue]:
    seen: dict[str, str] = {}
    for name, scorer in sweep.scorers.items():
        first = seen.setdefault(scorer_fingerprint(scorer), name)
        if first != name:
            message = f"gives the same scores as {first}: model, format and options are equal"
            remedy = f"keep one; a selector may name another aggregation of {first}"
            yield Issue(("scorers", name), message, remedy, ("scorers", first))


def _selectors(sweep: SweepSpec) -> Iterator[Issue]:
    chosen = sweep.selectors or ()
    yield from _repeated(chosen, "selectors", ())
    for index, selector in enumerate(chosen):
        name = getattr(selector, "scorer", None)
        if name is None:
            continue
        if name not in sweep.scorers:
            remedy = suggestion(name, sweep.scorers, "name one of the scorers")
            yield Issue(("selectors", index, "scorer"), "is not the name of a scorer", remedy)
        elif getattr(selector, "aggregation", None) is not None and sweep.scorers[name].kind != "prm":
            message = f"{name} gives one score a solution: there is nothing to aggregate"
            yield Issue(("selectors", index, "aggregation"), message, "remove it")


_CHECKS: tuple[Callable[[SweepSpec], Iterator[Issue]], ...] = (
    _policies,
    _greedy,
    _rollouts,
    _searches,
    _greedy_requests,
    _budgets,
    _names,
    _same_generators,
    _endpoints,
    _same_scorers,
    _selectors,
)
