"""Qwen2.5-Math-PRM (7B, 72B): ChatML, a tag token after every step, two classes a tag of which the second is good.

The model card's own snippet drops class probabilities that are exactly zero (`probs[probs != 0]`), which shifts or
breaks the pairs; here a score is found by its place alone. Source: the model card; vLLM's
tests/models/language/pooling/test_reward.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.rewards.neutral import neutralise
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.setting import Setting
from workers.types import ScorerKind, Transport

TAG = "<extra_0>"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True, slots=True)
class Qwen:
    """The server tokenizes: the tag is one special token, so the number of scores tells whether it read all."""

    name: str = "qwen"
    kind: ScorerKind = ScorerKind.PRM
    version: str = "1"
    transports: tuple[Transport, ...] = (Transport.POOLING,)
    is_logit: bool = False

    async def learn(self, setting: Setting) -> Vocabulary:
        """Nothing is to be learnt."""
        return Vocabulary()

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """The text of a solution, with as many tags as steps."""
        options = setting.options
        system = SYSTEM if options.system is None else options.system
        text = render(statement, steps, options.step_tag or TAG, system)
        return Query(len(steps), Place.TAGS, text=text, adds_special_tokens=False)


def render(statement: str, steps: Sequence[str], tag: str = TAG, system: str = SYSTEM) -> str:
    """The dialogue in ChatML; white space around steps is dropped, as the tag takes its place."""
    answer = "".join(neutralise(step, [tag]).strip() + tag for step in steps)
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{neutralise(statement, [tag])}<|im_end|>\n"
        f"<|im_start|>assistant\n{answer}<|im_end|>"
    )
