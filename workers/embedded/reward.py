"""What makes a model folder a reward model: the file `reward.json` beside its weights.

`{"role": "prm", "tag": "<|step|>", "labels": ["+", "-"]}`: the tag ends a step, and the logits of the two labels
after it, good one first, make its score. A process reward model is read at every tag, an outcome reward model at
the last one. A folder without the file is a policy. Knows the tokenizer; not the network, nor HTTP.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from workers.embedded.catalog import REWARD_FILE
from workers.embedded.model import UnsupportedModelError
from workers.embedded.text import Text


class Role(StrEnum):
    """What a reward model was trained to score."""

    PRM = "prm"
    ORM = "orm"


@dataclass(frozen=True, slots=True)
class Reward:
    """Where a reward model is read: token ids of the tag, of the good label and of the bad one."""

    role: Role
    tag: int
    good: int
    bad: int
    tag_text: str


def load(folder: Path, text: Text) -> Reward | None:
    """Read `reward.json`; None where there is none. Raises UnsupportedModelError for one that makes no sense."""
    path = folder / REWARD_FILE
    if not path.is_file():
        return None
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        good, bad = settings["labels"]
        role, tag = Role(settings["role"]), settings["tag"]
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"{path}: wanted role (prm or orm), tag and two labels: {error}"
        ) from None
    return Reward(role, _id(text, tag, path), _id(text, good, path), _id(text, bad, path), tag)


def probability(margin: float) -> float:
    """Turn l+ - l-, the difference of the two logits, into P(good), rounded to float32 as vLLM gives it.

    Softmax over two labels is the sigmoid of their difference: vLLM's `from_2_way_softmax`, and section 5.1 of
    Wang et al. (Math-Shepherd).
    """
    small = math.exp(-abs(margin))
    return float(np.float32((1.0 if margin >= 0 else small) / (1.0 + small)))


def _id(text: Text, token: Any, path: Path) -> int:
    found = text.id(token) if isinstance(token, str) else None
    if found is None:
        raise UnsupportedModelError(f"{path}: the tokenizer has no token {token!r}")
    return found
