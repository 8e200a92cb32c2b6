"""The `scorers` section of a sweep file: process and outcome reward models, and judges.

It must not know models, strategies or selectors; what a wire format means is in `workers.rewards`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.spec.engines import EngineSpec
from orchestrator.spec.fields import Count, Section, Text, Urls, Variable, refusal
from orchestrator.spec.models import (
    EndpointLimits,
    SamplingSpec,
    built_in_of,
    check_built_in,
    check_source,
)
from workers.steps import Aggregation
from workers.types import TooLong, Transport

LabelType = Literal["hard", "soft"]
PLAIN_FORMATS = ("qwen", "skywork")
LABELLED_FORMATS = ("math-shepherd", "rlhflow-deepseek", "rlhflow-mistral")
"""Formats whose scores are the probabilities of two label tokens."""
_DEFAULT_AGGREGATION = {"hard": Aggregation.MIN, "soft": Aggregation.LAST}


class ScorerSpec(Section):
    """What every scorer has: a model that is served somewhere, and limits."""

    endpoints: Urls = ()
    """Base URLs of the replicas, up to and including /v1; one URL or a list."""
    engine: EngineSpec | None = None
    """How ttc starts its servers, instead of endpoints."""
    imported: Text | None = None
    """Checksum of the file that its scores came from (`ttc import` writes it); it gives no others."""
    model: Text | None = None
    """Name that is sent to the server; the embedded model's own name by default."""
    revision: Text | None = None
    """Revision of the weights, where the name alone does not settle them; part of the fingerprint."""
    parameters: Count | None = None
    """Number of parameters, for FLOPs (2 x parameters x tokens read)."""
    api_key_env: Variable | None = None
    """NAME of the environment variable that holds the key of the server."""
    texts_per_request: Annotated[int, Field(ge=1, le=1024)] = 16
    """Solutions of a problem that one request asks about."""
    too_long: TooLong = TooLong.REFUSE
    """What to do with a solution that is too long for the scorer: refuse (no score) or truncate (first steps)."""
    limits: EndpointLimits = EndpointLimits()
    """How hard the server may be driven."""

    @property
    def built_in(self) -> str | None:
        """Name of the model that comes with ttc; None: its weights are somebody else's."""
        return self.shipped or built_in_of(self.engine, self.model)

    @property
    def shipped(self) -> str | None:
        """Name of the model that comes with ttc, where `embedded` says so."""
        return None

    @property
    def served_name(self) -> str:
        """Name that is sent to the server."""
        return self.model or self.shipped or ""

    @model_validator(mode="after")
    def _check_source(self) -> ScorerSpec:
        name = self.imported or self.served_name  # imported scores need none
        check_source(name, self.shipped, self.endpoints, self.engine, self.imported)
        return self


class PrmScorer(ScorerSpec):
    """A process reward model: one score a step."""

    kind: Literal["prm"]
    """A process reward model."""
    embedded: Literal["arithmetic-prm-soft", "arithmetic-prm-hard"] | None = None
    """A reward model that comes with ttc, which starts its server itself."""
    format: (
        Literal[
            "qwen",
            "math-shepherd",
            "rlhflow-deepseek",
            "rlhflow-mistral",
            "skywork",
            "generative",
            "embedded",
        ]
        | None
    ) = None
    """How a solution is written for this model, and where its scores are read."""
    label_type: LabelType | None = None
    """What its labels were: hard (a rollout succeeded) or soft (the share that did)."""
    aggregation: Aggregation | None = None
    """How step scores become one; default: last for soft labels, min for hard ones."""
    transport: Transport = Transport.AUTO
    """Which call of the server gives the scores; auto: found out by asking."""
    step_tag: Text | None = None
    """Mark at the end of a step; default: the format's own."""
    good_token: Text | None = None
    """Label token of a good step; default: the format's own."""
    bad_token: Text | None = None
    """Label token of a bad step; default: the format's own."""
    prompt: Text | None = None
    """Template with {problem} and {solution} (format generative only); default: the built-in one."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.0, max_tokens=4096)
    """How verdicts are drawn (format generative only)."""

    @property
    def shipped(self) -> str | None:
        """Name of the model that comes with ttc, where `embedded` says so."""
        return self.embedded

    @property
    def wire_format(self) -> str:
        """The format, its default filled in."""
        return self.format or "embedded"

    @property
    def labels(self) -> LabelType | None:
        """What its labels were, as far as that is known."""
        if self.built_in is not None:
            return "hard" if self.built_in.endswith("hard") else "soft"
        return self.label_type

    @property
    def step_aggregation(self) -> Aggregation:
        """The aggregation, its default filled in (Snell 2408.03314 uses last, Wang 2312.08935 min)."""
        if self.aggregation is not None:
            return self.aggregation
        return _DEFAULT_AGGREGATION[self.labels or "soft"]

    @model_validator(mode="after")
    def _check(self) -> PrmScorer:
        check_built_in(self.engine, self.model, "prm")
        if self.format is None and self.built_in is None and not self.imported:
            raise refusal("format is required with endpoints", "name the wire format, say format: qwen")
        if self.labels is None and self.aggregation is None:
            remedy = "add label_type: hard or soft (it decides how step scores become one), or aggregation"
            raise refusal("wants label_type or aggregation", remedy)
        if self.prompt is not None and self.format != "generative":
            raise refusal("is for format: generative only", "remove it", at=("prompt",))
        return self


class OrmScorer(ScorerSpec):
    """An outcome reward model: one score a solution."""

    kind: Literal["orm"]
    """An outcome reward model."""
    embedded: Literal["arithmetic-orm"] | None = None
    """A reward model that comes with ttc, which starts its server itself."""
    format: Literal["outcome", "embedded-orm"] | None = None
    """How a solution is written for this model; default: outcome, the problem and the solution as a conversation."""
    transport: Transport = Transport.AUTO
    """Which call of the server gives the score; auto: found out by asking."""
    system: Text | None = None
    """System message of the conversation that is scored."""
    is_logit: bool = False
    """The server gives raw logits: the sigmoid is applied to them."""

    @property
    def shipped(self) -> str | None:
        """Name of the model that comes with ttc, where `embedded` says so."""
        return self.embedded

    @property
    def wire_format(self) -> str:
        """The format, its default filled in."""
        return self.format or ("embedded-orm" if self.built_in else "outcome")

    @model_validator(mode="after")
    def _check(self) -> OrmScorer:
        check_built_in(self.engine, self.model, "orm")
        return self


class JudgeScorer(ScorerSpec):
    """A language model that is asked whether a solution is right."""

    kind: Literal["judge"]
    """A language model as a judge."""
    prompt: Text | None = None
    """Template with {problem} and {solution}; default: the built-in one."""
    system: Text | None = None
    """System message."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.0)
    """How verdicts are drawn."""
    judgements: Annotated[int, Field(ge=1, le=256)] = 1
    """Verdicts drawn for a solution; its score is their mean."""

    @model_validator(mode="after")
    def _check(self) -> JudgeScorer:
        check_built_in(self.engine, self.model, "policy")
        if self.judgements > 1 and self.sampling.temperature == 0:
            remedy = "raise sampling.temperature, or ask once"
            raise refusal("temperature 0 gives the same verdict every time", remedy, at=("judgements",))
        return self


AnyScorer = Annotated[PrmScorer | OrmScorer | JudgeScorer, Field(discriminator="kind")]
