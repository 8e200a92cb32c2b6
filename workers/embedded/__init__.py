"""The built-in tiny models and their OpenAI-compatible server: everything runs without a GPU or a download."""

from __future__ import annotations
