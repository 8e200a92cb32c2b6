"""What is scored, what comes of it, and what is known of a server that scores.

Plain records; they must not know how a solution is written for a model, nor how it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.types import ScoreStatus, Transport


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution as its steps; none is blank (`workers.steps` sees to that), else ValueError."""

    steps: tuple[str, ...]
    """Texts of the steps, separators included: together they are the text."""
    answer: str | None = None
    """The extracted final answer, which judges are shown."""

    def __post_init__(self) -> None:
        if not self.steps or not all(step.strip() for step in self.steps):
            raise ValueError("a solution is scored by its steps: at least one, and none of them blank")

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer gave to one solution."""

    values: tuple[float, ...]
    """Probabilities, rounded to 7 decimals: one a step (prm) or one (orm, judge); empty where `status` says why."""
    status: ScoreStatus
    detail: str | None = None
    """Why there are no values, or not all, in words."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What came of scoring several solutions of one problem, and what it cost."""

    scores: tuple[Score, ...]
    """One a solution, in the order in which they were given."""
    requests: int
    """Requests that were answered or given up, those to the server's tokenizer included."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    retries: int
    wasted_requests: int
    """Attempts whose reply was lost or unusable."""
    seconds: float
    """Sum over requests of the time from sending to reply."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids of the model, as its own server gave them."""

    good_id: int | None = None
    bad_id: int | None = None
    """The two label tokens whose probabilities are the score."""
    good_text: str = ""
    bad_text: str = ""
    tag_id: int | None = None
    """The token at which a step is scored."""
    header: tuple[int, ...] = ()
    """What opens a reply in the server's chat template."""

    @property
    def labels(self) -> tuple[int, int]:
        """The ids of the good and of the bad label."""
        if self.good_id is None or self.bad_id is None:
            raise ValueError("this format has no label tokens")
        return self.good_id, self.bad_id


@dataclass(frozen=True, slots=True)
class RewardCapabilities:
    """What a server offers for one scorer, found out by asking; a client is configured by it."""

    transport: Transport
    """The call that gives the scores; never AUTO."""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    max_model_len: int | None = None
    """Tokens of the context; None: the server does not say."""
    model_is_listed: bool | None = None
    """None: the server lists no models."""
    server_version: str | None = None
    is_deterministic: bool | None = None
    """The same solution twice gave the same values, to the last of 7 decimals; None: not tried."""
    notes: tuple[str, ...] = ()
    """What looks odd and is no error, in words."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Scores of a known solution, which a server must reproduce before a sweep relies on it."""

    problem: str
    steps: tuple[str, ...]
    scores: tuple[float, ...]
    rtol: float = 0.02
    """Relative tolerance; half precision is worth about 0.015."""
    atol: float = 1e-3
