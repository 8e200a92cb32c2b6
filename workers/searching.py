"""Runs one search: a strategy over a tree that is recorded as it grows, and replayed where it was recorded before.

The strategy awaits samples and scores; what an earlier attempt has recorded under a node's path is answered from there,
the rest is asked of the servers and delivered before the strategy sees it. Seeds derive from the problem and the path,
so a node that was drawn and lost is the same node when it is drawn again, and searches of other kinds and budgets draw
the same first steps. It must not know other tasks, nor what any strategy does.
"""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from workers.answers import extract
from workers.concurrency import leaves, together
from workers.delivery import Deliveries, Delivery
from workers.drawing import drawing_usage
from workers.errors import Draining, SearchStopped, StrategyError, WorkerError
from workers.generation import ModelClient, Sample
from workers.identity import seed_base, trajectory_id
from workers.rewards import RewardClient, Solution
from workers.scoring import scoring_usage
from workers.steps import DEFAULT_SEPARATOR
from workers.strategies.base import Candidate, Limits, Node, NodeEnd, Strategy
from workers.strategies.registry import build
from workers.types import (
    GeneratorSettings,
    NodeScore,
    Outcome,
    Pruning,
    ScorerSettings,
    ScoreStatus,
    SearchTask,
    StepScores,
    Trajectory,
    TreeNode,
)

Steps = tuple[int, ...]
"""Path of a node: child indices from the root."""

_SHOWN = 80
_OUTCOMES = {
    NodeEnd.FINISHED: Outcome.COMPLETE,
    NodeEnd.STEP: Outcome.TRUNCATED,  # the depth ran out
    NodeEnd.TRUNCATED: Outcome.TRUNCATED,
    NodeEnd.EMPTY: Outcome.EMPTY,
}


async def run_search(
    task: SearchTask,
    generator: GeneratorSettings,
    client: ModelClient,
    scorer: ScorerSettings,
    judge: RewardClient,
    queue: Deliveries,
) -> bool:
    """Deliver the tree and the solutions of a search; False if it was cut short because the worker drains."""
    params = json.loads(task.params)
    strategy: Strategy = build(task.kind, params.get("options", {}))
    search = RecordedSearch(task, Limits(**params["limits"]), generator, client, scorer, judge, queue)
    started_s = time.monotonic()
    try:
        candidates = await _run(strategy, search, task)
        await search.deliver(candidates, time.monotonic() - started_s)
    except Draining:
        return False
    return True


async def _run(strategy: Strategy, search: RecordedSearch, task: SearchTask) -> Sequence[Candidate]:
    """What a strategy returns; a defect of its own is an error of the sweep that says where it is.

    A failure of ours that it met on the way, be it in a task group of its own, is raised as it is.
    """
    try:
        return await strategy(search)
    except Exception as error:
        ours = next((leaf for leaf in leaves(error) if isinstance(leaf, WorkerError)), None)
        if ours is not None:
            raise ours from None
        first = next(leaves(error))
        where = traceback.extract_tb(first.__traceback__)[-1]
        raise StrategyError(
            f"strategy {task.kind!r} failed on problem {task.statement[:_SHOWN]!r}: "
            f"{type(first).__name__}: {first} (line {where.lineno} of {Path(where.filename).name})"
        ) from error


class RecordedSearch:
    """A search over what is recorded and what the servers say: `workers.strategies.Search`, made durable."""

    def __init__(
        self,
        task: SearchTask,
        limits: Limits,
        generator: GeneratorSettings,
        client: ModelClient,
        scorer: ScorerSettings,
        judge: RewardClient,
        queue: Deliveries,
    ) -> None:
        self._task = task
        self._generator = generator
        self._client = client
        self._scorer = scorer
        self._judge = judge
        self._queue = queue
        self._recorded: Mapping[str, TreeNode] = {each.path: each for each in task.nodes}
        self._offered: Mapping[str, TreeNode] = {
            each.path: replace(each, pool_id=task.pool_id) for each in task.offered_nodes
        }
        self._values: dict[Steps, float] = {_parsed(each.path): each.value for each in task.scores}
        self._offered_values: dict[Steps, float] = {
            _parsed(each.path): each.value for each in task.offered_scores
        }
        self._greedy: set[Steps] = set()
        self._nodes: dict[Steps, Node] = {}
        self._seeds: dict[Steps, int] = {}
        self._children: dict[Steps, int] = {}
        self._pruned: dict[Steps, str] = {}
        self.budget = task.budget
        self.limits = limits
        self.rng = random.Random(f"{task.seed}/{task.content_hash}/{task.kind}/{task.budget}")
        self.root = Node((), 0, "", 0, 0, NodeEnd.STEP)

    async def sample(self, node: Node, n: int, *, greedy: bool = False) -> Sequence[Node]:
        """`n` further children of a node: recorded ones, and the others drawn."""
        first = self._children.get(node.path, 0)
        self._children[node.path] = first + n
        indices = range(first, first + n)
        known = {
            index: self._recorded[name]
            for index in indices
            if (name := _name((*node.path, index))) in self._recorded
        }
        taken = self._take(node, [index for index in indices if index not in known], greedy)
        known |= taken
        missing = [index for index in indices if index not in known]
        drawn = await together(
            self._draw(node, start, count, greedy) for start, count in self._requests(missing)
        )
        known |= {int(each.path.rpartition(".")[2]): each for some in drawn for each in some}
        return [self._child(node, known[index]) for index in indices]

    async def score(self, nodes: Sequence[Node]) -> Sequence[float]:
        """The value of each beginning: that of its last step. All steps of a text that is scored are recorded."""
        self._take_values(nodes)
        wanted = {self._texts(node): node for node in nodes if node.path not in self._values}
        batches = _cut(list(wanted.values()), self._scorer.texts_per_request)
        await together(self._ask(batch) for batch in batches)
        shared: list[NodeScore] = []
        for node in nodes:
            if node.path not in self._values:  # a sibling with the same text was asked about
                shared += self._note(node, self._values_of(wanted[self._texts(node)]))
        if shared:
            self._queue.put_nowait(Delivery(node_scores=tuple(shared)))
        return [self._values[node.path] for node in nodes]

    def prune(self, nodes: Iterable[Node], why: str) -> None:
        """Remember why nodes are given up; the first reason stands."""
        for node in nodes:
            self._pruned.setdefault(node.path, why)

    async def deliver(self, candidates: Sequence[Candidate], elapsed_s: float) -> None:
        """Hand on what was found: solutions with the scores of their steps, and the fates of the other nodes."""
        await self.score([each.node for each in candidates if each.node.end is NodeEnd.FINISHED])
        task = self._task
        self._queue.put_nowait(
            Delivery(
                trajectories=tuple(
                    self._trajectory(index, each.node, elapsed_s) for index, each in enumerate(candidates)
                ),
                scores=tuple(
                    self._step_scores(index, each.node)
                    for index, each in enumerate(candidates)
                    if each.node.end is NodeEnd.FINISHED
                ),
                prunings=tuple(
                    Pruning(task.pool_id, _name(path), why) for path, why in sorted(self._pruned.items())
                ),
            )
        )

    # --- what other searches have found out ---------------------------------------------------------------------------

    def _take(self, node: Node, indices: Sequence[int], greedy: bool) -> dict[int, TreeNode]:
        """Children that another search has drawn, which are recorded as if they were drawn here."""
        if greedy or self._is_greedy(node.path):
            return {}
        found = {index: self._offered.get(_name((*node.path, index))) for index in indices}
        taken = {index: record for index, record in found.items() if record is not None}
        if taken:
            self._queue.put_nowait(Delivery(nodes=tuple(taken.values())))
        return taken

    def _take_values(self, nodes: Sequence[Node]) -> None:
        """Scores that another search has asked for, of the same beginnings; they are recorded here too."""
        taken: list[NodeScore] = []
        for node in nodes:
            new = [path for path in _walk(node.path) if path not in self._values]
            if new and all(path in self._offered_values for path in new) and not self._is_greedy(node.path):
                self._values |= {path: self._offered_values[path] for path in new}
                scorer_id = self._scorer.scorer_id
                taken += [
                    NodeScore(self._task.pool_id, _name(path), scorer_id, self._values[path]) for path in new
                ]
        if taken:
            self._queue.put_nowait(Delivery(node_scores=tuple(taken)))

    def _is_greedy(self, path: Steps) -> bool:
        """Was any step of it drawn at temperature 0? Then another search may have sampled others under its path."""
        return any(each in self._greedy for each in _walk(path))

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _requests(self, missing: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Runs of neighbours among the missing children, each a request."""
        size = self._generator.samples_per_request
        start = 0
        for end in range(1, len(missing) + 1):
            is_run = end < len(missing) and missing[end] == missing[end - 1] + 1 and end - start < size
            if not is_run:
                yield missing[start], end - start
                start = end

    async def _draw(self, node: Node, start: int, count: int, greedy: bool) -> tuple[TreeNode, ...]:
        room = min(self.limits.max_step_tokens, self.limits.max_tokens - node.total_tokens)
        base = self._seed_base(node.path)
        if room <= 0:
            nodes = tuple(
                self._unfinished(node, index, base + index, greedy) for index in range(start, start + count)
            )
            self._queue.put_nowait(Delivery(nodes=nodes))
            return nodes
        draw = await self._client.draw(
            _stepwise(self._generator, room, greedy=greedy),
            self._task.statement,
            seed=base + start,
            count=count,
            affinity=self._task.problem_id,
            prefix=self._text(node),
        )
        failed = next((each for each in draw.samples if each.outcome is Outcome.ERROR), None)
        if failed is not None:
            raise SearchStopped(f"a step could not be drawn: {failed.error}")
        nodes = tuple(
            self._drawn(node, start + offset, base + start + offset, sample, greedy)
            for offset, sample in enumerate(draw.samples)
        )
        self._queue.put_nowait(Delivery(nodes=nodes, usage=drawing_usage(self._task, draw)))
        return nodes

    def _seed_base(self, path: Steps) -> int:
        """Children of equal paths draw alike in all searches for a problem; those of the root as its samples do."""
        problem = self._task.content_hash
        return seed_base(
            self._task.seed, f"{problem}/{_name(path)}" if path else problem, self._generator.fingerprint
        )

    def _unfinished(self, node: Node, index: int, seed: int, greedy: bool) -> TreeNode:
        """A child of a beginning that has used all its tokens: nothing is asked."""
        return TreeNode(
            self._task.pool_id, _name((*node.path, index)), node.depth + 1, "", 0, NodeEnd.TRUNCATED, "length",
            seed, None, greedy,
        )  # fmt: skip

    def _drawn(self, node: Node, index: int, seed: int, sample: Sample, greedy: bool) -> TreeNode:
        goes_on = sample.stop_reason == DEFAULT_SEPARATOR
        return TreeNode(
            pool_id=self._task.pool_id,
            path=_name((*node.path, index)),
            depth=node.depth + 1,
            text=sample.text + DEFAULT_SEPARATOR if goes_on else sample.text,
            completion_tokens=sample.completion_tokens or 0,
            ended=_end(sample, goes_on=goes_on, is_first=not node.path),
            finish_reason=sample.finish_reason,
            seed=seed,
            logprob_sum=sample.logprob_sum,
            is_greedy=greedy,
        )

    def _child(self, parent: Node, record: TreeNode) -> Node:
        path = _parsed(record.path)
        total = parent.total_tokens + record.completion_tokens
        node = Node(
            path,
            record.depth,
            record.text,
            record.completion_tokens,
            total,
            NodeEnd(record.ended),
            record.logprob_sum,
        )
        self._nodes[path], self._seeds[path] = node, record.seed
        if record.is_greedy:
            self._greedy.add(path)
        return node

    # --- scoring ------------------------------------------------------------------------------------------------------

    async def _ask(self, nodes: Sequence[Node]) -> None:
        solutions = [Solution(self._steps(node)) for node in nodes]
        scoring = await self._judge.score(
            self._scorer, self._task.statement, solutions, affinity=self._task.problem_id
        )
        usage = scoring_usage(self._task, scoring)
        new: list[NodeScore] = []
        for node, score in zip(nodes, scoring.scores, strict=True):
            if score.status in (ScoreStatus.ERROR, ScoreStatus.INVALID):
                self._queue.put_nowait(Delivery(usage=usage))
                raise SearchStopped(f"a step could not be scored: {score.detail}")
            # A beginning that the scorer cannot read is worth nothing: it is not gone on with, and not elected.
            is_read = score.status is ScoreStatus.OK
            new += self._note(node, score.values if is_read else [0.0] * len(self._steps(node)))
        self._queue.put_nowait(Delivery(node_scores=tuple(new), usage=usage))

    def _note(self, node: Node, values: Sequence[float]) -> list[NodeScore]:
        """Remember the values of the steps of a beginning; those that were not known yet, to be recorded."""
        found: list[NodeScore] = []
        given, value = iter(values), 0.0
        for path in _walk(node.path):
            if self._nodes[path].text.strip():  # a step without text adds nothing
                value = next(given)
            if path not in self._values:
                self._values[path] = value
                found.append(NodeScore(self._task.pool_id, _name(path), self._scorer.scorer_id, value))
        return found

    def _values_of(self, node: Node) -> list[float]:
        return [self._values[path] for path in _walk(node.path) if self._nodes[path].text.strip()]

    # --- solutions ----------------------------------------------------------------------------------------------------

    def _texts(self, node: Node) -> tuple[str, ...]:
        return tuple(self._nodes[path].text for path in _walk(node.path))

    def _text(self, node: Node) -> str:
        return "".join(self._texts(node))

    def _steps(self, node: Node) -> tuple[str, ...]:
        return tuple(text for text in self._texts(node) if text.strip())

    def _trajectory(self, index: int, node: Node, elapsed_s: float) -> Trajectory:
        text, outcome = self._text(node), _OUTCOMES[node.end]
        extraction = extract(text, outcome)
        logprobs = [self._nodes[path].logprob for path in _walk(node.path)]
        return Trajectory(
            task_id=self._task.task_id,
            pool_id=self._task.pool_id,
            problem_id=self._task.problem_id,
            sample_index=index,
            seed=self._seeds[node.path],
            outcome=outcome,
            text=text,
            step_ends=tuple(_ends(self._steps(node))),
            answer=extraction.text if extraction else None,
            answer_method=extraction.method if extraction else None,
            answer_start=extraction.start if extraction else None,
            finish_reason=None,
            completion_tokens=node.total_tokens,
            logprob_sum=None if None in logprobs else sum(each for each in logprobs if each is not None),
            latency_s=elapsed_s,
            retries=0,
            replica="",
            error=None,
        )

    def _step_scores(self, index: int, node: Node) -> StepScores:
        return StepScores(
            self._task.task_id,
            trajectory_id(self._task.pool_id, index),
            self._scorer.scorer_id,
            tuple(self._values_of(node)),
            ScoreStatus.OK,
        )


def _stepwise(generator: GeneratorSettings, max_tokens: int, *, greedy: bool) -> GeneratorSettings:
    """The generator, one step at a time."""
    sampling = generator.sampling
    temperature = 0.0 if greedy else sampling.temperature
    return replace(
        generator,
        sampling=replace(
            sampling,
            temperature=temperature,
            max_tokens=min(max_tokens, sampling.max_tokens),
            stop=(DEFAULT_SEPARATOR, *sampling.stop),
        ),
    )


def _end(sample: Sample, *, goes_on: bool, is_first: bool) -> NodeEnd:
    if sample.outcome in (Outcome.TRUNCATED, Outcome.OVERFLOW, Outcome.TIMED_OUT):
        return NodeEnd.TRUNCATED
    if not sample.text.strip():
        return NodeEnd.EMPTY if goes_on or is_first else NodeEnd.FINISHED
    return NodeEnd.STEP if goes_on else NodeEnd.FINISHED


def _walk(path: Steps) -> Iterator[Steps]:
    """A path and those of its ancestors, from the first step on."""
    return (path[:length] for length in range(1, len(path) + 1))


def _name(path: Steps) -> str:
    return ".".join(map(str, path))


def _parsed(name: str) -> Steps:
    return tuple(map(int, name.split(".")))


def _cut(nodes: Sequence[Node], size: int) -> Iterator[Sequence[Node]]:
    return (nodes[start : start + size] for start in range(0, len(nodes), size))


def _ends(steps: Sequence[str]) -> Iterator[int]:
    end = 0
    for step in steps:
        end += len(step)
        yield end
