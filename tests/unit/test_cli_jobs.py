"""What the command line says to a job, and what it refuses: windows to stop in, and addresses of the wrong kind."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import UsageError
from orchestrator.execution.coordinator import GRACE_S
from orchestrator.sweep import SETTLING_S, RunOptions


@pytest.mark.parametrize(
    ("window_s", "grace_s"),
    [
        (None, GRACE_S),
        (0.0, 0.0),
        (1.0, 0.0),
        (3.0, 3.0 - SETTLING_S),
        (20.0, 20.0 - SETTLING_S),
        (600.0, GRACE_S),
    ],
)
def test_requests_get_what_the_window_leaves(window_s: float | None, grace_s: float) -> None:
    assert RunOptions(stop_window_s=window_s).grace_s == grace_s


def test_a_window_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_STOP_WINDOW_S", "soon")
    found = CliRunner().invoke(app, ["run", "sweep.yaml", "--local"])
    assert isinstance(found.exception, UsageError)
    assert "TTC_STOP_WINDOW_S" in str(found.exception)
    assert "'soon'" in str(found.exception)


@pytest.mark.parametrize("command", [["run", "sweep.yaml"], ["score", "first"]])
def test_the_address_of_a_dashboard_is_for_jobs(command: list[str]) -> None:
    found = CliRunner().invoke(app, [*command, "--address", "http://127.0.0.1:8265"])
    assert isinstance(found.exception, UsageError)
    assert "ttc submit" in str(found.exception)


def test_what_is_for_jobs_is_refused_without_one() -> None:
    found = CliRunner().invoke(app, ["resume", "first", "--db-env", "THEIRS"])
    assert isinstance(found.exception, UsageError)
    assert "--address" in str(found.exception)


@pytest.mark.parametrize("command", [["submit", "sweep.yaml"], ["watch", "first"], ["logs", "first"]])
def test_a_job_needs_a_cluster(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, UsageError)
    assert "which cluster?" in str(found.exception)
