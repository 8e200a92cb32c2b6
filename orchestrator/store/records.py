"""What goes into the store and comes out of it, besides the facts of `workers.types`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep, as registered."""

    id: int
    name: str
    config_json: str
    config_hash: str
    seed: int
    state: str
    cancel_requested: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """A problem to register; `content_hash` covers statement and answer."""

    dataset: str
    external_id: str
    statement: str
    answer: str
    content_hash: str
    level: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class GeneratorRecord:
    """A generator to register."""

    name: str
    fingerprint: str
    model: str
    config_json: str
    revision: str | None = None
    parameters: int | None = None
    """Number of parameters of the model, for FLOPs."""


@dataclass(frozen=True, slots=True)
class ScorerRecord:
    """A scorer to register."""

    name: str
    fingerprint: str
    kind: str
    config_json: str
    label_type: str | None = None
    parameters: int | None = None
    """Number of parameters of the model, for FLOPs."""


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """A lane: what serves tasks of one kind with one model."""

    id: int
    kind: str
    generator_id: int | None
    scorer_id: int | None


@dataclass(frozen=True, slots=True)
class GoldToVerify:
    """A problem whose reference answer nobody has tried to read yet."""

    problem_id: int
    external_id: str
    answer: str


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has not ended in good order: running, or killed."""

    run_id: int
    sweep_id: int
    host: str
    pid: int
    details: str
    silent_s: float
    """Since its last heartbeat."""
    tasks: int
    """Tasks of the sweep that it holds."""


@dataclass(frozen=True, slots=True)
class PoolContent:
    """What a pool holds, for a forecast; errors are not content."""

    samples: int
    """How many of the samples wanted are stored."""
    completion_tokens: int
    latency_s: float
    """Seconds of requests, summed over samples."""


@dataclass(frozen=True, slots=True)
class PoolWanted:
    """Samples 0 .. samples_wanted-1 of a pool, wanted by a sweep."""

    pool_id: int
    problem_id: int
    generator_id: int
    samples_wanted: int
    strategy: str


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """The span of an existing task that draws samples."""

    pool_id: int
    sample_start: int
    sample_count: int
    state: int


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to add."""

    lane_id: int
    pool_id: int
    sample_start: int
    sample_count: int


@dataclass(frozen=True, slots=True)
class ProcedureRecord:
    """A way to search, to register."""

    fingerprint: str
    kind: str
    budget: int
    params_json: str
    scorer_id: int


@dataclass(frozen=True, slots=True)
class SearchCost:
    """What the search for one problem has consumed."""

    strategy: str
    problem_id: int
    nodes: int
    """Generations: every node that was drawn, thrown away or not."""
    tokens: int
    """Generated, thrown away or not."""
    discarded_tokens: int
    """Of nodes that were given up."""
    scorer_tokens: int
    """Read by the scorer."""
    prompt_tokens: int
    """Read by the policy."""
    cached_tokens: int
    """Of those, the ones that its server had in its cache."""
    policy_parameters: int | None
    scorer_parameters: int | None
    seconds: float | None
    """From its beginning to its end (of the life that ended it)."""


@dataclass(frozen=True, slots=True)
class SampleCost:
    """What the independent samples of a strategy have consumed, in all."""

    samples: int
    requests: int
    prompt_tokens: int
    """Read by the policy."""
    policy_parameters: int | None
    readings: tuple[tuple[int, int | None], ...]
    """Tokens read by each scorer that guides a search of the sweep, and the number of its parameters."""
    seconds: Mapping[int, float]
    """Mean over problems of the slowest of the first N samples, by budget N."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of a search tree, to be shown."""

    path: str
    parent_path: str
    child_index: int
    text: str
    ended: str
    score: float | None
    pruned_reason: str | None


@dataclass(frozen=True, slots=True)
class RolloutDemand:
    """A strategy wants the prefixes of stored solutions completed."""

    strategy: str
    source: str
    """Strategy that draws the solutions."""
    solutions: int
    """Of every problem, the first so many samples."""
    generator_id: int
    """Who completes."""
    lane_id: int
    seed: int
    """The sweep's."""
    rollouts: int
    """Completions of every prefix."""


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """What a committed batch came to. `ended` and `stale` hold (task id, attempt)."""

    stored: int
    """Trajectories of the batch: all are durable now, whether new or known."""
    ended: tuple[tuple[int, int], ...] = ()
    stale: tuple[tuple[int, int], ...] = ()
    """Ends of leases that are no longer current: nothing was changed by them."""


@dataclass(frozen=True, slots=True)
class UngradedAnswer:
    """An answer the grader has not seen."""

    answer_id: int
    problem_id: int
    text: str
    gold: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two graders say the same of the distinct answers of a sweep that both have decided."""

    answers: int
    agreed: int


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """A distinct answer of a problem."""

    answer_id: int
    text: str
    verdict: str | None
    cluster_id: int | None


@dataclass(frozen=True, slots=True)
class GradeRecord:
    """A verdict: `correct`, `wrong`, or why the grader could not decide."""

    answer_id: int
    verdict: str
    method: str | None = None
    detail: str | None = None
    cluster_id: int | None = None


@dataclass(frozen=True, slots=True)
class SweepPool:
    """A pool of whole solutions that a sweep looks at."""

    pool_id: int
    problem_id: int
    generator_id: int
    level: str | None
    gold: str
    samples_wanted: int


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """A stored solution, with what the completions of its beginnings came to."""

    trajectory_id: int
    dataset: str
    problem_id: str
    """The dataset's own name of the problem."""
    level: str | None
    statement: str
    steps: tuple[str, ...]
    """Texts of its steps, separators included."""
    verdict: str
    """Of the whole solution, in the words of the views."""
    rollouts: tuple[int, ...]
    """Completions with a verdict, of every beginning but the whole."""
    correct: tuple[int, ...]
    """Of these, the right ones."""
    is_whole: bool
    """Every beginning has all the completions that are wanted."""


@dataclass(frozen=True, slots=True)
class ScoreTexts:
    """The scores that one scorer gave samples of a pool, gathered by the database: a million rows are slow as rows.

    Three lists with commas between, in one order; what was not scored is not there.
    """

    indices: str
    """Sample indices: 0,1,2."""
    statuses: str
    """ok,ok,error."""
    values: str
    """JSON arrays: [0.5,0.25],[1.0],[]."""


@dataclass(frozen=True, slots=True)
class SampleTexts:
    """The stored samples of a pool, gathered by the database as `ScoreTexts` are, in the order of their indices."""

    indices: str
    outcomes: str
    answers: str
    """Ids of the answers that the extractor found; null: none."""
    tokens: str
    """Completion tokens; null: not known."""


@dataclass(frozen=True, slots=True)
class PoolSamples:
    """The samples that a sweep wants of a pool, as far as they are stored."""

    pool_id: int
    samples: SampleTexts
    scores: Mapping[int, ScoreTexts]
    """By scorer id."""


@dataclass(frozen=True, slots=True)
class SelectorRecord:
    """A selector to register."""

    name: str
    kind: str
    scorer: str | None
    aggregation: str | None


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """An estimate over problems; `level` is empty for all of them."""

    strategy: str
    selector_id: int
    budget: int
    metric: str
    estimator_version: str
    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    mc_error: float
    problems: int
    level: str = ""


@dataclass(frozen=True, slots=True)
class EstimateRecord:
    """An estimate for one problem; `signature` stands for all it was computed from."""

    selector_id: int
    budget: int
    problem_id: int
    value: float
    mc_error: float
    signature: int


@dataclass(frozen=True, slots=True)
class Scoring:
    """What has become of the samples that a scorer was to score: five counts that never mix."""

    scorer_id: int
    scorer: str
    scored: int
    truncated: int
    """Scored in their first steps only."""
    too_long: int
    unparsed: int
    invalid: int
    errors: int

    @property
    def settled(self) -> int:
        """Samples that are not to be scored again."""
        return self.scored + self.truncated + self.too_long + self.unparsed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is."""

    sweep_id: int
    name: str
    state: str
    samples_wanted: int
    samples_stored: int
    tasks_pending: int
    tasks_running: int
    tasks_done: int
    tasks_failed: int


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns and rows of a user's query; at most as many rows as asked for."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
