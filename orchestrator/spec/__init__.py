"""The sweep file: what a user may write, how it is read, and what it means to workers and store."""

from __future__ import annotations
