"""The alarm for samples filed under the wrong problems. Pure: strings in, counts out.

Why it exists: a published class of data sets holds samples whose rows were shuffled against their problems by
an indexing bug; nothing in such a file looks wrong but its accuracy. Measured on 100 problems of MATH-500:
samples that equal another problem's gold are 21.9 times those that equal their own, and 0 to 0.78 times in
twelve sound files. It must not know where samples come from, nor extract or canonicalise answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

ALARM_RATIO = 1.0
MIN_MATCHES = 20
"""Fewer samples that equal any gold at all say nothing."""
MIN_PROBLEMS = 10
"""Golds are small integers that collide; over one or a few problems another gold often beats the own one."""
SOUND_LIFT = 10.0
"""Own matches, over those expected had the samples been dealt out at random: 31 to 43 in the sound files, 1.9
in the scrambled one. A weak model on small integers can have a ratio above 1 and still a lift far above
chance."""


@dataclass(frozen=True, slots=True)
class ScrambleCheck:
    """How often samples equal the gold of their own problem, and how often only that of another."""

    problems: int
    samples: int
    """Samples that have an answer and a problem with a gold."""
    own_matches: int
    other_matches: int
    expected_own_matches: float
    """Own matches expected if every sample were filed under a problem drawn at random."""

    @property
    def ratio(self) -> float:
        """Other matches over own matches; infinite where there are only other ones, 0 where there are
        none."""
        if self.own_matches:
            return self.other_matches / self.own_matches
        return float("inf") if self.other_matches else 0.0

    @property
    def lift(self) -> float:
        """Own matches over those expected by chance; 1 is what shuffled samples give, 0 without any match."""
        return self.own_matches / self.expected_own_matches if self.expected_own_matches else 0.0

    @property
    def is_conclusive(self) -> bool:
        """Whether there are enough problems and matches to tell."""
        return self.problems >= MIN_PROBLEMS and self.own_matches + self.other_matches >= MIN_MATCHES

    @property
    def is_alarm(self) -> bool:
        """Whether the samples look as if they answered other problems than those they are filed under."""
        return self.is_conclusive and self.ratio > ALARM_RATIO and self.lift < SOUND_LIFT


def scrambled_ratio(golds: Mapping[str, str], samples: Mapping[tuple[str, str | None], int]) -> ScrambleCheck:
    """Compare samples, counted by (problem, canonical answer), with the canonical golds by problem.

    Use it over a whole batch: for single problems it is not usable.
    """
    holders = Counter(golds.values())
    drawn: set[str] = set()
    count = own = other = expected = 0
    for (problem, answer), times in samples.items():
        if not answer or problem not in golds:
            continue
        drawn.add(problem)
        count += times
        expected += times * holders[answer]
        if answer == golds[problem]:
            own += times
        elif holders[answer]:
            other += times
    return ScrambleCheck(len(drawn), count, own, other, expected / len(golds) if golds else 0.0)
