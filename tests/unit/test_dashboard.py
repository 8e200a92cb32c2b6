"""The Grafana dashboard and the configuration of Prometheus name what there is: metrics, labels, variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.execution.metrics.families import families
from tests.unit.test_metrics import VIEW

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "ttc.json").read_text("utf-8"))
HOW_TO = (DEPLOY.parent / "docs" / "how-to" / "watch-a-run-with-grafana.md").read_text("utf-8")
METRIC = re.compile(r"\bttc_[a-z_]+")


def exported() -> dict[str, set[str]]:
    """Labels by the name of a series, as Prometheus stores it."""
    found: dict[str, set[str]] = {}
    for family in families(VIEW):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")
    yield from (each["expr"] for each in DASHBOARD["annotations"]["list"])


def test_every_metric_of_the_dashboard_is_exported() -> None:
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert named <= exported().keys()
    assert exported().keys() == named  # and nothing is exported that nobody can see


def test_every_label_of_the_dashboard_is_exported() -> None:
    labels = {label for each in exported().values() for label in each} | {"instance"}
    for expression in expressions():
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert {word.strip() for word in group.split(",")} <= labels, expression
    legends = {label for panel in panels() for t in panel["targets"] for label in _braced(t["legendFormat"])}
    assert legends <= labels


def _braced(text: str) -> list[str]:
    return re.findall(r"{{(\w+)}}", text)


def test_the_data_source_is_a_variable_everywhere() -> None:
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r'"uid": "\$\{(\w+)\}"', text)) == {"datasource"}
    assert {*re.findall(r"\$(\w+)", text)} - {"__rate_interval", "__all"} <= variables
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("name", sorted(exported()))
def test_every_metric_is_documented(name: str) -> None:
    assert f"`{name}`" in HOW_TO


def test_the_configuration_of_prometheus_reads_one_run() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    ((target,),) = [each["targets"] for each in job["static_configs"]]
    assert f"--metrics-port {target.rpartition(':')[2]}" in HOW_TO
