"""The selectors of a sweep file as the estimators know them, and the scores that they go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.analysis.estimation.selectors import Kind, Selector
from orchestrator.spec.scorers import PrmScorer
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.selectors import (
    AnySelector,
    BestOfNSelector,
    FilterVoteSelector,
    HierarchicalSelector,
    MajoritySelector,
    PassSelector,
    WeightedSelector,
)
from orchestrator.store import SelectorRecord
from workers.steps import Aggregation

PASSING = 0.5
"""Score from which a sample passes a filter that names no threshold: more likely right than wrong."""


@dataclass(frozen=True, slots=True)
class ScoreChoice:
    """One score a sample: whose, and how step scores become one."""

    scorer: str
    aggregation: Aggregation | None
    """None: the scorer gives one score a solution."""

    @property
    def key(self) -> str:
        """Its name among the scores of a pool and within the names of selectors."""
        return self.scorer if self.aggregation is None else f"{self.scorer}.{self.aggregation}"


@dataclass(frozen=True, slots=True)
class ChosenSelector:
    """A selector, and the score it goes by."""

    selector: Selector
    score: ScoreChoice | None

    @property
    def record(self) -> SelectorRecord:
        """Its row in the store."""
        score = self.score
        return SelectorRecord(
            name=self.selector.name,
            kind=self.selector.kind,
            scorer=score.scorer if score else None,
            aggregation=score.aggregation if score else None,
        )


def chosen_selectors(spec: SweepSpec) -> list[ChosenSelector]:
    """All selectors of a sweep file, in its order; what it leaves open is filled in."""
    chosen = [_chosen(selector, spec) for selector in spec.chosen_selectors]
    return list(dict.fromkeys(chosen))  # the default written out is the same selector again


def needed_scores(chosen: Sequence[ChosenSelector]) -> list[ScoreChoice]:
    """The scores that some selector goes by."""
    return list(dict.fromkeys(each.score for each in chosen if each.score is not None))


def _chosen(selector: AnySelector, spec: SweepSpec) -> ChosenSelector:
    match selector:
        case PassSelector():
            return ChosenSelector(Selector(Kind.PASS), None)
        case MajoritySelector():
            return ChosenSelector(Selector(Kind.MAJORITY), None)
        case BestOfNSelector() | WeightedSelector():
            score = _score(selector, spec)
            return ChosenSelector(Selector(Kind(selector.kind), score.key), score)
        case HierarchicalSelector():
            score = _score(selector, spec)
            return ChosenSelector(Selector(Kind.HIERARCHICAL, score.key, chain=selector.chain), score)
        case FilterVoteSelector():
            score = _score(selector, spec)
            threshold = selector.threshold
            if threshold is None and selector.share is None:
                threshold = PASSING
            found = Selector(Kind.FILTER_VOTE, score.key, threshold=threshold, share=selector.share)
            return ChosenSelector(found, score)


def _score(
    selector: BestOfNSelector | WeightedSelector | HierarchicalSelector | FilterVoteSelector, spec: SweepSpec
) -> ScoreChoice:
    scorer = spec.scorers[selector.scorer]
    if not isinstance(scorer, PrmScorer):
        return ScoreChoice(selector.scorer, None)
    return ScoreChoice(selector.scorer, selector.aggregation or scorer.step_aggregation)
