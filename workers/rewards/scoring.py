"""Scoring the solutions of one problem with a model's values: prepared, batched, asked, checked, never guessed.

What becomes of a solution is a `Score`, never an exception; only errors of the sweep are raised, and cancellation.
It knows neither wire formats nor transports, nor who sends the calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from workers.calls import Call
from workers.concurrency import together
from workers.errors import ContextOverflow, EndpointError, Misconfigured, Rejected
from workers.http import shorten
from workers.rewards.contract import BrokenContract
from workers.rewards.formats import ValueFormat
from workers.rewards.meter import Meter
from workers.rewards.queries import Query
from workers.rewards.records import RewardCapabilities, Score, Solution
from workers.rewards.setting import Setting
from workers.rewards.tokens import TokenCache, Tokens
from workers.rewards.transports import MAX_PROMPTS, Values, ask, is_by_prefix, prompt_count
from workers.types import EndpointSettings, ScorerKind, ScorerSettings, ScoreStatus, TooLong
from workers.wire import sanitize

PREFILL_SPEEDUP = 100.0
"""A server reads this many times faster than it writes, at the least: for deadlines."""

Steps = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Work:
    """A solution ready to be asked about; `steps` are fewer than `of` where it had to be cut."""

    steps: Steps
    of: int
    query: Query


class ValueScoring:
    """The solutions of one problem, one scorer, one server. Used once."""

    def __init__(
        self,
        meter: Meter,
        scorer: ScorerSettings,
        value_format: ValueFormat,
        capabilities: RewardCapabilities,
        statement: str,
        cache: TokenCache | None = None,
    ) -> None:
        self._meter = meter
        self._scorer = scorer
        self._format = value_format
        self._capabilities = capabilities
        self._statement = statement
        self._tokens = Tokens(meter, scorer.model, scorer.endpoint, cache)
        self._setting = Setting(scorer.options, capabilities.transport, self._tokens, capabilities.vocabulary)

    async def scores(self, solutions: Sequence[Solution]) -> list[Score]:
        """One score a solution, in order; those that begin alike should be neighbours."""
        # The first one alone: what it shares with the others is then in the cache of the tokenizer.
        first = [await self._prepared(solution.steps) for solution in solutions[:1]]
        prepared = first + await together(self._prepared(solution.steps) for solution in solutions[1:])
        works = [(i, each) for i, each in enumerate(prepared) if isinstance(each, _Work)]
        scores = {i: each for i, each in enumerate(prepared) if isinstance(each, Score)}
        batches = list(self._batches(works))
        results = await together(self._batch([work for _, work in batch]) for batch in batches)
        for batch, batch_scores in zip(batches, results, strict=True):
            scores |= {index: score for (index, _), score in zip(batch, batch_scores, strict=True)}
        return [scores[i] for i in range(len(solutions))]

    async def values(self, many: Sequence[Steps]) -> list[Values]:
        """The values of solutions in one request; raises where anything is amiss: for probes."""
        queries = await together(self._query(steps) for steps in many)
        outcomes = await self._ask(queries)
        for outcome in outcomes:
            if isinstance(outcome, BrokenContract):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BrokenContract)]

    async def _query(self, steps: Steps) -> Query:
        return await self._format.query(self._setting, self._statement, steps)

    async def _prepared(self, steps: Steps) -> _Work | Score:
        try:
            query = await self._query(steps)
            if self._is_too_long(len(query.ids)):
                cut = await self._cut(steps) if self._may_cut(steps) else None
                return cut or too_long(f"{len(query.ids)} tokens, and the scorer takes {self._limit()}")
        except Misconfigured:
            raise
        except EndpointError as error:
            return failed(error)
        return _Work(steps, len(steps), query)

    def _limit(self) -> int | None:
        """Tokens a text may have."""
        length = self._tokens.max_model_len or self._capabilities.max_model_len
        if length is None:
            return None
        return length - is_by_prefix(self._capabilities.transport)  # one token is drawn

    def _is_too_long(self, tokens: int) -> bool:
        limit = self._limit()
        return limit is not None and tokens > limit

    def _batches(self, works: Sequence[tuple[int, _Work]]) -> Iterator[list[tuple[int, _Work]]]:
        """Neighbours together, as many texts as the scorer allows and prompts as a server takes."""
        batch: list[tuple[int, _Work]] = []
        prompts = 0
        for index, work in works:
            size = prompt_count(self._capabilities.transport, work.query)
            is_full = len(batch) >= self._scorer.texts_per_request or prompts + size > MAX_PROMPTS
            if batch and is_full:
                yield batch
                batch, prompts = [], 0
            batch.append((index, work))
            prompts += size
        if batch:
            yield batch

    async def _batch(self, works: Sequence[_Work]) -> list[Score]:
        """One request for all; those that it did not serve are asked for alone."""
        if len(works) == 1:
            return [await self._alone(works[0])]
        try:
            outcomes = await self._ask([work.query for work in works])
        except Misconfigured:
            raise
        except Rejected:  # one of them, and which one is not said
            return await together(self._alone(work) for work in works)
        except EndpointError as error:
            return [failed(error)] * len(works)
        self._meter.broken += sum(isinstance(outcome, BrokenContract) for outcome in outcomes)
        return await together(
            self._settled(work, outcome) for work, outcome in zip(works, outcomes, strict=True)
        )

    async def _settled(self, work: _Work, outcome: Values | BrokenContract) -> Score:
        return await self._alone(work) if isinstance(outcome, BrokenContract) else _scored(work, outcome)

    async def _alone(self, work: _Work) -> Score:
        try:
            return await self._served(work)
        except Misconfigured:
            raise
        except EndpointError as error:
            return failed(error)

    async def _served(self, work: _Work) -> Score:
        """Ask about one solution, cut if need be."""
        try:
            return await self._tried(work)
        except ContextOverflow as error:
            if not self._may_cut(work.steps):
                raise
            overflow = error
        score = await self._counted(work) or await self._halved(work)
        if score is None:
            raise overflow
        return score

    async def _tried(self, work: _Work) -> Score:
        (outcome,) = await self._ask([work.query])
        if isinstance(outcome, BrokenContract):
            raise outcome
        return _scored(work, outcome)

    async def _counted(self, work: _Work) -> Score | None:
        """The score of the longest beginning that fits by the server's count; None where the count is no help."""
        try:
            cut = await self._cut(work.steps)
            return await self._tried(cut) if cut is not None else None
        except (Misconfigured, ContextOverflow):  # no tokenizer there, or it counts otherwise
            return None

    async def _halved(self, work: _Work) -> Score | None:
        """The score of the longest beginning that is served, found by trying."""

        async def fitting(count: int) -> Score | None:
            steps = work.steps[:count]
            try:
                return await self._tried(_Work(steps, work.of, await self._query(steps)))
            except ContextOverflow:
                return None

        return await longest(len(work.steps) - 1, fitting)

    async def _cut(self, steps: Steps) -> _Work | None:
        """The longest beginning of whole steps that fits, by the server's own count of tokens."""

        async def fitting(count: int) -> _Work | None:
            query = await self._query(steps[:count])
            size = len(query.ids or await self._tokens.ids(query.text, special=query.adds_special_tokens))
            return None if self._is_too_long(size) else _Work(steps[:count], len(steps), query)

        return await longest(len(steps) - 1, fitting)

    def _may_cut(self, steps: Steps) -> bool:
        """May it be scored in part? A value for a part says nothing about the whole (orm, judge)."""
        is_allowed = self._scorer.options.too_long is TooLong.TRUNCATE
        return is_allowed and self._scorer.kind is ScorerKind.PRM and len(steps) > 1

    async def _ask(self, queries: Sequence[Query]) -> list[Values | BrokenContract]:
        transport = self._capabilities.transport
        if len(queries) == 1 and prompt_count(transport, queries[0]) > MAX_PROMPTS:
            return [await self._in_parts(queries[0])]
        request = ask(
            transport,
            self._scorer.model,
            queries,
            self._capabilities.vocabulary,
            is_logit=self._format.is_logit or self._scorer.options.is_logit,
        )
        call = Call(
            path=request.path,
            payload=request.payload,
            deadline_s=reading_deadline_s(self._scorer.endpoint, request.size),
            max_bytes=request.max_bytes,
            affinity=self._meter.affinity,
            token_estimate=request.size,
            is_at_root=request.is_at_root,
        )
        return await self._meter.ask(call, request.read)

    async def _in_parts(self, query: Query) -> Values | BrokenContract:
        """A solution of more steps than prompts go into a request."""
        starts = range(0, len(query.positions), MAX_PROMPTS)
        parts = [query.positions[start : start + MAX_PROMPTS] for start in starts]
        outcomes = await together(
            self._ask([replace(query, count=len(part), positions=part)]) for part in parts
        )
        values: Values = ()
        for (outcome,) in outcomes:
            if isinstance(outcome, BrokenContract):
                return outcome
            values += outcome
        return values


async def longest(most: int, fitting: Callable[[int], Awaitable[T | None]]) -> T | None:
    """What `fitting` gives for the greatest count from 1 to `most` that fits, by bisection; None: not even one."""
    best: T | None = None
    low, high = 1, most
    while low <= high:
        middle = (low + high) // 2
        found = await fitting(middle)
        if found is None:
            high = middle - 1
        else:
            best, low = found, middle + 1
    return best


def reading_deadline_s(endpoint: EndpointSettings, tokens: int) -> float:
    """Seconds granted to a call that reads `tokens` tokens and writes next to none."""
    return endpoint.deadline_base_s + tokens / (endpoint.tokens_per_second_floor * PREFILL_SPEEDUP)


def too_long(why: str) -> Score:
    """The score of a solution that does not fit."""
    return Score((), ScoreStatus.TOO_LONG, told(why))


def cut_detail(count: int, of: int) -> str:
    """What is said of a solution that was scored in part."""
    return f"{count} of {of} steps fit the scorer's context"


def failed(error: EndpointError) -> Score:
    """The score of a solution that no usable reply came for."""
    if isinstance(error, ContextOverflow):
        return too_long(str(error))
    status = ScoreStatus.INVALID if isinstance(error, BrokenContract) else ScoreStatus.ERROR
    return Score((), status, told(f"{error.kind}: {error}"))


def told(why: str) -> str:
    """A reason as it may be stored: one short line."""
    return sanitize(shorten(why))


def _scored(work: _Work, values: Values) -> Score:
    if len(work.steps) < work.of:
        return Score(values, ScoreStatus.TRUNCATED, cut_detail(len(work.steps), work.of))
    return Score(values, ScoreStatus.OK)
