"""A pool as arrays, sample by sample: which answer each gives, which answers are correct, how each is scored.

Pure: must not know where the samples come from nor what is done with them. It holds the samples whose verdict is
known, in the order of their sample index; endpoint errors and samples without a verdict are left out before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.arrays import BoolArray
from orchestrator.analysis.estimation.plurality import Tier

NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class Ballots:
    """The samples of one pool, for the estimators: 2 bytes a sample, and 4 for each score.

    Raises ValueError where the arrays do not fit together, since every figure after that would be quietly wrong.
    """

    problem_id: int
    level: str | None
    candidates: npt.NDArray[np.signedinteger[Any]]
    """(n,): index of the answer cluster of each sample; `NO_ANSWER` where there is none (no answer, truncated,
    refused): such a sample is drawn, but never votes and is never selected."""
    is_correct: BoolArray
    """(clusters,)."""
    scores: Mapping[str, npt.NDArray[np.floating[Any]]] = field(default_factory=dict)
    """Name of a score -> (n,) in [0, 1], NaN where a sample has none; compared in the precision they come in."""

    def __post_init__(self) -> None:
        clusters = len(self.is_correct)
        narrow = np.int16 if clusters <= np.iinfo(np.int16).max else np.int32
        candidates = np.asarray(self.candidates)
        if candidates.ndim != 1 or np.any(candidates < NO_ANSWER) or np.any(candidates >= clusters):
            raise ValueError(f"problem {self.problem_id}: candidates are not among {clusters} answers")
        for key, scores in self.scores.items():
            if scores.shape != candidates.shape or np.any(scores < 0) or np.any(scores > 1):
                raise ValueError(f"problem {self.problem_id}: {key} is not one score in [0, 1] a sample")
        object.__setattr__(self, "candidates", candidates.astype(narrow))
        object.__setattr__(self, "is_correct", np.asarray(self.is_correct, dtype=np.bool_))
        object.__setattr__(self, "scores", MappingProxyType(dict(self.scores)))

    def keep(self, is_kept: BoolArray) -> Ballots:
        """The pool of some of its samples."""
        scores = {key: scores[is_kept] for key, scores in self.scores.items()}
        return Ballots(self.problem_id, self.level, self.candidates[is_kept], self.is_correct, scores)

    @property
    def n(self) -> int:
        """Samples of the model with a known verdict: the n of every estimator."""
        return len(self.candidates)

    @property
    def has_answer(self) -> BoolArray:
        """(n,)."""
        return np.asarray(self.candidates != NO_ANSWER, dtype=np.bool_)

    @property
    def is_right(self) -> BoolArray:
        """(n,): whether a sample has a correct answer."""
        verdicts = np.append(self.is_correct, False)  # the last one is that of NO_ANSWER
        return np.asarray(verdicts[self.candidates], dtype=np.bool_)

    def is_selectable(self, score: str) -> BoolArray:
        """(n,): whether a sample has an answer and this score."""
        return np.asarray(self.has_answer & ~np.isnan(self.scores[score]), dtype=np.bool_)

    def tier(self, is_voter: BoolArray) -> Tier:
        """Sizes of the answer clusters among the voters."""
        votes = self.candidates[is_voter & self.has_answer]
        sizes = np.bincount(votes, minlength=len(self.is_correct))
        right, wrong = sizes[self.is_correct], sizes[~self.is_correct]
        return Tier(right[right > 0].tolist(), wrong[wrong > 0].tolist())
