"""Text on its way to a terminal: what models, servers and problem files say must not steer it.

Model output is hostile input: escape sequences can rewrite the screen, the title or the clipboard, and bidirectional
marks make a line read other than it is. Nothing here changes what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

REPLACED = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """`text` without what could steer a terminal: control and bidirectional characters show as U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else REPLACED for each in text)


class Terminal(Console):
    """A console on which only its own styles are control sequences, whatever the text holds that it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of text, made printable; those that control the terminal are rich's own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def write_text(stream: TextIO, text: str) -> None:
    """Write text as it is into a file or a pipe; onto a terminal only what is printable, line by line."""
    if stream.isatty():
        text = "".join(f"{printable(line)}\n" for line in text.splitlines())
    stream.write(text)
    stream.flush()
