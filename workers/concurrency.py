"""Coroutines that belong together, and the errors of task groups. It must not know what the work is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise first


async def first_that(work: Iterable[asyncio.Task[T]], is_wanted: Callable[[T], bool]) -> asyncio.Task[T]:
    """The first task to end with a wanted result; if none does, one that ended last. An error is raised."""
    running = set(work)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        found = next((each for each in done if is_wanted(each.result())), None)
        if found is not None or not running:
            return found or done.pop()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, however deep; an error that is no group is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
