"""Estimates of single problems that are kept: which of them still hold, and the rest made anew.

An estimate is kept with a signature of all it was computed from. Where a sample, a verdict, a score or the estimator
has changed since, the signature has too; so a new budget, selector or problem costs no more than itself.

Pure: must not know the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.estimation.ballots import Ballots
from orchestrator.analysis.estimation.estimators import Curve, estimate, is_resampled
from orchestrator.analysis.estimation.resampling import trials_for
from orchestrator.analysis.estimation.selectors import Selector

ESTIMATOR_VERSION = 2
"""Raised when the meaning of an estimate changes: the formulas, what counts as a sample, the interval."""
POOLS_AT_ONCE = 64
"""Pools that are estimated between two looks at the progress: enough to share tables, few enough to see it move."""
GRAIN = 2.0**-34
"""Of a kept estimate, 6e-11. Elections are computed many at once, and their last bits depend on the company: a run that
was killed and resumed computes them in another company than one that was not, and must store the same rows. Binary,
since chances are often fractions of 1,024 and the like, which a decimal grain would cut at a tie."""

Key = tuple[str, int, int]
"""Name of the selector, budget, problem id."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An estimate of one problem, and what it stands for."""

    value: float
    mc_error: float
    signature: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """Estimates of a strategy, all of them up to date."""

    curves: Mapping[Selector, Curve]
    made: Mapping[Key, Kept]
    """Those that were not kept already."""


@dataclass(frozen=True, slots=True)
class Estimation:
    """What is to be estimated."""

    selectors: Sequence[Selector]
    budgets: Sequence[int]
    seed: int


Progress = Callable[[int, int], None]
"""Told how many problems are done, of how many."""


def renew(
    pools: Sequence[Ballots], wanted: Estimation, kept: Mapping[Key, Kept], progress: Progress
) -> Renewal:
    """Every selector on every pool at every budget; what `kept` holds with the right signature is taken from there."""
    budgets = tuple(sorted(set(wanted.budgets)))
    table = _Table(pools, wanted.selectors, budgets)
    stamps = _signatures(pools, wanted)
    table.take(kept, stamps)
    done = 0
    for members, selectors, missing in _groups(table):
        for start in range(0, len(members), POOLS_AT_ONCE):
            some = members[start : start + POOLS_AT_ONCE]
            found = estimate(
                [pools[i] for i in some], selectors, missing, seed=wanted.seed, trials=trials_for(len(pools))
            )
            table.put(some, found)
            done += len(some)
            progress(done, len(pools))
    return Renewal(table.curves, table.made(stamps))


class _Table:
    """Curves that fill."""

    def __init__(
        self, pools: Sequence[Ballots], selectors: Sequence[Selector], budgets: tuple[int, ...]
    ) -> None:
        self.pools = pools
        self.budgets = budgets
        shape = len(pools), len(budgets)
        self.curves = {
            selector: Curve(
                selector, budgets, np.full(shape, np.nan), np.zeros(shape), np.ones(shape, np.bool_)
            )
            for selector in selectors
        }
        self.is_missing = {selector: _is_possible(pools, selector, budgets) for selector in selectors}
        self._new = {selector: np.zeros(shape, np.bool_) for selector in selectors}

    def take(self, kept: Mapping[Key, Kept], stamps: Mapping[Selector, npt.NDArray[np.int64]]) -> None:
        """Fill in what still holds."""
        for selector, curve in self.curves.items():
            name, missing = selector.name, self.is_missing[selector]
            for i, j in zip(*np.nonzero(missing), strict=True):
                old = kept.get((name, self.budgets[j], self.pools[i].problem_id))
                if old is not None and old.signature == stamps[selector][i]:
                    curve.values[i, j], curve.mc_errors[i, j] = old.value, old.mc_error
                    curve.is_exact[i, j] = old.mc_error == 0.0
                    missing[i, j] = False

    def put(self, members: Sequence[int], found: Mapping[Selector, Curve]) -> None:
        """Fill in new estimates of some pools."""
        for selector, new in found.items():
            curve = self.curves[selector]
            at = np.ix_(members, [self.budgets.index(budget) for budget in new.budgets])
            is_wanted = self.is_missing[selector][at] & ~np.isnan(new.values)
            for target, source in (
                (curve.values, (new.values / GRAIN).round() * GRAIN),
                (curve.mc_errors, new.mc_errors),
                (curve.is_exact, new.is_exact),
                (self._new[selector], np.ones_like(is_wanted)),
            ):
                target[at] = np.where(is_wanted, source, target[at])

    def made(self, stamps: Mapping[Selector, npt.NDArray[np.int64]]) -> dict[Key, Kept]:
        """What was put in."""
        return {
            (selector.name, self.budgets[j], self.pools[i].problem_id): Kept(
                float(curve.values[i, j]), float(curve.mc_errors[i, j]), int(stamps[selector][i])
            )
            for selector, curve in self.curves.items()
            for i, j in zip(*np.nonzero(self._new[selector]), strict=True)
        }


def _groups(table: _Table) -> Iterable[tuple[list[int], list[Selector], list[int]]]:
    """Pools that lack the same: their indices, and the selectors and budgets that they lack."""
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for i in range(len(table.pools)):
        lacks = tuple(missing[i].tobytes() for missing in table.is_missing.values())
        groups.setdefault(lacks, []).append(i)
    for members in groups.values():
        lacking = {selector: missing[members[0]] for selector, missing in table.is_missing.items()}
        selectors = [selector for selector, missing in lacking.items() if missing.any()]
        if selectors:
            budgets = np.any([lacking[selector] for selector in selectors], axis=0)
            yield members, selectors, [k for k, needed in zip(table.budgets, budgets, strict=True) if needed]


def _is_possible(
    pools: Sequence[Ballots], selector: Selector, budgets: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """(pools, budgets): whether a pool can say anything: it is large enough, has the score, and chains are whole."""
    ks, sizes = np.array(budgets), np.array([pool.n for pool in pools], dtype=np.int64)
    has_score = np.array(
        [selector.score is None or selector.score in pool.scores for pool in pools], dtype=np.bool_
    )
    is_whole = ks % (selector.chain or 1) == 0
    return np.asarray((ks <= sizes[:, None]) & has_score[:, None] & is_whole)


def _signatures(pools: Sequence[Ballots], wanted: Estimation) -> dict[Selector, npt.NDArray[np.int64]]:
    """A hash of all that the estimates of a selector on a pool depend on, but for the budget: (pools,) each."""
    votes = [_digest(pool.candidates.tobytes(), pool.is_correct.tobytes()) for pool in pools]
    scores = {
        key: [_digest(pool.scores[key].tobytes()) if key in pool.scores else b"" for pool in pools]
        for key in {selector.score for selector in wanted.selectors if selector.score is not None}
    }
    found = {}
    for selector in wanted.selectors:
        trials = trials_for(len(pools)) if is_resampled(selector) else 0
        rules = f"{ESTIMATOR_VERSION} {selector.name} {wanted.seed} {trials}".encode()
        own = scores[selector.score] if selector.score is not None else [b""] * len(pools)
        digests = [_digest(rules, vote, score) for vote, score in zip(votes, own, strict=True)]
        found[selector] = np.array(
            [int.from_bytes(each, "big", signed=True) for each in digests], dtype=np.int64
        )
    return found


def _digest(*parts: bytes) -> bytes:
    whole = hashlib.blake2b(digest_size=8)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.digest()
