"""What a Ray of our own must not have: ports that others reach, and secrets that its processes do not need.

It does not import Ray, since Ray reads the setting when it is imported.
"""

from __future__ import annotations

import os

from orchestrator.environment import DATABASE_VARIABLE, METRICS_TOKEN_VARIABLE

LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""In spite of its name it holds on any system: 0 makes 127.0.0.1 the address of this node, where Ray's servers listen.
Without it they listen on all interfaces, and `_node_ip_address="127.0.0.1"` does not stop them (Ray 2.60)."""


COORDINATORS_OWN = (DATABASE_VARIABLE, METRICS_TOKEN_VARIABLE)
"""Variables that only the coordinator reads, and has read by then."""


def prepare_local_ray() -> None:
    """Have a Ray that this process starts listen on loopback only, and know neither database nor token.

    Call it before anything imports ray. Keys of model servers stay: workers need them.
    """
    os.environ.setdefault(LOOPBACK_VARIABLE, "0")
    for name in COORDINATORS_OWN:
        os.environ.pop(name, None)
