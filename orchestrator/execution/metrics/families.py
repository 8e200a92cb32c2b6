"""From a view of a run to Prometheus metrics: a pure function from plain numbers to metric families.

The names are what dashboards and alerts are built on: they are documented in `docs/how-to/watch-a-run-with-grafana.md`,
and deploy/grafana/ttc.json uses no others. It must not know HTTP, the coordinator, or where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from orchestrator.analysis.forecast import FLOPS_PER_PARAMETER
from orchestrator.execution.progress import Snapshot
from orchestrator.execution.scheduler import LaneLoad
from orchestrator.store import WriterStats
from workers.types import ReplicaHealth, Role, Usage

Label = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What never changes while a run lasts."""

    sweep: str
    run_id: int
    version: str
    started_at_s: float
    """Seconds since 1970-01-01 UTC."""
    workers: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the sweep file, as one lane uses it."""

    name: str
    parameters: int | None = None
    """For FLOPs; None: the sweep file does not say."""


@dataclass(frozen=True, slots=True)
class LaneModels:
    """A lane for people: its name, and the models that it spends."""

    name: str
    kind: str
    by_role: Mapping[Role, ServedModel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment."""

    identity: RunIdentity
    progress: Snapshot
    writer: WriterStats
    lanes: Mapping[int, LaneModels]
    loads: tuple[LaneLoad, ...]
    workers_up: int
    worker_restarts: int
    outcomes: Mapping[str, int]
    """This run's samples."""
    score_statuses: Mapping[str, int]
    """This run's scores."""
    failures: Mapping[str, int]
    """Failed requests by kind."""
    usage: Mapping[tuple[int, Role], Usage]
    """What was spent, by lane and role."""

    def at_rest(self) -> RunView:
        """The same run when nothing is in flight any more."""
        still = replace(self.progress, in_flight=0, replicas=(), paused_reason=None)
        loads = tuple(replace(load, tasks_in_flight=0, samples_in_flight=0) for load in self.loads)
        writer = replace(self.writer, held_rows=0, waiting_s=0.0)
        return replace(self, progress=still, loads=loads, writer=writer, workers_up=0)


def families(view: RunView) -> Iterator[Metric]:
    """All metrics of a run; the same families whatever the numbers are."""
    yield from _run(view)
    yield from _work(view)
    yield from _lanes(view)
    yield from _spending(view)
    yield from _replicas(view.progress.replicas)
    yield from _workers(view)
    yield from _writer(view.writer)


def _run(view: RunView) -> Iterator[Metric]:
    who = view.identity
    info = {"sweep": who.sweep, "run_id": str(who.run_id), "version": who.version}
    yield InfoMetricFamily("ttc_run", "The run that is being watched.", value=info)
    yield GaugeMetricFamily(
        "ttc_run_start_time_seconds", "When the run began, in seconds since 1970.", value=who.started_at_s
    )


def _work(view: RunView) -> Iterator[Metric]:
    progress = view.progress
    yield GaugeMetricFamily(
        "ttc_samples_wanted", "Samples that the sweep wants.", value=progress.samples_wanted
    )
    yield GaugeMetricFamily(
        "ttc_samples_done", "Samples of the sweep that are stored, by this run and earlier ones.",
        value=progress.samples_stored,
    )  # fmt: skip
    yield GaugeMetricFamily("ttc_scores_wanted", "Scores that the sweep wants.", value=progress.scores_wanted)
    yield GaugeMetricFamily(
        "ttc_scores_done", "Scores of the sweep that are final, by this run and earlier ones.",
        value=progress.scores_stored,
    )  # fmt: skip
    yield _counter("ttc_samples", "Samples stored by this run.", ("outcome",), _by_word(view.outcomes))
    yield _counter("ttc_scores", "Scores stored by this run.", ("status",), _by_word(view.score_statuses))
    yield _gauge(
        "ttc_eta_seconds", "Time to the end at the rates so far; absent while unknown.", (),
        [] if progress.eta_s is None else [((), progress.eta_s)],
    )  # fmt: skip


def _lanes(view: RunView) -> Iterator[Metric]:
    labels = ("lane", "kind")

    def rows(of: Callable[[LaneLoad], int]) -> Iterator[tuple[Label, float]]:
        for load in view.loads:
            lane = view.lanes.get(load.lane)
            yield ((lane.name, lane.kind) if lane else (str(load.lane), "")), of(load)

    yield _gauge(
        "ttc_tasks_ready", "Tasks that are leased and wait for a worker.", labels, rows(lambda each: each.tasks_ready)
    )  # fmt: skip
    yield _gauge(
        "ttc_tasks_in_flight", "Tasks that a worker has.", labels, rows(lambda each: each.tasks_in_flight)
    )
    yield _gauge(
        "ttc_samples_in_flight", "Samples (or scores) that a worker has and that are not durable yet.", labels,
        rows(lambda each: each.samples_in_flight),
    )  # fmt: skip


def _spending(view: RunView) -> Iterator[Metric]:
    spent = [(_model(view, lane, role), role, usage) for (lane, role), usage in view.usage.items()]
    labels = ("model", "role")

    def rows(of: Callable[[Usage], float]) -> Iterator[tuple[Label, float]]:
        for model, role, usage in spent:
            yield (model.name, str(role)), of(usage)

    yield _counter(
        "ttc_tokens", "Tokens that the models read (prompt; cached of them) and generated (completion).",
        ("model", "role", "kind"),
        [
            ((model.name, str(role), kind), count)
            for model, role, usage in spent
            for kind, count in _tokens(usage)
        ],
    )  # fmt: skip
    yield _counter("ttc_requests", "Requests that were answered.", labels, rows(lambda each: each.requests))
    yield _counter(
        "ttc_request_retries", "Requests that were sent again.", labels, rows(lambda each: each.retries)
    )
    yield _counter(
        "ttc_wasted_requests", "Requests whose reply was lost or unusable.", labels,
        rows(lambda each: each.wasted_requests),
    )  # fmt: skip
    yield _counter(
        "ttc_request_seconds", "Time from sending to reply, summed over requests.", labels,
        rows(lambda each: each.seconds),
    )  # fmt: skip
    yield _counter(
        "ttc_flops", "2 x parameters x tokens read and generated, where the sweep file says parameters.",
        labels,
        [
            ((model.name, str(role)), _flops(model.parameters, usage))
            for model, role, usage in spent
            if model.parameters is not None
        ],
    )  # fmt: skip
    yield _counter(
        "ttc_request_failures", "Failed requests, retried or not.", ("kind",), _by_word(view.failures)
    )


def _model(view: RunView, lane: int, role: Role) -> ServedModel:
    models = view.lanes.get(lane)
    return (models.by_role if models else {}).get(role, ServedModel("unknown"))


def _tokens(usage: Usage) -> tuple[tuple[str, int], ...]:
    return (
        ("prompt", usage.prompt_tokens), ("cached", usage.cached_tokens), ("completion", usage.completion_tokens),
    )  # fmt: skip


def _flops(parameters: int, usage: Usage) -> float:
    return float(FLOPS_PER_PARAMETER * parameters * (usage.prompt_tokens + usage.completion_tokens))


def _replicas(replicas: tuple[ReplicaHealth, ...]) -> Iterator[Metric]:
    labels = ("replica",)

    def rows(of: Callable[[ReplicaHealth], float]) -> Iterator[tuple[Label, float]]:
        return (((each.url,), of(each)) for each in replicas)

    yield _gauge(
        "ttc_replica_up", "1: requests are sent to this replica.", labels, rows(lambda each: each.is_up)
    )
    yield _gauge(
        "ttc_replica_requests_in_flight", "Requests under way at a replica.", labels, rows(lambda each: each.in_flight)
    )  # fmt: skip
    yield _gauge(
        "ttc_replica_request_limit", "Requests that a replica is given at most, now.", labels,
        rows(lambda each: each.limit),
    )  # fmt: skip
    limit = sum(each.limit for each in replicas)
    used = sum(each.in_flight for each in replicas)
    yield GaugeMetricFamily(
        "ttc_slot_utilisation_ratio", "Requests in flight over the limit, all replicas together.",
        value=used / limit if limit else 0.0,
    )  # fmt: skip
    yield GaugeMetricFamily(
        "ttc_replicas_up", "Replicas that requests are sent to.", value=sum(each.is_up for each in replicas)
    )


def _workers(view: RunView) -> Iterator[Metric]:
    yield GaugeMetricFamily("ttc_workers", "Workers of the run.", value=view.identity.workers)
    yield GaugeMetricFamily("ttc_workers_up", "Workers that are given work.", value=view.workers_up)
    yield CounterMetricFamily(
        "ttc_worker_restarts", "Workers that were lost and started again.", value=view.worker_restarts
    )
    yield GaugeMetricFamily(
        "ttc_paused", "1: nothing is sent, since every replica is down.",
        value=view.progress.paused_reason is not None,
    )  # fmt: skip


def _writer(stats: WriterStats) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "ttc_writer_lag_seconds", "How long the oldest batch that is not committed has waited.",
        value=stats.waiting_s,
    )  # fmt: skip
    yield GaugeMetricFamily(
        "ttc_writer_queued_rows", "Rows that are not committed yet.", value=stats.held_rows
    )
    yield CounterMetricFamily("ttc_writer_rows", "Rows committed.", value=stats.rows)
    yield CounterMetricFamily("ttc_writer_commits", "Transactions committed.", value=stats.commits)
    yield CounterMetricFamily(
        "ttc_writer_retries", "Commits that failed and were tried again.", value=stats.retries
    )
    yield CounterMetricFamily("ttc_writer_busy_seconds", "Time spent inside commits.", value=stats.busy_s)


def _by_word(counts: Mapping[str, int]) -> Iterator[tuple[Label, float]]:
    return (((word,), count) for word, count in counts.items())


def _gauge(name: str, help_text: str, labels: Label, rows: Iterable[tuple[Label, float]]) -> Metric:
    return _filled(GaugeMetricFamily(name, help_text, labels=labels), rows)


def _counter(name: str, help_text: str, labels: Label, rows: Iterable[tuple[Label, float]]) -> Metric:
    return _filled(CounterMetricFamily(name, help_text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[tuple[Label, float]]) -> Metric:
    """The family with one sample for each distinct label; what two lanes say of one model adds up."""
    sums: dict[Label, float] = {}
    for label, value in rows:
        sums[label] = sums.get(label, 0.0) + value
    for label, value in sums.items():
        family.add_metric(label, value)
    return family
