"""Skywork-o1-Open-PRM (Qwen 2.5, 1.5B and 7B): a value head, read at the newline that closes each step.

Ids are made line by line, as the model was trained: in the joined text the newline would melt into the token before
it. A line break within a step would be a score of its own, so it becomes a space. The head gives raw values; the
sigmoid is ours. Source: SkyworkAI/skywork-o1-prm-inference, model_utils/io_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from workers.concurrency import together
from workers.errors import Misconfigured
from workers.rewards.neutral import neutralise
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.setting import Setting
from workers.types import ScorerKind, Transport

OPENING = "<|endoftext|>"
"""Stands before the problem (Qwen's BOS); the option `system` replaces it. Not verified against the real weights."""


@dataclass(frozen=True, slots=True)
class Skywork:
    """The server must give a value for every token: only we know which newlines close a step."""

    name: str = "skywork"
    kind: ScorerKind = ScorerKind.PRM
    version: str = "1"
    transports: tuple[Transport, ...] = (Transport.POOLING, Transport.EMBEDDINGS)
    is_logit: bool = True

    async def learn(self, setting: Setting) -> Vocabulary:
        """The id of the newline."""
        ids = await setting.tokens.ids("\n")
        if not ids:
            raise Misconfigured("the tokenizer of this model has no newline")
        return Vocabulary(tag_id=ids[-1])

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """Ids line by line, and where the closing newlines stand."""
        newline = setting.vocabulary.tag_id
        if newline is None:
            raise ValueError("the newline has not been learnt")
        opening = OPENING if setting.options.system is None else setting.options.system
        lines = [_flat(neutralise(step)) for step in steps]
        texts = [f"{opening}{neutralise(statement)}\n", *lines]
        prompt, *parts = await together(setting.tokens.ids(text) for text in texts)
        ends = list(accumulate((len(part) + 1 for part in parts), initial=len(prompt)))[1:]
        ids = prompt + tuple(token for part in parts for token in (*part, newline))
        return Query(len(steps), Place.TOKENS, ids=ids, positions=tuple(end - 1 for end in ends))


def _flat(step: str) -> str:
    """The step on one line."""
    return " ".join(line.strip() for line in step.splitlines() if line.strip())
