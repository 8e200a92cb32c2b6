"""Draws docs/images/results.svg: what `ttc results` really prints for a store, in colour.

python docs/draw_results.py DATABASE NAME. It must not know what the tables mean.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGE = Path(__file__).parent / "images" / "results.svg"
WIDTH = 94
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Fonts from elsewhere: pages that show the picture do not load them, so the reader's own are used."""


def main() -> None:
    """Run the command, and write its output as a picture."""
    database, name = sys.argv[1:]
    command = ["ttc", "results", name, "--db", database]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(found.stdout.rstrip()))
    drawn = console.export_svg(title=f"ttc results {name}", theme=MONOKAI, unique_id="ttc")
    drawn = FONT_FACE.sub("", drawn).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    IMAGE.write_text(drawn + "\n", "utf-8")


if __name__ == "__main__":
    main()
