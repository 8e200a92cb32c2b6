"""A real vLLM on this CPU serves the embedded checkpoint: the same greedy text, the same seeds, whole sweeps.

Run by `make test-vllm`, which installs vLLM in a venv of its own first; never part of `make test`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.embedded_server import embedded_server
from tests.vllm.server import PYTHON, vllm_server
from workers.generation import ModelClient
from workers.types import Api, EndpointSettings, GeneratorSettings, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "workers/embedded/models/arithmetic"
PROBLEMS = [
    json.loads(line) for line in (ROOT / "workers/embedded/data/arithmetic.jsonl").read_text().splitlines()
]


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a real vLLM server of the embedded checkpoint."""
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_server(MODEL, "arithmetic", log) as url:
        yield url


def settings(url: str, *, temperature: float = 1.0, n: int = 16) -> GeneratorSettings:
    return GeneratorSettings(
        generator_id=1,
        fingerprint="f",
        model="arithmetic",
        api=Api.COMPLETIONS,
        template="{problem}\n\n",
        system=None,
        sampling=Sampling(temperature=temperature, max_tokens=256),
        samples_per_request=n,
        endpoint=EndpointSettings("policy", (url,), concurrency=32),
    )


async def draw_texts(
    url: str, problems: list[str], *, seed: int, count: int, n: int, temperature: float
) -> list[list[str]]:
    """Texts of `count` samples of every problem, drawn in requests of `n`."""
    generator = settings(url, temperature=temperature, n=n)

    async def one(client: ModelClient, statement: str) -> list[str]:
        texts: list[str] = []
        for start in range(0, count, n):
            draw = await client.draw(
                generator, statement, seed=seed + start, count=min(n, count - start), affinity=0
            )
            texts += [sample.text for sample in draw.samples]
        return texts

    async with ModelClient(generator.endpoint) as client:
        return await asyncio.gather(*(one(client, each) for each in problems))


async def test_greedy_output_equals_vllm_and_transformers(vllm_url: str) -> None:
    statements = [each["problem"] for each in PROBLEMS[::5]]
    async with embedded_server("arithmetic") as url:
        ours = await draw_texts(url, statements, seed=1, count=1, n=1, temperature=0.0)
    theirs = await draw_texts(vllm_url, statements, seed=1, count=1, n=1, temperature=0.0)
    assert ours == theirs
    assert [text for (text,) in ours] == _transformers_greedy(statements)


def _transformers_greedy(statements: list[str]) -> list[str]:
    script = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, statements = sys.argv[1], json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
texts = []
with torch.inference_mode():
    for statement in statements:
        ids = tokenizer(statement + "\\n\\n", return_tensors="pt", add_special_tokens=False).input_ids
        out = model.generate(ids, do_sample=False, max_new_tokens=256)[0, ids.shape[1]:]
        texts.append(tokenizer.decode(out, skip_special_tokens=True))
json.dump(texts, sys.stdout)
"""
    found = subprocess.run(
        [str(PYTHON), "-c", script, str(MODEL)],
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    texts: list[str] = json.loads(found.stdout)
    return texts


@pytest.mark.parametrize("server", ["vllm", "embedded"])
async def test_sample_k_is_the_same_however_the_pool_is_cut(server: str, vllm_url: str) -> None:
    statements = [each["problem"] for each in PROBLEMS[::100]]
    if server == "vllm":
        cuts = [
            await draw_texts(vllm_url, statements, seed=77, count=16, n=n, temperature=1.0)
            for n in (1, 5, 16)
        ]
    else:
        async with embedded_server("arithmetic") as url:
            cuts = [
                await draw_texts(url, statements, seed=77, count=16, n=n, temperature=1.0) for n in (1, 5, 16)
            ]
    assert cuts[0] == cuts[1] == cuts[2]
    assert len({text for texts in cuts[0] for text in texts}) > len(statements)


@pytest.mark.parametrize("api", [Api.COMPLETIONS, Api.CHAT])
async def test_a_beginning_is_gone_on_with_and_not_begun_anew(api: Api, vllm_url: str) -> None:
    statements = [each["problem"] for each in PROBLEMS[4::100]]
    whole = await draw_texts(vllm_url, statements, seed=1, count=1, n=1, temperature=0.0)
    generator = replace(settings(vllm_url, temperature=0.0, n=1), api=api)
    async with ModelClient(generator.endpoint) as client:
        for statement, (text,) in zip(statements, whole, strict=True):
            beginning = text[: text.index("\n\n") + 2]
            draw = await client.draw(generator, statement, seed=1, count=1, affinity=0, prefix=beginning)
            (rest,) = draw.samples
            assert beginning + rest.text == text


def run_ttc(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".venv/bin/ttc"), *arguments], capture_output=True, text=True, check=check, timeout=1700
    )


def sweep_file(
    path: Path, name: str, model: dict[str, object], problems: dict[str, object], samples: int
) -> Path:
    spec = {
        "name": name,
        "seed": 11,
        "problems": problems,
        "models": {"policy": model},
        "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": samples}],
    }
    path.write_text(json.dumps(spec))  # JSON is YAML
    return path


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_math500_is_sampled_and_graded(
    store: str, vllm_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = os.environ.get("TTC_TEST_DATA")
    if not data:
        pytest.skip("TTC_TEST_DATA names no folder of test data")
    url = f"sqlite:///{tmp_path}/math.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    sampling = {"temperature": 1.0, "max_tokens": 48}
    model = {
        "endpoints": [vllm_url],
        "model": "arithmetic",
        "sampling": sampling,
        "limits": {"concurrency": 16},
    }
    fields = {
        "id": "unique_id",
        "statement": "problem",
        "answer": "answer",
        "level": "level",
        "subject": "subject",
    }
    sweep = sweep_file(
        tmp_path / "math.yaml", "math500", model, {"path": f"{data}/math500.jsonl", "fields": fields}, 16
    )
    found = json.loads(run_ttc("run", str(sweep), "--db", url, "--json").stdout)
    assert found["reason"] == "complete"
    assert found["samples_stored"] == found["samples_wanted"] >= 490 * 16
    rows = json.loads(
        run_ttc(
            "sql", "--db", url, "--json", "select outcome, count(*) as n from v_samples group by 1"
        ).stdout
    )
    assert sum(row["n"] for row in rows) == found["samples_stored"]
    (accuracy,) = [
        row["value"]
        for row in found["strategies"]["sampling"]["results"]
        if (row["level"], row["selector"], row["budget"]) == ("all", "pass", 1)
    ]
    assert accuracy < 0.05  # a toy that has seen nothing but sums


def test_arithmetic_through_vllm_is_as_good_as_through_the_embedded_server(
    vllm_url: str, tmp_path: Path
) -> None:
    sampling = {"temperature": 1.0, "max_tokens": 256}
    problems = {"preset": "arithmetic", "shuffle": 3, "per_level": 20}
    served = {
        "vllm": {"endpoints": [vllm_url], "model": "arithmetic", "sampling": sampling},
        "embedded": {"embedded": "arithmetic", "sampling": sampling},
    }
    shares: dict[str, dict[str, float]] = {}
    for name, model in served.items():
        sweep = sweep_file(
            tmp_path / f"{name}.yaml", name, {**model, "limits": {"concurrency": 16}}, problems, 64
        )
        run_ttc("run", str(sweep), "--db", str(tmp_path / f"{name}.db"), "--json")
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            shares[name] = dict(
                connection.execute(
                    "select external_id, avg(verdict = 'correct') from v_samples group by external_id"
                ).fetchall()
            )
    differences = [shares["vllm"][key] - shares["embedded"][key] for key in shares["vllm"]]
    mean = math.fsum(differences) / len(differences)
    variance = math.fsum((each - mean) ** 2 for each in differences) / (len(differences) - 1)
    assert abs(mean) < 4 * math.sqrt(variance / len(differences))
