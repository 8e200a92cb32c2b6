"""Two real vLLM replicas: what their load reports say, and what affinity is worth to their prefix caches."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.execution.embedded_server import embedded_server
from tests.sweep_world import Command
from tests.vllm.server import vllm_server
from workers.http import exchange, open_session

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "workers/embedded/models/arithmetic"
PROBLEMS = ROOT / "workers/embedded/data/arithmetic.jsonl"
TIMEOUT_S = 900.0
READ_FIRST, SEARCHED = 8, 24
BLOCK_TOKENS = 32
"""The smallest that vLLM takes on a CPU; it shares whole blocks only, and the embedded model's solutions are short."""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Base URLs of two servers with prefix caches."""
    folder = tmp_path_factory.mktemp("vllm")
    options = ("--enable-prefix-caching", "--block-size", str(BLOCK_TOKENS), "--enable-prompt-tokens-details")
    with ExitStack() as stack:
        yield [
            stack.enter_context(vllm_server(MODEL, "arithmetic", folder / f"server-{number}.log", *options))
            for number in range(2)
        ]


async def test_a_reply_brings_the_servers_own_account_of_its_load(replicas: Sequence[str]) -> None:
    body = {"model": "arithmetic", "prompt": "1 + 1 =", "max_tokens": 4}
    async with open_session() as session:
        reply = await exchange(
            session, "POST", f"{replicas[0]}/completions", body=json.dumps(body).encode(), deadline_s=60,
            max_bytes=1 << 20,
        )  # fmt: skip
    assert reply.status == 200
    assert reply.load is not None
    assert reply.load.waiting == 0.0


async def test_affinity_finds_as_many_beginnings_in_the_prefix_caches_or_more(
    replicas: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates: dict[str, float] = {}
    async with embedded_server("arithmetic-prm-soft") as scorer:
        for half, affinity in enumerate(
            ("problem", "none")
        ):  # other problems each, so that neither warms the other's
            place = tmp_path / affinity
            write_search(place, replicas, scorer, half, affinity)
            before = caches(replicas)
            command = await Command.start(
                "run", place / "sweep.yaml", "--local", "--no-preview", "--json", folder=place
            )
            said = await command.ended(TIMEOUT_S)
            assert said.code == 0, said.err
            queries, hits = (after - was for after, was in zip(caches(replicas), before, strict=True))
            rates[affinity] = hits / queries
    with capsys.disabled():
        print(f"\nprefix cache hit rate by affinity: {rates}")
    # Beginnings as short as the embedded model's are soon in both caches: affinity must cost nothing, and wins little.
    assert rates["problem"] > 0.5
    assert rates["problem"] >= rates["none"] - 0.01


def write_search(place: Path, urls: Sequence[str], scorer: str, half: int, affinity: str) -> None:
    """A beam search for problems that begin with so much to read that it is worth finding in a cache."""
    place.mkdir()
    rows = [json.loads(line) for line in PROBLEMS.read_text().splitlines()][half::2]
    problems = [
        {**rows[first], "problem": " ".join(each["problem"] for each in rows[first : first + READ_FIRST])}
        for first in range(0, READ_FIRST * SEARCHED, READ_FIRST)
    ]
    (place / "problems.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in problems))
    limits = {"concurrency": 32, "adaptive": False, "affinity": affinity}
    sweep: dict[str, Any] = {
        "name": "caches",
        "problems": {"path": "problems.jsonl"},
        "models": {
            "policy": {
                "endpoints": list(urls),
                "model": "arithmetic",
                "sampling": {"max_tokens": 256},
                # The children of one request would find each other's beginning, wherever it is sent.
                "samples_per_request": 1,
                "limits": limits,
            }
        },
        "scorers": {
            "prm": {
                "kind": "prm", "format": "embedded", "label_type": "soft", "endpoints": scorer,
                "model": "arithmetic-prm-soft",
            }
        },
        "strategies": [
            {"name": "beam", "kind": "beam", "policy": "policy", "scorer": "prm", "budgets": [16], "expansion": 4,
                "max_step_tokens": 48, "max_tokens": 384}
        ],
        "limits": {"workers": 1},
    }  # fmt: skip
    (place / "sweep.yaml").write_text(yaml.safe_dump(sweep))


def caches(urls: Sequence[str]) -> tuple[float, float]:
    """Tokens looked up in the prefix caches of all servers, and found there."""
    queries = hits = 0.0
    for url in urls:
        with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=30) as reply:
            text = reply.read().decode()
        queries += sum(
            map(float, re.findall(r"^vllm:prefix_cache_queries_total\{.*\} (\S+)$", text, re.MULTILINE))
        )
        hits += sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", text, re.MULTILINE)))
    return queries, hits
