"""Scores that makers of reward models publish for an example: a server of such a model must reproduce them.

The only check that notices a wrong prompt, head or label: all of those give numbers that look like scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from workers.rewards.records import Golden
from workers.types import ScorerSettings

_PUBLISHED_IN = 0.05
"""The card's values are bfloat16's. Of the step where they are least sure, 0.190, other sound servers make 0.181
(float16, vLLM's own tests) and 0.154 (bfloat16, a newer transformers); a wrong prompt is off by tenths."""
_QWEN_7B = Golden(
    problem="Sue lives in a fun neighborhood.  One weekend, the neighbors decided to play a prank on Sue.  On Friday "
    "morning, the neighbors placed 18 pink plastic flamingos out on Sue's front yard.  On Saturday morning, the "
    "neighbors took back one third of the flamingos, painted them white, and put these newly painted white flamingos "
    "back out on Sue's front yard.  Then, on Sunday morning, they added another 18 pink plastic flamingos to the "
    "collection. At noon on Sunday, how many more pink plastic flamingos were out than white plastic flamingos?",
    steps=(
        "To find out how many more pink plastic flamingos were out than white plastic flamingos at noon on Sunday, we "
        "can break down the problem into steps. First, on Friday, the neighbors start with 18 pink plastic flamingos.",
        "On Saturday, they take back one third of the flamingos. Since there were 18 flamingos, (1/3 \\times 18 = 6) "
        "flamingos are taken back. So, they have (18 - 6 = 12) flamingos left in their possession. Then, they paint "
        "these 6 flamingos white and put them back out on Sue's front yard. Now, Sue has the original 12 pink "
        "flamingos plus the 6 new white ones. Thus, by the end of Saturday, Sue has (12 + 6 = 18) pink flamingos "
        "and 6 white flamingos.",
        "On Sunday, the neighbors add another 18 pink plastic flamingos to Sue's front yard. By the end of Sunday "
        "morning, Sue has (18 + 18 = 36) pink flamingos and still 6 white flamingos.",
        "To find the difference, subtract the number of white flamingos from the number of pink flamingos: (36 - 6 = "
        "30). Therefore, at noon on Sunday, there were 30 more pink plastic flamingos out than white plastic "
        "flamingos. The answer is (\\boxed{30}).",
    ),
    scores=(1.0, 0.1904296875, 0.9765625, 1.0),
    rtol=0.0,
    atol=_PUBLISHED_IN,
)
_GOLDENS: Mapping[str, Golden] = MappingProxyType(
    {
        "qwen2.5-math-prm-7b": _QWEN_7B,
        "qwen2.5-math-prm-72b": replace(_QWEN_7B, scores=(0.9921875, 0.0047607421875, 0.32421875, 0.8203125)),
    }
)
"""By the last part of a model's name, in small letters; the example and its values are those of the models' cards."""


def goldens_of(scorer: ScorerSettings) -> tuple[Golden, ...]:
    """What is published for the model of a scorer, if it is prompted as its makers do."""
    is_as_published = scorer.options.system is None and scorer.options.step_tag is None
    if scorer.format != "qwen" or not is_as_published:
        return ()
    found = _GOLDENS.get(scorer.model.rstrip("/").rpartition("/")[2].lower())
    return () if found is None else (found,)
