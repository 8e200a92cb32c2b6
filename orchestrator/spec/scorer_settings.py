"""From the scorers of a sweep file to what workers and the store need: settings and fingerprints.

Pure. What goes into a scorer's fingerprint is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.spec.scorers import AnyScorer, JudgeScorer, OrmScorer, PrmScorer
from orchestrator.spec.settings import endpoint_settings, sampling
from workers.identity import fingerprint
from workers.rewards import format_version
from workers.types import RewardOptions, ScorerKind, ScorerSettings, Transport


def scorer_meaning(scorer: AnyScorer, *, revision: str | None = None) -> dict[str, Any]:
    """Everything that changes the meaning of a score; no URL, no key, no limit, no call that gives the same score.

    How step scores become one is no part of it: they are stored as they are, and made into one when they are used.
    """
    if scorer.imported is not None:
        return {"imported": scorer.imported, "model": scorer.served_name}
    options = reward_options(scorer)
    return {
        "kind": scorer.kind,
        "format": wire_format(scorer),
        "format_version": format_version(wire_format(scorer)),
        "model": scorer.served_name,
        "revision": scorer.revision if scorer.revision is not None else revision,
        "options": {
            "too_long": options.too_long.value,
            "prompt": options.prompt,
            "system": options.system,
            "sampling": _sampling_meaning(scorer),
            "judgements": options.judgements,
            "is_logit": options.is_logit,
            "step_tag": options.step_tag,
            "good_token": options.good_token,
            "bad_token": options.bad_token,
        },
    }


def scorer_fingerprint(scorer: AnyScorer, *, revision: str | None = None) -> str:
    """Name of the scorer (32 hex characters): equal for scorers whose scores mean the same."""
    return fingerprint(scorer_meaning(scorer, revision=revision))


def scorer_settings(
    name: str,
    scorer: AnyScorer,
    scorer_id: int,
    *,
    urls: Sequence[str] = (),
    engines: str | None = None,
    revision: str | None = None,
) -> ScorerSettings:
    """`scorer` as a worker needs it; `urls` are those of the servers that ttc has started."""
    return ScorerSettings(
        scorer_id=scorer_id,
        fingerprint=scorer_fingerprint(scorer, revision=revision),
        kind=ScorerKind(scorer.kind),
        format=wire_format(scorer),
        model=scorer.served_name,
        options=reward_options(scorer),
        texts_per_request=scorer.texts_per_request,
        endpoint=endpoint_settings(name, scorer, urls, engines),
    )


def wire_format(scorer: AnyScorer) -> str:
    """Name of the wire format (`workers.rewards`)."""
    return "judge" if isinstance(scorer, JudgeScorer) else scorer.wire_format


def reward_options(scorer: AnyScorer) -> RewardOptions:
    """What the wire format leaves open."""
    if isinstance(scorer, PrmScorer):
        return RewardOptions(
            transport=scorer.transport,
            too_long=scorer.too_long,
            prompt=scorer.prompt,
            sampling=sampling(scorer.sampling),
            step_tag=scorer.step_tag,
            good_token=scorer.good_token,
            bad_token=scorer.bad_token,
        )
    if isinstance(scorer, OrmScorer):
        return RewardOptions(
            transport=scorer.transport,
            too_long=scorer.too_long,
            system=scorer.system,
            is_logit=scorer.is_logit,
        )
    return RewardOptions(
        transport=Transport.CHAT,
        too_long=scorer.too_long,
        prompt=scorer.prompt,
        system=scorer.system,
        sampling=sampling(scorer.sampling),
        judgements=scorer.judgements,
    )


def _sampling_meaning(scorer: AnyScorer) -> dict[str, Any] | None:
    """Sampling parameters, where verdicts are drawn at all."""
    is_drawn = isinstance(scorer, JudgeScorer) or wire_format(scorer) == "generative"
    return scorer.sampling.model_dump(mode="json") if is_drawn and not isinstance(scorer, OrmScorer) else None
