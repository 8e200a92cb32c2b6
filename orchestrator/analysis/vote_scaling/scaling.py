"""How a vote scales with the number of calls: what a pool shows, what a model says, what few calls predict.

The whole of Chen et al. 2024 (arXiv:2403.02419) for one set of problems: which of them are easy for the vote and
for the filter-vote, the two-level model and its best number of calls, and curves over the number of calls, measured
and predicted, with the errors of the predictions. Pure: counted pools in, rows out. Must not know the store, nor
how the rows are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from orchestrator.analysis.estimation.arrays import FloatArray
from orchestrator.analysis.estimation.intervals import mean_over_problems
from orchestrator.analysis.vote_scaling.curves import (
    CALLS_PER_CANDIDATE,
    accuracies,
    candidates,
    log_spaced,
    resampled_accuracies,
)
from orchestrator.analysis.vote_scaling.fit import TRAINING_KS, fit_curves
from orchestrator.analysis.vote_scaling.model import Regime, TwoLevelModel, fit_two_level
from orchestrator.analysis.vote_scaling.pools import (
    Ballot,
    Difficulty,
    Split,
    System,
    VotePool,
    difficulty,
    split,
)

VOTE_SCALING_VERSION = 1
"""Raised when the meaning of a row changes."""
DEFAULT_KS = tuple(log_spaced(2, 1000, 20))
"""The authors' numbers of calls."""
PREDICTIONS = ("binary_model", "duel_model", "leaking", "fair", "unfitted")
"""Fields of a `CurveRow` that predict, all from the first calls (`leaking` peeks at the pool)."""


ROUNDING = 1e-9
"""What a number of votes that should be whole may lack."""


class Rates(StrEnum):
    """How a problem of many answers becomes one of two, as the two-level model wants it."""

    BINARY = "binary"
    """Right or not: all wrong answers, and no answer, vote as one. F(1) is the accuracy of one sample, but the
    wrong answers are stronger together than they are apart."""
    DUEL = "duel"
    """The correct answer against its strongest rival: easy and hard are those of d, and F ends at the true limit,
    but the others cost nothing, so it begins too high."""


class Source(StrEnum):
    """The samples that a row looks at."""

    POOL = "pool"
    CALLS = "calls"
    """The first calls of each problem."""


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """A problem under a system: its difficulty in the pool, and as the first calls show it."""

    system: System
    problem_id: int
    samples: int
    calls: int
    """Samples of the first calls."""
    pool: Difficulty
    from_calls: Difficulty


@dataclass(frozen=True, slots=True)
class SplitRow:
    """Easy and hard problems, as these samples show them."""

    system: System
    source: Source
    mean_samples: float
    """Samples a problem."""
    split: Split


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A two-level model; its votes are turned into calls."""

    system: System
    source: Source
    rates: Rates
    model: TwoLevelModel
    votes_per_candidate: float
    """Mean share of the candidates that vote: a filter drops what fails it, a duel ignores other answers.

    That the filter-vote falls back on all candidates where none passes is not in the model: it begins too high.
    """
    regime: Regime
    k_star: float | None
    """Calls at K*; None where the model has no highest point between."""
    best_k: int | None
    """Calls that pay for the best odd number of votes; None if no number is enough."""
    limit: float


@dataclass(frozen=True, slots=True)
class CurveRow:
    """Accuracy after K calls a problem, mean over problems: measured on the pool, and predicted."""

    system: System
    k: int
    measured: float
    std_error: float | None
    low: float | None
    high: float | None
    """Error and 95% interval (Student t) of the measured value, for having drawn these problems."""
    binary_model: float
    duel_model: float
    leaking: float
    """Fitted to the first calls; easy and hard as label and full pool tell, as the authors do."""
    fair: float
    """Fitted to the first calls, which also tell easy from hard."""
    unfitted: float
    """Exact curve of the first calls themselves: what a fit has to beat."""
    is_training: bool
    """Whether the curves were fitted at this K; such points are left out of the errors."""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How far a prediction is from the measured curve, at K where it was not fitted."""

    system: System
    prediction: str
    """One of `PREDICTIONS`."""
    points: int
    mean_squared_error: float
    worst_error: float
    """Largest absolute error."""


@dataclass(frozen=True, slots=True)
class VoteScaling:
    """Everything about one set of problems; the rows of the vote come first, then those of the filter-vote."""

    problems: Sequence[ProblemRow]
    splits: Sequence[SplitRow]
    models: Sequence[ModelRow]
    curves: Sequence[CurveRow]
    errors: Sequence[ErrorRow]
    training_ks: Sequence[int]
    resamples: int | None
    """Draws behind each training point; None where it is exact."""


@dataclass(frozen=True, slots=True)
class _Plan:
    ks: Sequence[int]
    training_ks: Sequence[int]
    resamples: int | None
    seed: int


def scale_votes(
    pools: Sequence[VotePool],
    calls: Sequence[VotePool] | None = None,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    training_ks: Sequence[int] = TRAINING_KS,
    resamples: int | None = None,
    seed: int = 0,
) -> VoteScaling:
    """Vote scaling of a set of problems, and filter-vote scaling where the pools hold verdicts of a filter.

    `calls` holds the first samples of the same problems, in the same order; predictions are made from them and
    compared with the curve of the pools (without them, from the pools themselves: then nothing is held out but K).
    Training accuracies are exact, with replacement, or the means of `resamples` random draws as the authors' are.
    Raises ValueError without problems, on K < 1, where the problems of the two differ, and where only some pools
    hold verdicts.
    """
    few = pools if calls is None else calls
    if not pools or [pool.problem_id for pool in pools] != [pool.problem_id for pool in few]:
        raise ValueError("the pools and the first calls must be of the same problems, at least one")
    is_filtered = {pool.passed is not None for pool in (*pools, *few)}
    if len(is_filtered) > 1:
        raise ValueError("verdicts of the filter must be given for all pools, or for none")
    plan = _Plan(sorted(set(ks)), sorted(set(training_ks)), resamples, seed)
    systems = list(System) if is_filtered == {True} else [System.VOTE]
    problems = [row for system in systems for row in _problem_rows(pools, few, system)]
    models = [
        _model_row(samples, system, source, rates)
        for system in systems
        for source, samples in ((Source.POOL, pools), (Source.CALLS, few))
        for rates in Rates
    ]
    curves = [row for system in systems for row in _curve_rows(pools, few, system, problems, models, plan)]
    return VoteScaling(
        problems=problems,
        splits=[_split_row(problems, system, source) for system in systems for source in Source],
        models=models,
        curves=curves,
        errors=[row for system in systems for row in _error_rows(curves, system)],
        training_ks=plan.training_ks,
        resamples=resamples,
    )


def to_json(scaling: VoteScaling) -> dict[str, Any]:
    """Rows as plain values, ready for any JSON encoder; fractions in full precision."""
    return {"vote_scaling_version": VOTE_SCALING_VERSION, **asdict(scaling)}


def _problem_rows(pools: Sequence[VotePool], few: Sequence[VotePool], system: System) -> list[ProblemRow]:
    return [
        ProblemRow(
            system=system,
            problem_id=pool.problem_id,
            samples=pool.n,
            calls=first.n,
            pool=difficulty(pool, system),
            from_calls=difficulty(first, system),
        )
        for pool, first in zip(pools, few, strict=True)
    ]


def _split_row(problems: Sequence[ProblemRow], system: System, source: Source) -> SplitRow:
    rows = [row for row in problems if row.system is system]
    if source is Source.POOL:
        samples, difficulties = [row.samples for row in rows], [row.pool for row in rows]
    else:
        samples, difficulties = [row.calls for row in rows], [row.from_calls for row in rows]
    return SplitRow(system, source, sum(samples) / len(rows), split(difficulties))


def _model_row(pools: Sequence[VotePool], system: System, source: Source, rates: Rates) -> ModelRow:
    ballots = [pool.after(system) for pool in pools]
    model = fit_two_level([_rate(ballot, rates) for ballot in ballots])
    shares = [_votes(ballot, rates) / pool.n for ballot, pool in zip(ballots, pools, strict=True)]
    share = sum(shares) / len(shares)
    k_star, best = model.k_star, model.best_odd_k
    price = CALLS_PER_CANDIDATE[system]
    return ModelRow(
        system=system,
        source=source,
        rates=rates,
        model=model,
        votes_per_candidate=share,
        regime=model.regime,
        k_star=None if k_star is None or not share else price * k_star / share,
        best_k=None if best is None or not share else price * _candidates(best, share),
        limit=model.limit,
    )


def _rate(ballot: Ballot, rates: Rates) -> float:
    return ballot.pass_rate if rates is Rates.BINARY else ballot.duel_rate


def _votes(ballot: Ballot, rates: Rates) -> int:
    return ballot.n if rates is Rates.BINARY else ballot.duel_votes


def _candidates(votes: int, share: float) -> int:
    """Least candidates that bring so many votes; the first brings one, as in `_predicted`."""
    return 1 if votes == 1 else math.ceil(votes / share - ROUNDING)


def _predicted(row: ModelRow, ks: Sequence[int]) -> FloatArray:
    """Accuracy of the model at numbers of calls: at least one vote is cast where there is a candidate."""
    paid = np.array([candidates(row.system, k) for k in ks])
    votes = np.maximum(1, np.floor(paid * row.votes_per_candidate + ROUNDING))
    return np.where(paid > 0, row.model.accuracy(votes), 0.0)


def _curve_rows(
    pools: Sequence[VotePool],
    few: Sequence[VotePool],
    system: System,
    problems: Sequence[ProblemRow],
    models: Sequence[ModelRow],
    plan: _Plan,
) -> list[CurveRow]:
    measured = accuracies(pools, system, plan.ks, plan.seed)
    own = [row for row in problems if row.system is system]
    by_rates = {row.rates: row for row in models if (row.system, row.source) == (system, Source.CALLS)}
    predictions = {
        "binary_model": _predicted(by_rates[Rates.BINARY], plan.ks),
        "duel_model": _predicted(by_rates[Rates.DUEL], plan.ks),
        **_from_calls(few, system, own, plan),
    }
    means = [mean_over_problems(column) for column in measured.T]
    return [
        CurveRow(
            system=system,
            k=k,
            measured=mean.value or 0.0,
            std_error=mean.std_error,
            low=mean.low,
            high=mean.high,
            is_training=k in plan.training_ks,
            **{name: float(values[i]) for name, values in predictions.items()},
        )
        for i, (k, mean) in enumerate(zip(plan.ks, means, strict=True))
    ]


def _from_calls(
    few: Sequence[VotePool], system: System, problems: Sequence[ProblemRow], plan: _Plan
) -> dict[str, FloatArray]:
    """The curve of the first calls, and the curves fitted to it by either choice of the families."""
    training = [k for k in plan.training_ks if candidates(system, k)]
    exact = accuracies(few, system, [*plan.ks, *training], plan.seed)
    own, targets = exact[:, : len(plan.ks)], exact[:, len(plan.ks) :]
    if plan.resamples is not None:
        rng = np.random.default_rng(plan.seed)
        targets = resampled_accuracies(few, system, training, plan.resamples, rng)
    limits = {
        "leaking": [row.pool.limit for row in problems],
        "fair": [row.from_calls.limit for row in problems],
    }
    elects = np.array([candidates(system, k) > 0 for k in plan.ks])
    fitted = {choice: fit_curves(training, targets, limit) for choice, limit in limits.items()}
    curves = {choice: np.where(elects, fit.mean(plan.ks), 0.0) for choice, fit in fitted.items()}
    return {**curves, "unfitted": own.mean(axis=0)}


def _error_rows(curves: Sequence[CurveRow], system: System) -> list[ErrorRow]:
    """None where the curves were fitted at every K."""
    held_out = [row for row in curves if row.system is system and not row.is_training]
    if not held_out:
        return []
    rows = []
    for name in PREDICTIONS:
        errors = np.array([getattr(row, name) - row.measured for row in held_out])
        squared, worst = float((errors**2).mean()), float(np.abs(errors).max())
        rows.append(ErrorRow(system, name, len(held_out), squared, worst))
    return rows
