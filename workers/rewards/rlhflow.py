"""RLHFlow's Llama 3.1 PRMs: a dialogue in which every step is a turn of the user and every reply is "+".

The score of a step is what the model thought of "+" against "-" just before it read the "+": the value one token
earlier. The dialogue is rendered by the server's own chat template (with a pinned date, which the template would
else take from the clock), and the replies are found by the tokens that open one. Source: RLHFlow
math-rm/prm_evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workers.errors import Misconfigured
from workers.rewards.contract import BrokenContract
from workers.rewards.neutral import neutralise, untagged
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.setting import Setting
from workers.rewards.tagged import LABELLED
from workers.rewards.tokens import Ids
from workers.types import ScorerKind, Transport

_USER = {"role": "user", "content": "What is 2 + 2?"}
_SAMPLE = ("Add 2 and 2.", "The sum is 4.")


@dataclass(frozen=True, slots=True)
class Rlhflow:
    """The variants differ in how the steps of their policies were separated, which `clean` takes off."""

    name: str
    clean: Callable[[str], str]
    kind: ScorerKind = ScorerKind.PRM
    version: str = "1"
    transports: tuple[Transport, ...] = (Transport.POOLING, *LABELLED)
    is_logit: bool = False

    async def learn(self, setting: Setting) -> Vocabulary:
        """What opens a reply, and the labels as they stand in one; `Misconfigured` if the template hides them."""
        closed = await setting.tokens.chat([_USER])
        opened = await setting.tokens.chat([_USER], opens_reply=True)
        header = opened[len(closed) :]
        if opened[: len(closed)] != closed or not header:
            raise Misconfigured("the chat template of this model does not mark where a reply begins")
        vocabulary = replace(await _labels(setting, opened), header=header)
        ids = await setting.tokens.chat(_dialogue(_SAMPLE, vocabulary.good_text))
        found = len(_positions(ids, vocabulary))
        if found != len(_SAMPLE):
            raise Misconfigured(f"{found} replies were found in a dialogue with {len(_SAMPLE)}")
        return vocabulary

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """Ids up to the last token that is scored; `BrokenContract` unless there is one reply a step."""
        turns = [neutralise(self.clean(step)).strip() for step in steps]
        turns[0] = f"{neutralise(statement)} {turns[0]}"
        ids = await setting.tokens.chat(_dialogue(turns, setting.vocabulary.good_text))
        positions = _positions(ids, setting.vocabulary)
        if len(positions) != len(steps):
            raise BrokenContract(f"the dialogue has {len(positions)} replies for {len(steps)} steps")
        return Query(len(steps), Place.TOKENS, ids=ids[: positions[-1] + 1], positions=positions)


async def _labels(setting: Setting, opened: Ids) -> Vocabulary:
    """The tokens of the two labels where they are replies, after `opened`."""
    good, bad = setting.options.good_token or "+", setting.options.bad_token or "-"
    dialogues = [await setting.tokens.chat([_USER, _reply(label)]) for label in (good, bad)]
    labels = [
        ids[len(opened)] for ids in dialogues if len(ids) > len(opened) and ids[: len(opened)] == opened
    ]
    ends = {ids[len(opened) + 1 :] for ids in dialogues}
    if len(set(labels)) != 2 or len(ends) != 1:
        raise Misconfigured(f"the replies {good!r} and {bad!r} are not one token each in this chat template")
    return Vocabulary(labels[0], labels[1], good, bad)


def _reply(label: str) -> dict[str, str]:
    return {"role": "assistant", "content": label}


def _dialogue(turns: Sequence[str], label: str) -> list[dict[str, str]]:
    return [each for turn in turns for each in ({"role": "user", "content": turn}, _reply(label))]


def _positions(ids: Ids, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Where the token before a reply's label stands: the last one of the header."""
    opening = (*vocabulary.header, vocabulary.good_id)
    size = len(opening)
    starts = [i for i in range(len(ids) - size + 1) if ids[i : i + size] == opening]
    return tuple(start + size - 2 for start in starts)


DEEPSEEK = Rlhflow("rlhflow-deepseek", str.strip)
MISTRAL = Rlhflow("rlhflow-mistral", lambda step: untagged(step, "ки"))
