"""Starts the stub in a process of its own, resets and reads its counters, and makes sure that it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any, Self

from benchmarks.stub import StubSettings


class StubProcess:
    """A stub under way; it ends with the `with` block, or with this process, however that ends."""

    def __init__(self, settings: StubSettings) -> None:
        self._settings = settings
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stub", *_arguments(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stub did not start (exit code {self._process.wait()})")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def reset(self) -> None:
        """Start counting anew."""
        self._call("POST", "reset")

    def stats(self) -> dict[str, Any]:
        """Counters since the last reset."""
        answer: dict[str, Any] = json.loads(self._call("GET", "stats"))
        return answer

    def _call(self, method: str, page: str) -> bytes:
        url = self.url.removesuffix("/v1") + "/stub/" + page
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as reply:
            body: bytes = reply.read()
            return body


def _arguments(settings: StubSettings) -> list[str]:
    flags = ["--verbose-logprobs"] if settings.is_verbose else []
    return [
        f"--slots={settings.slots}",
        f"--mean={settings.mean_s}",
        f"--sigma={settings.sigma}",
        f"--unit={settings.unit}",
        f"--text-characters={settings.text_characters}",
        *flags,
    ]
