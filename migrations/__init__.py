"""Alembic's migrations of the store, shipped inside the package so that an installed program finds them."""

from __future__ import annotations
