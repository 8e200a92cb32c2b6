"""Group the distinct answers of a problem, the same way in whatever order they arrived.

Equality as graders decide it is no equivalence relation, so "the group of an answer" must be defined by a
procedure: answers are taken in a fixed order (those that need no algebra first, then short ones first), and
each joins the first representative that it equals in both directions, or else represents a new cluster. It
knows no process: how to compare is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeAlias

from workers.grading.fast import cluster_key
from workers.grading.normalise import canonical

Equality: TypeAlias = Callable[[str, str], Awaitable[bool | None]]
"""Whether two answers are equal in both directions; None if there is no verdict."""
Sanity: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether an answer can be compared at all, in bounded time: one that hangs must not slow its neighbours."""
MAX_SILENT_COMPARISONS = 2
"""An answer that gave no verdict (timeout, crash, unreadable) as often becomes a cluster of its own."""


async def cluster(answers: Sequence[str], are_equal: Equality, is_sane: Sanity) -> list[int]:
    """For each answer, the index of its cluster's representative; a representative has its own index.

    Answers with the same key or canonical string are one cluster; two with different keys are never compared.
    """
    representative = list(range(len(answers)))
    known: dict[Hashable, int] = {}
    heads: list[int] = []
    for index in sorted(range(len(answers)), key=lambda index: _rank(answers[index])):
        answer = answers[index]
        identity = _identity(answer)
        if identity not in known:
            known[identity] = index
            if not takes_algebra(answer):
                heads.append(index)
            elif await is_sane(answer):
                known[identity] = await _find_head(answers, index, heads, are_equal)
                heads += [index] if known[identity] == index else []
        representative[index] = known[identity]
    return representative


def takes_algebra(answer: str) -> bool:
    """Whether an answer has no key that tells by itself what it equals."""
    return cluster_key(answer) is None


async def _find_head(answers: Sequence[str], index: int, heads: Sequence[int], are_equal: Equality) -> int:
    """The first representative that equals the answer, or the answer itself."""
    silent = 0
    for head in heads:
        verdict = await are_equal(answers[head], answers[index])
        if verdict:
            return head
        silent += verdict is None
        if silent >= MAX_SILENT_COMPARISONS:
            break
    return index


def _identity(answer: str) -> Hashable:
    key = cluster_key(answer)
    return ("string", canonical(answer)) if key is None else key


def _rank(answer: str) -> tuple[bool, int, str]:
    return (takes_algebra(answer), len(answer), answer)
