"""Selectors of a sweep file: their names, the scores they go by, and the defaults."""

from __future__ import annotations

from typing import Any

from orchestrator.analysis.estimation.selectors import Kind
from orchestrator.analysis.selection import ChosenSelector, chosen_selectors, needed_scores
from orchestrator.spec.file import sweep_from

PRM = {
    "kind": "prm",
    "endpoints": "http://127.0.0.1:1/v1",
    "model": "m",
    "format": "qwen",
    "label_type": "soft",
}
ORM = {"kind": "orm", "endpoints": "http://127.0.0.1:2/v1", "model": "o"}
JUDGE = {"kind": "judge", "endpoints": "http://127.0.0.1:3/v1", "model": "j"}


def chosen(selectors: list[Any] | None, **scorers: Any) -> list[ChosenSelector]:
    spec = {
        "name": "s",
        "problems": {"path": "problems.jsonl"},
        "models": {"small": {"embedded": "arithmetic"}},
        "strategies": [{"name": "p", "kind": "parallel", "policy": "small", "samples": 8}],
        "scorers": scorers,
    }
    return chosen_selectors(sweep_from(spec if selectors is None else {**spec, "selectors": selectors}))


def names(found: list[ChosenSelector]) -> list[str]:
    return [each.selector.name for each in found]


def test_without_a_word_every_scorer_is_used() -> None:
    found = chosen(None, prm=PRM, orm=ORM, judge=JUDGE)
    assert names(found) == [
        "pass", "majority", "best-of-n:prm.last", "weighted:prm.last", "best-of-n:orm", "weighted:orm",
        "filter-vote:judge:from-0.5",
    ]  # fmt: skip
    assert [score.key for score in needed_scores(found)] == ["prm.last", "orm", "judge"]


def test_step_scores_become_one_as_the_labels_want() -> None:
    hard = {**PRM, "label_type": "hard"}
    assert names(chosen([{"kind": "weighted", "scorer": "prm"}], prm=hard)) == ["weighted:prm.min"]
    own = {"kind": "weighted", "scorer": "prm", "aggregation": "prod"}
    assert names(chosen([own], prm=hard)) == ["weighted:prm.prod"]


def test_every_kind_has_its_parts() -> None:
    found = chosen(
        [
            "pass",
            "majority",
            {"kind": "filter-vote", "scorer": "prm"},
            {"kind": "filter-vote", "scorer": "prm", "threshold": 0.7},
            {"kind": "filter-vote", "scorer": "prm", "share": 0.25},
            {"kind": "hierarchical", "scorer": "prm", "chain": 4},
        ],
        prm=PRM,
    )
    assert names(found)[2:] == [
        "filter-vote:prm.last:from-0.5",
        "filter-vote:prm.last:from-0.7",
        "filter-vote:prm.last:top-0.25",
        "hierarchical:prm.last:chain-4",
    ]
    assert found[-1].selector.kind is Kind.HIERARCHICAL
    record = found[-1].record
    assert (record.kind, record.scorer, record.aggregation) == ("hierarchical", "prm", "last")


def test_the_default_written_out_is_the_same_selector() -> None:
    both = [
        {"kind": "weighted", "scorer": "prm"},
        {"kind": "weighted", "scorer": "prm", "aggregation": "last"},
    ]
    assert names(chosen(both, prm=PRM)) == ["weighted:prm.last"]
