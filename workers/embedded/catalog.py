"""Which models are part of the package, and where. Light: it may be imported where only names are wanted."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

REVISION_CHARACTERS = 12
POLICY = "policy"
REWARD_FILE = "reward.json"  # what it holds is for `reward.py` to check


class UnknownModelError(ValueError):
    """There is no built-in model of that name and no such folder."""


def resolve_model(model: str | Path) -> Path:
    """Find the folder of a built-in model by name, or take a path to a Hugging Face folder as it is.

    Raises UnknownModelError naming what there is.
    """
    candidates = [_shipped() / model] if len(Path(model).parts) == 1 else []
    for folder in (*candidates, Path(model)):
        if (folder / "config.json").is_file():
            return folder.resolve()
    names = ", ".join(built_in_models())
    raise UnknownModelError(f"no model {str(model)!r}: wanted a folder with config.json, or one of: {names}")


def built_in_models(role: str | None = None) -> list[str]:
    """Names of the models that are part of the package: all, or those of a role (policy, prm or orm)."""
    names = sorted(path.name for path in _shipped().iterdir() if path.is_dir())
    return [name for name in names if role is None or role_of(name) == role]


def role_of(model: str | Path) -> str:
    """Say what a model is for: policy, or what its reward.json says (prm or orm). Raises UnknownModelError."""
    path = resolve_model(model) / REWARD_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["role"]) if path.is_file() else POLICY


def weights_revision(model: str | Path) -> str:
    """Checksum of the weights of a model, and of how it is read if it is a reward model: new ones are another."""
    folder = resolve_model(model)
    content = (folder / "model.safetensors").read_bytes()
    if (folder / REWARD_FILE).is_file():
        content += (folder / REWARD_FILE).read_bytes()
    return hashlib.sha256(content).hexdigest()[:REVISION_CHARACTERS]


def _shipped() -> Path:
    return Path(str(files("workers.embedded") / "models"))
