"""The thread that decodes and scores, seen from asyncio: ask, await, cancel to give back what is held.

Everything that decides lives in `batch.py` and `scores.py`; here are one thread that lets them take turns, one
queue of commands into it, and futures out of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from workers.embedded import card as cards
from workers.embedded import model as network
from workers.embedded.batch import Batch, Generation, Request
from workers.embedded.card import Card
from workers.embedded.counters import Counters
from workers.embedded.scores import Scorer, Scoring, Texts

DEFAULT_SLOTS = 128
CACHED_PROMPT_TOKENS = 16_384

Command = Callable[[], None]
Result = TypeVar("Result", covariant=True)
Wish = TypeVar("Wish", contravariant=True)


class Job(Protocol[Result]):
    """A request under way."""

    def result(self) -> Result:
        """Give what was asked for, once the job is reported as complete."""


class Machine(Protocol[Wish, Result]):
    """A state machine that the thread drives: `batch.py` decodes, `scores.py` scores."""

    @property
    def is_idle(self) -> bool:
        """True when a step would do nothing."""

    def submit(self, request: Wish) -> Job[Result]:
        """Queue a request."""

    def cancel(self, job: Any) -> None:
        """Drop what is left of a job of this machine."""

    def step(self) -> Sequence[Job[Result]]:
        """Do a bounded piece of work; give the jobs complete now."""


class EngineError(RuntimeError):
    """The decoding thread has ended; nothing can be generated any more."""


class Engine:
    """Generates samples and scores texts in one worker thread; use it as an async context manager."""

    def __init__(self, batch: Batch, card: Card, scorer: Scorer | None = None) -> None:
        self.card = card
        self.failed = asyncio.Event()
        """Set when the thread has died of `failure`."""
        self.failure: Exception | None = None
        self._batch, self._scorer = batch, scorer
        self._machines: list[Machine[Any, Any]] = [batch] if scorer is None else [batch, scorer]
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._futures: dict[Job[Any], asyncio.Future[Any]] = {}  # touched by the thread alone
        self._pending: set[asyncio.Future[Any]] = set()  # touched by the event loop alone
        self._is_stopping = False
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.put(self._stop)
        await asyncio.to_thread(self._thread.join)
        self._end()

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._batch.counters

    @property
    def running(self) -> int:
        """Samples in the batch."""
        return self._batch.running

    @property
    def waiting(self) -> int:
        """Samples without a slot, and texts without scores."""
        return self._batch.waiting + (self._scorer.waiting if self._scorer else 0)

    async def generate(self, request: Request) -> Generation:
        """Draw the samples of one request. Cancelling frees their slots before the next token is made.

        Raises EngineError when the decoding thread has ended.
        """
        return await self._ask(self._batch, request)

    async def score(self, request: Texts) -> Scoring:
        """Score texts with a reward model. Cancelling drops those that are not done yet.

        Raises EngineError when the decoding thread has ended.
        """
        assert self._scorer is not None, "this model is a policy"
        return await self._ask(self._scorer, request)

    async def _ask(self, machine: Machine[Wish, Result], request: Wish) -> Result:
        if self._has_ended:
            raise EngineError(EngineError.__doc__) from self.failure
        future: asyncio.Future[Result] = self._loop.create_future()
        jobs: list[Job[Result]] = []

        def submit() -> None:
            jobs.append(machine.submit(request))
            self._futures[jobs[0]] = future

        def cancel() -> None:
            if self._futures.pop(jobs[0], None) is not None:
                machine.cancel(jobs[0])

        self._pending.add(future)
        self._commands.put(submit)
        try:
            return await future
        except asyncio.CancelledError:
            self._commands.put(cancel)
            raise
        finally:
            self._pending.discard(future)

    def _run(self) -> None:
        """Work until told to stop. Whatever goes wrong ends the engine and reaches everybody who waits."""
        try:
            while self._obey():
                done = [job for machine in self._machines if not machine.is_idle for job in machine.step()]
                if done:
                    results = [(self._futures.pop(job), job.result()) for job in done]
                    self._loop.call_soon_threadsafe(_resolve, results)
        except Exception as error:  # any error at all: this is the boundary of the thread
            self.failure = error
            self._loop.call_soon_threadsafe(self._end)

    def _obey(self) -> bool:
        """Carry out the commands that have come in; sleep while there is nothing to do. False: stop."""
        while not self._is_stopping and (self._is_idle or not self._commands.empty()):
            self._commands.get()()
        return not self._is_stopping

    @property
    def _is_idle(self) -> bool:
        return all(machine.is_idle for machine in self._machines)

    def _stop(self) -> None:
        self._is_stopping = True

    def _end(self) -> None:
        """Fail everybody who still waits (runs in the event loop)."""
        self._has_ended = True
        if self.failure is not None:
            self.failed.set()
        for future in self._pending:
            if not future.done():
                future.set_exception(EngineError(EngineError.__doc__))


def load(folder: Path, *, slots: int = DEFAULT_SLOTS, cached_tokens: int = CACHED_PROMPT_TOKENS) -> Engine:
    """Make an engine from a Hugging Face Llama folder; the model is named after it.

    Raises UnsupportedModelError when the folder does not hold a model that can be run.
    """
    model = network.load(folder)
    card = cards.load(folder, model.architecture)
    batch = Batch(model, card.text, card.end_ids, slots=slots, cached_tokens=cached_tokens)
    if card.reward is None:
        return Engine(batch, card)
    return Engine(batch, card, Scorer(model, card.reward, batch.counters, cached_tokens=cached_tokens))


def _resolve(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if not future.done():
            future.set_result(result)
