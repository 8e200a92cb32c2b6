"""Saying things on standard output and beside it. It knows no results: commands without any start quickly."""

from __future__ import annotations

import json
import sys
from typing import Any

from orchestrator.terminal import Terminal, printable, write_text


def note(message: str) -> None:
    """Say something beside the output."""
    sys.stderr.write(printable(message) + "\n")


def show(what: Any) -> None:
    """Print for people."""
    Terminal().print(what)


def show_line(text: str) -> None:
    """Print one line, however long."""
    write_text(sys.stdout, text + "\n")


def show_json(value: Any) -> None:
    """Print for machines."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
