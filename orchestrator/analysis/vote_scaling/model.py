"""The two-level model of vote scaling: a share of easy problems, a share of hard ones, two answers each.

Chen et al. 2024 (arXiv:2403.02419): on easy problems every vote is right with chance p1 > 1/2 and more votes help;
on hard ones with p2 < 1/2 and more votes hurt. Their mixture may rise and fall, or fall and rise. Pure: must not
know pools or systems; its votes are votes that are cast, whatever a call of a model yields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from orchestrator.analysis.estimation.arrays import FloatArray


class Regime(StrEnum):
    """Shape of the accuracy over odd numbers of votes."""

    INCREASE = "increase"
    DECREASE = "decrease"
    RISE_THEN_FALL = "rise then fall"
    FALL_THEN_RISE = "fall then rise"
    CONSTANT = "constant"


_SHAPES = {
    (1, 1): Regime.INCREASE,
    (1, -1): Regime.RISE_THEN_FALL,
    (0, -1): Regime.DECREASE,
    (0, 0): Regime.CONSTANT,
    (0, 1): Regime.INCREASE,
    (-1, 1): Regime.FALL_THEN_RISE,
    (-1, -1): Regime.DECREASE,
}
"""Shape by the signs of the first gain and of the gains in the end."""


@dataclass(frozen=True, slots=True)
class TwoLevelModel:
    """F(K) = a P_K(p1) + (1 - a) P_K(p2). Raises ValueError outside 0 <= a <= 1, 0 <= p2 <= 1/2 <= p1 <= 1.

    The gain of two more votes is F(2m+1) - F(2m-1) = C(2m-1, m) [A u^m - B v^m] with A = a (2 p1 - 1),
    B = (1 - a) (1 - 2 p2), u = p1 (1 - p1), v = p2 (1 - p2): its sign changes at most once, hence the regimes.
    """

    easy_share: float
    """a: share of easy problems."""
    easy_rate: float
    """p1: chance that a vote on an easy problem is right."""
    hard_rate: float
    """p2: the same on a hard one."""

    def __post_init__(self) -> None:
        if not (0 <= self.easy_share <= 1 and 0 <= self.hard_rate <= 0.5 <= self.easy_rate <= 1):
            raise ValueError(f"not a two-level model: {self}")

    def accuracy(self, votes: npt.ArrayLike) -> FloatArray:
        """F at numbers of votes (whole, >= 1), of any shape."""
        easy, hard = (majority_of_two(rate, votes) for rate in (self.easy_rate, self.hard_rate))
        return np.asarray(self.easy_share * easy + (1 - self.easy_share) * hard)

    @property
    def limit(self) -> float:
        """F with endless votes: a, but half of the problems at exactly 1/2 stay right."""
        easy = 1.0 if self.easy_rate > 0.5 else 0.5
        hard = 0.0 if self.hard_rate < 0.5 else 0.5
        return self.easy_share * easy + (1 - self.easy_share) * hard

    @property
    def threshold(self) -> float:
        """t = 1 + p2 (1-p2) (1/2-p2) / [p1 (1-p1) (p1-1/2)]: two more votes first help iff a > 1 - 1/t.

        So, for p1 + p2 > 1, accuracy rises and then falls iff a > 1 - 1/t, and only falls below; for p1 + p2 < 1
        it only rises iff a > 1 - 1/t, and falls and then rises below. (Summaries of the paper in circulation
        state the inequality the other way round; it is wrong for this F.) Infinite where votes never help.
        """
        helps = self._easy_odds * (self.easy_rate - 0.5)
        hurts = self._hard_odds * (0.5 - self.hard_rate)
        return 1 + hurts / helps if helps else math.inf

    @property
    def regime(self) -> Regime:
        """Shape of F over odd K."""
        helps, hurts = self._gains
        first = _sign(helps, hurts)
        if not helps or not hurts:
            return _SHAPES[first, first]
        last = _sign(self._easy_odds, self._hard_odds)
        return _SHAPES[first, last or first]

    @property
    def k_star(self) -> float | None:
        """K* = 2 m*, where the gain vanishes: the best number of votes where F rises and then falls.

        m* = ln[(a/(1-a)) (2 p1 - 1)/(1 - 2 p2)] / ln[p2 (1-p2) / (p1 (1-p1))]. Below 2 where F only falls; None
        where p1 + p2 <= 1 or one kind of problem does not matter: then F has no highest point between.
        """
        helps, hurts = self._gains
        if not helps or not hurts or _sign(self._easy_odds, self._hard_odds) >= 0:
            return None
        ratio = math.log(helps / self._easy_odds) - math.log(hurts / self._hard_odds)
        return 2 * ratio / (math.log(self._hard_odds) - math.log(self._easy_odds))

    @property
    def best_odd_k(self) -> int | None:
        """Odd number of votes of the highest accuracy, the least if several; None if no number is enough.

        2 ceil(m*) - 1, the odd number nearest to K*, where F rises and then falls.
        """
        regime, k_star = self.regime, self.k_star
        if regime is Regime.RISE_THEN_FALL and k_star is not None:
            return 2 * math.ceil(k_star / 2) - 1
        if regime is Regime.INCREASE:
            return None
        if regime is Regime.FALL_THEN_RISE and _sign(self.limit, float(self.accuracy(1))) > 0:
            return None
        return 1

    @property
    def _easy_odds(self) -> float:
        return self.easy_rate * (1 - self.easy_rate)

    @property
    def _hard_odds(self) -> float:
        return self.hard_rate * (1 - self.hard_rate)

    @property
    def _gains(self) -> tuple[float, float]:
        """What the first two more votes bring on easy problems, and cost on hard ones: A u and B v."""
        helps = self.easy_share * (2 * self.easy_rate - 1) * self._easy_odds
        hurts = (1 - self.easy_share) * (1 - 2 * self.hard_rate) * self._hard_odds
        return helps, hurts


def majority_of_two(rate: float, votes: npt.ArrayLike) -> FloatArray:
    """Chance P_K that most of K votes, each right with chance `rate`, are right; a tie counts one half.

    I_p((K+1)/2, (K+1)/2) for odd K, the regularised incomplete beta function; P_2m = P_2m-1. Raises ValueError on
    K < 1.
    """
    k = np.asarray(votes, dtype=np.int64)
    if np.any(k < 1):
        raise ValueError("a majority needs at least one vote")
    half = (k + 1) // 2
    return np.asarray(betainc(half, half, rate))


def fit_two_level(rates: npt.ArrayLike) -> TwoLevelModel:
    """Model of problems from their rates: the chance of each that a vote is right, as its samples show it.

    Easy are those above 1/2, hard those below, p1 and p2 their means; a rate of 1/2 counts half to either side. So
    F(1) is the mean rate. An empty side has rate 1/2. One pair of rates stands for many: where the rates of one
    side differ much, F bends faster than the accuracy does. With few samples a problem some fall on the wrong side
    and push p1 and p2 apart. Raises ValueError without problems, or outside [0, 1].
    """
    array = np.asarray(rates, dtype=np.float64)
    if not array.size or not np.all((array >= 0) & (array <= 1)):
        raise ValueError("rates of at least one problem, in [0, 1]")
    easy = np.where(array > 0.5, 1.0, np.where(array < 0.5, 0.0, 0.5))
    return TwoLevelModel(
        easy_share=float(easy.mean()),
        easy_rate=max(0.5, _weighted_mean(array, easy)),
        hard_rate=min(0.5, _weighted_mean(array, 1 - easy)),
    )


def _weighted_mean(values: FloatArray, weights: FloatArray) -> float:
    total = float(weights.sum())
    return float((values * weights).sum()) / total if total else 0.5


def _sign(a: float, b: float) -> int:
    """Sign of a - b, 0 where they differ by rounding only."""
    return 0 if math.isclose(a, b, rel_tol=1e-12, abs_tol=0.0) else 1 if a > b else -1
