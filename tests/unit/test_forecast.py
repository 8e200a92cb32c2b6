"""A forecast subtracts what pools hold and multiplies what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.analysis.forecast import forecast
from orchestrator.execution.endpoints import share_of
from orchestrator.problems.datasets import load_problems
from orchestrator.spec.file import sweep_from
from orchestrator.spec.sections import SweepSpec
from orchestrator.spec.settings import generator_fingerprint
from orchestrator.store import GeneratorRecord, NewTask, ProblemRecord, Store
from tests.store_world import sample
from workers.types import EndpointSettings, FactBatch


def spec(samples: int = 8) -> SweepSpec:
    return sweep_from(
        {
            "name": "s",
            "seed": 7,
            "problems": {"preset": "arithmetic", "per_level": 1},
            "models": {
                "policy": {
                    "endpoints": ["http://127.0.0.1:1/v1"],
                    "model": "m",
                    "parameters": 1000,
                    "sampling": {"max_tokens": 50},
                    "samples_per_request": 4,
                    "limits": {"concurrency": 2},
                }
            },
            "strategies": [{"name": "sampling", "kind": "parallel", "policy": "policy", "samples": samples}],
        }
    )


async def test_without_a_database_everything_is_missing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    (found,) = await forecast(spec(), load_problems(spec().problems, tmp_path), url)
    assert (found.problems, found.wanted, found.stored, found.missing) == (5, 40, 0, 40)
    assert (found.requests, found.max_tokens, found.expected_tokens) == (10, 2000, None)
    assert found.flops == 2 * 1000 * 2000
    assert found.seconds is None
    assert not (tmp_path / "none.db").exists()


async def test_what_is_stored_is_subtracted_and_gives_the_mean_length(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/some.db"
    problems = load_problems(spec().problems, tmp_path)
    first = problems.problems[0]
    async with await Store.open(url) as store:
        sweep = await store.register_sweep("s", "{}", "h", 7)
        record = ProblemRecord("d", first.external_id, first.statement, first.answer, first.content_hash)
        ids = await store.register_problems([record])
        name = generator_fingerprint(spec().models["policy"])
        generator_id = await store.register_generator(GeneratorRecord("policy", name, "m", "{}"))
        pools = await store.register_pools(sweep.id, generator_id, 7, "sampling", ids, 8)
        (lane,) = await store.register_lanes(sweep.id, [generator_id], [])
        await store.add_tasks([NewTask(lane.id, pools[ids[0]], 0, 8)])
        run_id = await store.start_run(sweep.id, "host", 1)
        extractor_id = await store.register_extractor("boxed", "1")
        (task,) = await store.claim(sweep.id, lane.id, run_id, 1)
        batch = FactBatch(trajectories=tuple(sample(task, index) for index in range(6)))
        await store.write(batch, run_id=run_id, extractor_id=extractor_id)
    (found,) = await forecast(spec(), problems, url)
    assert (found.stored, found.missing) == (6, 34)
    assert found.requests == 1 + 4 * 2
    assert found.expected_tokens == 34 * 10  # the stored samples have ten tokens each
    assert found.flops == 2 * 1000 * 340
    assert found.seconds == pytest.approx(0.5 * found.requests / 2)


def test_limits_of_the_sweep_file_are_shared_out_among_the_workers() -> None:
    whole = EndpointSettings("m", ("u",), concurrency=64, requests_per_minute=90.0, tokens_per_minute=None)
    share = share_of(whole, 3)
    assert (share.concurrency, share.requests_per_minute, share.tokens_per_minute) == (22, 30.0, None)
    assert share_of(EndpointSettings("m", ("u",), concurrency=1), 4).concurrency == 1
