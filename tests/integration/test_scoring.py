"""Sweeps with scorers and labels, over real HTTP: drawn, completed and scored once, resumed, refused, extended."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import EndpointProblem
from orchestrator.execution.progress import JsonReporter
from orchestrator.registration import extend
from orchestrator.spec.file import read_document
from orchestrator.store import Store
from orchestrator.sweep import RunOptions, RunReport, run_sweep
from tests.fault_server import FaultServer
from tests.reward_server import RewardFault, RewardServer
from tests.sweep_world import NAME, SweepFolder, assert_same_rows, rows_of, ttc

PRM = "qwen"
ROLLOUTS = {"solutions": 8, "rollouts": 4}


def scorers(url: str, **changes: Any) -> dict[str, Any]:
    fields = {"kind": "prm", "format": PRM, "endpoints": url, "model": "scorer", "label_type": "soft"}
    return {"prm": {**fields, "texts_per_request": 4, **changes}}


def write(folder: SweepFolder, policy: str, reward: str | None, **options: Any) -> None:
    more = {} if reward is None else {"scorers": scorers(reward)}
    folder.write(policy, samples=24, more=more, **options)


async def rows(folder: SweepFolder, sql: str) -> list[tuple[Any, ...]]:
    async with await Store.open(folder.database, create=False) as store:
        return (await store.query(sql, limit=1_000_000)).rows


async def score(folder: SweepFolder, file: Path) -> RunReport:
    """`ttc score NAME FILE`, in this process."""
    reporter = JsonReporter(io.StringIO())
    async with await Store.open(folder.database, create=False) as store:
        spec, registered = await extend(NAME, read_document(file), str(file), store)
        options = RunOptions(is_local=True, is_previewed=False, only_scores=True)
        return await run_sweep(spec, registered, store, options, reporter)


def scored_texts(server: RewardServer) -> Counter[str]:
    """How often each text was asked about, the probe's own apart."""
    texts = (text for payload in server.payloads.get("pooling", ()) for text in payload["input"])
    return Counter(text for text in texts if "times 1?" in text)


async def test_a_sweep_draws_labels_and_scores_and_does_it_once(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        write(folder, policy.url, reward.url, rollouts=ROLLOUTS)
        first = await folder.run_here()
        assert first.report.reason == "complete"
        assert max(scored_texts(reward).values()) == 1
        before = await rows_of(folder.database)
        calls = policy.requests, reward.scoring_requests
        again = await folder.run_here()
        assert again.report.reason == "nothing to do"
        assert (policy.requests, reward.scoring_requests) == calls
    assert await rows_of(folder.database) == before
    assert len(before["scores"]) == 3 * 24
    assert {row[5] for row in before["scores"]} == {"ok"}
    (counts,) = await rows(
        folder, "SELECT COUNT(*), SUM(rollouts), MIN(rollouts), MAX(rollouts) FROM v_labels"
    )
    assert counts[0] > 0
    assert counts[1:] == (4 * counts[0], 4, 4)
    steps = await rows(
        folder,
        """SELECT COUNT(*) FROM scores s JOIN trajectory_texts x ON x.trajectory_id = s.trajectory_id
        WHERE json_array_length(s.values_json) <> json_array_length(x.step_ends)""",
    )
    assert steps == [(0,)]


async def test_labels_go_on_from_the_end_of_each_step(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as policy:
        write(folder, policy.url, None, rollouts=ROLLOUTS)
        await folder.run_here()
        prompts = {payload["prompt"] for payload in policy.payloads}
    texts = await rows(
        folder,
        """SELECT q.statement || '\n\n', x.text, x.step_ends FROM trajectory_texts x
        JOIN trajectories t ON t.id = x.trajectory_id JOIN pools p ON p.id = t.pool_id
        JOIN problems q ON q.id = p.problem_id WHERE p.prefix_id IS NULL AND t.sample_index < 8""",
    )
    wanted = {statement + text[:end] for statement, text, ends in texts for end in json.loads(ends)[:-1]}
    assert wanted
    completed = {prompt for prompt in prompts if prompt.partition("\n\n")[2]}
    assert completed == wanted


async def test_a_scorer_added_later_scores_what_is_stored_and_draws_nothing(tmp_path: Path) -> None:
    folder, both = SweepFolder(tmp_path / "apart"), SweepFolder(tmp_path / "together")
    for each in (folder, both):
        each.folder.mkdir()
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        write(folder, policy.url, None)
        await folder.run_here()
        requests = policy.requests
        added = tmp_path / "scorers.yaml"
        added.write_text(yaml.safe_dump({"scorers": scorers(reward.url)}))
        await policy.stop()  # nobody needs it any more
        report = await score(folder, added)
        assert (report.samples_drawn, report.scores_made) == (0, 72)
        assert policy.requests == requests
        await policy.start()
        write(both, policy.url, reward.url)
        await both.run_here()
    found, wanted = await rows_of(folder.database), await rows_of(both.database)
    assert_same_rows(found, wanted, but="results")


async def test_scoring_needs_no_policy_server_once_all_is_drawn(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        write(folder, policy.url, None)
        await folder.run_here()
        await policy.stop()
        write(folder, policy.url, reward.url)
        assert (await folder.run_here()).report.scores_made == 72


@pytest.mark.parametrize("fault", [RewardFault.FEWER, RewardFault.NAN, RewardFault.TOO_BIG])
async def test_a_scorer_that_breaks_its_contract_is_refused_before_anything_is_drawn(
    tmp_path: Path, fault: RewardFault
) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as policy, RewardServer(classes=2, always=fault) as reward:
        write(folder, policy.url, reward.url)
        with pytest.raises(EndpointProblem, match=r"scorer .prm.*(scores? came|outside|finite|add up)"):
            await folder.run_here()
    assert await rows(folder, "SELECT COUNT(*) FROM trajectories") == [(0,)]


@pytest.mark.parametrize("fault", [RewardFault.FEWER, RewardFault.NAN, RewardFault.TOO_BIG])
async def test_a_contract_broken_on_the_way_is_counted_and_made_good_by_the_next_run(
    tmp_path: Path, fault: RewardFault
) -> None:
    folder, calm = SweepFolder(tmp_path), f"sqlite:///{tmp_path / 'calm.db'}"
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        write(folder, policy.url, reward.url, limits={"max_attempts": 2})
        await folder.run_here(calm)
        await folder.run_here(f"sqlite:///{tmp_path / 'drawn.db'}")
        hit = max(scored_texts(reward))
        reward.always = fault
        reward.spoils = lambda ids: "".join(chr(i - 1000) for i in ids if i > 1000).count("we find 7") > 0
        assert hit
        broken = (await folder.run_here()).report
        reward.always = RewardFault.NONE
        assert broken.failed_scores > 0
        (status,) = await rows(folder, "SELECT DISTINCT status FROM scores WHERE status <> 'ok'")
        assert status == ("invalid",)
        details = await rows(folder, "SELECT detail FROM scores WHERE status = 'invalid'")
        assert all(detail for (detail,) in details)
        assert await rows(folder, "SELECT COUNT(*) FROM v_step_scores WHERE value > 1 OR value < 0") == [(0,)]
        assert (await folder.run_here()).report.failed_scores == 0
    assert_same_rows(await rows_of(folder.database), await rows_of(calm))


async def test_scores_that_failed_end_the_command_with_a_code_of_their_own(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        write(folder, policy.url, None)
        await folder.run_here()
        limits = {"max_attempts": 1}
        added = tmp_path / "scorers.yaml"
        added.write_text(yaml.safe_dump({"scorers": scorers(reward.url, limits=limits)}))
        reward.spoils = lambda ids: len(ids) % 2 == 0
        reward.always = RewardFault.NONE
        said = await ttc("score", NAME, added, "--db", folder.database, "--local", folder=tmp_path)
        assert said.code == 0, said.err
        assert "72 scores" in said.out
        said = await ttc("score", "unknown", added, "--db", folder.database, folder=tmp_path)
        assert said.code == 2
        bad = tmp_path / "bad.yaml"
        bad.write_text("scorers:\n  prm: {kind: prm, format: qwen, endpoints: http://h/v1, model: m}\n")
        said = await ttc("score", NAME, bad, "--db", folder.database, folder=tmp_path)
        assert said.code == 2
        assert "bad.yaml:2" in said.err
        assert "label_type" in said.err
