"""Outcome reward models in general: one value for a whole solution (Qwen2.5-Math-RM and its kind).

The solution is the reply in a dialogue of the server's chat template, or, with the option `prompt`, a plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.rewards.neutral import neutralise
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.setting import Setting
from workers.types import ScorerKind, Transport


@dataclass(frozen=True, slots=True)
class OutcomeModel:
    """`/classify` and `/pooling` are sent one text, `/score` the pair of problem and solution."""

    name: str = "outcome"
    kind: ScorerKind = ScorerKind.ORM
    version: str = "1"
    transports: tuple[Transport, ...] = (Transport.CLASSIFY, Transport.POOLING, Transport.SCORE)
    is_logit: bool = False

    async def learn(self, setting: Setting) -> Vocabulary:
        """Nothing is to be learnt."""
        return Vocabulary()

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """The whole solution as one text, pair, or dialogue (then as ids of the server's template)."""
        problem, solution = neutralise(statement), neutralise("".join(steps)).strip()
        if setting.transport is Transport.SCORE:
            return Query(1, Place.END, text=solution, first_text=problem)
        if setting.options.prompt is not None:
            text = fill(setting.options.prompt, {"problem": problem, "solution": solution})
            return Query(1, Place.END, text=text)
        system = setting.options.system
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages += [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
        ids = await setting.tokens.chat(messages)
        return Query(1, Place.END, ids=ids, positions=(len(ids) - 1,))


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put the fields into the template, in one pass: a field's text is never looked at; other braces are text."""
    names = "|".join(map(re.escape, fields))
    return re.sub(rf"\{{({names})\}}", lambda match: fields[match[1]], template)
