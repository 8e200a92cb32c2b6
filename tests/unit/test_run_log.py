"""The log file: one JSON object a line, whatever was logged, and never a secret."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.run_log import run_log
from orchestrator.watching import secrets_of

SECRET = "correct-horse-battery"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_a_record_is_an_object_with_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with run_log(path, "demo"):
        logging.getLogger("orchestrator.x").info(
            "task %d failed", 7, extra={"event": "task_failed", "task_id": 7}
        )
        logging.getLogger("workers.y").warning("plain")
        logging.getLogger("somebody.else").warning("not ours")
    first, second = lines(path)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "event": "task_failed", "sweep": "demo", "task_id": 7, "message": "task 7 failed",
    }  # fmt: skip
    assert (second["event"], second["level"]) == ("log", "warning")


def test_secrets_and_control_characters_do_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As under `ttc`; and what pytest would capture could not travel to its own controller.
    monkeypatch.setattr(logging.getLogger("orchestrator"), "propagate", False)
    path = tmp_path / "run.log"
    logger = logging.getLogger("orchestrator.x")
    with run_log(path, "demo", {SECRET}):
        logger.info("key %s", SECRET, extra={"subject": f"postgresql://me:{SECRET}@host/db"})
        logger.info("Bearer abc123 sk-abcdefgh1234 \x1b[31m \u202e \udc80")
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.exception("caught")
    text = path.read_text("ascii")
    assert SECRET not in text
    assert "abc123" not in text
    assert "\x1b" not in text
    assert len(lines(path)) == 3


def test_the_file_grows_and_nothing_is_logged_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for _ in range(2):
        with run_log(path, "demo"):
            logging.getLogger("orchestrator").info("inside")
        logging.getLogger("orchestrator").warning("outside")
    assert [each["message"] for each in lines(path)] == ["inside", "inside"]


def test_an_error_is_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with pytest.raises(UsageError), run_log(path, "demo"):
        raise UsageError("no such thing")
    assert lines(path)[-1]["event"] == "ended_with_error"
    assert "no such thing" in lines(path)[-1]["message"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--log-file"), run_log(tmp_path / "no" / "run.log", "demo"):
        pass


def test_no_file_means_no_log() -> None:
    before = logging.getLogger("orchestrator").handlers[:]
    with run_log(None, "demo"):
        assert logging.getLogger("orchestrator").handlers == before


def test_secrets_are_the_password_and_what_variables_with_such_names_hold() -> None:
    environ = {
        "MY_API_KEY": "k" * 12,
        "PATH": "/usr/bin/some/long/path",
        "SHORT_TOKEN": "x",
        "PGPASSWORD": "p" * 9,
    }
    found = secrets_of("postgresql://me:pass%40word1@host/db", environ)
    assert set(found) == {"pass@word1", "k" * 12, "p" * 9}
