"""What is wrong with a cluster, from what its nodes say of themselves. Pure: reports in, checks out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.checkup import Check

MOST_SKEW_S = 2.0
"""Leases are judged by the database's clock alone; but logs of several machines should tell one story."""
NTP = "synchronise the clocks (systemd-timesyncd, chrony or ntpd) on every machine"


@dataclass(frozen=True, slots=True)
class Versions:
    """What two nodes must have in common."""

    ttc: str
    ray: str
    python: str

    def __str__(self) -> str:
        return f"ttc {self.ttc}, Ray {self.ray}, Python {self.python}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of asking one server from one node."""

    subject: str
    url: str
    error: str | None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as seen from itself, or why it could not be asked."""

    name: str
    slots: int | None
    """Workers that it declares room for; None: it declares nothing."""
    versions: Versions | None
    ahead_s: float
    """How far its clock is ahead of the coordinator's."""
    uncertainty_s: float
    reached: tuple[Reached, ...] = ()
    error: str | None = None


def judge(
    reports: Sequence[NodeReport], here: Versions, workers: int | None, database_ahead_s: float | None
) -> Iterator[Check]:
    """All checks of a cluster; `workers`: how many the sweep wants, `database_ahead_s`: its clock less ours."""
    asked = [report for report in reports if report.error is None]
    yield from (
        Check(f"node {each.name}", False, each.error, "install the same version of ttc on it, or restart it")
        for each in reports
        if each.error is not None
    )
    yield _same_versions(asked, here)
    yield _enough_slots(reports, workers)
    for report in asked:
        yield from _all_reached(report)
    yield _same_time(asked, database_ahead_s)


def _same_versions(reports: Sequence[NodeReport], here: Versions) -> Check:
    others = [f"{each.name} has {each.versions}" for each in reports if each.versions != here]
    if others:
        remedy = "install the same versions of Python, Ray and ttc everywhere"
        return Check("versions", False, f"here {here}; " + "; ".join(others), remedy)
    return Check("versions", True, f"{here} on {len(reports)} nodes")


def _enough_slots(reports: Sequence[NodeReport], workers: int | None) -> Check:
    declared = [each.slots for each in reports if each.slots is not None]
    if not declared:
        return Check(
            "slots", True, "no node declares `sampler` slots: workers go anywhere, the head included"
        )
    total = sum(declared)
    found = f"{total} on {len(declared)} of {len(reports)} nodes"
    if workers is not None and workers > total:
        remedy = "lower limits.workers (or --workers), or start nodes with --resources='{\"sampler\": N}'"
        return Check("slots", False, f"{found}, and the sweep wants {workers} workers", remedy)
    return Check("slots", True, found)


def _all_reached(report: NodeReport) -> Iterator[Check]:
    subject = f"node {report.name}"
    lost = [each for each in report.reached if each.error is not None]
    for each in lost:
        remedy = "open the network to it, correct endpoints, or set the key's variable for `ray start` there"
        yield Check(subject, False, f"{each.subject} at {each.url}: {each.error}", remedy)
    if not lost:
        yield Check(subject, True, f"reaches {len(report.reached)} endpoints")


def _same_time(reports: Sequence[NodeReport], database_ahead_s: float | None) -> Check:
    """Clocks of the nodes against the database's; against the coordinator's where there is no database yet."""
    reference = "the database's" if database_ahead_s is not None else "the coordinator's"
    skews = {
        report.name: (abs(report.ahead_s - (database_ahead_s or 0.0)), report.uncertainty_s)
        for report in reports
    }
    if database_ahead_s is not None:
        skews["the coordinator"] = (abs(database_ahead_s), 0.0)
    late = [name for name, (skew_s, doubt_s) in skews.items() if skew_s - doubt_s > MOST_SKEW_S]
    if late:
        told = ", ".join(f"{name} by {skews[name][0]:.1f} s" for name in late)
        return Check("clocks", False, f"differ from {reference}: {told}", NTP)
    most_s = max((skew_s for skew_s, _ in skews.values()), default=0.0)
    return Check("clocks", True, f"within {most_s:.2f} s of {reference}")
