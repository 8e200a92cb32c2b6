"""Sweeps with scorers and labels, over real HTTP: drawn, completed and scored once, resumed, refused, extended."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
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
from tests.reward_server import RewardFault, RewardServer, encode, probability
from tests.sweep_world import NAME, SweepFolder, assert_same_rows, rows_of, ttc
from workers.rewards.qwen import render as render_qwen
from workers.steps import spans

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
    assert {row[6] for row in before["scores"]} == {"ok"}
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


async def test_a_reward_model_is_shown_the_problem_and_the_steps_and_nothing_of_the_policys_prompt(
    tmp_path: Path,
) -> None:
    """One sample a problem: it is asked about like any other, and stored as the server gave it."""
    folder = SweepFolder(tmp_path)
    options: dict[str, Any] = {"api": "chat", "system": "You are a poet.", "prompt": "Think hard. {problem}"}
    async with FaultServer() as policy, RewardServer(classes=2) as reward:
        folder.write(policy.url, samples=1, more={"scorers": scorers(reward.url)}, **options)
        await folder.run_here()
    found = await rows(
        folder,
        """SELECT q.statement, x.text, x.step_ends, s.values_json FROM scores s
        JOIN trajectories t ON t.id = s.trajectory_id JOIN trajectory_texts x ON x.trajectory_id = t.id
        JOIN pools p ON p.id = t.pool_id JOIN problems q ON q.id = p.problem_id""",
    )
    shown = {
        render_qwen(statement, [text[start:end] for start, end in spans(json.loads(ends))]): values
        for statement, text, ends, values in found
    }
    assert len(shown) == 3
    assert set(scored_texts(reward)) == set(shown)
    for text, values in shown.items():
        ids = encode(text)
        wanted = [probability(ids[: i + 1]) for i, token in enumerate(ids) if token == reward.tag_id]
        assert json.loads(values) == pytest.approx(wanted, abs=1e-7)


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "prod": math.prod,
    "mean": fmean,
    "max": max,
}


def right_or_not(prompt: str, seed: int) -> str:
    """Four steps, no two samples alike, and the right answer in one of two."""
    answer = int(prompt.removeprefix("What is ").partition(" ")[0]) + seed % 2
    return f"With {seed} we begin.\n\nThen we go on.\n\nAnd on.\n\nThe answer is \\boxed{{{answer}}}."


async def test_votes_go_by_the_aggregation_that_was_chosen(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    selectors = [
        {"kind": kind, "scorer": "prm", "aggregation": how}
        for kind in ("best-of-n", "weighted")
        for how in AGGREGATIONS
    ]
    async with FaultServer(text=right_or_not) as policy, RewardServer(classes=2) as reward:
        more = {"scorers": scorers(reward.url), "selectors": selectors}
        folder.write(policy.url, problems=10, samples=7, more={**more, "budgets": [7]})
        await folder.run_here()
    scores = await rows(
        folder,
        """SELECT v.problem_id, v.verdict, s.values_json FROM v_samples v
        JOIN scores s ON s.trajectory_id = v.trajectory_id""",
    )
    estimates = await rows(folder, "SELECT selector, problem_id, value FROM v_estimates")
    found = {(selector, problem): value for selector, problem, value in estimates}
    wanted: dict[tuple[str, int], float] = {}
    for how, aggregate in AGGREGATIONS.items():
        for problem in {row[0] for row in scores}:
            own = [
                (aggregate(json.loads(v)), verdict == "correct") for p, verdict, v in scores if p == problem
            ]
            right, wrong = (
                sum(score for score, is_right in own if is_right is side) for side in (True, False)
            )
            wanted[f"best-of-n:prm.{how}", problem] = float(max(own)[1])
            wanted[f"weighted:prm.{how}", problem] = float(right > wrong)
    assert found == wanted
    curves = {
        tuple(value for (selector, _), value in sorted(wanted.items()) if selector.endswith(f".{how}"))
        for how in AGGREGATIONS
    }
    assert len(curves) == len(AGGREGATIONS)  # so each of them shows


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
