"""Keeps a Ray of our own on loopback. It does not import Ray, since Ray reads the setting when it is imported."""

from __future__ import annotations

import os

LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""In spite of its name it holds on any system: 0 makes 127.0.0.1 the address of this node, where Ray's servers listen.
Without it they listen on all interfaces, and `_node_ip_address="127.0.0.1"` does not stop them (Ray 2.60)."""


def keep_on_loopback() -> None:
    """Have a Ray that this process starts listen on loopback only; call it before anything imports ray."""
    os.environ.setdefault(LOOPBACK_VARIABLE, "0")
