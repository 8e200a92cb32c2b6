"""The records that cross between orchestrator and workers: tasks go down, facts come up. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Api(StrEnum):
    """Which OpenAI-compatible call draws samples."""

    COMPLETIONS = "completions"
    CHAT = "chat"


class Outcome(StrEnum):
    """How a generation ended. Every outcome is stored; only `ERROR` may be drawn again (same seed, same draw)."""

    COMPLETE = "complete"
    """The model ended its answer (end-of-sequence token or stop string)."""
    TRUNCATED = "truncated"
    """Cut at `max_tokens`."""
    OVERFLOW = "overflow"
    """Cut by, or refused for, the context length of the model."""
    REFUSED = "refused"
    """A content filter refused."""
    EMPTY = "empty"
    """The model ended at once, without text."""
    TIMED_OUT = "timed_out"
    """No reply within the deadline derived from `max_tokens`, on every allowed attempt."""
    ERROR = "error"
    """The endpoint failed on every allowed attempt; counted apart from wrong, drawn again on the next run."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters; all are sent with every request, since servers' own defaults differ."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    """-1: off (not sent to servers that do not know it)."""
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where a model is served, and how hard it may be driven by one worker."""

    name: str
    """Name of the model in the sweep file, used in logs and events."""
    urls: tuple[str, ...]
    """Base URLs of the replicas, up to and including `/v1`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself never travels nor is stored."""
    concurrency: int = 64
    """Ceiling of requests in flight from this worker, over all replicas."""
    adaptive: bool = True
    """Cut the concurrency on 429 and grow it back; the ceiling stays `concurrency`."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens_per_second_floor: float = 5.0
    """Slowest decoding that is still considered alive; with `max_tokens` it gives the deadline of a call."""
    deadline_base_s: float = 60.0
    """Seconds granted to a call on top of its decoding time (queueing, prefill)."""
    max_attempts: int = 6
    """Attempts of one request before it becomes an `ERROR` or `TIMED_OUT` outcome."""
    replica_concurrency: int | None = None
    """Ceiling of requests in flight from this worker at any one replica."""
    has_affinity: bool = True
    """Requests for one problem prefer one replica."""
    hedge_share: float = 0.0
    """Requests that may be sent a second time, to another replica, when they take long; as a share of all."""
    engines: str | None = None
    """Name of the engines behind it, whose URLs change while it is used (`ReplicaSet`); None: `urls` holds for good."""


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """Where the engines of one endpoint serve now."""

    engines: str
    urls: tuple[str, ...]
    """Base URLs; none: requests wait until there is one."""
    version: int
    """Of two that overtook each other, the higher holds."""


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """A policy as a worker needs it: model + prompt + sampling + where it is served."""

    generator_id: int
    fingerprint: str
    model: str
    api: Api
    template: str
    """Prompt with the field `{problem}`; for chat, the content of the user's message."""
    system: str | None
    sampling: Sampling
    samples_per_request: int
    """n of a request; 1 where the server does not derive the seeds of the children as vLLM does."""
    endpoint: EndpointSettings


class ScorerKind(StrEnum):
    """What a scorer gives a value to."""

    PRM = "prm"
    """A process reward model: one value a step."""
    ORM = "orm"
    """An outcome reward model: one value a solution."""
    JUDGE = "judge"
    """A language model that is asked for a verdict on a solution: 1 right, 0 wrong."""


class ScoreStatus(StrEnum):
    """What became of scoring a solution. `ERROR` and `INVALID` are tried again by the next run; the rest is final."""

    OK = "ok"
    """A value for every step (prm), or one (orm, judge)."""
    TRUNCATED = "truncated"
    """Values of the first steps only, because the sweep allows to cut what is too long for the scorer."""
    TOO_LONG = "too_long"
    """The scorer's context is too short for this solution: no value."""
    UNPARSED = "unparsed"
    """The verdict of a judge or of a generative verifier could not be read: no value."""
    INVALID = "invalid"
    """The scorer broke its contract: another number of scores than steps, NaN, or a value outside of [0, 1]."""
    ERROR = "error"
    """The endpoint failed on every allowed attempt."""


REDONE = frozenset({ScoreStatus.INVALID, ScoreStatus.ERROR})
"""Statuses of scores that the next run asks for again."""


class Transport(StrEnum):
    """Which call of a server gives the scores; what a server offers is found out before a sweep relies on it."""

    AUTO = "auto"
    POOLING = "pooling"
    """vLLM's `/pooling`."""
    CLASSIFY = "classify"
    """vLLM's and SGLang's `/classify`."""
    SCORE = "score"
    """vLLM's `/score` (cross-encoders)."""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`, as plugins of reward models answer it: one raw value a token."""
    COMPLETIONS = "completions"
    """`/v1/completions` with the log-probabilities of the two label tokens (`logprob_token_ids`)."""
    GENERATIVE_SCORING = "generative_scoring"
    """vLLM's `/generative_scoring`."""
    CHAT = "chat"
    """`/v1/chat/completions`: judges and generative verifiers."""


class TooLong(StrEnum):
    """What to do with a solution that the scorer's context is too short for."""

    REFUSE = "refuse"
    """Store no value, and count it."""
    TRUNCATE = "truncate"
    """Score the steps that fit, store them as `ScoreStatus.TRUNCATED`, and count it."""


@dataclass(frozen=True, slots=True)
class RewardOptions:
    """What a wire format leaves open; part of the scorer's meaning, but for `transport`."""

    transport: Transport = Transport.AUTO
    too_long: TooLong = TooLong.REFUSE
    prompt: str | None = None
    """Template of judges and generative verifiers, with {problem} and {solution}; None: the built-in one."""
    system: str | None = None
    """System message; None: the format's own."""
    sampling: Sampling = Sampling(temperature=0.0)
    """How judges and generative verifiers draw their verdicts."""
    judgements: int = 1
    """Verdicts drawn for a solution; its value is their mean."""
    is_logit: bool = False
    """The server gives raw logits: the sigmoid is applied here."""
    step_tag: str | None = None
    """Mark at the end of a step; None: the format's own."""
    good_token: str | None = None
    bad_token: str | None = None
    """The two label tokens, for models whose scores are token probabilities; None: the format's own."""


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """A scorer as a worker needs it: model + wire format + where it is served."""

    scorer_id: int
    fingerprint: str
    kind: ScorerKind
    format: str
    """Name of the wire format (`workers.rewards`)."""
    model: str
    options: RewardOptions
    texts_per_request: int
    endpoint: EndpointSettings


@dataclass(frozen=True, slots=True)
class SampleTask:
    """Draw some samples of one pool. `spans` lists what is still missing as (start, count), ascending."""

    task_id: int
    attempt: int
    """Fence: the store ends the task only for its current attempt."""
    lane_id: int
    pool_id: int
    problem_id: int
    statement: str
    generator_id: int
    seed_base: int
    spans: tuple[tuple[int, int], ...]
    prefix: str = ""
    """Beginning of a solution that the samples go on with; empty: they begin the solution."""

    @property
    def size(self) -> int:
        """Number of samples still missing."""
        return sum(count for _, count in self.spans)


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """A stored sample that wants a score."""

    trajectory_id: int
    text: str
    step_ends: tuple[int, ...]
    answer: str | None


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """Score some samples of one pool. `items` lists those that have no final score yet, ascending."""

    task_id: int
    attempt: int
    """Fence: the store ends the task only for its current attempt."""
    lane_id: int
    pool_id: int
    problem_id: int
    statement: str
    scorer_id: int
    items: tuple[ScoreItem, ...]

    @property
    def size(self) -> int:
        """Number of samples that want a score."""
        return len(self.items)


@dataclass(frozen=True, slots=True)
class SearchTask:
    """Search for solutions of one problem. `nodes` and `scores` are what earlier attempts have recorded."""

    task_id: int
    attempt: int
    """Fence: the store ends the task only for its current attempt."""
    lane_id: int
    pool_id: int
    problem_id: int
    statement: str
    content_hash: str
    """Of the problem: with `seed`, what the seeds of all nodes derive from."""
    seed: int
    """The sweep's."""
    generator_id: int
    scorer_id: int
    kind: str
    """Name of the strategy: a built-in one, or `module:function`."""
    params: str
    """Its parameters, as JSON."""
    budget: int
    nodes: tuple[TreeNode, ...] = ()
    scores: tuple[NodeScore, ...] = ()
    offered_nodes: tuple[TreeNode, ...] = ()
    """Steps that other searches have drawn, sampled all the way from the root: under the same path, the same draws."""
    offered_scores: tuple[NodeScore, ...] = ()
    """Their scores, by this search's scorer."""

    @property
    def size(self) -> int:
        """Solutions it may find at most."""
        return self.budget


Task = SampleTask | ScoreTask | SearchTask
"""What a worker is given."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One complete solution, as drawn: sample `sample_index` of a pool."""

    task_id: int
    pool_id: int
    problem_id: int
    sample_index: int
    seed: int
    outcome: Outcome
    text: str
    step_ends: tuple[int, ...]
    """Character offset (code points) of the end of each step in `text`, separator included."""
    answer: str | None
    answer_method: str | None
    answer_start: int | None
    finish_reason: str | None
    completion_tokens: int | None
    logprob_sum: float | None
    latency_s: float
    retries: int
    replica: str
    error: str | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by position: five times faster than the default for a slotted dataclass."""
        return Trajectory, (
            self.task_id, self.pool_id, self.problem_id, self.sample_index, self.seed, self.outcome, self.text,
            self.step_ends, self.answer, self.answer_method, self.answer_start, self.finish_reason,
            self.completion_tokens, self.logprob_sum, self.latency_s, self.retries, self.replica, self.error,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One step in a search tree, as drawn; holds only its own part of the text."""

    pool_id: int
    path: str
    """Child indices from the root, with dots: the key of the node within its search."""
    depth: int
    text: str
    completion_tokens: int
    ended: str
    """A `workers.strategies.NodeEnd`."""
    finish_reason: str | None
    seed: int
    logprob_sum: float | None
    is_greedy: bool = False


@dataclass(frozen=True, slots=True)
class NodeScore:
    """What the scorer of a search says of the beginning that ends with a node."""

    pool_id: int
    path: str
    scorer_id: int
    value: float


@dataclass(frozen=True, slots=True)
class Pruning:
    """A node that a search does not go on with, and why."""

    pool_id: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepScores:
    """What one scorer says of one trajectory: a value a step (prm), one in all (orm, judge), or why there is none."""

    task_id: int
    trajectory_id: int
    scorer_id: int
    values: tuple[float, ...]
    status: ScoreStatus
    detail: str | None = None
    """What was wrong, if the status is not OK."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by position, as trajectories are."""
        return StepScores, (
            self.task_id, self.trajectory_id, self.scorer_id, self.values, self.status, self.detail,
        )  # fmt: skip


class Role(StrEnum):
    """Which model consumed something."""

    POLICY = "policy"
    SCORER = "scorer"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt of a task has consumed since its last report."""

    task_id: int
    attempt: int
    role: Role = Role.POLICY
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    wasted_requests: int = 0
    """Requests whose reply was lost or unusable; what they generated is unknown."""
    seconds: float = 0.0
    """Sum over requests of the time from sending to reply."""

    def __add__(self, other: Usage) -> Usage:
        """The sum of two reports on one attempt and role."""
        return Usage(
            self.task_id,
            self.attempt,
            self.role,
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.retries + other.retries,
            self.wasted_requests + other.wasted_requests,
            self.seconds + other.seconds,
        )


def merged_usage(parts: Iterable[Usage]) -> tuple[Usage, ...]:
    """One report for each attempt and role."""
    totals: dict[tuple[int, int, Role], Usage] = {}
    for part in parts:
        key = (part.task_id, part.attempt, part.role)
        totals[key] = totals[key] + part if key in totals else part
    return tuple(totals.values())


DRAINED = "drained"
"""`error_kind` of an attempt that was cut short because its worker was told to send nothing more: no failure."""


STOPPED = "search_stopped"
"""`error_kind` of a search that could not go on: a failure of this task, and of no other."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """The last word on an attempt: all its facts were delivered before, or it gave up with `error_kind`."""

    task_id: int
    attempt: int
    error_kind: str | None = None
    error_text: str | None = None


@dataclass(frozen=True, slots=True)
class FactBatch:
    """Facts that travel and commit together, in one transaction (invariant I1)."""

    trajectories: tuple[Trajectory, ...] = ()
    nodes: tuple[TreeNode, ...] = ()
    node_scores: tuple[NodeScore, ...] = ()
    prunings: tuple[Pruning, ...] = ()
    scores: tuple[StepScores, ...] = ()
    usage: tuple[Usage, ...] = ()
    ends: tuple[TaskEnd, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something an operator may want to read afterwards: a replica ejected, a limit cut, a pause."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReplicaHealth:
    """A replica as its worker sees it now."""

    url: str
    is_up: bool
    in_flight: int
    limit: int
    requests: int
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What a worker has for the engines of one endpoint."""

    engines: str
    in_flight: int
    waiting: int
    """Requests that wait for a slot or for a replica."""


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Answer to the coordinator's watchdog."""

    replicas: tuple[ReplicaHealth, ...]
    in_flight: int
    queued_samples: int
    paused_reason: str | None
    events: tuple[Event, ...]
    failures: dict[str, int]
    """Failed requests by kind since the worker started."""
    loads: tuple[EngineLoad, ...] = ()
    """Of endpoints that engines serve."""
