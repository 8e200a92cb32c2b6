"""From the `engine` of a model or scorer to what starts and watches its servers.

Pure. The commands of the templates are here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.spec.engines import EngineSpec, command_words
from orchestrator.spec.models import EndpointLimits, ModelSpec
from orchestrator.spec.scorers import ScorerSpec
from workers.engines.records import EngineSettings, fill


@dataclass(frozen=True, slots=True)
class Needs:
    """What a machine must have free for one replica."""

    gpus: float = 0.0
    cpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """As a person would say it."""
        named = {"GPU": self.gpus, "CPU": self.cpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in named.items() if amount) or "nothing"


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas, and when there is work for another."""

    least: int
    most: int
    requests: int
    """Requests, under way and waiting, that one replica is there for."""
    idle_s: float = 120.0
    """How long fewer must have been enough before one is stopped."""


@dataclass(frozen=True, slots=True)
class EngineGroup:
    """The engines of one model or scorer: all alike."""

    settings: EngineSettings
    needs: Needs
    scale: Scale


def engine_group(section: str, name: str, served: ModelSpec | ScorerSpec) -> EngineGroup:
    """The engines of `section.name`, whose `engine` is given."""
    engine = served.engine
    assert engine is not None
    replicas = engine.range
    return EngineGroup(
        EngineSettings(
            name=engines_name(section, name),
            command=fill(_command(engine, served), {"model": served.served_name}),
            environment=engine.env,
            health=engine.health,
            start_timeout_s=engine.start_timeout_s,
            hang_timeout_s=engine.hang_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            max_restarts=engine.max_restarts,
            poll_s=min(2.0, engine.hang_timeout_s / 4),
        ),
        Needs(engine.gpus_wanted, engine.cpus, engine.resources),
        Scale(
            replicas.min,
            replicas.max,
            replicas.requests or _room(served.limits, replicas.max),
            replicas.idle_s,
        ),
    )


def _room(limits: EndpointLimits, most: int) -> int:
    """Requests that a replica may have at once, as far as the limits say."""
    return limits.replica_concurrency or max(1, -(-limits.concurrency // most))


def engines_name(section: str, name: str) -> str:
    """Name of the engines of a model or scorer: its place in the file, since a scorer may share a model's name."""
    return f"{section}.{name}"


def _command(engine: EngineSpec, served: ModelSpec | ScorerSpec) -> tuple[str, ...]:
    if engine.template is None:
        return command_words(engine)
    return (*_TEMPLATES[engine.template](engine.weights, served.revision), *engine.args)


def _vllm(weights: str | None, revision: str | None) -> tuple[str, ...]:
    """Without the sampling defaults that some models bring along: what counts is what the sweep file says."""
    return (
        *("vllm", "serve", weights or "{model}", "--served-model-name", "{model}"),
        *(("--revision", revision) if revision else ()),
        *("--host", "{host}", "--port", "{port}", "--generation-config", "vllm"),
    )


def _sglang(weights: str | None, revision: str | None) -> tuple[str, ...]:
    return (
        *("python3", "-m", "sglang.launch_server", "--model-path", weights or "{model}"),
        *("--served-model-name", "{model}", *(("--revision", revision) if revision else ())),
        *("--host", "{host}", "--port", "{port}", "--sampling-defaults", "openai"),
    )


def _llama_cpp(weights: str | None, revision: str | None) -> tuple[str, ...]:
    return (
        *("llama-server", "--model", weights or "{model}", "--alias", "{model}"),
        *("--host", "{host}", "--port", "{port}"),
    )


def _embedded(weights: str | None, revision: str | None) -> tuple[str, ...]:
    """One thread of BLAS, said before NumPy is loaded."""
    return (
        *("env", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "{python}", "-m", "workers.embedded.serve"),
        *("--model", weights or "{model}", "--host", "{host}", "--port", "{port}"),
    )


_TEMPLATES = {"vllm": _vllm, "sglang": _sglang, "llama.cpp": _llama_cpp, "embedded": _embedded}
