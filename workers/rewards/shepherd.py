"""Math-Shepherd (math-shepherd-mistral-7b-prm): `{question} {step} ки`, one line a step, + or - at the `ки`.

Others put the generator's system prompt in front, or ` ки` before a blank line, and so get other scores from the
same model. Source: the model card; papers Wang 2312.08935, section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.rewards.neutral import neutralise, untagged
from workers.rewards.tagged import Tagged

TAG = "ки"


def render(statement: str, steps: Sequence[str], tag: str) -> str:
    """Question and steps as the model was trained on them."""
    lines = [f"{neutralise(untagged(step, tag), [tag]).strip()} {tag}" for step in steps]
    return f"{neutralise(statement, [tag]).strip()} " + "\n".join(lines)


SHEPHERD = Tagged("math-shepherd", render, TAG)
