"""What a scorer's server gives, found out before a sweep relies on it: by scoring, since a 200 proves nothing.

Every check is made through the code that scores in earnest, and what it finds configures the client.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
import orjson

from workers.calls import Answer, Call, Read
from workers.errors import EndpointError, Misconfigured, ServerFault
from workers.http import Reply, exchange, parse_json, read_api_key
from workers.rejections import error_inside, failure_of
from workers.rewards.contract import BrokenContract
from workers.rewards.formats import VALUE_FORMATS, VERDICT_FORMATS, check_format
from workers.rewards.goldens import goldens_of
from workers.rewards.learning import PROBLEM, RIGHT, WRONG, learn
from workers.rewards.meter import Meter
from workers.rewards.records import Golden, RewardCapabilities, Solution
from workers.rewards.scoring import ValueScoring
from workers.rewards.tokens import TokenCache
from workers.rewards.transports import Values
from workers.rewards.verdicts import VerdictScoring
from workers.server_pages import ServerPages
from workers.types import ScorerSettings, ScoreStatus, Transport

TOLERANCE = 0.02
"""By so much scores may differ between batches and between calls: half precision on a GPU is worth about 0.015."""
T = TypeVar("T")


async def probe_scorer(
    session: aiohttp.ClientSession,
    url: str,
    scorer: ScorerSettings,
    *,
    golden: Sequence[Golden] | None = None,
) -> RewardCapabilities:
    """Try the server at base URL `url` (up to and including `/v1`) with known solutions of two and three steps.

    Checked: the model is listed; a call gives as many scores as steps, all in [0, 1]; a batch gives what single
    solutions get, and so does the second time; `golden` scores (None: those that the makers of the model have
    published) are reproduced. Raises an `EndpointError` that says
    what was found and what is wanted: `Misconfigured` where the server cannot serve this scorer.
    """
    check_format(scorer)
    golden = goldens_of(scorer) if golden is None else golden
    server = _Server(session, url.rstrip("/"), scorer)
    models = await server.pages.models()
    if models is not None and scorer.model not in models:
        listed = ", ".join(sorted(models)) or "none"
        raise Misconfigured(f"the server does not list the model {scorer.model} (it lists: {listed})")
    if scorer.format in VERDICT_FORMATS:
        found = await _probe_verdicts(server, scorer, golden)
    else:
        found = await _probe_values(server, scorer, golden)
    length = models[scorer.model] if models is not None else None
    return replace(
        found,
        model_is_listed=models is not None or None,
        max_model_len=found.max_model_len or length,
        server_version=await server.pages.version(),
    )


async def _probe_values(
    server: _Server, scorer: ScorerSettings, golden: Sequence[Golden]
) -> RewardCapabilities:
    meter, cache = Meter(server), TokenCache()
    value_format = VALUE_FORMATS[scorer.format]
    learnt = await learn(meter, scorer, value_format, cache, must_try=True)

    async def values(problem: str, *solutions: Solution) -> list[Values]:
        scoring = ValueScoring(meter, scorer, value_format, learnt, problem, cache)
        try:
            return await scoring.values([solution.steps for solution in solutions])
        except BrokenContract as error:
            raise Misconfigured(f"{scorer.model} by {learnt.transport}: {error}") from None

    (right,), (wrong,) = await values(PROBLEM, RIGHT), await values(PROBLEM, WRONG)
    (again,), batch = await values(PROBLEM, RIGHT), await values(PROBLEM, RIGHT, WRONG)
    _compare(right, again, "the same solution got other scores the second time")
    for alone, together in zip((right, wrong), batch, strict=True):
        _compare(alone, together, "a solution got other scores in a batch than alone")
    for known in golden:
        (got,) = await values(known.problem, Solution(known.steps))
        _compare(known.scores, got, "a golden solution got other scores", known.rtol, known.atol)
    return replace(learnt, is_deterministic=right == again, notes=_notes(right, wrong))


async def _probe_verdicts(
    server: _Server, scorer: ScorerSettings, golden: Sequence[Golden]
) -> RewardCapabilities:
    meter, verdict_format = Meter(server), VERDICT_FORMATS[scorer.format]
    scoring = VerdictScoring(meter, scorer, verdict_format, PROBLEM)
    first = await scoring.scores([RIGHT, WRONG])
    for score in first:
        if score.status is ScoreStatus.ERROR:
            raise ServerFault(score.detail or "")
    read = [score for score in first if score.status is ScoreStatus.OK]
    if not read:
        raise Misconfigured(f"{scorer.model} gives no verdict that can be read: {first[0].detail}")
    again = await scoring.scores([RIGHT, WRONG])
    for known in golden:
        verdicts = VerdictScoring(meter, scorer, verdict_format, known.problem)
        (got,) = await verdicts.scores([Solution(known.steps)])
        _compare(known.scores, got.values, "a golden solution got other scores", known.rtol, known.atol)
    notes = tuple(f"a sample got no verdict: {score.detail}" for score in first if score not in read)
    if len(read) == len(first):
        notes = _notes(first[0].values, first[1].values)
    return RewardCapabilities(Transport.CHAT, is_deterministic=first == again, notes=notes)


def _compare(wanted: Values, got: Values, what: str, rtol: float = 0.0, atol: float = TOLERANCE) -> None:
    """Raise `Misconfigured` unless the values are as many and as close as they should be."""
    is_close = len(wanted) == len(got) and all(
        math.isclose(x, y, rel_tol=rtol, abs_tol=atol) for x, y in zip(wanted, got, strict=True)
    )
    if not is_close:
        raise Misconfigured(f"{what}: {list(got)}, and {list(wanted)} is wanted")


def _notes(right: Values, wrong: Values) -> tuple[str, ...]:
    if len({*right, *wrong}) == 1:
        return (f"a right and a wrong sample both get {right[0]}: the scorer tells nothing apart",)
    if wrong[-1] >= right[-1]:
        return (
            f"a wrong sample ends with the score {wrong[-1]}, a right one with {right[-1]}:"
            " are the labels swapped?",
        )
    return ()


class _Server:
    """One server, asked once and without retries."""

    def __init__(self, session: aiohttp.ClientSession, url: str, scorer: ScorerSettings) -> None:
        self._session = session
        self._url = url
        self._api_key = read_api_key(scorer.endpoint.api_key_env)
        self.pages = ServerPages(session, url, self._api_key)

    async def call(self, call: Call, read: Callable[[Any], Read[T]]) -> Answer[T]:
        """Send a call; how it ended is returned, not raised."""
        started_at = time.monotonic()
        value, failure = None, None
        try:
            reply = await exchange(
                self._session,
                "POST",
                call.url(self._url),
                api_key=self._api_key,
                body=orjson.dumps(call.payload),
                deadline_s=call.deadline_s,
                max_bytes=call.max_bytes,
            )
            value = read(self._json(reply, call)).value
        except EndpointError as error:
            failure = error
        wasted = 0 if failure is None else 1
        return Answer(value, failure, time.monotonic() - started_at, 0, wasted, self._url)

    def _json(self, reply: Reply, call: Call) -> Any:
        data = parse_json(reply.body, self._api_key) if reply.status == 200 else None
        wrapped = error_inside(data) if reply.status == 200 else (reply.status, reply.body)
        if wrapped is not None:
            raise failure_of(*wrapped, sent=call.payload.keys())
        return data
