"""The environment of processes that need no secret: what finds programs and libraries, and nothing else.

A list of what passes, not of what does not: keys are in variables whose names only the user knows.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TMP",
        "TEMP",
        "VIRTUAL_ENV",
    }
    | {"LD_LIBRARY_PATH", "LD_PRELOAD", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR", "SOURCE_DATE_EPOCH"}
)
_BEGINNINGS = (
    "LC_",
    "PYTHON",
    "CONDA_",
    "DYLD_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMEXPR_",
    "KMP_",
    "COVERAGE_",
)


def without_secrets(environ: Mapping[str, str], **more: str) -> dict[str, str]:
    """Of an environment, what a process of ours needs to start; `more` is added."""
    kept = {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_BEGINNINGS)}
    return {**kept, **more}
