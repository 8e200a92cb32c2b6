"""What parsing and serving have to know about a model, apart from its weights.

Reads the small files of a Hugging Face folder; knows neither the network nor HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.embedded import reward as rewards
from workers.embedded import text as texts
from workers.embedded.model import Architecture
from workers.embedded.reward import Reward
from workers.embedded.sampling import Sampling
from workers.embedded.text import Text


@dataclass(frozen=True, slots=True)
class Card:
    """One served model: its name, tokenizer and limits, the sampling of requests that leave it open, its role."""

    name: str
    text: Text
    context: int
    """Most tokens a sample may have, prompt included."""
    vocabulary: int
    end_ids: tuple[int, ...]
    default_sampling: Sampling
    reward: Reward | None = None
    """How it is read as a reward model; None: it is a policy."""


def load(folder: Path, architecture: Architecture) -> Card:
    """Read tokenizer.json, generation_config.json and reward.json; the model is named after its folder.

    Raises UnsupportedModelError for a reward.json that makes no sense.
    """
    path = folder / "generation_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ends = settings.get("eos_token_id") or []
    text = texts.load(folder)
    return Card(
        name=folder.name,
        text=text,
        context=architecture.context,
        vocabulary=architecture.vocabulary,
        end_ids=tuple({*architecture.end_ids, *([ends] if isinstance(ends, int) else ends)}),
        default_sampling=Sampling(
            temperature=settings.get("temperature") or 1.0,
            top_p=settings.get("top_p") or 1.0,
            top_k=settings.get("top_k") or 0,
        ),
        reward=rewards.load(folder, text),
    )
