"""Gives every distinct answer its verdicts, beside the sampling and never on its path.

It asks the store what has no verdict yet, so a crash loses nothing, and a new grader version is the same work as a new
sample. What it grades are distinct answer strings of a problem, not samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.registration import Rules
from orchestrator.store import AnswerRecord, GradeRecord, Store, UngradedAnswer
from orchestrator.store.patience import patiently
from workers.grading import STRICT, Grade, GraderPool, grade_strict

PAGE = 500
PAUSE_S = 1.0
"""At most one look at the store a second while samples stream in."""


class GradingService:
    """Grades what is stored, with every grader that is to give verdicts."""

    def __init__(
        self,
        store: Store,
        pool: GraderPool,
        sweep_id: int,
        rules: Rules,
        note: Callable[[str], None],
    ) -> None:
        self._store = store
        self._pool = pool
        self._sweep_id = sweep_id
        self._rules = rules
        self._note = note
        self._is_awake = asyncio.Event()

    @property
    def primary_id(self) -> int:
        """The grader whose verdicts the results use."""
        return self._rules.primary_id

    def wake(self) -> None:
        """There are new answers."""
        self._is_awake.set()

    async def run(self) -> None:
        """Grade whenever there are new answers, until cancelled."""
        while True:
            await self._is_awake.wait()
            self._is_awake.clear()
            await patiently(self.grade, self._note)
            await asyncio.sleep(PAUSE_S)

    async def grade(self) -> int:
        """Grade all that has no verdict yet; return how many verdicts were given."""
        given = 0
        for name, grader_id in self._rules.grader_ids.items():
            while answers := await self._store.ungraded(grader_id, self._sweep_id, PAGE):
                grades = await asyncio.gather(*(self._grade(name, each) for each in answers))
                await self._store.write_grades(
                    grader_id,
                    [
                        GradeRecord(answer.answer_id, str(grade.verdict), grade.method, grade.detail)
                        for answer, grade in zip(answers, grades, strict=True)
                    ],
                )
                given += len(answers)
        return given

    async def cluster(self) -> None:
        """Group the equal answers of every problem that has ungrouped ones; the vote counts groups, not strings.

        Where samples brought their verdicts along, nothing is known of when two answers are equal: strings are groups.
        """
        grader_id = self.primary_id
        if not self._rules.grader_ids:
            return
        for problem_id in await self._store.unclustered_problems(grader_id, self._sweep_id):
            answers = await self._store.answers_of(problem_id, grader_id)
            groups = await self._pool.cluster([each.text for each in answers])
            await self._store.write_clusters(grader_id, _cluster_ids(answers, groups))

    async def _grade(self, grader: str, answer: UngradedAnswer) -> Grade:
        if grader == STRICT.name:
            return grade_strict(answer.gold, answer.text)
        return await self._pool.grade(answer.gold, answer.text)


def _cluster_ids(answers: Sequence[AnswerRecord], groups: Sequence[int]) -> dict[int, int]:
    """Cluster id of every answer id: the id of the answer that represents its group."""
    return {each.answer_id: answers[group].answer_id for each, group in zip(answers, groups, strict=True)}
