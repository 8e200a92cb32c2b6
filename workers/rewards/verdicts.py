"""Scores that are read from what a model writes: judges, and verifiers that mark steps. Drawn, read, averaged.

A reply counts only if the model ended it by itself: a verdict in a reply that was cut short may have been about
to change. What cannot be read is said to be so, and never guessed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from workers.calls import Call
from workers.concurrency import together
from workers.errors import ContentRefused, EndpointError, Misconfigured
from workers.identity import SEED_BITS, content_hash
from workers.rewards.contract import DECIMALS
from workers.rewards.formats import VerdictFormat
from workers.rewards.meter import Meter
from workers.rewards.records import Score, Solution
from workers.rewards.scoring import cut_detail, failed, longest, told, too_long
from workers.types import (
    Api,
    GeneratorSettings,
    Outcome,
    ScorerKind,
    ScorerSettings,
    ScoreStatus,
    TooLong,
)
from workers.wire import (
    PATHS,
    Capabilities,
    Sample,
    body_bound,
    build_payload,
    deadline_s,
    prompt_chars,
    read_reply,
    token_estimate,
)

_PLAIN = Capabilities(token_ids=False, logprobs=False)
_SHOWN = 160
_WORST_FIRST = (ScoreStatus.ERROR, ScoreStatus.TOO_LONG, ScoreStatus.UNPARSED)


class VerdictScoring:
    """The solutions of one problem, one judge or verifier. Used once."""

    def __init__(
        self, meter: Meter, scorer: ScorerSettings, verdict_format: VerdictFormat, statement: str
    ) -> None:
        _check(scorer)
        self._meter = meter
        self._scorer = scorer
        self._format = verdict_format
        self._statement = statement
        self._generator = _generator(scorer)

    async def scores(self, solutions: Sequence[Solution]) -> list[Score]:
        """One score a solution, in order."""
        return await together(self._score(solution) for solution in solutions)

    async def _score(self, solution: Solution) -> Score:
        score = await self._whole(solution)
        is_step_wise = self._scorer.kind is ScorerKind.PRM and len(solution.steps) > 1
        if score.status is not ScoreStatus.TOO_LONG or not is_step_wise:
            return score
        if self._scorer.options.too_long is TooLong.REFUSE:
            return score
        return await self._cut(solution) or score

    async def _cut(self, solution: Solution) -> Score | None:
        """The score of the longest beginning of whole steps that fits, found by trying."""

        async def fitting(count: int) -> Score | None:
            score = await self._whole(Solution(solution.steps[:count]))
            if score.status is ScoreStatus.TOO_LONG:
                return None
            if score.status is not ScoreStatus.OK:
                return score
            return Score(score.values, ScoreStatus.TRUNCATED, cut_detail(count, len(solution.steps)))

        return await longest(len(solution.steps) - 1, fitting)

    async def _whole(self, solution: Solution) -> Score:
        prompt = self._format.prompt(self._scorer.options, self._statement, solution)
        seed = _seed(self._scorer.fingerprint, prompt)
        count = len(solution.steps) if self._scorer.kind is ScorerKind.PRM else 1
        drawn = await together(
            self._verdict(prompt, seed + k, count) for k in range(self._scorer.options.judgements)
        )
        return mean_of(drawn)

    async def _verdict(self, prompt: str, seed: int, count: int) -> Score:
        """One draw: its values, or why there are none."""
        try:
            sample = await self._draw(prompt, seed)
        except Misconfigured:
            raise
        except ContentRefused as error:
            return _unread(str(error))
        except EndpointError as error:
            return failed(error)
        return self._read(sample, count)

    def _read(self, sample: Sample, count: int) -> Score:
        if sample.outcome is Outcome.OVERFLOW:
            return too_long("the verdict was cut by the end of the context")
        if sample.outcome is not Outcome.COMPLETE:
            return _unread(f"the reply is {sample.outcome}")
        values = self._format.read(sample.text, count)
        if values is not None:
            return Score(values, ScoreStatus.OK)
        return _unread(f"the reply does not hold {self._format.wanted}; it ends: {_tail(sample.text)!r}")

    async def _draw(self, prompt: str, seed: int) -> Sample:
        payload = build_payload(self._generator, prompt, seed=seed, count=1, capabilities=_PLAIN)
        chars = prompt_chars(payload)

        def read(data: Any) -> Sample:
            return read_reply(data, payload, Api.CHAT).samples[0]

        call = Call(
            path=PATHS[Api.CHAT],
            payload=payload,
            deadline_s=deadline_s(self._generator.endpoint, self._generator.sampling),
            max_bytes=body_bound(payload, chars),
            affinity=self._meter.affinity,
            token_estimate=token_estimate(payload, chars),
        )
        return await self._meter.ask(call, read)


def mean_of(drawn: Sequence[Score]) -> Score:
    """The mean of what could be read. A verdict that the endpoint failed to give is awaited, not left out."""
    read = [score.values for score in drawn if score.status is ScoreStatus.OK]
    by_status = {score.status: score for score in drawn}
    if ScoreStatus.ERROR in by_status or not read:
        return next(by_status[status] for status in _WORST_FIRST if status in by_status)
    values = tuple(round(math.fsum(column) / len(read), DECIMALS) for column in zip(*read, strict=True))
    if len(read) == len(drawn):
        return Score(values, ScoreStatus.OK)
    others = Counter(score.status.value for score in drawn if score.status is not ScoreStatus.OK)
    missing = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
    return Score(values, ScoreStatus.OK, f"the mean of {len(read)} of {len(drawn)} verdicts ({missing})")


def _check(scorer: ScorerSettings) -> None:
    options = scorer.options
    if options.judgements < 1:
        raise Misconfigured(f"judgements is {options.judgements}; at least one verdict must be drawn")
    if options.judgements > 1 and options.sampling.temperature == 0.0:
        raise Misconfigured(
            f"{options.judgements} judgements at temperature 0 are one verdict over and over;"
            " write judgements: 1, or a temperature above 0"
        )


def _generator(scorer: ScorerSettings) -> GeneratorSettings:
    return GeneratorSettings(
        generator_id=scorer.scorer_id,
        fingerprint=scorer.fingerprint,
        model=scorer.model,
        api=Api.CHAT,
        template="{problem}",
        system=scorer.options.system,
        sampling=scorer.options.sampling,
        samples_per_request=1,
        endpoint=scorer.endpoint,
    )


def _seed(fingerprint: str, prompt: str) -> int:
    """Seed of the first verdict: the same question gets the same draws, however often it is asked."""
    digits = SEED_BITS // 4 - 1
    return int(content_hash(fingerprint, prompt)[:digits], 16)


def _unread(why: str) -> Score:
    return Score((), ScoreStatus.UNPARSED, told(why))


def _tail(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else "…" + line[-_SHOWN:]
