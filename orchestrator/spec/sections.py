"""The sweep file as typed values: problems, models, scorers, strategies, selectors, budgets, limits.

Why it exists: everything that a user may write is declared here and in the modules of its sections once, with its
meaning; the JSON Schema for editors, the defaults and the errors all come from these classes. What several fields must
agree on is checked in `checks`. It must not know YAML, files, the network, Ray or SQL; it never holds a key or a
password, only the name of an environment variable that does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orchestrator.spec.fields import Count, Name, Section, check_store
from orchestrator.spec.models import AUTO, ModelSpec
from orchestrator.spec.problems import ProblemsSpec
from orchestrator.spec.scorers import AnyScorer
from orchestrator.spec.selectors import (
    AnySelector,
    BestOfNSelector,
    FilterVoteSelector,
    MajoritySelector,
    PassSelector,
    WeightedSelector,
)
from orchestrator.spec.strategies import AnyStrategy, ParallelStrategy, RolloutsStrategy, SearchStrategy


class SweepLimits(Section):
    """Caps of the whole sweep, and how it is spread."""

    tokens: Count | None = None
    """Generated tokens after which no further task starts."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Worker actors."""
    task_samples: Count | Literal["auto"] = AUTO
    """Samples in one task; auto: as many as take some seconds."""
    share_steps: bool = False
    """Let the searches for a problem that one scorer guides run one after the other, the smaller budgets first, and
    take the steps that an earlier one has drawn under the same path. What they find stays the same; less is drawn."""


class SweepSpec(Section):
    """A sweep: problems x models x strategies x budgets."""

    name: Name
    """Name of the sweep; running a file with the same name resumes and grows it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed from which every sample's own seed is derived."""
    store: Annotated[str, AfterValidator(check_store)] | None = None
    """URL of the database; --db and TTC_DATABASE_URL override it; a SQLite path is relative to this file."""
    problems: ProblemsSpec
    """Which problems."""
    models: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    """Policies by name."""
    scorers: dict[Name, AnyScorer] = Field(default_factory=dict)
    """Scorers by name."""
    strategies: Annotated[tuple[AnyStrategy, ...], Field(min_length=1, max_length=1000)]
    """How compute is spent."""
    selectors: Annotated[tuple[AnySelector, ...], Field(min_length=1)] | None = None
    """How one answer is chosen from many; a name, or a mapping with kind. Default: majority and pass, and for every
    scorer best-of-n and weighted (judges: filter-vote)."""
    budgets: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    """Numbers of generations to report; default: powers of two up to the largest samples."""
    limits: SweepLimits = SweepLimits()
    """Caps of the whole sweep."""

    @property
    def sampled(self) -> tuple[ParallelStrategy, ...]:
        """The strategies that draw solutions."""
        return tuple(each for each in self.strategies if isinstance(each, ParallelStrategy))

    @property
    def labelled(self) -> tuple[RolloutsStrategy, ...]:
        """The strategies that label the steps of solutions."""
        return tuple(each for each in self.strategies if isinstance(each, RolloutsStrategy))

    @property
    def searched(self) -> tuple[SearchStrategy, ...]:
        """The strategies that search."""
        return tuple(each for each in self.strategies if isinstance(each, SearchStrategy))

    @property
    def budget_grid(self) -> tuple[int, ...]:
        """The budgets, ascending, the default filled in."""
        largest = max((strategy.samples for strategy in self.sampled), default=1)
        return tuple(sorted(self.budgets)) or tuple(1 << bit for bit in range(largest.bit_length()))

    @property
    def chosen_selectors(self) -> tuple[AnySelector, ...]:
        """The selectors, the default filled in."""
        if self.selectors is not None:
            return self.selectors
        chosen: list[AnySelector] = [PassSelector(kind="pass"), MajoritySelector(kind="majority")]
        for name, scorer in self.scorers.items():
            if scorer.kind == "judge":
                chosen.append(FilterVoteSelector(kind="filter-vote", scorer=name))
            else:
                chosen.append(BestOfNSelector(kind="best-of-n", scorer=name))
                chosen.append(WeightedSelector(kind="weighted", scorer=name))
        return tuple(chosen)
