"""What a server is asked about one solution, once it is written the way its model reads it. No I/O, no format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Place(StrEnum):
    """Where in a text its scores stand."""

    TAGS = "tags"
    """At the step tags; a server gives them alone, or one a token, among which they are picked."""
    TOKENS = "tokens"
    """At tokens that only we know: the server must give a score for every token."""
    END = "end"
    """After the last token: one score of the whole."""


@dataclass(frozen=True, slots=True)
class Query:
    """One text to be scored, as token ids where they are known, and where its `count` scores stand."""

    count: int
    place: Place
    text: str = ""
    ids: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    """Offsets in `ids` of the tokens at which the scores stand, ascending."""
    first_text: str = ""
    """The other half of a pair, for servers that score pairs of texts."""
    tag_count: int = 0
    """Step tags in `ids`, where the server may give a score for each and the last one is wanted."""
    adds_special_tokens: bool = True
    """Does the tokenizer add its own (BOS) to `text`."""

    @property
    def size(self) -> int:
        """Tokens, or a guess at them where only the text is known."""
        return len(self.ids) or (len(self.text) + len(self.first_text)) // 4 + 1

    @property
    def prefixes(self) -> list[tuple[int, ...]]:
        """The beginnings of `ids` that end with each of the scored tokens."""
        return [self.ids[: position + 1] for position in self.positions]
