"""Scoring: texts go through a reward model once, and what they share with recent texts is not computed again.

A synchronous state machine like `batch.py`: `submit` and `cancel` change what is wanted, `step` computes a bounded
number of tokens for the texts at the head of the queue, whoever sent them, so that samples that are decoded
meanwhile wait for one step at most. A score belongs to the tag's row in the trie, so a text that was scored before
costs a walk. Scores are read from the same full logits as log-probabilities of completions, and equal them in
every bit. No threads, no clock, no HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from workers.embedded.counters import Counters
from workers.embedded.model import Ints, Model
from workers.embedded.paths import Path, PathAttention, Pool, padded
from workers.embedded.reward import Reward
from workers.embedded.trie import Trie

TOKENS_A_STEP = 512  # a step of more tokens is not quicker a token, and running samples wait for it
LEAST_TOKENS_A_TEXT = 4  # what even a text that is known costs


@dataclass(frozen=True, slots=True)
class Texts:
    """A request: token ids of each text, each of at least one token and at most the context."""

    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """l+ - l- at every tag of every text, in order; `cached_tokens` were not computed for this request."""

    margins: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    cached_tokens: int


@dataclass(slots=True, eq=False)
class ScoringJob:
    """A request and how far it has come."""

    request: Texts
    margins: list[tuple[float, ...]] = field(default_factory=list)
    computed_tokens: int = 0
    is_cancelled: bool = False

    @property
    def left(self) -> int:
        """Texts without scores."""
        return len(self.request.tokens) - len(self.margins)

    def result(self) -> Scoring:
        """Give the scores; call it when none is left."""
        total = sum(map(len, self.request.tokens))
        return Scoring(tuple(self.margins), total, total - self.computed_tokens)


@dataclass(slots=True)
class _Pass:
    """What one step computes: packed new tokens, and the texts that are complete after it."""

    budget: int
    tokens: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    complete: list[tuple[ScoringJob, Ints]] = field(default_factory=list)


class Scorer:
    """Texts that wait, and the pool that remembers recent ones."""

    def __init__(self, model: Model, reward: Reward, counters: Counters, *, cached_tokens: int) -> None:
        """Make room for about `cached_tokens` tokens of recent texts."""
        self._model, self._reward, self._counters = model, reward, counters
        capacity = max(cached_tokens, model.architecture.context + TOKENS_A_STEP)
        self._pool = Pool(model.architecture, capacity + 1)
        self._trie = Trie(capacity, model.architecture.vocabulary)
        self._margins = np.zeros(capacity + 1)
        self._waiting: deque[ScoringJob] = deque()
        self._now = 0

    @property
    def waiting(self) -> int:
        """Texts without scores."""
        return sum(job.left for job in tuple(self._waiting))

    @property
    def is_idle(self) -> bool:
        """True when a step would do nothing."""
        return not self._waiting

    def submit(self, request: Texts) -> ScoringJob:
        """Queue a request, first come first served."""
        job = ScoringJob(request)
        self._waiting.append(job)
        self._counters.prompt_tokens += sum(map(len, request.tokens))
        return job

    def cancel(self, job: ScoringJob) -> None:
        """Drop what is left of a job. A finished job is left as it is."""
        if job.is_cancelled or not job.left:
            return
        job.is_cancelled = True
        self._counters.finished["abort"] += job.left
        self._waiting.remove(job)

    def step(self) -> list[ScoringJob]:
        """Compute one pass for the texts at the head of the queue; give the jobs complete now."""
        self._now += 1
        plan = self._plan()
        if plan.tokens:
            self._compute(plan)
        for job, rows in plan.complete:
            self._complete(job, rows)
        finished = []
        while self._waiting and not self._waiting[0].left:
            finished.append(self._waiting.popleft())
        return finished

    def _plan(self) -> _Pass:
        """Take texts while they fit; the last one may be left half-way, to go on in the next step."""
        plan = _Pass(TOKENS_A_STEP)
        for job in self._waiting:
            for index in range(len(job.margins), len(job.request.tokens)):
                if plan.budget <= 0:
                    return plan
                self._take(plan, job, job.request.tokens[index])
        return plan

    def _take(self, plan: _Pass, job: ScoringJob, tokens: tuple[int, ...]) -> None:
        known = self._trie.walk(tokens)
        self._trie.touch(known, self._now)
        start, stop = len(known), min(len(tokens), len(known) + plan.budget)
        self._trie.forget(stop - start, self._now)
        stop = min(stop, start + self._trie.free)
        fresh = self._trie.extend(known, tokens[start:stop])
        self._trie.touch(fresh, self._now)
        rows = np.array(known + fresh, np.int64)
        if fresh:
            plan.tokens += tokens[start:stop]
            plan.paths.append(Path(rows, start))
        plan.budget -= max(stop - start, LEAST_TOKENS_A_TEXT)
        job.computed_tokens += stop - start
        if stop == len(tokens):
            plan.complete.append((job, rows))
        else:
            plan.budget = 0

    def _compute(self, plan: _Pass) -> None:
        """Run the packed new tokens through the model, and note the margin at each tag among them."""
        tokens = np.array(plan.tokens)
        tags = np.flatnonzero(tokens == self._reward.tag)
        attend = PathAttention(self._pool, plan.paths, tags)
        positions = np.concatenate([np.arange(path.start, len(path.rows)) for path in plan.paths])
        rows = padded(len(tokens))
        kept = _filled(tags, padded(len(tags)))
        hidden = self._model.forward(_filled(tokens, rows), _filled(positions, rows), attend, kept)
        logits = self._model.logits(hidden[: len(tags)]).astype(np.float64)
        new = np.concatenate([path.rows[path.start :] for path in plan.paths])
        self._margins[new[tags]] = logits[:, self._reward.good] - logits[:, self._reward.bad]

    def _complete(self, job: ScoringJob, rows: Ints) -> None:
        tokens = np.array(job.request.tokens[len(job.margins)])
        margins: Sequence[float] = self._margins[rows[tokens == self._reward.tag]].tolist()
        job.margins.append(tuple(margins))
        self._counters.finished["stop"] += 1
        if not job.left:
            self._counters.cached_tokens += job.result().cached_tokens


def _filled(values: Ints, length: int) -> Ints:
    """Append zeros up to a length."""
    result = np.zeros(length, np.int64)
    result[: len(values)] = values
    return result
