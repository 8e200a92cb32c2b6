"""The tokenizer of the embedded policy: single characters, and whole tokens for the phrases solutions repeat.

Why not a trained BPE: digits must stay single tokens for arithmetic to be learnable, and with a fixed phrase
book the longest solution stays near a hundred tokens. Every printable ASCII character and the newline has a
token, so any LaTeX prompt can be encoded; what lies outside becomes ``<unk>``. It must not know the network
or the training run.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models

PAD = "<|pad|>"
END = "<|end|>"
UNKNOWN = "<unk>"
STEP = "<|step|>"  # ends a step where a reward model reads; policies do without
STEP_BREAK = "\n\n"
SPECIALS = (PAD, END, UNKNOWN)
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))
PHRASES = (
    STEP_BREAK,
    "Compute $",
    "First, $",
    "Next, $",
    "$, which leaves $",
    "The answer is $\\boxed{",
    "}$.",
    "$.",
    " = ",
    " + ",
    " - ",
    " \\cdot ",
)
CONTEXT_TOKENS = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)


def build(*, has_tag: bool = False) -> Tokenizer:
    """Build it: BPE without merges over characters, phrases as added tokens, decoding by concatenation.

    `has_tag` adds the tag of reward models after everything else, so all other ids stay what they are.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *CHARACTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN, fuse_unk=False))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in PHRASES])
    if has_tag:
        tokenizer.add_special_tokens([AddedToken(STEP, normalized=False, special=True)])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Give the id of a token that must exist; raises KeyError if it does not."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def save(directory: Path, *, has_tag: bool = False) -> None:
    """Write tokenizer.json and tokenizer_config.json in the layout Hugging Face libraries read."""
    directory.mkdir(parents=True, exist_ok=True)
    build(has_tag=has_tag).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
