"""Models that say + or - after a step tag: a language model whose next-token probabilities are the score.

P(good) against P(bad) at the tag, by vLLM's `/pooling` (a tag's value each, or every token's), by the
log-probabilities of `/v1/completions`, or by `/generative_scoring`: the same number on all three. All are sent ids
of the server's own tokenizer, in which the tags are counted before anything is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workers.errors import Misconfigured
from workers.rewards.contract import BrokenContract
from workers.rewards.queries import Place, Query
from workers.rewards.records import Vocabulary
from workers.rewards.setting import Setting
from workers.types import RewardOptions, ScorerKind, Transport

LABELLED = (Transport.COMPLETIONS, Transport.GENERATIVE_SCORING)
"""The calls that need to know the two label tokens."""
_SAMPLE = ("Add 2 and 2.\n\n", "The sum is 4.")


@dataclass(frozen=True, slots=True)
class Tagged:
    """A format of this family; `render` writes statement, steps and tag as one text that ends with a tag."""

    name: str
    render: Callable[[str, Sequence[str], str], str]
    tag: str
    good: str = "+"
    bad: str = "-"
    kind: ScorerKind = ScorerKind.PRM
    version: str = "1"
    transports: tuple[Transport, ...] = (Transport.POOLING, *LABELLED)
    is_logit: bool = False

    async def learn(self, setting: Setting) -> Vocabulary:
        """Ids of tag and labels, from the server; `Misconfigured` if one of them is no single token.

        The tag is looked up where it stands in a text: alone, many tokenizers would make another token of it.
        """
        tag = self._tag(setting.options)
        ids = await setting.tokens.ids(self.render("What is 2 + 2?", _SAMPLE, tag))
        found = ids.count(ids[-1]) if ids else 0
        if found != len(_SAMPLE):
            raise Misconfigured(
                f"the step tag {tag!r} is no token of this model: what ends a text with {len(_SAMPLE)} of them"
                f" stands in it {found} times"
            )
        vocabulary = Vocabulary(tag_id=ids[-1])
        if setting.transport in LABELLED:
            vocabulary = await with_labels(setting, vocabulary, self.good, self.bad)
        return vocabulary

    async def query(self, setting: Setting, statement: str, steps: Sequence[str]) -> Query:
        """Ids up to the last tag, and where the tags stand; `BrokenContract` unless there is one a step."""
        text = self.render(statement, steps, self._tag(setting.options))
        ids = await setting.tokens.ids(text, special=True)
        positions = tuple(i for i, token in enumerate(ids) if token == setting.vocabulary.tag_id)
        if len(positions) != len(steps):
            raise BrokenContract(f"the text has {len(positions)} step tags for {len(steps)} steps")
        if self.kind is ScorerKind.ORM:
            ids = ids[: positions[-1] + 1]
            return Query(1, Place.END, ids=ids, positions=positions[-1:], tag_count=len(positions))
        return Query(len(steps), Place.TAGS, ids=ids[: positions[-1] + 1], positions=positions)

    def _tag(self, options: RewardOptions) -> str:
        return (options.step_tag or self.tag).strip()


async def with_labels(setting: Setting, vocabulary: Vocabulary, good: str, bad: str) -> Vocabulary:
    """Add the ids of the two labels; `Misconfigured` unless each is one token, and they differ."""
    good = setting.options.good_token or good
    bad = setting.options.bad_token or bad
    good_id = await setting.tokens.one(good, "the label")
    bad_id = await setting.tokens.one(bad, "the label")
    if good_id == bad_id:
        raise Misconfigured(f"the labels {good!r} and {bad!r} are the same token {good_id}")
    return replace(vocabulary, good_id=good_id, bad_id=bad_id, good_text=good, bad_text=bad)
