"""The `models` section of a sweep file: policies, how they sample, and how hard their servers may be driven.

It must not know problems, scorers or strategies.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.nearest import suggestion
from orchestrator.spec.engines import EngineSpec
from orchestrator.spec.fields import Count, Positive, Section, Text, Urls, Variable, refusal
from workers.embedded.catalog import built_in_models
from workers.types import Api

MAX_STOP_STRINGS = 4  # what vLLM and OpenAI accept (VLLM_MAX_STOP_STRINGS)
PLACEHOLDER = "{problem}"
AUTO: Literal["auto"] = "auto"


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
    replica_concurrency: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Requests in flight at any one replica, over all workers."""
    affinity: Literal["problem", "none"] = "problem"
    """Whether requests for one problem prefer one replica (which has the beginning in its cache) while it has room."""
    hedge: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Share of the requests that may be sent a second time, to another replica, when they take much longer than the
    others; the seed makes the copy the same draw, and the later answer is given up."""


class ImportedSpec(Section):
    """Where samples came from that were made elsewhere; `ttc import` writes it."""

    checksum: Text
    """SHA-256 of their file: another file is another generator."""
    has_answers: bool = False
    """Answers are those of the file, and not found by ttc's rules."""
    has_verdicts: bool = False
    """Verdicts are those of the file, and not given by ttc's graders."""


def check_source(served_name: str, *sources: object) -> None:
    """Refuse a model or scorer that is served in no way or in two, or under no name."""
    if sum(bool(each) for each in sources) != 1:
        raise refusal("wants exactly one of embedded, endpoints and engine", "keep one of the three")
    if not served_name:
        remedy = "add the name that the server knows: model: NAME"
        raise refusal("model is required with endpoints and with engine", remedy)


def check_built_in(engine: EngineSpec | None, model: str | None, role: str) -> None:
    """Refuse an engine of ttc's own models that names none of them."""
    known = built_in_models(role)
    if engine is not None and engine.template == "embedded" and model not in known:
        remedy = suggestion(model or "", known, "available")
        raise refusal(f"is no {role} that comes with ttc", remedy, at=("model",))


def built_in_of(engine: EngineSpec | None, model: str | None) -> str | None:
    """The model that comes with ttc, where an engine serves one."""
    return model if engine is not None and engine.template == "embedded" else None


class ModelSpec(Section):
    """A policy: model + prompt + sampling, and where it is served."""

    embedded: Literal["arithmetic"] | None = None
    """A model that comes with ttc, which starts its server itself."""
    imported: ImportedSpec | None = None
    """Its samples were imported (`ttc import` writes this); no more can be drawn."""
    endpoints: Urls = ()
    """Base URLs of the replicas, up to and including /v1; one URL or a list."""
    engine: EngineSpec | None = None
    """How ttc starts its servers, instead of endpoints."""
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
    def built_in(self) -> str | None:
        """Name of the model that comes with ttc; None: its weights are somebody else's."""
        return self.embedded or built_in_of(self.engine, self.model)

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
        check_source(self.served_name, self.embedded, self.endpoints, self.engine, self.imported)
        check_built_in(self.engine, self.model, "policy")
        if PLACEHOLDER not in self.template:
            raise refusal(
                f"does not contain {PLACEHOLDER}", f"put {PLACEHOLDER} where it belongs", at=("prompt",)
            )
        if self.system is not None and self.api is not Api.CHAT:
            raise refusal(
                "is sent by the chat API only", "write api: chat, or put it in prompt", at=("system",)
            )
        return self
