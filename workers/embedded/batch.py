"""Continuous batching: samples join and leave the running batch at any decode step.

A synchronous state machine: `submit` and `cancel` change what is wanted, `step` makes one token for every
running sample and reports what is finished. No threads, no clock, no HTTP; `engine.py` drives it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from workers.embedded import sampling
from workers.embedded.attention import BUCKET_TOKENS, DecodeAttention, Slots
from workers.embedded.blas import Floats
from workers.embedded.counters import Counters
from workers.embedded.model import Ints, Model
from workers.embedded.prompts import Prompt, Prompts
from workers.embedded.sampling import Doubles, Sampling
from workers.embedded.text import Text, Transcript, find_stop

PREFILL_TOKENS_A_STEP = 1024  # bounds how long running samples wait for new prompts


@dataclass(frozen=True, slots=True)
class Limits:
    """When a sample ends."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    keeps_stop: bool = False
    """Leave the stop string in the text."""
    ignores_end: bool = False
    """Go on after an end-of-sequence token."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log-probabilities are reported; None: none, 0: of the chosen tokens only."""

    top: int | None = None
    ids: tuple[int, ...] = ()
    prompt: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Samples of one prompt, one a seed. `max_tokens` 0 makes none: it is for prompt log-probabilities."""

    prompt: tuple[int, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    limits: Limits
    logprobs: Wanted = Wanted()


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probability of one token, and of others at its place, best first; it may be among them."""

    token: int
    logprob: float
    others: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished sample. `stop_reason` is the stop string or token id that ended it, else None."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_reason: str | int | None
    logprobs: tuple[TokenLogprobs, ...] | None


@dataclass(frozen=True, slots=True)
class Generation:
    """All samples of one request, in the order of its seeds."""

    completions: tuple[Completion, ...]
    prompt_tokens: int
    cached_tokens: int
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None
    """One a prompt token; the first has none."""


@dataclass(slots=True, eq=False)
class Job:
    """A request and how far it has come."""

    request: Request
    completions: list[Completion | None]
    admitted: int = 0
    left: int = 0
    prompt: Prompt | None = None
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    is_cancelled: bool = False

    def result(self) -> Generation:
        """Give the finished samples; call it when none is left."""
        done = tuple(completion for completion in self.completions if completion is not None)
        return Generation(done, len(self.request.prompt), self.cached_tokens, self.prompt_logprobs)


@dataclass(slots=True, eq=False)
class _Sequence:
    """A running sample."""

    job: Job
    index: int
    slot: int
    budget: int
    """Tokens it may still make: max_tokens or the rest of the context."""
    numbers: Iterator[float]
    transcript: Transcript | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Place of its newest token."""
        return len(self.job.request.prompt) + len(self.ids) - 1


class Batch:
    """Jobs that wait, samples that run, and the slots they run in."""

    def __init__(
        self, model: Model, text: Text, end_ids: Sequence[int], *, slots: int, cached_tokens: int
    ) -> None:
        """Make room for `slots` running samples and about `cached_tokens` tokens of recent prompts."""
        self.counters = Counters()
        self._model, self._text = model, text
        self._end_ids = frozenset(end_ids)
        self._slots = Slots(model.architecture, slots)
        self._free = list(range(slots))
        self._prompts = Prompts(model, cached_tokens)
        self._waiting: deque[Job] = deque()
        self._running: list[_Sequence] = []

    @property
    def running(self) -> int:
        """Samples in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Samples that have no slot yet."""
        return sum(len(job.request.seeds) - job.admitted for job in tuple(self._waiting))

    @property
    def is_idle(self) -> bool:
        """True when a step would do nothing."""
        return not self._running and not self._waiting

    def submit(self, request: Request) -> Job:
        """Queue a request, first come first served; its prompt must be shorter than the context."""
        count = len(request.seeds)
        job = Job(request, [None] * count, left=count)
        self._waiting.append(job)
        self.counters.prompt_tokens += len(request.prompt)
        return job

    def cancel(self, job: Job) -> None:
        """Drop what is left of a job; its slots are free at once. A finished job is left as it is."""
        if job.is_cancelled or not job.left:
            return
        job.is_cancelled = True
        self.counters.finished["abort"] += job.left
        if job in self._waiting:
            self._waiting.remove(job)
        for sequence in [s for s in self._running if s.job is job]:
            self.counters.aborted_tokens += len(sequence.ids)
            self._release(sequence)

    def step(self) -> list[Job]:
        """Admit what fits, make one token for every sample of the batch; give the jobs complete now."""
        self.counters.steps += 1
        finished, joined = self._admit()
        rows = self._order()
        logits = [
            sequence.job.prompt.next_logits[None] for sequence in joined if sequence.job.prompt is not None
        ]
        if rows:
            logits.append(self._decode(rows))
        self._running += joined
        sequences = joined + rows
        if sequences:
            finished += self._advance(sequences, np.concatenate(logits))
        return finished

    def _admit(self) -> tuple[list[Job], list[_Sequence]]:
        """Prefill the jobs at the head of the queue and give their samples the free slots."""
        jobs = list(self._head())
        self._prefill([job for job in jobs if job.prompt is None])
        finished = [job for job in jobs if not job.left]
        joined = [self._join(job) for job in jobs for _ in range(min(len(self._free), self._unadmitted(job)))]
        for job in jobs:
            if not self._unadmitted(job):
                self._waiting.remove(job)
        return finished, joined

    def _head(self) -> Iterator[Job]:
        """Take jobs while there are slots, and while their new prompts fit into one step."""
        slots, tokens = len(self._free), PREFILL_TOKENS_A_STEP
        for job in self._waiting:
            if slots <= 0 or tokens <= 0:
                return
            slots -= self._unadmitted(job)
            tokens -= len(job.request.prompt) if job.prompt is None else 0
            yield job

    def _prefill(self, jobs: list[Job]) -> None:
        scored = [job for job in jobs if job.request.logprobs.prompt]
        for job in scored:
            job.prompt_logprobs = self._prompt_logprobs(job.request)
        for job, prefill in zip(
            jobs, self._prompts.prefill([job.request.prompt for job in jobs]), strict=True
        ):
            job.prompt = prefill.prompt
            job.cached_tokens = 0 if job.request.logprobs.prompt else prefill.cached_tokens
            self.counters.cached_tokens += job.cached_tokens
            if job.request.limits.max_tokens == 0:
                self._skip_generation(job)

    def _skip_generation(self, job: Job) -> None:
        job.completions = [Completion("", (), "length", None, ()) for _ in job.completions]
        self.counters.finished["length"] += job.left
        job.left = 0

    def _prompt_logprobs(self, request: Request) -> tuple[TokenLogprobs | None, ...]:
        rows = sampling.log_probabilities(self._prompts.log_rows(request.prompt)[:-1])
        pairs = zip(request.prompt[1:], rows, strict=True)
        return (None, *(_token_logprobs(token, row, request.logprobs) for token, row in pairs))

    def _join(self, job: Job) -> _Sequence:
        assert job.prompt is not None
        request, index = job.request, job.admitted
        slot = heapq.heappop(self._free)
        self._slots.put(slot, job.prompt.cache)
        job.admitted += 1
        budget = min(request.limits.max_tokens, self._model.architecture.context - len(request.prompt))
        transcript = Transcript(self._text) if request.limits.stop else None
        return _Sequence(job, index, slot, budget, sampling.uniforms(request.seeds[index]), transcript)

    def _order(self) -> list[_Sequence]:
        """Order the running samples as attention wants them: by bucket, then by slot."""
        return sorted(self._running, key=lambda s: (s.position // BUCKET_TOKENS, s.slot))

    def _decode(self, rows: list[_Sequence]) -> Floats:
        """Run the newest token of every row through the model; give the logits of the next."""
        positions = np.array([sequence.position for sequence in rows])
        attend = DecodeAttention(self._slots, np.array([sequence.slot for sequence in rows]), positions)
        tokens = self._padded(np.array([sequence.ids[-1] for sequence in rows]))
        hidden = self._model.forward(tokens, self._padded(positions), attend)
        return self._model.logits(hidden[: len(rows)])

    def _padded(self, values: Ints) -> Ints:
        result = np.zeros(self._model.padded(len(values)), np.int64)
        result[: len(values)] = values
        return result

    def _advance(self, sequences: list[_Sequence], logits: Floats) -> list[Job]:
        """Choose the next token of every sample and end those that are complete."""
        numbers = np.array([next(sequence.numbers) for sequence in sequences])
        tokens = sampling.choose(logits, [sequence.job.request.sampling for sequence in sequences], numbers)
        self._note_logprobs(sequences, tokens, logits)
        self.counters.generated_tokens += len(sequences)
        finished = []
        for sequence, token in zip(sequences, tokens, strict=True):
            completion = self._extend(sequence, token)
            if completion is not None and self._finish(sequence, completion):
                finished.append(sequence.job)
        return finished

    def _note_logprobs(self, sequences: list[_Sequence], tokens: list[int], logits: Floats) -> None:
        wanted = [
            row for row, sequence in enumerate(sequences) if sequence.job.request.logprobs.top is not None
        ]
        if not wanted:
            return
        for row, log_probs in zip(wanted, sampling.log_probabilities(logits[wanted]), strict=True):
            request = sequences[row].job.request
            sequences[row].logprobs.append(_token_logprobs(tokens[row], log_probs, request.logprobs))

    def _extend(self, sequence: _Sequence, token: int) -> Completion | None:
        """Add a token; give the completion if that ends the sample."""
        limits = sequence.job.request.limits
        sequence.ids.append(token)
        if token in self._end_ids and not limits.ignores_end:
            return self._completion(sequence, "stop", None)
        if token in limits.stop_token_ids:
            return self._completion(sequence, "stop", token)
        stopped = self._stopped(sequence, token)
        if stopped is None and len(sequence.ids) >= sequence.budget:
            return self._completion(sequence, "length", None)
        return stopped

    def _stopped(self, sequence: _Sequence, token: int) -> Completion | None:
        """Give the completion if the token completed a stop string."""
        if sequence.transcript is None:
            return None
        limits = sequence.job.request.limits
        added = sequence.transcript.push(token)
        hit = find_stop(sequence.transcript.text, len(added), limits.stop) if added else None
        if hit is None:
            return None
        at, stop = hit
        text = sequence.transcript.text[: at + len(stop) if limits.keeps_stop else at]
        return self._completion(sequence, "stop", stop, text)

    def _completion(
        self, sequence: _Sequence, finish_reason: str, stop_reason: str | int | None, text: str | None = None
    ) -> Completion:
        if text is None:
            # the text of a stop token goes the way of a stop string: out, unless it is asked for
            hides_last = isinstance(stop_reason, int) and not sequence.job.request.limits.keeps_stop
            text = self._text.decode(sequence.ids[:-1] if hides_last else sequence.ids)
        logprobs = None if sequence.job.request.logprobs.top is None else tuple(sequence.logprobs)
        return Completion(text, tuple(sequence.ids), finish_reason, stop_reason, logprobs)

    def _finish(self, sequence: _Sequence, completion: Completion) -> bool:
        """Book a finished sample; True when it was the last of its job."""
        job = sequence.job
        job.completions[sequence.index] = completion
        job.left -= 1
        self.counters.finished[completion.finish_reason] += 1
        self._release(sequence)
        return not job.left

    def _release(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        heapq.heappush(self._free, sequence.slot)

    def _unadmitted(self, job: Job) -> int:
        return len(job.request.seeds) - job.admitted if job.left else 0


def _token_logprobs(token: int, log_probs: Doubles, wanted: Wanted) -> TokenLogprobs:
    best = sampling.most_likely(log_probs, wanted.top).tolist() if wanted.top else []
    others = tuple((other, float(log_probs[other])) for other in (*best, *wanted.ids))
    return TokenLogprobs(token, float(log_probs[token]), others)
