"""Searches end to end against servers that count: trees in SQL, replay after kills, no call paid for twice."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SweepFailed
from tests.chaos.processes import until
from tests.reward_server import RewardFault, RewardServer
from tests.step_server import StepServer
from tests.sweep_world import NAME, PROBE_PROMPT, ROOT, Command, SweepFolder, assert_same_rows, rows_of, ttc

SEARCHES: list[dict[str, Any]] = [
    {"name": "beam", "kind": "beam", "budgets": [4, 8]},
    {"name": "look", "kind": "lookahead", "steps": 1, "budgets": [4]},
    {"name": "dvts", "kind": "dvts", "budgets": [8]},
    {"name": "rebase", "kind": "rebase", "budgets": [8]},
    {"name": "mcts", "kind": "mcts", "budgets": [8]},
    {"name": "greedy", "kind": "greedy", "budgets": [1]},
]
KILLS = int(os.environ.get("TTC_KILLS", "8"))
"""How often a run is killed; asked for many, every strategy is killed so often by itself."""
GROUPS = [SEARCHES] if KILLS <= 8 else [[each] for each in SEARCHES]


@dataclass(frozen=True, slots=True)
class World:
    """A sweep of searches and its two servers."""

    folder: SweepFolder
    policy: StepServer
    scorer: RewardServer

    def write(self, searches: list[dict[str, Any]], **options: Any) -> None:
        prm = {
            "kind": "prm",
            "format": "qwen",
            "model": "scorer",
            "endpoints": self.scorer.url,
            "label_type": "soft",
        }
        self.folder.write(
            self.policy.url, samples=4, searches=searches, more={"scorers": {"prm": prm}}, **options
        )

    def repeated(self) -> int:
        """Children that were handed out more than once."""
        counts = [count for key, count in self.policy.served.items() if PROBE_PROMPT not in key[0]]
        return sum(count - 1 for count in counts)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with StepServer(delay_s=0.002) as policy, RewardServer() as scorer:
        yield World(SweepFolder(tmp_path), policy, scorer)


def query(world: World, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(world.folder.folder / "ttc.db") as connection:
        return connection.execute(sql).fetchall()


async def test_every_strategy_searches_and_is_voted_on(world: World) -> None:
    world.write(SEARCHES)
    ended = await world.folder.run_here()
    assert ended.report.reason == "complete"
    assert ended.report.samples_stored == ended.report.samples_wanted
    found = query(
        world, "SELECT strategy, budget FROM v_results WHERE selector = 'weighted:prm.last' AND level = ''"
    )
    assert {
        ("beam", 4),
        ("beam", 8),
        ("look", 4),
        ("dvts", 8),
        ("rebase", 8),
        ("mcts", 8),
        ("greedy", 1),
    } <= set(found)
    # Nobody's child is an orphan, nothing grows from what was pruned, and what was found is in the tree word for word.
    assert query(world, "SELECT COUNT(*) FROM nodes n WHERE n.parent_path <> '' AND NOT EXISTS (SELECT 1 FROM nodes q"
                        " WHERE q.pool_id = n.pool_id AND q.path = n.parent_path)") == [(0,)]  # fmt: skip
    assert query(
        world,
        "SELECT COUNT(*) FROM trajectories t JOIN trajectory_texts x ON x.trajectory_id = t.id"
        " JOIN pools p ON p.id = t.pool_id AND p.procedure_id IS NOT NULL WHERE NOT EXISTS ("
        " SELECT 1 FROM v_tree v WHERE v.pool_id = p.id AND v.full_text = x.text)",
    ) == [(0,)]
    assert query(world, "SELECT COUNT(*) FROM trajectories t JOIN pools p ON p.id = t.pool_id AND p.procedure_id > 0"
                        " WHERE t.outcome = 'complete' AND NOT EXISTS (SELECT 1 FROM scores s"
                        " WHERE s.trajectory_id = t.id AND s.status = 'ok')") == [(0,)]  # fmt: skip
    rounds = query(world, "SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM nodes n JOIN pools p ON p.id = n.pool_id"
                          " JOIN procedures c ON c.id = p.procedure_id WHERE c.kind = 'beam' AND c.budget = 8"
                          " GROUP BY n.pool_id, n.depth)")  # fmt: skip
    assert rounds == [(8,)]


async def test_what_was_found_is_a_view_of_its_own(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4]}], problems=2)
    await world.folder.run_here()
    assert {row[0] for row in query(world, "SELECT strategy FROM v_found")} == {"beam@4"}
    assert query(world, "SELECT COUNT(*) FROM v_samples") == [(8,)]  # those that were drawn independently
    found = query(world, "SELECT COUNT(*), COUNT(answer) FROM v_found WHERE verdict IN ('correct', 'wrong')")
    assert found[0][0] == found[0][1] > 0


async def test_costs_are_charged_to_the_model_that_had_them(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4]}], problems=1)
    await world.folder.run_here()
    costs = dict(query(world, "SELECT model, SUM(completion_tokens) FROM v_cost GROUP BY model"))
    drawn = query(world, "SELECT SUM(completion_tokens) FROM nodes")[0][0]
    whole = query(world, "SELECT SUM(completion_tokens) FROM v_samples")[0][0]
    assert costs == {"policy": drawn + whole, "prm": 0}


async def test_within_a_search_nothing_is_drawn_or_scored_twice(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [8]}], problems=2)
    await world.folder.run_here()
    drawn = query(world, "SELECT COUNT(*) FROM nodes")[0][0]
    whole = query(
        world,
        "SELECT COUNT(*) FROM trajectories t JOIN pools p ON p.id = t.pool_id WHERE p.procedure_id IS NULL",
    )
    assert (
        sum(count for key, count in world.policy.served.items() if PROBE_PROMPT not in key[0])
        == drawn + whole[0][0]
    )
    requests = world.policy.requests, world.scorer.scoring_requests
    again = await world.folder.run_here()
    assert again.report.reason == "nothing to do"
    assert (world.policy.requests, world.scorer.scoring_requests) == requests


async def test_the_first_steps_of_two_budgets_are_the_same_draws(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4, 8]}], problems=1)
    await world.folder.run_here()
    small, large = (
        query(world, f"SELECT n.path, n.seed, n.text FROM nodes n JOIN pools p ON p.id = n.pool_id JOIN procedures c"
                     f" ON c.id = p.procedure_id WHERE c.budget = {budget} AND n.depth = 1 ORDER BY n.child_index")
        for budget in (4, 8)
    )  # fmt: skip
    assert small == large[:4]
    assert len(large) == 8


async def test_searches_that_share_their_steps_find_the_same_and_draw_each_once(world: World) -> None:
    world.write(SEARCHES, problems=3)
    apart = f"sqlite:///{world.folder.folder / 'apart.db'}"
    await world.folder.run_here(apart)
    apart_draws, apart_scorings = sum(world.policy.served.values()), world.scorer.scoring_requests
    assert world.repeated() > 0  # equal steps are drawn by every search
    world.policy.served.clear()
    world.write(SEARCHES, problems=3, sweep_limits={"share_steps": True})
    plan = ("plan", world.folder.file, "--db", world.folder.database, "--json")
    planned = json.loads((await ttc(*plan, folder=world.folder.folder)).out)
    shared = {each["name"]: each["shared_steps"] for each in planned if each["unit"] == "searches"}
    assert shared == {
        "beam@4": 0,
        "look@4": 12,
        "beam@8": 12,
        "dvts@8": 24,
        "rebase@8": 24,
        "mcts@8": 6,
        "greedy@1": 0,
    }
    ended = await world.folder.run_here()
    assert ended.report.reason == "complete"
    assert_same_rows(await rows_of(world.folder.database), await rows_of(apart))
    first_steps = sum(shared.values())
    assert apart_draws - sum(world.policy.served.values()) >= first_steps
    assert world.repeated() < first_steps  # greedy ones, and those that stand under a greedy step
    assert world.scorer.scoring_requests - apart_scorings < apart_scorings


@pytest.mark.parametrize(
    "searches", GROUPS, ids=["+".join(each["name"] for each in group) for group in GROUPS]
)
async def test_killed_at_random_points_the_trees_are_those_of_a_calm_run(
    world: World, searches: list[dict[str, Any]]
) -> None:
    world.policy.delay_s = 0.004
    world.write(searches, problems=6 if GROUPS == [SEARCHES] else 60)
    calm = f"sqlite:///{world.folder.folder / 'calm.db'}"
    await world.folder.run_here(calm)
    wanted, calm_draws = await rows_of(calm), sum(world.policy.served.values())
    wanted_draws = draws_in(world.folder.folder / "calm.db")
    world.policy.served.clear()
    rng = random.Random(7)
    kills = 0
    missing, served = wanted_draws, Counter(world.policy.served)
    for _ in range(KILLS):
        begun = world.policy.requests
        target = begun + rng.randint(3, max(4, 3 * calm_draws // (10 * KILLS)))
        command = await Command.start(
            "run",
            world.folder.file,
            "--db",
            world.folder.database,
            "--local",
            "--no-preview",
            folder=world.folder.folder,
        )
        await until(partial(is_due, world, command, target), "some requests had come")
        kills += not command.has_ended
        command.kill()
        await command.ended()
        await until(world.policy.is_idle, "the server had given up what was in flight")
        # One life draws each missing step once at most, and nothing that was committed before it.
        drawn, served = Counter(world.policy.served) - served, Counter(world.policy.served)
        assert not steps_of(drawn) - missing
        missing = wanted_draws - draws_in(world.folder.folder / "ttc.db")
    assert kills >= KILLS // 2
    last = await ttc(
        "run", world.folder.file, "--db", world.folder.database, "--local", folder=world.folder.folder
    )
    assert last.code == 0, last.err
    assert not steps_of(Counter(world.policy.served) - served) - missing
    assert_same_rows(await rows_of(world.folder.database), wanted)


Draws = Counter[tuple[str, int, bool, bool]]
"""What the server counts: prompt, seed, greedily, one step only."""


def draws_in(database: Path) -> Draws:
    """What had to be drawn for the trees that are stored."""
    with sqlite3.connect(database) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'nodes'").fetchone():
            return Counter()
        rows = connection.execute(
            "SELECT b.statement, COALESCE(v.full_text, ''), n.seed, n.is_greedy FROM nodes n"
            " JOIN pools p ON p.id = n.pool_id JOIN problems b ON b.id = p.problem_id"
            " LEFT JOIN v_tree v ON v.pool_id = n.pool_id AND v.path = n.parent_path"
        )
        return Counter(
            (f"{statement}\n\n{text}", seed, bool(is_greedy), True)
            for statement, text, seed, is_greedy in rows
        )


def steps_of(drawn: Draws) -> Draws:
    """Those of the draws that are steps of searches."""
    return Counter({key: count for key, count in drawn.items() if key[3]})


def is_due(world: World, command: Command, requests: int) -> bool:
    return command.has_ended or world.policy.requests >= requests


async def test_a_scorer_that_breaks_its_contract_stops_the_search_and_spoils_nothing(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4]}], problems=1)
    world.scorer.script = [RewardFault.NONE] * 6  # it passes the probe
    world.scorer.always = RewardFault.TOO_BIG
    ended = await world.folder.run_here()
    assert ended.report.failed_tasks >= 1
    assert query(world, "SELECT COUNT(*) FROM node_scores WHERE value < 0 OR value > 1") == [(0,)]
    world.scorer.always = RewardFault.NONE
    again = await world.folder.run_here()
    assert again.report.failed_tasks == 0
    assert world.repeated() == 0  # it goes on from the tree


STRATEGY = re.search(
    r"```python\n(.*?)```", (ROOT / "docs/how-to/write-a-strategy.md").read_text(), re.DOTALL
)


async def test_a_strategy_of_ones_own_gets_all_of_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STRATEGY is not None
    (tmp_path / "my_strategies.py").write_text(STRATEGY[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {
        "name": "own",
        "kind": "custom",
        "function": "my_strategies:best_first",
        "parameters": {"width": 3},
    }
    world.write([{**own, "budgets": [8]}], problems=3)
    ended = await world.folder.run_here()
    assert ended.report.reason == "complete"
    assert (
        query(world, "SELECT COUNT(*) FROM v_results WHERE strategy = 'own' AND selector = 'majority'")[0][0]
        > 0
    )
    wanted = await rows_of(world.folder.database)
    drawn = query(world, "SELECT COUNT(*) FROM nodes")[0][0]
    # Half of the tree is lost: the function is run again, and only that half is drawn.
    other = world.folder.folder / "other.db"
    with sqlite3.connect(world.folder.folder / "ttc.db") as source, sqlite3.connect(other) as target:
        source.backup(target)
        target.executescript(
            """CREATE TEMP TABLE lost AS SELECT pool_id, path FROM nodes WHERE depth > 1;
            DELETE FROM node_scores WHERE (pool_id, path) IN lost; DELETE FROM prunings;
            DELETE FROM nodes WHERE (pool_id, path) IN lost;
            CREATE TEMP TABLE found AS SELECT t.id FROM trajectories t JOIN pools p ON p.id = t.pool_id
                WHERE p.procedure_id IS NOT NULL;
            DELETE FROM scores WHERE trajectory_id IN found; DELETE FROM extractions WHERE trajectory_id IN found;
            DELETE FROM trajectory_texts WHERE trajectory_id IN found; DELETE FROM trajectories WHERE id IN found;
            UPDATE tasks SET state = 0 WHERE lane_id IN (SELECT id FROM lanes WHERE kind = 'search')"""
        )
        kept = target.execute("SELECT COUNT(*) FROM nodes").fetchone()[0]
    before = sum(world.policy.served.values())
    await world.folder.run_here(f"sqlite:///{other}")
    probes = sum(count for key, count in world.policy.served.items() if PROBE_PROMPT in key[0])
    assert 0 < sum(world.policy.served.values()) - before - probes <= drawn - kept
    assert_same_rows(await rows_of(f"sqlite:///{other}"), wanted)


async def test_a_strategy_that_is_not_there_is_said_so_before_anything_is_written(world: World) -> None:
    world.write([{"name": "own", "kind": "custom", "function": "no_such_module:f", "budgets": [8]}])
    said = await ttc(
        "run", world.folder.file, "--db", world.folder.database, "--local", folder=world.folder.folder
    )
    assert (said.code, "Traceback" in said.err) == (2, False)
    assert "no_such_module" in said.err
    assert query(world, "SELECT COUNT(*) FROM sweeps") == [(0,)]


async def test_a_defect_of_a_strategy_is_said_to_be_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "async def broken(search):\n    await search.sample(search.root, 2)\n    return {}['answer']\n"
    (tmp_path / "broken_strategies.py").write_text(broken)
    monkeypatch.syspath_prepend(str(tmp_path))
    world.write(
        [{"name": "own", "kind": "custom", "function": "broken_strategies:broken", "budgets": [8]}],
        problems=1,
    )
    with pytest.raises(
        SweepFailed, match=r"strategy_error: .*KeyError: 'answer' \(line 3 of broken_strategies.py\)"
    ):
        await world.folder.run_here()


async def test_the_plan_counts_searches_and_what_they_cost(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4]}], problems=2)
    plan = ("plan", world.folder.file, "--db", world.folder.database, "--json")
    before = json.loads((await ttc(*plan, folder=world.folder.folder)).out)
    (search,) = [each for each in before if each["unit"] == "searches"]
    assert (search["name"], search["wanted"], search["missing"], search["expected_tokens"]) == (
        "beam@4",
        2,
        2,
        None,
    )
    await world.folder.run_here()
    after = json.loads((await ttc(*plan, folder=world.folder.folder)).out)
    (search,) = [each for each in after if each["unit"] == "searches"]
    assert (search["stored"], search["missing"]) == (2, 0)


async def test_a_tree_can_be_looked_at(world: World) -> None:
    world.write([{"name": "beam", "kind": "beam", "budgets": [4]}], problems=1)
    await world.folder.run_here()
    db = ("--db", world.folder.database)
    said = await ttc("tree", NAME, "p000", *db, folder=world.folder.folder)
    assert said.code == 0, said.err
    assert "beam@4: What is 0 times 1?" in said.out
    assert "The answer is" in said.out
    unknown = await ttc("tree", NAME, "p999", *db, folder=world.folder.folder)
    assert (unknown.code, "Traceback" in unknown.err) == (2, False)
