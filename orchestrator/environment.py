"""Names of the environment variables that several parts of ttc go by; it reads none of them."""

from __future__ import annotations

DATABASE_VARIABLE = "TTC_DATABASE_URL"
"""The store, where the command line names none."""
METRICS_TOKEN_VARIABLE = "TTC_METRICS_TOKEN"  # noqa: S105 -- its name
"""Token that readers of a run's metrics must send."""
TRACEBACK_VARIABLE = "TTC_TRACEBACK"
"""Show the traceback of an internal error."""
STOP_WINDOW_VARIABLE = "TTC_STOP_WINDOW_S"
"""Seconds that whoever runs ttc leaves between SIGTERM and SIGKILL."""
PYTHON_VARIABLE = "TTC_PYTHON"
"""Interpreter that has ttc on the head of a cluster."""
API_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Dashboard of a cluster, where the command line names none; Ray's own commands look there, too."""
