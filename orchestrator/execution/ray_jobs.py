"""Ray's job API: the one place that knows how a job is sent to a cluster, found again, followed and stopped.

Facts this file is built on (ray 2.60, measured): a job outlives whoever submitted it, runs once, on the head, and its
id is never free again; its metadata are kept with it, so that a sweep's jobs can be listed; the client has no timeout,
and the environment overrides the address it is given; a log that is followed ends with the job, or without a word when
the connection does. It must not know sweeps, databases or terminals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from orchestrator.environment import API_VARIABLE
from orchestrator.errors import UsageError
from orchestrator.execution.ray_runtime import RayUnavailable, knock

SWEEP_KEY = "ttc_sweep"
"""Key of a job's metadata that names its sweep."""
REQUEST_TIMEOUT_S = 60.0
SILENCE_S = 60.0
"""A log that says nothing for so long is asked for again: the connection may be gone without a word."""
_REFUSED_REMEDY = (
    "set RAY_AUTH_MODE=token, and have the cluster's token in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH "
    "names, or in ~/.ray/auth_token"
)
_START_REMEDY = (
    "on the head, install ray[default] and run `ray start --head`; from elsewhere, `ray dashboard cluster.yaml` "
    "makes it reachable as http://127.0.0.1:8265"
)


class JobState(StrEnum):
    """What Ray says of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job of a sweep."""

    id: str
    sweep: str
    state: JobState
    started_s: float
    """Unix time."""
    ended_s: float | None
    exit_code: int | None
    """None while it runs, and if it did not end by itself."""
    message: str

    @property
    def is_over(self) -> bool:
        """Has it ended, however?"""
        return self.state not in (JobState.PENDING, JobState.RUNNING)


class RayJobs:
    """The jobs of sweeps on one cluster."""

    def __init__(self, address: str) -> None:
        """Connect; raises `RayUnavailable` at once where nothing answers or the token is refused."""
        self._address = job_address(address)
        knock(self._address, _START_REMEDY)
        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.ERROR)  # what is uploaded is said by whoever asked for it
        with self._told(), _only_address(self._address):
            self._client = _Client(self._address)

    def submit(self, sweep: str, command: Sequence[str], folder: Path) -> str:
        """Start a job in a copy of `folder`; its id. Nothing of it depends on this process from then on."""
        job_id = f"{sweep}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        with self._told():
            self._client.submit_job(
                entrypoint=f"exec {shlex.join(command)}",
                submission_id=job_id,
                runtime_env={"working_dir": str(folder)},
                metadata={SWEEP_KEY: sweep},
            )
        return job_id

    def jobs(self) -> list[Job]:
        """All jobs of sweeps that the cluster remembers, the latest first."""
        with self._told():
            found = [_job(each) for each in self._client.list_jobs() if SWEEP_KEY in (each.metadata or {})]
        return sorted(found, key=lambda job: job.started_s, reverse=True)

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        with self._told():
            return _job(self._client.get_job_info(job_id))

    def log(self, job_id: str) -> str:
        """Everything a job has written."""
        with self._told():
            return str(self._client.get_job_logs(job_id))

    def stop(self, job_id: str) -> None:
        """Ask a job to stop: SIGTERM, and SIGKILL when the cluster's patience ends."""
        with self._told():
            self._client.stop_job(job_id)

    async def follow(self, job_id: str) -> AsyncGenerator[str, None]:
        """Everything a job has written and writes, in pieces; ends with the job, or when nothing comes for long."""
        stream = self._client.tail_job_logs(job_id)
        try:
            async with contextlib.aclosing(stream):
                while True:
                    with self._told():
                        async with asyncio.timeout(SILENCE_S):
                            piece = await anext(stream, None)
                    if piece is None:
                        return
                    yield piece
        except TimeoutError:
            return

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what Ray's client raises into our errors."""
        try:
            yield
        except AuthenticationError as error:
            first = str(error).splitlines()[0]
            raise RayUnavailable(
                f"{self._address} refuses the token: {first}", remedy=_REFUSED_REMEDY
            ) from None
        except TimeoutError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError, aiohttp.ClientError) as error:
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            raise RayUnavailable(
                f"{self._address} does not answer as the job API of Ray: {text}",
                remedy="name the address of the dashboard, say http://HEAD:8265",
            ) from None


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client with a limit to how long it waits for a reply."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": REQUEST_TIMEOUT_S, **options})


def job_address(address: str) -> str:
    """The address of a job API, if it has the form of one."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError.of(
            "is not the URL of a dashboard, which takes jobs", field="--address", value=repr(address),
            remedy="write http://HEAD:8265",
        )  # fmt: skip
    return address.rstrip("/")


@contextlib.contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Ray's client lets the environment override its argument; what the user typed should hold."""
    before = os.environ.get(API_VARIABLE)
    os.environ[API_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[API_VARIABLE]
        else:
            os.environ[API_VARIABLE] = before


def _job(details: Any) -> Job:
    """A job as Ray's client describes it; its times are in milliseconds."""
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id,
        sweep=metadata.get(SWEEP_KEY, ""),
        state=JobState(details.status.value.lower()),
        started_s=(details.start_time or 0) / 1000,
        ended_s=None if details.end_time is None else details.end_time / 1000,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
