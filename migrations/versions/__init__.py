"""Revisions, in order. A released one is never edited."""

from __future__ import annotations
