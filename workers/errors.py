"""Everything that can go wrong in a worker, split by what the caller can do about it.

    WorkerError
    ├── EndpointError                 a call to a model server did not give a usable reply
    │   ├── Unreachable               no connection, or it broke before a reply            (retryable)
    │   ├── DeadlineExceeded          no reply within the deadline of the call             (retryable)
    │   ├── RateLimited               429: slow down                                       (retryable)
    │   ├── ServerFault               408, 425, 5xx: the server failed                     (retryable)
    │   ├── MalformedReply            200, but not the reply that was asked for            (retryable)
    │   └── Rejected                  the server will never serve this request             (final)
    │       ├── ContextOverflow       the prompt does not fit the model's context: an outcome of the sample
    │       ├── ContentRefused        a content filter refused: an outcome of the sample
    │       └── Misconfigured         401, 403, 404, unknown model: an error of the sweep, not of a sample
    ├── Draining                      the worker was told to send nothing more: no word about the sample
    ├── SearchStopped                 a step of a search could not be had: the search stops, and goes on in the next run
    ├── GradingError                  a grader process could not give a verdict
    └── StrategyError                 a strategy cannot be had: its name, its options, or what the name leads to

Every error survives pickle, since it may cross a process: its arguments are plain values kept in `args`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WorkerError(Exception):
    """A worker failed."""

    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str = "", *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.status = status
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from plain values, keyword attributes included."""
        return type(self), (str(self),), {"status": self.status, "retry_after_s": self.retry_after_s}

    @property
    def kind(self) -> str:
        """Name under which this failure is counted and stored."""
        return _snake_case(type(self).__name__)


class EndpointError(WorkerError):
    """A call to a model server failed."""


class Unreachable(EndpointError):
    """The server could not be reached, or the connection broke before a reply."""

    retryable = True


class DeadlineExceeded(EndpointError):
    """The server gave no reply within the deadline of the call."""

    retryable = True


class RateLimited(EndpointError):
    """The server asks to slow down (429)."""

    retryable = True


class ServerFault(EndpointError):
    """The server failed to serve the request."""

    retryable = True


class MalformedReply(EndpointError):
    """The server replied with something other than what was asked for."""

    retryable = True


class Rejected(EndpointError):
    """The server refuses this request for good."""


class ContextOverflow(Rejected):
    """The prompt does not fit the context of the model."""


class ContentRefused(Rejected):
    """A content filter refused the prompt or the completion."""


class Misconfigured(Rejected):
    """The server does not accept the key, the path or the model named in the sweep."""


class Draining(WorkerError):
    """The worker sends nothing more; the request was not sent."""


class GradingError(WorkerError):
    """A grader could not give a verdict."""


class SearchStopped(WorkerError):
    """A step of a search could not be drawn or scored: the search stops, and goes on from its tree in the next run."""


class StrategyError(WorkerError):
    """There is no such strategy, or not with these options."""


def _snake_case(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
