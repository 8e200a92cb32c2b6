"""What a format needs to write a solution for one scorer: its options, the call that is used, and the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.rewards.records import Vocabulary
from workers.rewards.tokens import Tokens
from workers.types import RewardOptions, Transport


@dataclass(frozen=True, slots=True)
class Setting:
    """One scorer on one server."""

    options: RewardOptions
    transport: Transport
    tokens: Tokens
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
