"""Grade with killable processes: whatever an answer does to the algebra, a verdict comes in bounded time.

It knows how to keep grader processes and how to ask them; the rules are in `fast` and in the process. A
process is started when it is first needed, so a set of integers starts none.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import workers
from workers.environment import without_secrets
from workers.errors import GradingError
from workers.grading.clusters import cluster
from workers.grading.fast import brackets_differ, grade_fast, is_readable
from workers.grading.normalise import clean
from workers.grading.values import Opaque, read, without_unit
from workers.grading.verdict import Grade, Verdict

METHOD = "math_verify"
_VERDICTS = {
    "equal": Verdict.CORRECT,
    "different": Verdict.WRONG,
    "unparsable": Verdict.UNPARSABLE,
    "gold_unparsable": Verdict.GOLD_UNPARSABLE,
}


@dataclass(frozen=True, slots=True)
class GraderSettings:
    """Bounds of a grader pool."""

    processes: int = 2
    """Comparisons at a time; further ones wait."""
    timeout_s: float = 5.0
    """Longest comparison, measured here; its process is killed and replaced."""
    start_timeout_s: float = 120.0
    """Longest start of a process (it imports SymPy)."""
    memory_bytes: int = 2 << 30
    """Address space of a process."""
    comparisons_per_process: int = 5_000
    """After as many a process is replaced: SymPy's caches only grow."""


class GraderPool:
    """Grader processes, owned by an `async with` block: none outlives it, nor outlives this process."""

    def __init__(self, settings: GraderSettings | None = None) -> None:
        self._settings = settings or GraderSettings()
        self._slots: asyncio.LifoQueue[_Process] = asyncio.LifoQueue()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> GraderPool:
        for _ in range(self._settings.processes):
            process = _Process(self._settings)
            self._stack.push_async_callback(process.stop)
            self._slots.put_nowait(process)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def grade(self, gold: str, answer: str) -> Grade:
        """The grade of an answer (what its box holds), however hostile. GradingError: no process starts."""
        fast = grade_fast(gold, answer)
        return fast or await self._compare(gold, answer, both=brackets_differ(gold, answer))

    async def cluster(self, answers: Sequence[str]) -> list[int]:
        """For each answer the index of the one that stands for its cluster; see `workers.grading.clusters`."""
        return await cluster(answers, self._are_equal, self._equals_itself)

    async def verify_gold(self, gold: str) -> bool:
        """Whether a gold can be read and equals itself, without the help of string equality."""
        if not is_readable(gold):
            return False
        if not _takes_algebra(read(gold).value):
            return True
        return await self._equals_itself(gold)

    async def _equals_itself(self, text: str) -> bool:
        return (await self._compare(text, text, both=False)).verdict is Verdict.CORRECT

    async def _are_equal(self, one: str, other: str) -> bool | None:
        """Equality in both directions; None if there is no verdict."""
        fast = grade_fast(one, other)
        grade = fast or await self._compare(one, other, both=True)
        return {Verdict.CORRECT: True, Verdict.WRONG: False}.get(grade.verdict)

    async def _compare(self, gold: str, answer: str, *, both: bool) -> Grade:
        request = {"gold": _latex(gold), "answer": _latex(answer), "both": both}
        for _ in range(2):
            process = await self._slots.get()
            try:
                result = await process.ask(request)
            except TimeoutError:
                return Grade(Verdict.TIMEOUT, METHOD, f"more than {self._settings.timeout_s:g} s")
            except _EndedError:
                continue  # perhaps it was killed for what it did before
            finally:
                self._slots.put_nowait(process)
            return Grade(_VERDICTS[result], METHOD)
        return Grade(Verdict.CRASHED, METHOD, "two processes ended on it")


def _latex(text: str) -> str:
    return without_unit(clean(text))


def _takes_algebra(value: Any) -> bool:
    return isinstance(value, Opaque) or any(map(_takes_algebra, getattr(value, "items", ())))


class _EndedError(Exception):
    """The process ended before it replied."""


class _Process:
    """One grader process, started at the first question and again after it was killed."""

    def __init__(self, settings: GraderSettings) -> None:
        self._settings = settings
        self._child: asyncio.subprocess.Process | None = None
        self._comparisons = 0

    async def ask(self, request: dict[str, Any]) -> str:
        """The result of one comparison. TimeoutError and `_EndedError` leave a process that starts anew."""
        try:
            child = self._child or await self._start()
            async with asyncio.timeout(self._settings.timeout_s):
                reply = await _exchange(child, request)
        except BaseException:  # also a cancelled caller leaves a process that still computes
            await self.stop()
            raise
        self._comparisons += 1
        if self._comparisons >= self._settings.comparisons_per_process:
            await self.stop()
        return str(reply["result"])

    async def stop(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        child, self._child, self._comparisons = self._child, None, 0
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "workers.grading.process",
            str(self._settings.timeout_s), str(self._settings.memory_bytes),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=_environment(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await _read(child)
        except (TimeoutError, _EndedError) as error:
            raise GradingError(
                f"a grader process did not start within {self._settings.start_timeout_s:g} s, "
                f"or ended at once (exit status {child.returncode}); is math-verify installed?"
            ) from error
        return child


def _environment() -> dict[str, str]:
    """The child finds the same `workers` package, hashes strings the same way each time, and is told no secret."""
    root = str(Path(workers.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return without_secrets(os.environ, PYTHONPATH=path, PYTHONHASHSEED="0")


async def _exchange(child: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        await child.stdin.drain()
    except ConnectionError as error:
        raise _EndedError from error
    return await _read(child)


async def _read(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    line = await child.stdout.readline()
    if not line.endswith(b"\n"):
        raise _EndedError
    reply: dict[str, Any] = json.loads(line)
    return reply
