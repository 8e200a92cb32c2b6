"""What a doctor says of a cluster, from reports of its nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.cluster_checkup import NodeReport, Reached, Versions, judge

HERE = Versions("0.1.0", "2.60.0", "3.11.7")
NODE = NodeReport("10.0.0.11", 4, HERE, 0.01, 0.002, (Reached("policy", "http://gpu:8000/v1", None),))
HEAD = replace(NODE, name="10.0.0.10", slots=None)


def verdicts(
    *nodes: NodeReport, workers: int | None = 2, ahead_s: float | None = 0.0
) -> dict[str, tuple[bool, str]]:
    return {
        each.subject: (each.is_ok, f"{each.found} -> {each.remedy}")
        for each in judge(nodes, HERE, workers, ahead_s)
    }


def test_a_sound_cluster_has_nothing_to_fix() -> None:
    found = verdicts(HEAD, NODE)
    assert all(is_ok for is_ok, _ in found.values())
    assert found["slots"][1].startswith("4 on 1 of 2 nodes")
    assert found["node 10.0.0.11"][1].startswith("reaches 1 endpoints")


@pytest.mark.parametrize(
    ("node", "subject", "said"),
    [
        (replace(NODE, versions=replace(HERE, ttc="0.2.0")), "versions", "10.0.0.11 has ttc 0.2.0"),
        (replace(NODE, versions=replace(HERE, python="3.12.1")), "versions", "Python 3.12.1"),
        (replace(NODE, slots=1), "slots", "the sweep wants 2 workers"),
        (replace(NODE, ahead_s=60.0), "clocks", "10.0.0.11 by 60.0 s"),
        (replace(NODE, ahead_s=-60.0), "clocks", "10.0.0.11 by 60.0 s"),
        (replace(NODE, reached=(Reached("policy", "http://gpu:8000/v1", "HTTP 401"),)), "node 10.0.0.11", "HTTP 401"),
        (replace(NODE, versions=None, error="ModuleNotFoundError: orchestrator"), "node 10.0.0.11", "install"),
    ],
    ids=["ttc", "python", "slots", "ahead", "behind", "endpoint", "not installed"],
)  # fmt: skip
def test_what_is_wrong_is_named_with_a_remedy(node: NodeReport, subject: str, said: str) -> None:
    found = verdicts(HEAD, node)
    assert [name for name, (is_ok, _) in found.items() if not is_ok] == [subject]
    assert said in found[subject][1]
    assert not found[subject][1].endswith("-> ")


def test_a_clock_that_cannot_be_read_well_is_not_accused() -> None:
    assert verdicts(replace(NODE, ahead_s=3.0, uncertainty_s=2.0))["clocks"][0]


def test_the_coordinator_itself_may_be_the_one_that_is_wrong() -> None:
    found = verdicts(replace(NODE, ahead_s=60.0), ahead_s=60.0)
    assert "the coordinator by 60.0 s" in found["clocks"][1]
    assert "10.0.0.11" not in found["clocks"][1]
    assert verdicts(NODE, ahead_s=None)["clocks"] == (True, "within 0.01 s of the coordinator's -> ")


def test_a_cluster_that_declares_no_slots_takes_workers_anywhere() -> None:
    assert verdicts(HEAD)["slots"][0]
