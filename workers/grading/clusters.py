"""Group the distinct answers of a problem, the same way in whatever order they arrived.

Equality as graders decide it is no equivalence relation, so "the group of an answer" must be defined by a procedure:
answers are taken in a fixed order (those that need no algebra first, then short ones first), and each joins the first
representative that it equals in both directions, or else represents a new cluster. It knows no process: `are_equal` is
given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeAlias

from workers.grading.fast import cluster_key
from workers.grading.normalise import canonical
from workers.grading.verdict import MAX_ANSWER_CHARS

Equality: TypeAlias = Callable[[str, str], Awaitable[bool | None]]
MAX_SILENT_COMPARISONS = 2
"""An answer that gave no verdict (timeout, crash, unreadable) as often is compared no further: it is its own cluster."""


async def cluster(answers: Sequence[str], are_equal: Equality) -> list[int]:
    """For each answer, the index of its cluster's representative; a representative has its own index.

    Answers with the same key or canonical string are one cluster; two with different keys are never compared.
    """
    order = sorted(range(len(answers)), key=lambda index: _rank(answers[index]))
    representative = list(range(len(answers)))
    by_key: dict[Hashable, int] = {}
    heads: list[int] = []
    for index in order:
        answer = answers[index]
        head = by_key.get(_identity(answer))
        if head is None:
            head = await _find_head(answers, index, heads, are_equal)
            by_key[_identity(answer)] = head
            if head == index:
                heads.append(index)
        representative[index] = head
    return representative


async def _find_head(answers: Sequence[str], index: int, heads: Sequence[int], are_equal: Equality) -> int:
    """The first representative that equals the answer, or the answer itself."""
    if cluster_key(answers[index]) is not None:
        return index  # all representatives so far have keys as well, and different ones
    silent = 0
    for head in heads:
        if not is_comparable(answers[head]):
            continue
        verdict = await are_equal(answers[head], answers[index])
        if verdict:
            return head
        silent += verdict is None
        if silent >= MAX_SILENT_COMPARISONS:
            break
    return index


def is_comparable(answer: str) -> bool:
    """Whether a representative is worth comparing with at all."""
    return len(answer) <= MAX_ANSWER_CHARS


def _identity(answer: str) -> Hashable:
    key = cluster_key(answer)
    return ("string", canonical(answer)) if key is None else key


def _rank(answer: str) -> tuple[bool, int, str]:
    return (cluster_key(answer) is None, len(answer), answer)
