"""What an engine is told when it is made, and what it says of itself. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from workers.types import Event

PLACEHOLDERS = ("model", "host", "port", "python")
"""What may stand in braces in a command; any other brace is text (JSON, say)."""
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


class Phase(StrEnum):
    """Where an engine is in its life."""

    STARTING = "starting"
    """Its server runs, and has not answered yet."""
    UP = "up"
    """Its server answers."""
    AILING = "ailing"
    """Its server has answered before, and does not now; it keeps its requests for a while."""
    BACKING_OFF = "backing off"
    """Its server is dead; another is started after a pause."""
    FAILED = "failed"
    """So many servers died that no other is started."""
    STOPPED = "stopped"
    """It was told to stop."""


SERVING = frozenset({Phase.UP, Phase.AILING})


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One kind of server, and how patient to be with it."""

    name: str
    """Where it stands in the sweep file: `models.policy`."""
    command: tuple[str, ...]
    """Words of the command; {host}, {port} and {python} are known only where it starts."""
    environment: tuple[str, ...] = ()
    """Names of variables it is given although they look like secrets."""
    health: str = "/health"
    """Path that answers 200 while the server is well."""
    start_timeout_s: float = 900.0
    """From the start to the first good answer."""
    hang_timeout_s: float = 60.0
    """How long a server that was well may leave its health unanswered."""
    stop_timeout_s: float = 20.0
    """Between SIGTERM and SIGKILL."""
    max_restarts: int = 5
    """Deaths in a row that are followed by another start."""
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    settle_s: float = 120.0
    """A server that was up for so long makes earlier deaths forgotten."""
    poll_s: float = 2.0
    """Between two looks at its health; more often while it starts."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """An engine as it is now, and what happened since the last report."""

    phase: Phase
    url: str | None
    """Base URL, up to and including /v1; None while nothing answers there."""
    pid: int | None
    """Process of the server, for messages and tests."""
    events: tuple[Event, ...] = ()
    error: str | None = None
    """How its last server ended."""
    log: str | None = None
    """Where its output is."""
    log_tail: tuple[str, ...] = ()
    """The last lines of it, once the engine has failed."""


def fill(command: Sequence[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """The words with the known placeholders replaced; never cut again, so a value with a space stays one word."""
    return tuple(
        _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), word) for word in command
    )
