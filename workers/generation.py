"""Drawing samples from a policy: one request in, exactly as many samples out, whatever happened on the way.

What becomes of a sample is data, never an exception; only an error of the sweep is raised (key, path, model,
a parameter the server refuses). It knows nothing of pools, tasks or steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.calls import Answer, Call, EndpointClient, Read
from workers.client import ClientOfEndpoint
from workers.concurrency import together
from workers.errors import (
    ContentRefused,
    ContextOverflow,
    DeadlineExceeded,
    EndpointError,
    Misconfigured,
    Rejected,
)
from workers.types import EndpointSettings, GeneratorSettings, Outcome
from workers.wire import (
    PATHS,
    Capabilities,
    Reading,
    Sample,
    body_bound,
    build_payload,
    deadline_s,
    prompt_chars,
    read_reply,
    refused_field,
    sanitize,
    token_estimate,
    without,
)

__all__ = ["Draw", "ModelClient", "Sample"]


@dataclass(frozen=True, slots=True)
class Draw:
    """The result of one request after all retries."""

    samples: tuple[Sample, ...]
    """Always exactly as many as asked for; sample j was drawn with seed + j."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    latency_s: float
    """From sending to reply, of the last attempt; the longest where several requests were needed."""
    retries: int
    wasted_requests: int
    """Attempts whose reply was lost or unusable."""
    replica: str


class ModelClient(ClientOfEndpoint):
    """Client of one model, owned by one worker. Async context manager; for one event loop.

    `capabilities` come from a probe; without one everything is asked for, and what the server refuses is not
    asked again. `client` brings other clocks, sessions or time constants than the usual.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        capabilities: Capabilities | None = None,
        client: EndpointClient | None = None,
    ) -> None:
        super().__init__(client or EndpointClient(settings))
        self._capabilities = capabilities or Capabilities()

    async def draw(
        self,
        generator: GeneratorSettings,
        statement: str,
        *,
        seed: int,
        count: int,
        affinity: int,
        prefix: str = "",
    ) -> Draw:
        """Draw `count` samples, sample j with `seed + j`; one `affinity` prefers one replica.

        With a `prefix` they go on with that beginning of a solution, and hold what follows it.

        One request if the server takes n = `count`; greedy sampling and servers that do not derive the seeds
        of children get one request a sample. Raises `Misconfigured` for errors of the sweep.
        """
        step = self._samples_per_request(generator)
        if count <= step:
            return await self._draw_once(generator, statement, prefix, seed, count, affinity)
        starts = range(0, count, step)
        draws = await together(
            self._draw_once(generator, statement, prefix, seed + start, min(step, count - start), affinity)
            for start in starts
        )
        return _merge(draws)

    def _samples_per_request(self, generator: GeneratorSettings) -> int:
        is_single = generator.sampling.temperature == 0.0 or not self._capabilities.child_seeds
        return 1 if is_single else max(1, generator.samples_per_request)

    async def _draw_once(
        self, generator: GeneratorSettings, statement: str, prefix: str, seed: int, count: int, affinity: int
    ) -> Draw:
        while True:
            payload = build_payload(
                generator,
                statement,
                seed=seed,
                count=count,
                capabilities=self._capabilities,
                prefix=prefix,
            )
            answer = await self._call(generator, payload, affinity)
            if answer.value is not None:
                return _draw(answer.value, answer)
            if not self._gave_up_a_field(payload, answer.error):
                return _draw(_failed(answer.error, count), answer)

    async def _call(
        self, generator: GeneratorSettings, payload: dict[str, Any], affinity: int
    ) -> Answer[Reading]:
        chars = prompt_chars(payload)
        estimate = token_estimate(payload, chars)

        def read(data: Any) -> Read[Reading]:
            reading = read_reply(data, payload, generator.api)
            return Read(reading, reading.prompt_tokens + reading.completion_tokens)

        call = Call(
            path=PATHS[generator.api],
            payload=payload,
            deadline_s=deadline_s(generator.endpoint, generator.sampling),
            max_bytes=body_bound(payload, chars),
            affinity=affinity,
            token_estimate=estimate,
            is_repeatable="seed" in payload,
        )
        answer = await self._client.call(call, read)
        if answer.value is not None and answer.value.bad_logprobs:
            self._client.failures["bad_logprobs"] += answer.value.bad_logprobs
        return answer

    def _gave_up_a_field(self, payload: dict[str, Any], error: EndpointError | None) -> bool:
        """If the refusal names a field that is only asked for to know more, stop asking: true."""
        if not isinstance(error, Rejected) or error.status not in (400, 422):
            return False
        field = refused_field(payload, str(error))
        if field is None:
            return False
        fewer = without(self._capabilities, field)
        if fewer != self._capabilities:  # the first of those in flight that learns it
            self._client.record("field_refused", field, str(error))
            self._capabilities = fewer
        return True


def _draw(reading: Reading, answer: Answer[Reading]) -> Draw:
    return Draw(
        samples=reading.samples,
        prompt_tokens=reading.prompt_tokens,
        cached_tokens=reading.cached_tokens,
        completion_tokens=reading.completion_tokens,
        latency_s=answer.latency_s,
        retries=answer.retries,
        wasted_requests=answer.wasted_requests,
        replica=answer.replica,
    )


def _failed(error: EndpointError | None, count: int) -> Reading:
    """Samples that tell how their request ended."""
    if isinstance(error, Misconfigured):
        raise error
    outcome = _outcome_of(error)
    text = sanitize(f"{error.kind}: {error}") if error is not None else None
    sample = Sample("", None, None, outcome, None, None, text)
    return Reading((sample,) * count, 0, 0, 0, 0)


def _outcome_of(error: EndpointError | None) -> Outcome:
    if isinstance(error, ContextOverflow):
        return Outcome.OVERFLOW
    if isinstance(error, ContentRefused):
        return Outcome.REFUSED
    return Outcome.TIMED_OUT if isinstance(error, DeadlineExceeded) else Outcome.ERROR


def _merge(draws: Sequence[Draw]) -> Draw:
    return Draw(
        samples=tuple(sample for draw in draws for sample in draw.samples),
        prompt_tokens=sum(draw.prompt_tokens for draw in draws),
        cached_tokens=sum(draw.cached_tokens for draw in draws),
        completion_tokens=sum(draw.completion_tokens for draw in draws),
        latency_s=max(draw.latency_s for draw in draws),
        retries=sum(draw.retries for draw in draws),
        wasted_requests=sum(draw.wasted_requests for draw in draws),
        replica=draws[0].replica,
    )
