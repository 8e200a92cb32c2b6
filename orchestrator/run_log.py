"""The log file of a run: one JSON object a line, for machines that keep logs.

It formats what the modules log with the standard `logging`; it decides nothing about what is logged. It never writes a
secret: what has the shape of one is masked, and so are the values it is told.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import MASK, UsageError, mask_secrets

LOGGERS = ("orchestrator", "workers")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was said by whoever logged it."""

logger = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as one line: time, level, event, sweep, message, and whatever was given as `extra`."""

    def __init__(self, sweep: str, secrets: Collection[str]) -> None:
        super().__init__()
        self._sweep = sweep
        self._secrets = tuple(sorted((each for each in secrets if each), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        """ASCII only: what a model wrote cannot steer the terminal of whoever reads the log."""
        # What begins with an underscore is some library's own note, as Ray's.
        said = {k: value for k, value in vars(record).items() if k not in _PLAIN and not k.startswith("_")}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": said.pop("event", "log"),
            "sweep": self._sweep,
            **said,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps({key: self._masked(value) for key, value in line.items()})

    def _masked(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        text = str(value)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return mask_secrets(text)


@contextmanager
def run_log(path: Path | None, sweep: str, secrets: Collection[str] = ()) -> Iterator[None]:
    """Append what is logged inside to the file at `path`; None: nowhere. The end of an error is logged too.

    Raises UsageError if the file cannot be written.
    """
    if path is None:
        yield
        return
    handler = _opened(path)
    handler.setFormatter(JsonLines(sweep, secrets))
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("%s: %s", type(error).__name__, error, extra={"event": "ended_with_error"})
        raise
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)
        handler.close()


def _opened(path: Path) -> logging.Handler:
    try:
        return logging.handlers.WatchedFileHandler(path, encoding="utf-8")  # goes on after a rotation
    except OSError as error:
        raise UsageError.of(
            f"cannot be written ({error.strerror})", field="--log-file", value=repr(str(path)),
            remedy="name a file in a folder that exists and may be written",
        ) from error  # fmt: skip
