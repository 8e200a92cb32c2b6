"""Make text harmless: marks that a format or a tokenizer would interpret stand in it no more. Pure.

Solutions are written by models, and problems by anybody: a step tag or a special token in them would make scores
of its own, end a turn, or open another one. A space within every mark keeps the text readable and can make no new
mark, since no mark holds white space.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.wire import sanitize

SPECIAL_MARKS = (
    "<|", "<｜", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>", "<extra_", "<start_of_turn>",
    "<end_of_turn>", "<think>", "</think>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[CLS]", "[SEP]", "[MASK]",
)  # fmt: skip
"""How special tokens begin, or are written, in the vocabularies of the models that serve as scorers or judges."""


def neutralise(text: str, marks: Sequence[str] = ()) -> str:
    """The text without any of `SPECIAL_MARKS` and `marks`; what stores cannot hold is replaced as well.

    White space around a mark does not count; a mark of one character is taken out, for it cannot be broken.
    """
    clean = sanitize(text)
    for mark in (*SPECIAL_MARKS, *filter(None, (mark.strip() for mark in marks))):
        broken = f"{mark[0]} {mark[1:]}" if len(mark) > 1 else " "
        while mark in clean:
            clean = clean.replace(mark, broken)
    return clean


def untagged(step: str, tag: str) -> str:
    """A step without the tag at its end, where policies write the tags themselves; never a blank one."""
    bare = step.rstrip().removesuffix(tag)
    return bare if bare.strip() else step
