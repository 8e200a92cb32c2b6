"""Between text and token ids: encoding, decoding piece by piece, stop strings and the chat rule.

Knows the tokenizer file and nothing of the network, of sampling or of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""The one template that is understood: contents one after another, a blank line after each of the user's."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what an unfinished multi-byte character decodes to


class NoChatTemplateError(ValueError):
    """The model has no chat template that this server can render; use /v1/completions."""


class Text:
    """The tokenizer of one model."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self._specials = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        # with this decoder a text is its pieces one after another, so pieces can be looked up and joined
        self._pieces = self._all_pieces() if decoder.get("type") == "Fuse" else None
        self.longest_token = max(map(len, tokenizer.get_vocab(with_added_tokens=True)), default=1)
        """Characters that one token stands for at most."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Turn token ids into text."""
        if self._pieces is not None and skip_special_tokens:
            return "".join([self._pieces.get(token, "") for token in ids])
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token(self, token: int) -> str:
        """Give the text of one token, special tokens included, as log-probabilities name it."""
        return self.decode([token], skip_special_tokens=False) or self._tokenizer.id_to_token(token) or ""

    def id(self, token: str) -> int | None:
        """Give the id of a token by its text; None where the vocabulary has no such token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, continue_final: bool = False) -> str:
        """Render messages (`role`, `content`) as the prompt of the next answer.

        `continue_final` leaves the last message open, so that the completion goes on within it. Raises
        NoChatTemplateError.
        """
        if self._chat_template != CHAT_TEMPLATE:
            raise NoChatTemplateError((NoChatTemplateError.__doc__ or "").strip())
        parts = [m["content"] + ("\n\n" if m["role"] == "user" else "") for m in messages]
        if continue_final and messages:
            parts[-1] = messages[-1]["content"]
        return "".join(parts)

    def _all_pieces(self) -> dict[int, str]:
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return {token: piece for piece, token in vocabulary.items() if token not in self._specials}


@dataclass(slots=True)
class Transcript:
    """The text of one completion while it grows; needed only where stop strings have to be found."""

    source: Text
    ids: list[int] = field(default_factory=list)
    text: str = ""
    _settled: int = 0
    """Ids before this one are in `text` for good ..."""
    _context: int = 0
    """... and are decoded again from here, since a piece may depend on its neighbours."""

    def push(self, token: int) -> str:
        """Add one token; give the text it adds, empty while a character is unfinished."""
        self.ids.append(token)
        known = self.source.decode(self.ids[self._context : self._settled])
        now = self.source.decode(self.ids[self._context :])
        if len(now) <= len(known) or now.endswith(_REPLACEMENT):
            return ""
        added = now[len(known) :]
        self._context, self._settled = self._settled, len(self.ids)
        self.text += added
        return added


def find_stop(text: str, added: int, stops: Sequence[str]) -> tuple[int, str] | None:
    """Find the stop string that begins first and ends in the last `added` characters: (offset, string)."""
    found = [(text.find(stop, max(0, len(text) - added - len(stop) + 1)), stop) for stop in stops]
    return min(((at, stop) for at, stop in found if at >= 0), key=lambda hit: hit[0], default=None)


def load(folder: Path) -> Text:
    """Read tokenizer.json and the chat template of a Hugging Face folder."""
    settings = folder / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    template = config.get("chat_template")
    return Text(
        Tokenizer.from_file(str(folder / "tokenizer.json")), template if isinstance(template, str) else None
    )
