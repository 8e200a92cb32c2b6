"""Draws docs/images/PICTURE.svg: what a command of ttc really prints, in colour.

python docs/draw.py PICTURE ARGUMENTS..., for instance: results results arithmetic-demo --db ttc.db. It must not know
what the output means.
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

IMAGES = Path(__file__).parent / "images"
WIDTH = 94
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Fonts from elsewhere: pages that show the picture do not load them, so the reader's own are used."""


def main() -> None:
    """Run the command, and write its output as a picture."""
    picture, *arguments = sys.argv[1:]
    command = ["ttc", *arguments]
    shown = " ".join(word for word in arguments if not word.startswith("--db") and not word.endswith(".db"))
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(found.stdout.rstrip()))
    drawn = console.export_svg(title=f"ttc {shown}", theme=MONOKAI, unique_id="ttc")
    drawn = FONT_FACE.sub("", drawn).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    (IMAGES / f"{picture}.svg").write_text(drawn + "\n", "utf-8")


if __name__ == "__main__":
    main()
