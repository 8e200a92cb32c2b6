"""From the sweep file to what workers and the store need: settings, fingerprints, database URL, stored text.

Pure: no file is opened and no environment variable is read. What goes into a fingerprint is decided here and
nowhere else: everything that changes the meaning of a sample, nothing that only changes where or how fast it
is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from orchestrator.errors import mask_secrets
from orchestrator.spec.models import ModelSpec, SamplingSpec
from orchestrator.spec.scorers import ScorerSpec
from orchestrator.spec.sections import SweepSpec
from workers.identity import fingerprint
from workers.types import EndpointSettings, GeneratorSettings, Sampling

VLLM_SAMPLES_PER_REQUEST = 16
"""n of a request where the server derives the seeds of the children as vLLM does; a reply waits for all n."""
DEFAULT_STORE = "sqlite:///ttc.db"
"""Where a sweep is stored if nobody says: a file where ttc runs."""
SAFE_SAMPLES_PER_REQUEST = 1
"""n of a request at any other server: only then has every sample the seed it is stored under."""


def generator_meaning(model: ModelSpec, *, revision: str | None = None) -> dict[str, Any]:
    """Everything that changes the meaning of a sample of `model`; no URL, no key, no limit, no request size.

    `revision` is what was found out about the weights (say, a checksum of the embedded ones); it counts where
    the sweep file names none.
    """
    if model.imported is not None:
        return {"imported": model.imported.checksum, "model": model.served_name}
    return {
        "model": model.served_name,
        "revision": model.revision if model.revision is not None else revision,
        "api": model.api.value,
        "template": model.template,
        "system": model.system,
        "sampling": model.sampling.model_dump(mode="json"),
    }


def generator_fingerprint(model: ModelSpec, *, revision: str | None = None) -> str:
    """Name of the generator (32 hex characters): equal for models whose samples mean the same."""
    return fingerprint(generator_meaning(model, revision=revision))


def endpoint_settings(
    name: str, model: ModelSpec | ScorerSpec, urls: Sequence[str] = (), engines: str | None = None
) -> EndpointSettings:
    """Where a policy or scorer is served; `urls` are those of servers that ttc has started, `engines` their name."""
    limits = model.limits
    return EndpointSettings(
        name=name,
        urls=tuple(urls) or model.endpoints,
        api_key_env=model.api_key_env,
        concurrency=limits.concurrency,
        adaptive=limits.adaptive,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        tokens_per_second_floor=limits.tokens_per_second_floor,
        deadline_base_s=limits.deadline_base_s,
        max_attempts=limits.max_attempts,
        replica_concurrency=limits.replica_concurrency,
        has_affinity=limits.affinity == "problem",
        hedge_share=limits.hedge,
        engines=engines,
    )


def generator_settings(
    name: str,
    model: ModelSpec,
    generator_id: int,
    *,
    urls: Sequence[str] = (),
    engines: str | None = None,
    revision: str | None = None,
    derives_seeds: bool | None = None,
) -> GeneratorSettings:
    """`model` as a worker needs it.

    `derives_seeds` is what a probe found: whether the server gives child j of a request the seed `seed + j`;
    unknown (None) counts as no, except for the embedded models, which do.
    """
    return GeneratorSettings(
        generator_id=generator_id,
        fingerprint=generator_fingerprint(model, revision=revision),
        model=model.served_name,
        api=model.api,
        template=model.template,
        system=model.system,
        sampling=sampling(model.sampling),
        samples_per_request=samples_per_request(model, derives_seeds=derives_seeds),
        endpoint=endpoint_settings(name, model, urls, engines),
    )


def sampling(spec: SamplingSpec) -> Sampling:
    """Sampling parameters as a worker sends them."""
    return Sampling(spec.temperature, spec.top_p, spec.top_k, spec.max_tokens, spec.stop)


def samples_per_request(model: ModelSpec, *, derives_seeds: bool | None = None) -> int:
    """n of a request, `auto` resolved; 1 at temperature 0, where servers refuse more."""
    if isinstance(model.samples_per_request, int):
        return model.samples_per_request
    is_like_vllm = derives_seeds if derives_seeds is not None else model.built_in is not None
    is_plural = is_like_vllm and model.sampling.temperature > 0
    return VLLM_SAMPLES_PER_REQUEST if is_plural else SAFE_SAMPLES_PER_REQUEST


def config_json(sweep: SweepSpec) -> str:
    """The sweep as canonical JSON for the store: defaults filled in, keys sorted, secrets masked."""
    data = sweep.model_dump(mode="json") | {"budgets": list(sweep.budget_grid)}
    if sweep.store is not None:
        data["store"] = mask_secrets(sweep.store)
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()


def store_url(url: str, base_dir: Path) -> str:
    """`url`, or the path of a SQLite file, made absolute below `base_dir`; PostgreSQL URLs stay as they are."""
    if "://" not in url:
        return str((base_dir / url).resolve())
    scheme, separator, rest = url.partition(":///")
    if not scheme.startswith("sqlite") or not separator or rest.startswith((":memory:", "file:")) or not rest:
        return url
    path, question, query = rest.partition("?")
    return f"{scheme}:///{(base_dir / path).resolve()}{question}{query}"
