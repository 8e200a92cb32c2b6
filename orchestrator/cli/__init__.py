"""The command line: `main` is the entry point, `app` what documents and tests look at."""

from __future__ import annotations

from orchestrator.cli.commands import app, main

__all__ = ["app", "main"]
