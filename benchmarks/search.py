"""How busy searches keep a server of 256 slots, and what a node costs: a real `ttc run` of beam searches.

Each search waits for the slowest of its few calls, then for its scorer, round after round; only other searches can
fill the slots meanwhile. The server measures it. Beside it stand two ways to run the same trees, worked out from the
same service times: all searches of a batch in lockstep, and just as many searches at once as would fill the slots.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.draws import ServiceTimes, hash_of, mixed
from benchmarks.floor import IN_FLIGHT, MAX_TOKENS, run_floor
from benchmarks.launch import StubProcess
from benchmarks.lockstep import Round, batched, side_by_side
from benchmarks.report import Figure, Target
from benchmarks.stub import MODEL, StubSettings
from benchmarks.sweep import TEMPLATE, run_ttc, write_sweep
from benchmarks.utilisation import CROWDED, MEAN_S, SIGMA
from benchmarks.watch import COORDINATOR, WORKER, Usage

GROUP = "search"
BUDGET, EXPANSION = 16, 4
AT_ONCE = IN_FLIGHT // BUDGET
"""Searches whose calls of a round fill the slots."""
BATCH = 64
"""Searches that advance together in lockstep; `ttc` has as many under way with as many requests in flight as slots."""
SCORER_MEAN_S = 0.05
CASES = ((0.5, IN_FLIGHT), (MEAN_S, CROWDED))
"""Mean seconds of a call, and requests in flight. Of short calls there are so many that two cores, which serve them as
well, are late with the next ones: there some must wait at the server."""


@dataclass(frozen=True, slots=True)
class _SearchRun:
    nodes: int
    first_call: float
    last_commit: float
    stub: dict[str, Any]
    usage: Usage
    searches: tuple[tuple[Round, ...], ...]

    @property
    def nodes_per_second(self) -> float:
        """Durable nodes a second, first call to last commit."""
        return self.nodes / (self.last_commit - self.first_call)

    def cpu_ms(self, role: str) -> float:
        """CPU-milliseconds of a role a node, first call to last commit."""
        return 1000 * self.usage.cpu_between(self.first_call, self.last_commit, (role,)) / self.nodes


def measure_search(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """Utilisation, nodes a second and CPU a node, with as many requests in flight as slots, and with twice as many."""
    for mean_s, in_flight in CASES:
        problems = round((96 if is_quick else 512) * CASES[0][0] / mean_s)
        policy = StubSettings(slots=IN_FLIGHT, mean_s=mean_s, sigma=SIGMA)
        scorer = StubSettings(slots=IN_FLIGHT, mean_s=SCORER_MEAN_S, sigma=SIGMA)
        with StubProcess(policy) as policy_stub, StubProcess(scorer) as scorer_stub:
            bare = run_floor(policy_stub.url, 1, BUDGET * problems)
            policy_stub.reset()
            place = folder / f"search-{in_flight}"
            write_sweep(place, problems, _spec(policy_stub.url, scorer_stub.url, in_flight))
            usage = run_ttc(place, place / "store.db")
            run = _run(place / "store.db", policy_stub.stats(), usage, mean_s)
        yield from _figures(run, f"calls of {mean_s:g} s, {in_flight} in flight", bare.cpu_per_1000)


def _figures(run: _SearchRun, how: str, bare_ms: float) -> Iterator[Figure]:
    apart, floor_is = side_by_side(run.searches, AT_ONCE, IN_FLIGHT), f"{AT_ONCE} searches at once"
    whole, steady = run.stub["utilisation"], run.stub["steady_utilisation"]
    yield Figure(GROUP, f"utilisation, {how}", "", (whole,), apart, floor_is)
    yield Figure(GROUP, f"utilisation, {how}, middle 80%", "", (steady,), apart, floor_is, Target(0.95))
    lockstep = batched(run.searches, BATCH, IN_FLIGHT)
    yield Figure(GROUP, f"utilisation, {BATCH} searches in lockstep, computed, {how}", "", (lockstep,))
    ceiling = IN_FLIGHT * run.nodes / run.stub["busy_slot_s"]
    yield Figure(GROUP, f"nodes, {how}", "nodes/s", (run.nodes_per_second,), ceiling, "256 / mean time")
    for role, target in ((COORDINATOR, Target(1.0, is_ceiling=True)), (WORKER, None)):
        cpu = (run.cpu_ms(role),)
        yield Figure(GROUP, f"CPU, {role}, {how}", "ms/node", cpu, bare_ms, "bare client, a call", target)


def _run(store: Path, stub: dict[str, Any], usage: Usage, mean_s: float) -> _SearchRun:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        (last_commit,) = db.execute("SELECT MAX(created_at) FROM trajectories").fetchone()
        searches = tuple(_searches(db, mean_s))
    nodes = sum(len(each.calls_s) for rounds in searches for each in rounds)
    if nodes != stub["samples"]:
        raise RuntimeError(f"{nodes} nodes are stored, and {stub['samples']} were drawn")
    return _SearchRun(nodes, stub["first_start"], last_commit, stub, usage, searches)


def _searches(db: sqlite3.Connection, mean_s: float) -> Iterator[tuple[Round, ...]]:
    """The rounds of every search, with the times that its calls took: the stub's, drawn again."""
    policy, scorer = ServiceTimes(mean_s, SIGMA), ServiceTimes(SCORER_MEAN_S, SIGMA)
    trees: defaultdict[tuple[int, str], dict[str, tuple[str, str, int]]] = defaultdict(dict)
    for pool, statement, path, parent, text, seed in db.execute(
        "SELECT n.pool_id, b.statement, n.path, n.parent_path, n.text, n.seed FROM nodes n"
        " JOIN pools p ON p.id = n.pool_id JOIN problems b ON b.id = p.problem_id"
    ):
        trees[pool, statement][path] = (parent, text, seed)
    for (pool, statement), nodes in trees.items():
        prompts = {"": TEMPLATE.replace("{problem}", statement)}
        calls: defaultdict[int, list[float]] = defaultdict(list)
        for path in sorted(nodes, key=lambda each: each.count(".")):
            parent, text, seed = nodes[path]
            calls[path.count(".")].append(policy.of(mixed(hash_of(prompts[parent]), seed)))
            prompts[path] = prompts[parent] + text
        yield tuple(Round(tuple(calls[depth]), scorer.of(mixed(pool, depth))) for depth in sorted(calls))


def _spec(policy_url: str, scorer_url: str, concurrency: int) -> dict[str, Any]:
    limits = {"concurrency": concurrency, "adaptive": False}
    return {
        "name": "search",
        "seed": 1,
        "problems": {"path": "problems.jsonl"},
        "models": {
            "policy": {
                "endpoints": [policy_url],
                "model": MODEL,
                "api": "completions",
                "prompt": TEMPLATE,
                "sampling": {"temperature": 1.0, "max_tokens": MAX_TOKENS},
                "samples_per_request": 1,
                "parameters": 1_000_000,
                "limits": limits,
            }
        },
        "scorers": {
            "prm": {
                "kind": "prm",
                "format": "qwen",
                "label_type": "soft",
                "endpoints": [scorer_url],
                "model": MODEL,
                "parameters": 1_000_000,
                "limits": {"concurrency": IN_FLIGHT, "adaptive": False},
            }
        },
        "strategies": [
            {
                "name": "beam",
                "kind": "beam",
                "policy": "policy",
                "scorer": "prm",
                "budgets": [BUDGET],
                "expansion": EXPANSION,
            }
        ],
        "selectors": ["majority"],
        "budgets": [BUDGET],
    }
