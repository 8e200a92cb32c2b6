"""The `selectors` section of a sweep file: how one answer is chosen from many.

Adding a kind of selector is one class and one name in the union below. What a selector computes is in `analysis`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.spec.fields import Name, Section, as_kind, refusal
from workers.steps import Aggregation


class MajoritySelector(Section):
    """The most frequent answer (plurality, ties broken without bias)."""

    kind: Literal["majority"]
    """The most frequent answer."""


class PassSelector(Section):
    """pass@k: whether any of k samples is right (an oracle, the ceiling of every other selector)."""

    kind: Literal["pass"]
    """pass@k."""


class _Scored(Section):
    """What every selector with a scorer has."""

    scorer: Name
    """Name of the scorer."""
    aggregation: Aggregation | None = None
    """How step scores become one; default: the scorer's own."""


class BestOfNSelector(_Scored):
    """The answer of the sample with the highest score."""

    kind: Literal["best-of-n"]
    """The answer of the sample with the highest score."""


class WeightedSelector(_Scored):
    """The answer with the highest sum of scores (weighted best-of-n)."""

    kind: Literal["weighted"]
    """The answer with the highest sum of scores."""


class FilterVoteSelector(_Scored):
    """The most frequent answer among the samples that pass the scorer; among all, if none passes."""

    kind: Literal["filter-vote"]
    """The most frequent answer among the samples that pass."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """A sample passes with this score or more; 0.5 where neither this nor share is given."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The samples with the highest scores pass, this share of them."""

    @model_validator(mode="after")
    def _check(self) -> FilterVoteSelector:
        if self.threshold is not None and self.share is not None:
            raise refusal("threshold and share exclude each other", "keep one of the two", at=("share",))
        return self


class HierarchicalSelector(_Scored):
    """Weighted best-of-n within chains of samples, then among the best of each chain (Snell 2408.03314, 6.2)."""

    kind: Literal["hierarchical"]
    """Weighted best-of-n within chains, then across them."""
    chain: Annotated[int, Field(ge=1, le=100_000)]
    """Samples of a chain: neighbours in the pool."""


_Selectors = Annotated[
    MajoritySelector
    | PassSelector
    | BestOfNSelector
    | WeightedSelector
    | FilterVoteSelector
    | HierarchicalSelector,
    Field(discriminator="kind"),
]
AnySelector = Annotated[_Selectors, BeforeValidator(as_kind, json_schema_input_type=str | _Selectors)]
