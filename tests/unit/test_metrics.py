"""Metrics: every number of a view under one documented name, nothing twice, nothing that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from orchestrator.execution.counters import RunCounters
from orchestrator.execution.metrics.families import LaneModels, RunIdentity, RunView, ServedModel, families
from orchestrator.execution.scheduler import (
    Claimed,
    LaneLoad,
    LaneSettings,
    Scheduler,
    SchedulerSettings,
    Stored,
    WorkerUp,
)
from orchestrator.store import WriterStats
from tests.unit.test_progress import REPLICA, SNAPSHOT, trajectory
from workers.types import FactBatch, Role, SampleTask, Usage, WorkerHealth

LANES = {
    1: LaneModels("policy", "sample", {Role.POLICY: ServedModel("policy", 1000)}),
    2: LaneModels("policy", "search", {Role.POLICY: ServedModel("policy", 1000), Role.SCORER: ServedModel("prm")}),
}  # fmt: skip
WRITER = WriterStats(7, 300, 40, 2, 0, 25, 0.1, 1.5, 9.0, 0.75)
VIEW = RunView(
    identity=RunIdentity('odd "name"\n', 3, "0.1.0", 1000.0, 2),
    progress=SNAPSHOT,
    writer=WRITER,
    lanes=LANES,
    loads=(LaneLoad(1, 5, 2, 32), LaneLoad(2, 0, 1, 16)),
    workers_up=1,
    worker_restarts=4,
    outcomes={"complete": 38, "truncated": 2},
    score_statuses={"ok": 9},
    failures={"rate_limited": 3},
    usage={
        (1, Role.POLICY): Usage(0, 0, requests=4, prompt_tokens=100, cached_tokens=60, completion_tokens=50, retries=1),
        (2, Role.POLICY): Usage(0, 0, requests=1, prompt_tokens=10, completion_tokens=5, wasted_requests=2),
        (2, Role.SCORER): Usage(0, 0, Role.SCORER, requests=3, prompt_tokens=30, seconds=2.5),
    },
)  # fmt: skip


def values(view: RunView) -> dict[tuple[str, ...], float]:
    """Every sample: its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(view)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (("ttc_run_start_time_seconds",), 1000.0),
        (("ttc_samples_wanted",), 200),
        (("ttc_samples_done",), 50),
        (("ttc_samples_total", "truncated"), 2),
        (("ttc_scores_total", "ok"), 9),
        (("ttc_eta_seconds",), 15.0),
        (("ttc_tasks_ready", "policy", "sample"), 5),
        (("ttc_tasks_in_flight", "policy", "search"), 1),
        (("ttc_samples_in_flight", "policy", "sample"), 32),
        (("ttc_tokens_total", "policy", "policy", "prompt"), 110),
        (("ttc_tokens_total", "policy", "policy", "cached"), 60),
        (("ttc_tokens_total", "policy", "policy", "completion"), 55),
        (("ttc_tokens_total", "prm", "scorer", "prompt"), 30),
        (("ttc_flops_total", "policy", "policy"), 2 * 1000 * 165),
        (("ttc_requests_total", "policy", "policy"), 5),
        (("ttc_request_retries_total", "policy", "policy"), 1),
        (("ttc_wasted_requests_total", "policy", "policy"), 2),
        (("ttc_request_seconds_total", "prm", "scorer"), 2.5),
        (("ttc_request_failures_total", "rate_limited"), 3),
        (("ttc_replica_up", "http://a/v1"), 1),
        (("ttc_replica_requests_in_flight", "http://a/v1"), 3),
        (("ttc_replica_request_limit", "http://a/v1"), 8),
        (("ttc_slot_utilisation_ratio",), 3 / 8),
        (("ttc_replicas_up",), 1),
        (("ttc_workers",), 2),
        (("ttc_workers_up",), 1),
        (("ttc_worker_restarts_total",), 4),
        (("ttc_paused",), 0),
        (("ttc_writer_lag_seconds",), 0.75),
        (("ttc_writer_queued_rows",), 25),
        (("ttc_writer_rows_total",), 300),
        (("ttc_writer_commits_total",), 7),
        (("ttc_writer_retries_total",), 2),
        (("ttc_writer_busy_seconds_total",), 1.5),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, tuple) else "",
)
def test_every_number_has_its_name(name: tuple[str, ...], value: float) -> None:
    assert values(VIEW)[name] == value


def test_what_is_not_known_is_absent() -> None:
    unknown = values(replace(VIEW, progress=replace(SNAPSHOT, rate=0.0)))
    assert ("ttc_eta_seconds",) not in unknown
    assert ("ttc_flops_total", "prm", "scorer") not in unknown  # nobody said how many parameters it has


def test_no_replica_means_no_utilisation_rather_than_an_error() -> None:
    assert (
        values(replace(VIEW, progress=replace(SNAPSHOT, replicas=())))["ttc_slot_utilisation_ratio",] == 0.0
    )


def test_a_paused_run_says_so() -> None:
    assert values(replace(VIEW, progress=replace(SNAPSHOT, paused_reason="down")))["ttc_paused",] == 1


def test_the_families_are_the_same_whatever_the_numbers_are() -> None:
    empty = replace(VIEW, loads=(), outcomes={}, usage={}, failures={}, score_statuses={})
    assert [family.name for family in families(empty)] == [family.name for family in families(VIEW)]
    assert all(family.documentation for family in families(VIEW))


def test_a_run_at_rest_keeps_its_sums_and_has_nothing_in_flight() -> None:
    rest = values(VIEW.at_rest())
    assert rest["ttc_samples_total", "complete"] == 38
    for name, value in rest.items():
        if name[0] in (
            "ttc_tasks_in_flight",
            "ttc_samples_in_flight",
            "ttc_workers_up",
            "ttc_writer_lag_seconds",
        ):
            assert value == 0, name


class _Once(Collector):
    def collect(self) -> list[Metric]:
        return list(families(VIEW))


def test_the_text_is_what_prometheus_reads() -> None:
    registry = CollectorRegistry()
    registry.register(_Once())
    lines = generate_latest(registry).decode().splitlines()
    assert 'ttc_run_info{run_id="3",sweep="odd \\"name\\"\\n",version="0.1.0"} 1.0' in lines
    assert "# TYPE ttc_samples_total counter" in lines
    names = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert len(names) == len(set(names))


def test_counters_add_up_over_batches_lanes_and_the_lives_of_workers() -> None:
    counters = RunCounters()
    batch = FactBatch(
        trajectories=(trajectory("x"),),
        usage=(Usage(1, 1, completion_tokens=5), Usage(2, 1, completion_tokens=7), Usage(9, 1, requests=1)),
    )
    counters.add(batch, {1: 10, 2: 10})
    counters.add(batch, {1: 10, 2: 20})
    spent = {key: usage.completion_tokens for key, usage in counters.usage.items()}
    assert spent == {(10, Role.POLICY): 17, (20, Role.POLICY): 7, (-1, Role.POLICY): 0}
    assert counters.outcomes == {"complete": 2}
    health = WorkerHealth((REPLICA,), 0, 0, None, (), {"unreachable": 2})
    counters.lose(health)
    counters.lose(None)  # it died before it was ever asked
    assert counters.worker_restarts == 2
    assert counters.failures({0: health}) == {"unreachable": 4}


def test_a_scheduler_tells_the_load_of_its_lanes() -> None:
    scheduler = Scheduler(SchedulerSettings({1: LaneSettings(8), 2: LaneSettings(8)}))
    tasks = tuple(SampleTask(n, 1, 1, n, n, "?", 1, 0, ((0, 8),)) for n in range(4))
    scheduler.handle(Claimed(1, tasks, asked=64))
    assert scheduler.loads()[0] == LaneLoad(1, 4, 0, 0)
    scheduler.handle(WorkerUp(0))
    assert (scheduler.loads(), scheduler.workers_up) == ((LaneLoad(1, 2, 2, 16), LaneLoad(2, 0, 0, 0)), 1)
    scheduler.handle(Stored(0, ((0, 3),), ()))
    assert scheduler.loads()[0] == LaneLoad(1, 1, 3, 8 + 8 + 5)  # and there was room for another task
