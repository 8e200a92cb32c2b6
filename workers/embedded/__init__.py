"""The built-in tiny models and their OpenAI-compatible server: everything runs without GPU or download."""

from __future__ import annotations
