"""No text steers a terminal; what goes into files and pipes stays as it is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from orchestrator.output import show_rows
from orchestrator.store import NodeRecord
from orchestrator.terminal import Terminal, printable, write_text
from orchestrator.tree_view import tree_view

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "one byte": "\x9b31m",
    "erase": "\x1b[2J\x1b[H",
    "return": "harmless\rdangerous",
    "backspace": "rm -rf\x08\x08\x08\x08\x08\x08ls",
    "bidi": "\u202etxt.exe\u202c \u2066x\u2069 \u200f",
    "nul": "a\0b",
    "separators": "a\u2028b\u2029c\x85d",
    "surrogate": "\udc80",
    "tags": "\U000e0041",
}


def steers(text: str) -> bool:
    """Does a text hold more than printable characters and line ends?"""
    return any(not each.isprintable() and each != "\n" for each in text)


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_steers_a_terminal(text: str) -> None:
    assert steers(text)
    assert not steers(printable(text))
    table = Table(f"head {text}", title=f"title {text}")
    table.add_row(text, Text(text, "red"))
    stream = io.StringIO()
    Terminal(file=stream, width=200).print(table, text, {text: text}, markup=False)
    assert not steers(stream.getvalue())
    screen = Tty()
    write_text(screen, f"{text}\nnext\n")
    assert not steers(screen.getvalue())
    assert screen.getvalue().endswith("next\n")


def test_styles_of_ours_still_reach_a_terminal() -> None:
    stream = Tty()
    Terminal(file=stream, force_terminal=True, color_system="standard").print(Text("x\x1b[0m", "red"))
    assert stream.getvalue() == "\x1b[31mx\N{REPLACEMENT CHARACTER}[0m\x1b[0m\n"


def test_a_pipe_gets_what_is_stored() -> None:
    stream = io.StringIO()
    write_text(stream, "a\x1b[31m\r\n")
    assert stream.getvalue() == "a\x1b[31m\r\n"


@pytest.mark.parametrize("output", ["table", "csv", "json"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_rows_are_safe_to_look_at(output: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream: Any = io.StringIO() if output == "table" else Tty()  # rich adds styles of its own on a terminal
    monkeypatch.setattr("sys.stdout", stream)
    show_rows(["column"], [[text]], output)
    assert not steers(stream.getvalue())
    assert "column" in stream.getvalue()


def test_a_huge_cell_is_cut_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    show_rows(["column"], [["\x1b" * 10_000_000]], "table")
    assert len(stream.getvalue()) < 5000


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tree_is_safe_to_look_at(text: str) -> None:
    node = NodeRecord("0", "", 0, text, "finished", 0.5, f"pruned {text}")
    stream = io.StringIO()
    Terminal(file=stream, width=200).print(tree_view(f"beam: {text}", [node], shows_all=True))
    assert not steers(stream.getvalue())
    assert "0.50" in stream.getvalue()
