"""The tiny models that come with ttc: `{statement}`, a blank line, steps with a tag each, + or - at the tag.

The process reward model is read at every tag, the outcome reward model at the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.rewards.neutral import neutralise
from workers.rewards.tagged import LABELLED, Tagged
from workers.types import ScorerKind, Transport

TAG = "<|step|>"


def render(statement: str, steps: Sequence[str], tag: str) -> str:
    """Statement, blank line, and the steps without their trailing white space, each followed by the tag."""
    body = "\n\n".join(neutralise(step, [tag]).rstrip() + tag for step in steps)
    return f"{neutralise(statement, [tag]).rstrip()}\n\n{body}"


EMBEDDED = Tagged("embedded", render, TAG)
EMBEDDED_ORM = Tagged(
    "embedded-orm",
    render,
    TAG,
    kind=ScorerKind.ORM,
    transports=(Transport.CLASSIFY, Transport.POOLING, *LABELLED),
)
