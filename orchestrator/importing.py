"""Solutions made elsewhere become a sweep: stored, graded, voted on, scored and reported like any other.

The file takes the place of workers: what its samples owe is claimed as tasks and delivered as facts, so an import that
was killed goes on from what is stored, and doing it again changes nothing. It must not know the command line.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.execution import planner
from orchestrator.problems.hub import sha256_of
from orchestrator.problems.trajectories import ImportedProblem, ImportedSample, Reading, read_trajectories
from orchestrator.registration import ORIGIN, Note, Registered, problem_records, recall, verify_golds
from orchestrator.spec.file import sweep_from
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import config_json
from orchestrator.store import GoldStatus, GradeRecord, NewTask, Store
from orchestrator.store.text import storable
from workers.answers import extract
from workers.identity import answer_id, content_hash, trajectory_id
from workers.steps import step_ends
from workers.types import (
    FactBatch,
    Outcome,
    SampleTask,
    ScoreStatus,
    StepScores,
    TaskEnd,
    Trajectory,
)

STRATEGY = "imported"
TASKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the command line says about a file."""

    name: str
    """Of the sweep."""
    model: str
    """Name of the model that wrote the samples."""
    reading: Reading
    scorer: str | None
    """Name of the scorer that gave the scores."""
    label_type: str | None
    """What its labels were, for step scores."""

    @property
    def has_answers(self) -> bool:
        """The answers are the file's, and not found by our rules."""
        return "answer" in self.reading.columns or self.reading.answer_after is not None

    @property
    def has_verdicts(self) -> bool:
        """The verdicts are the file's, and not given by our graders."""
        return "verdict" in self.reading.columns


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    sweep: str
    problems: int
    samples: int
    """In the file, and now in the store."""
    added: int
    """Stored by this import."""
    scored: int
    """Samples with scores."""
    unlike_steps: int
    """Of these, samples with another number of scores than steps as ttc cuts them."""


def reading_of(fields: Sequence[str], answer_after: str | None, *, are_logits: bool) -> Reading:
    """How a file is to be read, from `ROLE=COLUMN` texts. Raises UsageError for one that is none."""
    columns: dict[str, str] = {}
    for text in fields:
        role, mark, column = text.partition("=")
        if not (role and mark and column):
            raise UsageError.of(
                "is not ROLE=COLUMN",
                field="--field",
                value=repr(text),
                remedy="write --field text=completion",
            )
        columns[role] = column
    return Reading(columns, answer_after, are_logits)


async def import_file(path: Path, options: ImportOptions, store: Store, note: Note) -> Imported:
    """Store the samples of a file under a sweep of their own. Raises DatasetError for rows that are wrong."""
    problems = await asyncio.to_thread(read_trajectories, path, str(path), options.reading)
    checksum = await asyncio.to_thread(sha256_of, path)
    spec = _spec(path, checksum, problems, options)
    before = await store.find_sweep(options.name)
    config = config_json(spec)
    if before is not None and before.config_hash != content_hash(config):
        raise UsageError(
            f"there is a sweep {options.name!r} already, and it is not an import of this file read this way",
            remedy="choose another --name",
        )
    return await _Importer(spec, options, store, note).run(problems)


def _spec(
    path: Path, checksum: str, problems: Sequence[ImportedProblem], options: ImportOptions
) -> SweepSpec:
    """The sweep file that such samples would have."""
    largest = max(len(each.samples) for each in problems)
    budgets = sorted({*(1 << bit for bit in range(largest.bit_length())), largest})
    data: dict[str, Any] = {
        "name": options.name,
        "problems": {"path": path.name},
        "models": {
            options.model: {
                "imported": {
                    "checksum": checksum,
                    "has_answers": options.has_answers,
                    "has_verdicts": options.has_verdicts,
                },
                "model": options.model,
            }
        },
        "strategies": [{"name": STRATEGY, "kind": "parallel", "policy": options.model, "samples": largest}],
        "budgets": budgets,
    }
    scores = [sample.scores for problem in problems for sample in problem.samples if sample.scores]
    if scores:
        data["scorers"] = {_scorer_name(options): _scorer(checksum, scores, options)}
    return sweep_from(data)


def _scorer_name(options: ImportOptions) -> str:
    return options.scorer or "scorer"


def _scorer(checksum: str, scores: Sequence[Sequence[float]], options: ImportOptions) -> dict[str, Any]:
    origin = {"imported": checksum, "model": _scorer_name(options)}
    if all(len(each) == 1 for each in scores):
        return {"kind": "orm", **origin}
    labels = {"label_type": options.label_type} if options.label_type else {"aggregation": "last"}
    return {"kind": "prm", **origin, **labels}


class _Importer:
    """One import."""

    def __init__(self, spec: SweepSpec, options: ImportOptions, store: Store, note: Note) -> None:
        self._spec = spec
        self._options = options
        self._store = store
        self._note = note
        self._counts: Counter[str] = Counter()
        self._scorer_id: int | None = None

    async def run(self, problems: Sequence[ImportedProblem]) -> Imported:
        """Register and deliver everything."""
        store, spec, config = self._store, self._spec, config_json(self._spec)
        sweep = await store.register_sweep(spec.name, config, content_hash(config), spec.seed)
        ids = await self._register_problems(problems)
        held = dict(zip(ids, problems, strict=True))
        _, registered = await recall(spec.name, store)
        self._scorer_id = next(iter(registered.scorers), None)
        usable = [number for number in await store.usable_problems(ids) if held[number].samples]
        pools = await self._register_pools(registered, {each: len(held[each].samples) for each in usable})
        await self._deliver(registered, pools, held)
        if self._options.has_verdicts:
            await self._judge(registered.rules.primary_id, {each: held[each] for each in usable})
        return Imported(
            sweep.name,
            problems=len(usable),
            samples=sum(len(held[each].samples) for each in usable),
            added=self._counts["added"],
            scored=sum(bool(sample.scores) for each in usable for sample in held[each].samples),
            unlike_steps=self._counts["unlike"],
        )

    async def _register_problems(self, problems: Sequence[ImportedProblem]) -> list[int]:
        dataset = self._spec.problems.path or ""
        ids = await self._store.register_problems(
            problem_records(dataset, [each.problem for each in problems])
        )
        if self._options.has_verdicts:
            await self._store.set_gold_status(dict.fromkeys(ids, GoldStatus.OK))
        else:
            await verify_golds(self._store, ids, self._note)
        return ids

    async def _register_pools(self, registered: Registered, sizes: Mapping[int, int]) -> dict[int, int]:
        """Pools by problem id, each as large as the file makes it, with tasks for what is not stored yet."""
        (generator_id,) = registered.models
        pools: dict[int, int] = {}
        for size in sorted(set(sizes.values())):
            chosen = [problem for problem, its in sizes.items() if its == size]
            pools |= await self._store.register_pools(
                registered.sweep_id, generator_id, self._spec.seed, STRATEGY, chosen, size
            )
        covered: dict[int, list[planner.Span]] = {}
        for span in await self._store.task_spans(registered.sweep_id):
            covered.setdefault(span.pool_id, []).append(planner.Span(span.sample_start, span.sample_count))
        wanted = {pool: sizes[problem] for problem, pool in pools.items()}
        lane = registered.lane_of(generator_id)
        planned = planner.plan(wanted, covered, planner.MAX_TASK_SAMPLES)
        await self._store.add_tasks(
            [NewTask(lane, task.pool_id, task.span.start, task.span.count) for task in planned]
        )
        return pools

    async def _deliver(
        self, registered: Registered, pools: Mapping[int, int], held: Mapping[int, ImportedProblem]
    ) -> None:
        """Do what workers would do, from the file."""
        (generator_id,) = registered.models
        lane = registered.lane_of(generator_id)
        store, sweep_id = self._store, registered.sweep_id
        run_id = await store.start_run(sweep_id, socket.gethostname(), os.getpid())
        try:
            while tasks := await store.claim(sweep_id, lane, run_id, TASKS_AT_ONCE):
                for task in tasks:
                    assert isinstance(task, SampleTask)
                    batch = self._facts(task, held[task.problem_id].samples)
                    await store.write(batch, run_id=run_id, extractor_id=registered.rules.extractor_id)
                    self._counts["added"] += len(batch.trajectories)
        finally:
            await store.release(run_id)
            await store.end_run(run_id, STRATEGY)

    def _facts(self, task: SampleTask, samples: Sequence[ImportedSample]) -> FactBatch:
        indices = [index for start, count in task.spans for index in range(start, start + count)]
        return FactBatch(
            trajectories=tuple(self._trajectory(task, index, samples[index]) for index in indices),
            scores=tuple(
                self._scores(task, index, samples[index]) for index in indices if samples[index].scores
            ),
            ends=(TaskEnd(task.task_id, task.attempt),),
        )

    def _trajectory(self, task: SampleTask, index: int, sample: ImportedSample) -> Trajectory:
        outcome = _outcome(sample)
        answer, method, start = self._answer(sample, outcome)
        ends = tuple(accumulate(map(len, sample.steps))) if sample.steps else step_ends(sample.text)
        self._counts["unlike"] += 1 < len(sample.scores) != len(ends)
        return Trajectory(
            task_id=task.task_id,
            pool_id=task.pool_id,
            problem_id=task.problem_id,
            sample_index=index,
            seed=task.seed_base + index,
            outcome=outcome,
            text=sample.text,
            step_ends=ends,
            answer=answer,
            answer_method=method,
            answer_start=start,
            finish_reason=None,
            completion_tokens=sample.tokens,
            logprob_sum=None,
            latency_s=0.0,
            retries=0,
            replica="",
            error=None,
        )

    def _answer(self, sample: ImportedSample, outcome: Outcome) -> tuple[str | None, str | None, int | None]:
        """Answer, how it was found, and where: by the file, or by our rules."""
        if self._options.has_answers:
            return sample.answer, ORIGIN if sample.answer else None, None
        found = extract(sample.text, outcome)
        return (found.text, found.method, found.start) if found else (None, None, None)

    def _scores(self, task: SampleTask, index: int, sample: ImportedSample) -> StepScores:
        assert self._scorer_id is not None
        subject = trajectory_id(task.pool_id, index)
        return StepScores(task.task_id, subject, self._scorer_id, sample.scores, ScoreStatus.OK)

    async def _judge(self, grader_id: int, problems: Mapping[int, ImportedProblem]) -> None:
        """Store the file's verdicts on answers; an answer with both is what most of its samples say, and is told."""
        said: dict[int, Counter[bool]] = {}
        for number, problem in problems.items():
            for sample in problem.samples:
                answer = self._answer(sample, _outcome(sample))[0]
                if answer is not None and sample.verdict is not None:
                    said.setdefault(answer_id(number, storable(answer)), Counter())[sample.verdict] += 1
        unclear = sum(len(counts) > 1 for counts in said.values())
        if unclear:
            self._note(f"{unclear} of {len(said)} answers are called right and wrong: the majority decides")
        grades = [
            GradeRecord(answer, "correct" if counts[True] > counts[False] else "wrong", ORIGIN)
            for answer, counts in said.items()
        ]
        await self._store.write_grades(grader_id, grades)


def _outcome(sample: ImportedSample) -> Outcome:
    if sample.is_truncated:
        return Outcome.TRUNCATED
    return Outcome.COMPLETE if sample.text.strip() else Outcome.EMPTY
