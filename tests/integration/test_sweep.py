"""Whole sweeps against a server that counts: what is drawn, what is drawn again, and what never is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from orchestrator.errors import EndpointProblem
from orchestrator.store import Store
from tests.fault_server import Fault, FaultServer, default_text
from tests.sweep_world import PROBE_PROMPT, SweepFolder, assert_same_rows, rows_of

FAULTS = {
    "refusals": (
        Fault.RATE_LIMIT,
        Fault.RATE_LIMIT_SILENT,
        Fault.SERVER_ERROR,
        Fault.UNAVAILABLE,
        Fault.WRAPPED_ERROR,
    ),
    "connections": (Fault.HANG, Fault.DISCONNECT, Fault.RESET, Fault.SLOW, Fault.DRIP),
    "bodies": (Fault.TRUNCATED_JSON, Fault.HUGE_BODY, Fault.HTML, Fault.NO_TEXT),
    "choices": (Fault.WRONG_N, Fault.EMPTY_CHOICES, Fault.DOUBLED_INDEX, Fault.SHUFFLED, Fault.ABORTED),
}
IMPATIENT = {"max_attempts": 1, "concurrency": 4}
PATIENT = {"concurrency": 16, "deadline_base_s": 0.5, "tokens_per_second_floor": 1000, "max_attempts": 8}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


def drawn(server: FaultServer) -> Counter[tuple[str, int]]:
    """Samples handed out by (prompt, seed), without what only tried the server."""
    return Counter({key: count for key, count in server.served.items() if PROBE_PROMPT not in key[0]})


async def test_a_sweep_ends_with_every_sample_its_verdicts_and_results(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, problems=3, samples=40)
        ended = await folder.run_here()
        assert set(drawn(server).values()) == {1}
    report = ended.report
    assert (report.reason, report.samples_stored, report.samples_drawn, report.failed_samples) == (
        "complete", 120, 120, 0,
    )  # fmt: skip
    rows = await rows_of(folder.database)
    assert len(rows["trajectories"]) == 120
    assert {task[6] for task in rows["tasks"]} == {2}
    assert {row[5] for row in rows["answers"]} == {"correct", "wrong"}
    assert {row[8] for row in rows["results"] if row[2] == "pass"} != {None}
    async with await Store.open(folder.database) as store:
        found = await store.query("SELECT state FROM sweeps UNION SELECT outcome FROM runs")
    assert found.rows == [("complete",)] or found.rows == [("done",)]


def spelt(prompt: str, seed: int) -> str:
    """Of five samples, three give the right answer in three spellings, and two one wrong one."""
    number = int(prompt.removeprefix("What is ").partition(" ")[0])
    right = (f"{number}", f"{number}.0", f"\\frac{{{2 * number}}}{{2}}")
    answer = right[seed % 5] if seed % 5 < 3 else f"{number + 1}"
    return f"The answer is \\boxed{{{answer}}}."


async def test_the_vote_counts_answers_and_not_their_spellings(folder: SweepFolder) -> None:
    async with FaultServer(text=spelt) as server:
        folder.write(server.url, problems=3, samples=5, more={"budgets": [5], "selectors": ["majority"]})
        await folder.run_here()
    async with await Store.open(folder.database) as store:
        found = await store.query("SELECT value FROM v_estimates")
    assert found.rows == [(1.0,)] * 3


async def test_what_the_store_holds_is_what_the_server_said(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, problems=2, samples=20)
        await folder.run_here()
    for row in (await rows_of(folder.database))["trajectories"]:
        prompt = f"What is {int(row[0][1:])} times 1?\n\n"
        assert row[12] == default_text(prompt, row[4])
        assert row[16] == row[12].rpartition("{")[2].rstrip("}.")


async def test_running_again_asks_the_server_nothing(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url)
        await folder.run_here()
        before, requests = await rows_of(folder.database), server.requests
        again = await folder.run_here()
        assert (server.requests, again.report.reason) == (requests, "nothing to do")
    assert await rows_of(folder.database) == before


async def test_raising_samples_draws_only_the_missing_ones(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, samples=40)
        await folder.run_here()
        before = await times_of(folder)
        folder.write(server.url, samples=56)
        grown = await folder.run_here()
        assert grown.report.samples_drawn == 3 * 16
        assert set(drawn(server).values()) == {1}
    after = await times_of(folder)
    assert {key: after[key] for key in before} == before
    assert len(after) == 3 * 56


async def test_a_grown_sweep_equals_one_drawn_at_once(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        for samples in (16, 40, 56):
            folder.write(server.url, samples=samples)
            await folder.run_here()
        at_once = f"sqlite:///{folder.folder / 'once.db'}"
        await folder.run_here(at_once)
    # The budgets of the smaller sweeps stay among the results, and the tasks have other edges.
    grown, once = await rows_of(folder.database), await rows_of(at_once)
    assert grown["trajectories"] == once["trajectories"]
    assert grown["answers"] == once["answers"]


async def test_lowering_samples_draws_nothing_and_keeps_everything(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, samples=40)
        await folder.run_here()
        before, requests = await times_of(folder), server.requests
        folder.write(server.url, samples=8)
        lowered = await folder.run_here()
        assert server.requests == requests
    assert (lowered.report.samples_wanted, lowered.report.samples_stored) == (24, 24)
    assert await times_of(folder) == before


async def test_added_problems_are_drawn_and_the_others_are_not(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, problems=2, samples=20)
        await folder.run_here()
        before = await times_of(folder)
        folder.write(server.url, problems=5, samples=20)
        more = await folder.run_here()
        assert more.report.samples_drawn == 3 * 20
        assert set(drawn(server).values()) == {1}
    after = await times_of(folder)
    assert {key: after[key] for key in before} == before


async def test_another_prompt_is_another_generator_and_reads_no_old_row(folder: SweepFolder) -> None:
    async with FaultServer() as server:
        folder.write(server.url, problems=2, samples=20)
        await folder.run_here()
        old = (await rows_of(folder.database))["trajectories"]
        folder.write(server.url, problems=2, samples=20, prompt="Think. {problem}\n\n")
        changed = await folder.run_here()
    assert (changed.report.samples_wanted, changed.report.samples_drawn) == (40, 40)
    rows = (await rows_of(folder.database))["trajectories"]
    assert [row for row in rows if row[1] == old[0][1]] == old
    new = [row for row in rows if row[1] != old[0][1]]
    assert len(new) == 40
    assert {row[4] for row in new}.isdisjoint(row[4] for row in old)
    async with await Store.open(folder.database) as store:
        seen = await store.query("SELECT DISTINCT generator_id FROM v_samples")
        (progress,) = await store.progress()
    assert len(seen.rows) == 1
    assert (progress.samples_wanted, progress.samples_stored) == (40, 40)


async def test_resume_needs_only_the_name(folder: SweepFolder) -> None:
    async with FaultServer(rates={Fault.SERVER_ERROR: 0.3}) as server:
        folder.write(server.url, samples=20, limits=IMPATIENT)
        first = await folder.run_here()
        assert first.report.failed_samples > 0
        server.rates.clear()
        (folder.folder / "problems.jsonl").unlink()
        folder.file.unlink()
        resumed = await folder.resume_here()
    assert (resumed.report.reason, resumed.report.failed_samples) == ("complete", 0)
    assert resumed.report.samples_stored == 60


async def test_errors_are_counted_stored_and_drawn_again_with_the_same_seed(folder: SweepFolder) -> None:
    async with FaultServer() as healthy:
        folder.write(healthy.url)
        await folder.run_here()
    wanted = await rows_of(folder.database)
    other = f"sqlite:///{folder.folder / 'errors.db'}"
    async with FaultServer(choose=failing_prompt("What is 1 times")) as server:
        folder.write(server.url, limits=IMPATIENT)
        first = await folder.run_here(other)
        assert first.report.failed_samples == 40
        errors = [row for row in (await rows_of(other))["trajectories"] if row[5] == "error"]
        assert {row[0] for row in errors} == {"p001"}
        assert all(row[9].startswith("server_fault") and row[12] is None for row in errors)
        server.choose = None
        again = await folder.run_here(other)
        assert (again.report.samples_drawn, again.report.failed_samples) == (40, 0)
        assert set(drawn(server).values()) == {1}
    redrawn = [row for row in (await rows_of(other))["trajectories"] if row[0] == "p001"]
    assert [row[4] for row in redrawn] == [row[4] for row in errors]
    assert_same_rows(await rows_of(other), wanted)


def failing_prompt(beginning: str) -> Callable[[str], Fault | None]:
    return lambda prompt: Fault.SERVER_ERROR if prompt.startswith(beginning) else None


async def test_problems_that_were_never_drawn_are_counted_as_left_out(folder: SweepFolder) -> None:
    """An accuracy over the problems that got through says how many did not."""
    async with FaultServer() as server:
        limits = {"tokens": 1, "workers": 1}
        folder.write(server.url, problems=8, samples=16, sweep_limits=limits, limits={"concurrency": 1})
        report = (await folder.run_here()).report
    assert report.conclusions is not None
    (found,) = report.conclusions.strategies
    assert 0 < report.samples_stored < 8 * 16
    overall = [row for row in found.rows if row.level == "all"]
    assert {row.problems + row.skipped for row in overall} == {8}
    assert all(row.skipped for row in overall)
    assert {row.level: row.problems for row in found.counts} == {"1": 4, "2": 4, "all": 8}


async def test_the_token_cap_holds_over_all_runs(folder: SweepFolder) -> None:
    async with FaultServer(latency_s=0.01) as server:
        one_at_a_time = {"concurrency": 1}
        folder.write(
            server.url,
            problems=6,
            samples=64,
            sweep_limits={"tokens": 1500, "workers": 1},
            limits=one_at_a_time,
        )
        first = await folder.run_here()
        assert first.report.reason == "token cap reached"
        tokens = sum(row[7] for row in (await rows_of(folder.database))["trajectories"])
        # A task that has started is finished; one worker of one slot holds two refills of one request, so two tasks.
        assert 1500 <= tokens < 1500 + 3 * 16 * 25
        requests = server.requests
        again = await folder.run_here()
        assert (again.report.reason, again.report.samples_drawn) == ("token cap reached", 0)
        assert server.requests - requests <= 6  # what a look at the server costs
        folder.write(server.url, problems=6, samples=64, limits=one_at_a_time)
        rest = await folder.run_here()
        assert (rest.report.reason, rest.report.samples_stored) == ("complete", 6 * 64)
        assert set(drawn(server).values()) == {1}


@pytest.mark.parametrize(
    ("server", "model", "said"),
    [
        (FaultServer(api_key="right"), "stub", "401"),
        (FaultServer(), "nope", "nope"),
    ],
)  # fmt: skip
async def test_a_server_that_will_never_serve_is_told_before_anything_is_drawn(
    folder: SweepFolder, server: FaultServer, model: str, said: str
) -> None:
    async with server:
        folder.write(server.url, model=model)
        with pytest.raises(EndpointProblem, match=said) as caught:
            await folder.run_here()
        assert caught.value.exit_code == 4
        assert not server.served
    assert not (await rows_of(folder.database))["trajectories"]


async def test_the_first_exchange_is_shown_before_the_second_request_is_sent(folder: SweepFolder) -> None:
    for n in (1, 4):
        async with FaultServer(latency_s=0.02) as server:
            folder.write(server.url, samples_per_request=n)
            requests: list[int] = []

            def count(seen: FaultServer = server, into: list[int] = requests) -> None:
                into.append(sum(PROBE_PROMPT not in payload["prompt"] for payload in seen.payloads))

            ended = await folder.run_here(f"sqlite:///{folder.folder / f'{n}.db'}", on_first=count)
            assert requests == [1]
            shown = [note for note in ended.notes if "first_prompt" in note]
            first = next(p for p in server.payloads if PROBE_PROMPT not in p["prompt"])
            assert shown[0]["first_prompt"] == first["prompt"]
            assert shown[0]["first_completion"] == default_text(first["prompt"], first["seed"])


async def test_the_size_of_requests_and_tasks_changes_no_sample(folder: SweepFolder) -> None:
    found = []
    async with FaultServer() as server:
        for n, size in ((1, 16), (7, 16), (16, 16), (16, 5), (4, 64)):
            folder.write(server.url, samples_per_request=n, sweep_limits={"task_samples": size})
            database = f"sqlite:///{folder.folder / f'{n}-{size}.db'}"
            await folder.run_here(database)
            found.append(await rows_of(database))
    for rows in found[1:]:
        assert_same_rows(rows, found[0], but="tasks")


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
async def test_faults_on_the_way_leave_no_trace_in_the_rows(
    folder: SweepFolder, faults: tuple[Fault, ...]
) -> None:
    calm = f"sqlite:///{folder.folder / 'calm.db'}"
    async with FaultServer() as server:
        folder.write(server.url, samples=64, sweep_limits={"workers": 1}, limits=PATIENT)
        await folder.run_here(calm)
        # The look at the server and the first exchange are left alone; then every third request meets a fault.
        disturbed = [each for fault in faults * 3 for each in (fault, Fault.NONE, Fault.NONE)]
        server.script = [Fault.NONE] * 7 + disturbed
        ended = await folder.run_here()
        assert {fault: server.faults[fault] for fault in faults} == dict.fromkeys(faults, 3)
        assert (ended.report.reason, ended.report.failed_samples) == ("complete", 0)
    assert_same_rows(await rows_of(folder.database), await rows_of(calm))


async def test_all_faults_together_leave_no_trace_in_the_rows(folder: SweepFolder) -> None:
    calm = f"sqlite:///{folder.folder / 'calm.db'}"
    async with FaultServer() as server:
        folder.write(server.url, samples=64, limits=PATIENT)
        await folder.run_here(calm)
        server.script = [Fault.NONE] * 6
        server.rates = dict.fromkeys([*chain(*FAULTS.values()), Fault.NAN_LOGPROBS], 0.015)
        await folder.run_here()
        server.rates.clear()
        again = await folder.run_here()  # a request that met six faults in a row is an error, and drawn again
        assert again.report.failed_samples == 0
    found, wanted = await rows_of(folder.database), await rows_of(calm)
    texts = [(row[0], row[3], row[4], row[5], row[12], row[16]) for row in found["trajectories"]]
    assert texts == [(row[0], row[3], row[4], row[5], row[12], row[16]) for row in wanted["trajectories"]]
    assert found["answers"] == wanted["answers"]


async def times_of(folder: SweepFolder) -> dict[int, tuple[object, ...]]:
    """Every column of every sample and its text by key, times included: what is not drawn again does not change."""
    sql = "SELECT t.*, x.text FROM trajectories t JOIN trajectory_texts x ON x.trajectory_id = t.id"
    async with await Store.open(folder.database) as store:
        return {int(row[0]): row[1:] for row in (await store.query(sql, limit=1_000_000)).rows}
