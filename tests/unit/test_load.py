"""Load reports: what vLLM sends is read, anything else is no report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from workers.load import ASK_HEADER, ASK_VALUE, HEADER, MAX_CHARS, Load, parse_load


def test_what_a_real_vllm_sends_is_read() -> None:
    folder = os.environ.get("TTC_TEST_DATA")
    if folder is None:
        pytest.skip("TTC_TEST_DATA is not set: no transcripts")
    lines = (Path(folder) / "wire/vllm_0.32.0_transcripts.jsonl").read_text().splitlines()
    (recorded,) = [each for each in map(json.loads, lines) if each["name"] == "orca_json"]
    assert recorded["request_headers"] == {ASK_HEADER: ASK_VALUE}
    assert parse_load(recorded["response_headers"][HEADER]) == Load(0.0, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "JSON",
        "JSON {",
        "JSON []",
        'JSON {"named_metrics": []}',
        'JSON {"named_metrics": {}}',
        'JSON {"named_metrics": {"num_requests_waiting": "2"}}',
        'JSON {"named_metrics": {"num_requests_waiting": true}}',
        'JSON {"named_metrics": {"num_requests_waiting": -1}}',
        'JSON {"named_metrics": {"num_requests_waiting": NaN}}',
        'JSON {"named_metrics": {"num_requests_waiting": 1e999}}',
        "TEXT named_metrics.num_requests_waiting=0.0",
        "JSON " + "[" * 2000,
        'JSON {"named_metrics": {"num_requests_waiting": 1}}' + " " * MAX_CHARS,
    ],
)
def test_what_makes_no_sense_is_no_report(text: str | None) -> None:
    assert parse_load(text) is None


def test_a_cache_that_is_not_spoken_of_is_not_known() -> None:
    assert parse_load('JSON {"named_metrics": {"num_requests_waiting": 3}}') == Load(3.0, None)
