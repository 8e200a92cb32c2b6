"""What can go wrong with the store, split by what the caller can do about it.

    StoreError
    ├── StoreUnavailable      the database cannot be reached or is locked: try again      (retryable)
    ├── StoreRefused          this program may not use the database as it is: the message says what to type
    ├── QueryRefused          a user's query was refused, failed or ran out of time
    ├── CopyDiffers           what a copy of the store holds is not what was sent: it stays marked as unfinished
    └── WriterFailed          the writer has stopped: nothing more is accepted

Messages never hold a password. This module must not know SQLAlchemy nor any driver.
"""

from __future__ import annotations

from typing import ClassVar

from orchestrator import errors


class StoreError(errors.StoreError):
    """The store failed."""

    retryable: ClassVar[bool] = False


class StoreUnavailable(StoreError):
    """The database cannot be reached, or another program holds its lock."""

    retryable = True


class StoreRefused(StoreError):
    """The database cannot be used as it is."""


class QueryRefused(StoreError):
    """The query was refused."""


class CopyDiffers(StoreError):
    """The copy is not the same as its source."""


class WriterFailed(StoreError):
    """The writer has stopped; what was not acknowledged is not stored."""
