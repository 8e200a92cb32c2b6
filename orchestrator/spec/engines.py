"""The `engine` of a model or scorer: how ttc starts its servers, on what, and how many.

It must not know models or scorers, nor how a process is started; nothing here changes what a result means.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.errors import mask_secrets
from orchestrator.spec.fields import Count, Name, Positive, Section, Text, Variable, refusal
from workers.engines.records import PLACEHOLDERS

TEMPLATES = ("vllm", "sglang", "llama.cpp", "embedded")
ON_GPU = ("vllm", "sglang")
"""Templates that want a GPU unless the file says otherwise."""
_BRACES = re.compile(r"\{([A-Za-z_]+)\}")
_SHELL = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1"})
_KEY_OPTION = re.compile(r"--[a-z-]*(api-key|token|secret|password)(=.*)?$")


class ReplicaRange(Section):
    """As many replicas as there is work for."""

    min: Count = 1
    """Replicas that always run."""
    max: Count
    """Replicas at most."""
    requests: Count | None = None
    """Requests, under way and waiting, that one replica is there for; default: limits.replica_concurrency, else
    limits.concurrency / max."""
    idle_s: Positive = 120.0
    """A replica that has not been needed for so long is stopped."""

    @model_validator(mode="after")
    def _check(self) -> ReplicaRange:
        if self.min > self.max:
            raise refusal(f"is more than max, {self.max}", "lower min, or raise max", at=("min",))
        return self


class EngineSpec(Section):
    """How ttc starts the servers of a model itself, watches them, and starts them again."""

    template: Literal["vllm", "sglang", "llama.cpp", "embedded"] | None = None
    """A command that ttc knows."""
    command: Text | None = None
    """A command of your own, with {port} and, where wanted, {model}, {host} and {python}; no shell reads it."""
    args: tuple[Text, ...] = ()
    """Further words of the command, with the same placeholders."""
    weights: Text | None = None
    """What a template loads, where that is not the model's name: a folder, or a GGUF file."""
    env: tuple[Variable, ...] = ()
    """NAMES of variables that the server gets although they look like secrets (HF_TOKEN); values are never stored."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of a replica; default: 1 for vllm and sglang, else 0."""
    cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPUs of a replica, as Ray counts them."""
    resources: dict[Name, Positive] = Field(default_factory=dict)
    """Other resources of a replica, as the nodes of the Ray cluster declare them."""
    replicas: Count | ReplicaRange = 1
    """How many: a number, or min and max."""
    health: Annotated[str, Field(pattern=r"^/")] = "/health"
    """Path that answers 200 while the server is well."""
    start_timeout_s: Positive = 900.0
    """How long a server may take until it answers: it may have to load its weights."""
    hang_timeout_s: Positive = 60.0
    """How long a server that was well may leave its health unanswered before it is killed."""
    stop_timeout_s: Positive = 20.0
    """How long a server may take to end before it is killed."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """Deaths in a row after which a replica is given up."""

    @property
    def gpus_wanted(self) -> float:
        """GPUs of a replica, the default filled in."""
        return self.gpus if self.gpus is not None else float(self.template in ON_GPU)

    @property
    def range(self) -> ReplicaRange:
        """The replicas as a range."""
        if isinstance(self.replicas, ReplicaRange):
            return self.replicas
        return ReplicaRange(min=self.replicas, max=self.replicas)

    @model_validator(mode="after")
    def _check(self) -> EngineSpec:
        if (self.template is None) == (self.command is None):
            known = ", ".join(TEMPLATES)
            raise refusal("wants exactly one of template and command", f"keep one; templates are {known}")
        if self.command is not None and self.weights is not None:
            raise refusal("is for templates only", "write it into the command", at=("weights",))
        if self.gpus is not None and self.gpus > 1 and not self.gpus.is_integer():
            raise refusal("is neither a part of one GPU nor whole GPUs", "write 0.5, 1 or 2", at=("gpus",))
        _check_words(_words(self.command), ("command",))
        _check_words(self.args, ("args",))
        if self.command is not None and not _mentions([*_words(self.command), *self.args], "port"):
            remedy = "write {port} where the server is told its port: ttc chooses one that is free"
            raise refusal("does not contain {port}", remedy, at=("command",))
        return self


def command_words(engine: EngineSpec) -> tuple[str, ...]:
    """The words of an engine's own command."""
    return (*_words(engine.command), *engine.args)


def _words(command: str | None) -> list[str]:
    try:
        return shlex.split(command or "")
    except ValueError:
        raise refusal("has a quote that is not closed", "close it", at=("command",)) from None


def _check_words(words: list[str] | tuple[str, ...], at: tuple[str, ...]) -> None:
    """Refuse what only a shell would understand, what nobody fills in, and keys: every user sees a command line."""
    for index, word in enumerate(words):
        if word in _SHELL:
            remedy = "write one program and its arguments; put anything more into a script"
            raise refusal(f"holds {word!r}, and no shell reads it", remedy, at=at)
        unknown = [name for name in _BRACES.findall(word) if name not in PLACEHOLDERS]
        if unknown:
            remedy = f"known are {', '.join('{' + each + '}' for each in PLACEHOLDERS)}"
            raise refusal(f"holds {{{unknown[0]}}}, which stands for nothing", remedy, at=at)
        follows_key = index > 0 and _KEY_OPTION.fullmatch(words[index - 1]) and "=" not in words[index - 1]
        holds_key = _KEY_OPTION.fullmatch(word) and "=" in word
        if mask_secrets(word) != word or follows_key or holds_key:
            remedy = "put it into an environment variable that the server reads, and name that under env"
            raise refusal(
                "holds a key, which everybody on the machine could read", remedy, at=at, is_secret=True
            )


def _mentions(words: list[str], name: str) -> bool:
    return any(name in _BRACES.findall(word) for word in words)
