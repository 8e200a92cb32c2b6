"""What an engine has done since its start, counted by those who do it and shown at `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the start; tokens of aborted samples are counted as they are made."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    aborted_tokens: int = 0
    """Tokens of samples that were cancelled before their end; part of `generated_tokens`."""
    steps: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0})
    """Samples and scored texts by how they ended; a scored text counts as stopped, as in vLLM."""
