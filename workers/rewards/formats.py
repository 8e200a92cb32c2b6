"""The wire formats by name, and what one is: how a solution is written for a model, and how scores are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from workers.errors import Misconfigured
from workers.rewards.embedded import EMBEDDED, EMBEDDED_ORM
from workers.rewards.generative import StepVerifier
from workers.rewards.judge import Judge
from workers.rewards.outcome import OutcomeModel
from workers.rewards.queries import Query
from workers.rewards.qwen import Qwen
from workers.rewards.records import Solution, Vocabulary
from workers.rewards.rlhflow import DEEPSEEK, MISTRAL
from workers.rewards.setting import Setting
from workers.rewards.shepherd import SHEPHERD
from workers.rewards.skywork import Skywork
from workers.types import RewardOptions, ScorerKind, ScorerSettings, Transport


class Format(Protocol):
    """What every format tells of itself."""

    @property
    def name(self) -> str:
        """Name in the sweep file."""
        ...

    @property
    def kind(self) -> ScorerKind:
        """What it gives a value to."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same solution would be written or read in another way; part of fingerprints."""
        ...


class ValueFormat(Format, Protocol):
    """A format whose scores are numbers of a model's head or of its tokens."""

    @property
    def transports(self) -> tuple[Transport, ...]:
        """The calls that can give its scores, the best first."""
        ...

    @property
    def is_logit(self) -> bool:
        """Are its scores raw logits whatever the options say."""
        ...

    async def learn(self, setting: Setting) -> Vocabulary:
        """Find the token ids it needs; `Misconfigured` where the model cannot be of this format."""
        ...

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """Write a solution; `BrokenContract` if its tags do not come out as its steps."""
        ...


class VerdictFormat(Format, Protocol):
    """A format whose scores are read from what a model writes."""

    @property
    def wanted(self) -> str:
        """What a reply must hold, in words."""
        ...

    def prompt(self, options: RewardOptions, statement: str, solution: Solution) -> str:
        """The question."""
        ...

    def read(self, reply: str, count: int) -> tuple[float, ...] | None:
        """The values that a reply holds for `count` steps; None where it cannot be read."""
        ...


VALUE_FORMATS: Mapping[str, ValueFormat] = MappingProxyType(
    {
        each.name: each
        for each in (
            Qwen(), SHEPHERD, DEEPSEEK, MISTRAL, Skywork(), EMBEDDED, OutcomeModel(), EMBEDDED_ORM,
        )
    }
)  # fmt: skip
VERDICT_FORMATS: Mapping[str, VerdictFormat] = MappingProxyType(
    {each.name: each for each in (Judge(), StepVerifier())}
)


def check_format(scorer: ScorerSettings) -> None:
    """Raise `Misconfigured` if there is no format of that name, or it is one for another kind of scorer."""
    found = _named(scorer.format)
    if found.kind is not scorer.kind:
        raise Misconfigured(f"{scorer.format} is a format of {found.kind} scorers, and not of {scorer.kind}")


def format_version(name: str) -> str:
    """Version of a format, for the fingerprint of a scorer (invariant I8)."""
    return _named(name).version


def _named(name: str) -> Format:
    found = VALUE_FORMATS.get(name) or VERDICT_FORMATS.get(name)
    if found is None:
        known = ", ".join(sorted([*VALUE_FORMATS, *VERDICT_FORMATS]))
        raise Misconfigured(f"there is no scorer format {name!r} (available: {known})")
    return found
