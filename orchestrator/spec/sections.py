"""The sweep file as typed values: problems, models, scorers, strategies, selectors, budgets, limits.

Why it exists: everything that a user may write is declared here once, with its meaning; the JSON Schema for
editors, the defaults and the errors all come from these classes. Adding a kind of strategy, selector or
scorer is one class and one name in the union below it. What several fields must agree on is checked in
`spec_checks`. It must not know YAML, files, the network, Ray or SQL; it never holds a key or a password, only
the name of an environment variable that does.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.spec.fields import (
    Choice,
    Count,
    Name,
    Positive,
    Section,
    Text,
    Urls,
    Variable,
    as_column,
    as_kind,
    check_store,
    refusal,
)
from workers.identity import MAX_SAMPLES_PER_POOL
from workers.types import Api

MAX_STOP_STRINGS = 4  # what vLLM and OpenAI accept (VLLM_MAX_STOP_STRINGS)
PLACEHOLDER = "{problem}"
AUTO: Literal["auto"] = "auto"


class AnswerField(Section):
    """Where the gold answer of a problem stands."""

    column: Text
    """Column of the file that holds the answer."""
    after: Text | None = None
    """Take the text after the last occurrence of this mark ("####" in GSM8K)."""
    boxed: bool = False
    """Take the content of the last \\boxed{} (files of MATH hold only the solution)."""

    @model_validator(mode="after")
    def _check(self) -> AnswerField:
        if self.after is not None and self.boxed:
            raise refusal("after and boxed exclude each other", "keep one of the two", at=("boxed",))
        return self


class FieldMap(Section):
    """Which column of the file holds what; a column left out is looked for under its usual names."""

    id: Text | None = None
    """Identifier of the problem (id, unique_id, problem_id); without one it is made from the statement."""
    statement: Text | None = None
    """Statement of the problem (problem, question, statement, prompt)."""
    answer: (
        Annotated[AnswerField, BeforeValidator(as_column, json_schema_input_type=str | AnswerField)] | None
    ) = None
    """Gold answer (answer, gold, target): a column, or {column, after} or {column, boxed}."""
    level: Text | None = None
    """Difficulty as a whole number, "Level 5" counts as 5 (level, difficulty)."""
    subject: Text | None = None
    """Subject (subject, type, category)."""


class HubFile(Section):
    """One file of a dataset repository on the Hugging Face Hub; HF_ENDPOINT names another host."""

    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    """Repository, as OWNER/NAME."""
    file: Annotated[str, Field(pattern=r"^[\w.-][\w./ -]*$")]
    """Path of the file in the repository."""
    revision: Annotated[str, Field(pattern=r"^\w[\w./-]*$")]
    """Commit; a branch or tag moves, so it is allowed only together with sha256."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the file; a download with another one is refused."""

    @model_validator(mode="after")
    def _check(self) -> HubFile:
        if ".." in self.file.split("/"):
            raise refusal("leaves the repository", "write the path inside the repository", at=("file",))
        if self.sha256 is None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            remedy = "write the 40 characters of the commit, or add sha256"
            raise refusal("is a name that may move", remedy, at=("revision",))
        return self


class ProblemsSpec(Section):
    """Which problems, in which order: exactly one of path, preset and hub."""

    path: Text | None = None
    """File of problems (.jsonl, .jsonl.gz, .csv, .parquet), relative to the sweep file."""
    preset: Literal["arithmetic", "math500", "math", "gsm8k"] | None = None
    """A set that ttc knows: arithmetic comes with it, the others are downloaded from the Hub and cached."""
    hub: HubFile | None = None
    """A file of a dataset repository on the Hugging Face Hub."""
    fields: FieldMap = FieldMap()
    """Which column holds what."""
    filter: dict[Text, Choice] = Field(default_factory=dict)
    """Keep the problems whose column equals a value, or one of a list of values; any column of the file."""
    shuffle: Annotated[int, Field(ge=0)] | None = None
    """Seed of the order; without it the order of the file is kept."""
    per_level: Count | None = None
    """Keep this many problems of each level, the first in order."""
    limit: Count | None = None
    """Keep this many problems, the first in order, after filter, shuffle and per_level."""

    @model_validator(mode="after")
    def _check(self) -> ProblemsSpec:
        given = [name for name in ("path", "preset", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            remedy = "keep one of the three" if given else "add path: FILE, or preset: arithmetic"
            raise refusal(f"wants exactly one of path, preset and hub, and has {found}", remedy)
        return self


class SamplingSpec(Section):
    """How samples are drawn; every parameter is sent with every request, since servers' defaults differ."""

    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Softmax temperature; 0 draws the same sample every time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the probability mass that is sampled from."""
    top_k: Annotated[int, Field(ge=-1)] = -1
    """Number of most likely tokens that are sampled from; -1: all."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Tokens after which a sample is cut and counted as truncated."""
    stop: Annotated[tuple[Text, ...], Field(max_length=MAX_STOP_STRINGS)] = ()
    """Strings that end a sample, four at most."""

    @model_validator(mode="after")
    def _check(self) -> SamplingSpec:
        if self.top_k == 0:
            raise refusal("0 tokens to sample from", "use -1 to sample from all", at=("top_k",))
        return self


class EndpointLimits(Section):
    """How hard all workers together may drive the replicas of a model; no part of any result's meaning."""

    concurrency: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Requests in flight, over all workers and replicas; each worker gets its share."""
    adaptive: bool = True
    """Cut the concurrency when the server asks to slow down, and grow it back."""
    requests_per_minute: Positive | None = None
    """Ceiling of requests a minute."""
    tokens_per_minute: Positive | None = None
    """Ceiling of tokens a minute, prompts included."""
    tokens_per_second_floor: Positive = 5.0
    """Slowest decoding that counts as alive; with max_tokens it gives the deadline of a call."""
    deadline_base_s: Positive = 60.0
    """Seconds granted to a call on top of its decoding time."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Attempts of one request before its samples count as failed."""


class ModelSpec(Section):
    """A policy: model + prompt + sampling, and where it is served."""

    embedded: Literal["arithmetic"] | None = None
    """A model that comes with ttc, which starts its server itself."""
    endpoints: Urls = ()
    """Base URLs of the replicas, up to and including /v1; one URL or a list."""
    model: Text | None = None
    """Name that is sent to the server; the embedded model's own name by default."""
    revision: Text | None = None
    """Revision of the weights, where the name alone does not settle them; part of the fingerprint."""
    api: Api = Api.COMPLETIONS
    """Which call draws the samples: completions or chat."""
    prompt: Text | None = None
    """Template with {problem}; for chat, the user's message. Default: {problem} (and a blank line)."""
    system: Text | None = None
    """System message (chat only)."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""
    samples_per_request: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = AUTO
    """n of a request; auto: 16 where the server derives the seeds of the children as vLLM does, else 1."""
    parameters: Count | None = None
    """Number of parameters, for FLOPs (2 x parameters x tokens)."""
    api_key_env: Variable | None = None
    """NAME of the environment variable that holds the key of the server."""
    limits: EndpointLimits = EndpointLimits()
    """How hard the server may be driven."""

    @property
    def served_name(self) -> str:
        """Name that is sent to the server."""
        return self.model or self.embedded or ""

    @property
    def template(self) -> str:
        """Prompt template, the default filled in."""
        return self.prompt or (PLACEHOLDER if self.api is Api.CHAT else f"{PLACEHOLDER}\n\n")

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if (self.embedded is None) == (not self.endpoints):
            raise refusal("wants exactly one of embedded and endpoints", "keep one of the two")
        if not self.served_name:
            raise refusal(
                "model is required with endpoints", "add the name that the server knows: model: NAME"
            )
        if PLACEHOLDER not in self.template:
            raise refusal(
                f"does not contain {PLACEHOLDER}", f"put {PLACEHOLDER} where it belongs", at=("prompt",)
            )
        if self.system is not None and self.api is not Api.CHAT:
            raise refusal(
                "is sent by the chat API only", "write api: chat, or put it in prompt", at=("system",)
            )
        return self


class ScorerSpec(Section):
    """What every scorer has: a model that is served somewhere, and limits."""

    endpoints: Urls
    """Base URLs of the replicas; one URL or a list."""
    model: Text
    """Name that is sent to the server."""
    revision: Text | None = None
    """Revision of the weights; part of the fingerprint."""
    parameters: Count | None = None
    """Number of parameters, for FLOPs."""
    api_key_env: Variable | None = None
    """NAME of the environment variable that holds the key of the server."""
    limits: EndpointLimits = EndpointLimits()
    """How hard the server may be driven."""


class PrmScorer(ScorerSpec):
    """A process reward model: one score a step."""

    kind: Literal["prm"]
    """A process reward model."""
    format: Literal[
        "qwen", "skywork", "math-shepherd", "rlhflow-deepseek", "rlhflow-mistral", "llemma", "embedded"
    ]
    """How a solution is written for this model, and where its scores are read."""
    label_type: Literal["hard", "soft"]
    """What its labels were: hard (a rollout succeeded) or soft (the share that did)."""
    aggregation: Literal["last", "min", "prod", "mean"] | None = None
    """How step scores become one; default: last for soft labels, min for hard ones."""

    @property
    def step_aggregation(self) -> str:
        """The aggregation, its default filled in (Snell 2408.03314 uses last, Wang 2312.08935 min)."""
        return self.aggregation or ("min" if self.label_type == "hard" else "last")


class OrmScorer(ScorerSpec):
    """An outcome reward model: one score a solution."""

    kind: Literal["orm"]
    """An outcome reward model."""
    format: Literal["qwen-rm", "skywork", "embedded"]
    """How a solution is written for this model, and where its score is read."""


class JudgeScorer(ScorerSpec):
    """A language model that is asked whether a solution is right."""

    kind: Literal["judge"]
    """A language model as a judge."""
    prompt: Text | None = None
    """Template with {problem} and {solution}; default: the built-in one."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.0)
    """How verdicts are drawn."""


AnyScorer = Annotated[PrmScorer | OrmScorer | JudgeScorer, Field(discriminator="kind")]


class ParallelStrategy(Section):
    """Independent samples; every smaller budget is a part of them."""

    kind: Literal["parallel"]
    """Independent samples."""
    name: Name
    """Name in results."""
    policy: Name
    """Name of the model that draws."""
    samples: Annotated[int, Field(ge=1, lt=MAX_SAMPLES_PER_POOL)]
    """Samples drawn for every problem."""


AnyStrategy = ParallelStrategy
"""Every kind of strategy that runs; the second one makes this a union with `Field(discriminator="kind")`."""


class MajoritySelector(Section):
    """The most frequent answer (plurality, ties broken without bias)."""

    kind: Literal["majority"]
    """The most frequent answer."""


class PassSelector(Section):
    """pass@k: whether any of k samples is right (an oracle, the ceiling of every other selector)."""

    kind: Literal["pass"]
    """pass@k."""


_Selectors = Annotated[MajoritySelector | PassSelector, Field(discriminator="kind")]
AnySelector = Annotated[_Selectors, BeforeValidator(as_kind, json_schema_input_type=str | _Selectors)]


class SweepLimits(Section):
    """Caps of the whole sweep, and how it is spread."""

    tokens: Count | None = None
    """Generated tokens after which no further task starts."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Worker actors."""
    task_samples: Count | Literal["auto"] = AUTO
    """Samples in one task; auto: as many as take some seconds."""


class SweepSpec(Section):
    """A sweep: problems x models x strategies x budgets."""

    name: Name
    """Name of the sweep; running a file with the same name resumes and grows it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed from which every sample's own seed is derived."""
    store: Annotated[str, AfterValidator(check_store)] | None = None
    """URL of the database; --db and TTC_DATABASE_URL override it; a SQLite path is relative to this file."""
    problems: ProblemsSpec
    """Which problems."""
    models: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    """Policies by name."""
    scorers: dict[Name, AnyScorer] = Field(default_factory=dict)
    """Scorers by name."""
    strategies: Annotated[tuple[AnyStrategy, ...], Field(min_length=1, max_length=1000)]
    """How compute is spent."""
    selectors: Annotated[tuple[AnySelector, ...], Field(min_length=1)] = (
        MajoritySelector(kind="majority"),
        PassSelector(kind="pass"),
    )
    """How one answer is chosen from many; a name, or a mapping with kind."""
    budgets: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    """Numbers of generations to report; default: powers of two up to the largest samples."""
    limits: SweepLimits = SweepLimits()
    """Caps of the whole sweep."""

    @property
    def budget_grid(self) -> tuple[int, ...]:
        """The budgets, ascending, the default filled in."""
        largest = max(strategy.samples for strategy in self.strategies)
        return tuple(sorted(self.budgets)) or tuple(1 << bit for bit in range(largest.bit_length()))
