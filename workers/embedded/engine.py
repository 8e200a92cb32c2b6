"""The thread that decodes, seen from asyncio: ask for samples, await them, cancel to give their slots back.

Everything that decides lives in `batch.py`; here are one thread, one queue of commands into it, and futures
out of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from workers.embedded import card as cards
from workers.embedded import model as network
from workers.embedded.batch import Batch, Counters, Generation, Job, Request
from workers.embedded.card import Card

DEFAULT_SLOTS = 128
CACHED_PROMPT_TOKENS = 16_384

Command = Callable[[], None]


class EngineError(RuntimeError):
    """The decoding thread has ended; nothing can be generated any more."""


class Engine:
    """Generates samples in one worker thread; use it as an async context manager."""

    def __init__(self, batch: Batch, card: Card) -> None:
        self.card = card
        self.failed = asyncio.Event()
        """Set when the thread has died of `failure`."""
        self.failure: Exception | None = None
        self._batch = batch
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._jobs: dict[asyncio.Future[Generation], Job] = {}  # touched by the thread alone
        self._pending: set[asyncio.Future[Generation]] = set()  # touched by the event loop alone
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
        """Samples without a slot."""
        return self._batch.waiting

    async def generate(self, request: Request) -> Generation:
        """Draw the samples of one request. Cancelling frees their slots before the next token is made.

        Raises EngineError when the decoding thread has ended.
        """
        if self._has_ended:
            raise EngineError(EngineError.__doc__) from self.failure
        future: asyncio.Future[Generation] = self._loop.create_future()
        self._pending.add(future)
        self._commands.put(lambda: self._submit(request, future))
        try:
            return await future
        except asyncio.CancelledError:
            self._commands.put(lambda: self._cancel(future))
            raise
        finally:
            self._pending.discard(future)

    def _run(self) -> None:
        """Decode until told to stop. Whatever goes wrong ends the engine and reaches everybody who waits."""
        try:
            while self._obey():
                finished = set(self._batch.step())
                for future in [future for future, job in self._jobs.items() if job in finished]:
                    self._loop.call_soon_threadsafe(_resolve, future, self._jobs.pop(future).result())
        except Exception as error:  # any error at all: this is the boundary of the thread
            self.failure = error
            self._loop.call_soon_threadsafe(self._end)

    def _obey(self) -> bool:
        """Carry out the commands that have come in; sleep while there is nothing to decode. False: stop."""
        while not self._is_stopping and (self._batch.is_idle or not self._commands.empty()):
            self._commands.get()()
        return not self._is_stopping

    def _submit(self, request: Request, future: asyncio.Future[Generation]) -> None:
        self._jobs[future] = self._batch.submit(request)

    def _cancel(self, future: asyncio.Future[Generation]) -> None:
        job = self._jobs.pop(future, None)
        if job is not None:
            self._batch.cancel(job)

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
    return Engine(Batch(model, card.text, card.end_ids, slots=slots, cached_tokens=cached_tokens), card)


def _resolve(future: asyncio.Future[Generation], generation: Generation) -> None:
    if not future.done():
        future.set_result(generation)
