"""Fetches one file of a dataset repository on the Hugging Face Hub, once, into the user's cache.

Why it exists: a sweep should name its problems, not carry them, and be certain to read the same bytes every
time. Public files only: no token is read or sent. HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 forbids the
network, proxies are those of the environment. It must not know what is in the file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from orchestrator.errors import DatasetError, mask_secrets
from orchestrator.spec.problems import HubFile

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_BYTES = 2 << 30
TIMEOUT_S = 30.0
"""Longest silence of the server."""
_CHUNK = 1 << 20
_LOCAL = "download the file elsewhere and name it with problems.path"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file of the Hub on this machine."""

    path: Path
    url: str
    sha256: str
    is_cached: bool
    """Whether it was here before."""


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Where downloads are kept: TTC_CACHE_DIR, or `ttc` in the user's cache directory."""
    if own := environ.get("TTC_CACHE_DIR"):
        return Path(own)
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ttc"


def fetch(file: HubFile, environ: Mapping[str, str]) -> Fetched:
    """The file, from the cache or from the Hub; `DatasetError` where it cannot be had or is not the one
    wanted.

    Without `file.sha256` the checksum of the first download is kept beside it, and what the cache holds must
    still have it: a pinned commit cannot change, a damaged disk can."""
    url = resolve_url(file, environ)
    target = cache_dir(environ) / "datasets" / file.repo / quote(file.revision, safe="") / file.file
    wanted = file.sha256 or _recorded(target)
    if target.is_file() and wanted is not None and sha256_of(target) == wanted:
        return Fetched(target, url, wanted, is_cached=True)
    if environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise _problem(url, "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it", _LOCAL)
    return Fetched(target, url, _download(url, target, file.sha256), is_cached=False)


def resolve_url(file: HubFile, environ: Mapping[str, str]) -> str:
    """Address of the file at its revision."""
    endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise DatasetError.of(
            "HF_ENDPOINT is not an http(s) URL", remedy=f"unset it, or set {DEFAULT_ENDPOINT}"
        )
    return f"{endpoint}/datasets/{file.repo}/resolve/{quote(file.revision, safe='')}/{quote(file.file)}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex characters."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _recorded(target: Path) -> str | None:
    try:
        return _sidecar(target).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _download(url: str, target: Path, wanted: str | None) -> str:
    """Write the file in one step and return its checksum; nothing is left of a failed attempt."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    except OSError as error:
        remedy = "set TTC_CACHE_DIR to a directory that can be written"
        raise _problem(str(target.parent), f"cannot be written: {error.strerror}", remedy) from None
    try:
        with os.fdopen(descriptor, "wb") as part:
            digest = _transfer(url, part)
        if wanted is not None and digest != wanted:
            message = f"has the checksum {digest[:12]}..., and {wanted[:12]}... is wanted"
            raise _problem(url, message, "correct revision or sha256, or ask who serves the file")
        _sidecar(target).write_text(f"{digest}\n", "ascii")
        Path(name).replace(target)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
    return digest


def _transfer(url: str, part: IO[bytes]) -> str:
    hasher, size = hashlib.sha256(), 0
    request = Request(url, headers={"User-Agent": "ttc"})  # noqa: S310 - resolve_url has checked the scheme
    try:
        with closing(urlopen(request, timeout=TIMEOUT_S)) as reply:  # noqa: S310
            announced = reply.headers.get("Content-Length")
            while chunk := reply.read(_CHUNK):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise _problem(url, f"is larger than {MAX_BYTES} bytes", _LOCAL)
                hasher.update(chunk)
                part.write(chunk)
    except HTTPError as error:
        error.close()
        raise _refused(url, error.code) from None
    except (URLError, HTTPException, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        message = f"cannot be fetched: {mask_secrets(str(reason)) or type(error).__name__}"
        raise _problem(url, message, f"check the network, set HF_ENDPOINT to a mirror, or {_LOCAL}") from None
    if announced is not None and size != int(announced):
        raise _problem(url, f"broke off after {size} of {announced} bytes", "try again")
    return hasher.hexdigest()


def _refused(url: str, status: int) -> DatasetError:
    if status == 404:
        return _problem(url, "does not exist (404)", "check repo, file and revision")
    if status in (401, 403):
        return _problem(url, f"is not public ({status})", _LOCAL)
    return _problem(url, f"was refused with status {status}", f"try again later, or {_LOCAL}")


def _problem(what: str, message: str, remedy: str) -> DatasetError:
    return DatasetError.of(message, file=mask_secrets(what), field="problems", remedy=remedy)
