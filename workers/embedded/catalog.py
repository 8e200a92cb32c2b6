"""Which models are part of the package, and where. Light: it may be imported where only names are wanted."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

REVISION_CHARACTERS = 12


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


def built_in_models() -> list[str]:
    """Names of the models that are part of the package."""
    return sorted(path.name for path in _shipped().iterdir() if path.is_dir())


def weights_revision(model: str | Path) -> str:
    """Checksum of the weights of a model: new weights are another generator."""
    weights = (resolve_model(model) / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()[:REVISION_CHARACTERS]


def _shipped() -> Path:
    return Path(str(files("workers.embedded") / "models"))
