"""The instruments of the benchmarks: what they say of a small case is what one can work out by hand."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

import aiohttp
import pytest

from benchmarks.draws import FEWEST_STEPS, MOST_STEPS, ServiceTimes, gold, hash_of, mixed
from benchmarks.lockstep import Round, batched, side_by_side
from benchmarks.model import Cluster, Costs, bound, simulate
from benchmarks.slots import Slots, lockstep_utilisation
from benchmarks.stub import StubSettings, serve
from benchmarks.watch import COORDINATOR, WORKER, Usage
from workers.rewards.qwen import render


def test_two_slots_serve_three_calls_in_two_rounds() -> None:
    slots = Slots(2)
    ends = [slots.serve(10.0, 1.0), slots.serve(10.0, 3.0), slots.serve(10.5, 1.0)]
    assert ends == [11.0, 13.0, 12.0]  # the third waits half a second for the first slot
    assert slots.waited_s == 0.5
    assert slots.utilisation == pytest.approx(5.0 / (2 * 3.0))


def test_idle_time_between_calls_counts_against_the_utilisation() -> None:
    slots = Slots(1)
    slots.serve(0.0, 1.0)
    slots.serve(3.0, 1.0)
    assert slots.utilisation == pytest.approx(0.5)


def test_the_steady_utilisation_leaves_out_start_and_tail() -> None:
    slots = Slots(2)
    slots.serve(0.0, 1.0)
    slots.serve(1.0, 8.0)  # the second slot idles in the first and in the last tenth
    for start in range(1, 10):
        slots.serve(float(start), 1.0)
    assert slots.utilisation == pytest.approx(18.0 / 20.0)
    assert slots.steady_utilisation(0.1) == pytest.approx(1.0)
    assert slots.steady_utilisation(0.05) == pytest.approx((9.0 + 8.0) / 18.0)


def test_full_slots_are_fully_used_and_a_reset_forgets_only_the_counts() -> None:
    slots = Slots(4)
    for _ in range(40):
        slots.serve(0.0, 0.25)
    assert slots.utilisation == pytest.approx(1.0)
    slots.reset()
    assert (slots.calls, slots.busy_s, slots.utilisation) == (0, 0.0, None)
    assert slots.serve(0.0, 1.0) == pytest.approx(3.5)  # behind the ten rounds that are under way


def test_a_server_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="slot"):
        Slots(0)


def test_lockstep_waits_for_the_slowest_of_each_wave() -> None:
    assert lockstep_utilisation([1.0, 3.0, 2.0, 2.0], 2) == pytest.approx(8.0 / (2 * 5.0))


def test_searches_in_lockstep_wait_for_each_other_and_side_by_side_for_themselves() -> None:
    quick, slow = Round((1.0, 1.0), 0.5), Round((1.0, 3.0), 1.0)
    searches = [(quick, slow), (slow,), (quick,)]
    # In pairs: 3 + 1 and 3 + 1, then 1 + 0.5. Side by side: 1.5 + 4 beside 4 + 1.5.
    assert batched(searches, 2, 4) == pytest.approx(12.0 / (4 * 9.5))
    assert side_by_side(searches, 2, 4) == pytest.approx(12.0 / (4 * 5.5))


def test_service_times_have_the_mean_that_was_asked_for() -> None:
    times = ServiceTimes(0.2, 0.6)
    drawn = [times.of(mixed(7, seed)) for seed in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(0.2, rel=0.02)
    assert statistics.median(drawn) == pytest.approx(0.2 * 2.718281828 ** (-0.18), rel=0.03)
    assert [ServiceTimes(0.2, 0.0).of(bits) for bits in range(100)] == pytest.approx([0.2] * 100)


def test_cpu_of_a_span_is_interpolated_between_polls() -> None:
    usage = Usage(at=[0.0, 10.0, 20.0], cpu_s={COORDINATOR: [0.0, 5.0, 6.0], WORKER: [0.0, 0.0, 4.0]})
    assert usage.cpu_between(5.0, 20.0, (COORDINATOR,)) == pytest.approx(3.5)
    assert usage.cpu_between(0.0, 15.0) == pytest.approx(5.5 + 2.0)


PROMPT = "What is 1 + 1?\n\n"


async def _post(session: aiohttp.ClientSession, url: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "stub", "prompt": PROMPT, "max_tokens": 256, "seed": 11, "n": 1} | fields
    async with session.post(f"{url}/completions", json=body) as reply:
        assert reply.status == 200
        answer: dict[str, Any] = await reply.json()
        return answer


async def _texts(session: aiohttp.ClientSession, url: str, **fields: Any) -> list[str]:
    answer = await _post(session, url, **fields)
    assert [choice["index"] for choice in answer["choices"]] == list(range(fields.get("n", 1)))
    return [choice["text"] for choice in answer["choices"]]


async def test_child_j_of_a_request_draws_seed_plus_j() -> None:
    server, url = await serve(StubSettings(mean_s=0.001))
    async with server, aiohttp.ClientSession() as session:
        four = await _texts(session, url, n=4)
        apart = [(await _texts(session, url, seed=11 + j))[0] for j in range(4)]
        assert four == apart
        assert len(set(four)) == 4
        assert four != await _texts(session, url, n=4, prompt="What is 1 + 2?\n\n")


async def test_texts_are_solutions_with_several_answers_of_which_the_gold_leads() -> None:
    server, url = await serve(StubSettings(mean_s=0.001))
    async with server, aiohttp.ClientSession() as session:
        texts = await _texts(session, url, n=256)
    answers = [int(text.rpartition("\\boxed{")[2].removesuffix("}$.")) for text in texts]
    assert 4 < len(set(answers)) <= 8
    assert statistics.mode(answers) == gold(PROMPT) == hash_of(PROMPT) % 1000
    assert all(200 < len(text) < 400 and "\n\n" in text for text in texts)


@pytest.mark.parametrize("is_verbose", [False, True])
async def test_a_choice_tells_its_tokens_and_their_log_probabilities(is_verbose: bool) -> None:
    server, url = await serve(StubSettings(mean_s=0.001, is_verbose=is_verbose))
    async with server, aiohttp.ClientSession() as session:
        answer = await _post(session, url, n=3, logprobs=0, return_token_ids=True)
        bare = await _post(session, url)
        cut = await _post(session, url, max_tokens=10, return_token_ids=True)
    tokens = [len(choice["token_ids"]) for choice in answer["choices"]]
    assert sum(tokens) == answer["usage"]["completion_tokens"]
    for choice, count in zip(answer["choices"], tokens, strict=True):
        assert len(choice["logprobs"]["token_logprobs"]) == count
        assert choice["finish_reason"] == "stop"
        assert len(choice["logprobs"]["tokens"]) == (count if is_verbose else 0)
    assert bare["choices"][0]["token_ids"] is None
    assert bare["choices"][0]["logprobs"] is None
    (choice,) = cut["choices"]
    assert (choice["finish_reason"], len(choice["token_ids"]), len(choice["text"])) == ("length", 10, 40)


async def test_a_solution_is_drawn_step_by_step_to_its_answer() -> None:
    server, url = await serve(StubSettings(mean_s=0.001))
    lengths: set[int] = set()
    async with server, aiohttp.ClientSession() as session:
        for seed in range(16):
            prompt, count, stop = PROMPT, 0, "\n\n"
            while stop is not None:
                answer = await _post(
                    session, url, prompt=prompt, seed=seed, stop=["\n\n"], return_token_ids=True
                )
                (choice,) = answer["choices"]
                stop = choice["stop_reason"]
                assert stop in ("\n\n", None)
                assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"]
                prompt, count = f"{prompt}{choice['text']}\n\n", count + 1
            lengths.add(count)
            offset = int(choice["text"].rpartition("\\boxed{")[2].removesuffix("}$.")) - gold(PROMPT)
            assert 0 <= offset < 8
    assert min(lengths) == FEWEST_STEPS
    assert FEWEST_STEPS < max(lengths) <= MOST_STEPS


async def test_steps_are_scored_by_what_stands_before_them() -> None:
    server, url = await serve(StubSettings(mean_s=0.001))
    root = url.removesuffix("/v1")
    texts = [render("1+1", steps) for steps in (["a"], ["a", "b"], ["b", "b"])]
    async with server, aiohttp.ClientSession() as session:
        reply = await (await session.post(f"{root}/pooling", json={"model": "stub", "input": texts})).json()
        stats = await (await session.get(f"{root}/stub/stats")).json()
        assert (await session.post(f"{root}/pooling", data=b"{}")).status == 400
    one, two, other = (each["data"] for each in reply["data"])
    assert two[0] == one[0] != other[0]
    assert [len(rows) for rows in (one, two, other)] == [1, 2, 2]
    assert all(sum(row) == pytest.approx(1.0) for rows in (one, two, other) for row in rows)
    assert (stats["requests"], stats["samples"]) == (1, 3)


async def test_the_stub_serves_as_many_at_once_as_it_has_slots_and_counts_them() -> None:
    server, url = await serve(StubSettings(slots=2, mean_s=0.05))
    async with server, aiohttp.ClientSession() as session:
        await asyncio.gather(*(_post(session, url, seed=seed, n=2) for seed in range(6)))
        stats = await (await session.get(url.removesuffix("/v1") + "/stub/stats")).json()
    assert (stats["requests"], stats["samples"], stats["in_flight"]) == (6, 12, 0)
    assert stats["busy_slot_s"] == pytest.approx(6 * 0.05)
    assert stats["last_end"] - stats["first_start"] >= 3 * 0.05 - 1e-6
    seconds = stats["last_end"] - stats["first_start"]
    assert stats["utilisation"] == pytest.approx(0.3 / (2 * seconds), abs=1e-4)


async def test_sequences_take_a_slot_each_where_the_unit_is_the_sequence() -> None:
    server, url = await serve(StubSettings(slots=2, mean_s=0.02, unit="sequence"))
    async with server, aiohttp.ClientSession() as session:
        await _post(session, url, n=6)
        stats = await (await session.get(url.removesuffix("/v1") + "/stub/stats")).json()
        assert stats["busy_slot_s"] == pytest.approx(6 * 0.02)
        assert stats["utilisation"] == pytest.approx(1.0)
        await session.post(url.removesuffix("/v1") + "/stub/reset")
        stats = await (await session.get(url.removesuffix("/v1") + "/stub/stats")).json()
        assert (stats["requests"], stats["busy_slot_s"], stats["utilisation"]) == (0, 0.0, None)


async def test_a_look_at_the_server_is_answered_but_neither_served_nor_counted() -> None:
    server, url = await serve(StubSettings(slots=1, mean_s=3600.0, probe_tokens=64))
    async with server, aiohttp.ClientSession() as session:
        assert len(await _texts(session, url, n=2, max_tokens=24)) == 2
        stats = await (await session.get(url.removesuffix("/v1") + "/stub/stats")).json()
    assert (stats["requests"], stats["first_start"], stats["in_flight"]) == (0, None, 0)


async def test_pages_besides_completions() -> None:
    server, url = await serve(StubSettings(mean_s=0.001))
    root = url.removesuffix("/v1")
    async with server, aiohttp.ClientSession() as session:
        models = await (await session.get(f"{url}/models")).json()
        assert [model["id"] for model in models["data"]] == ["stub"]
        assert (await session.get(f"{root}/health")).status == 200
        assert "vllm:num_requests_running 0" in await (await session.get(f"{root}/metrics")).text()
        assert (await session.get(f"{root}/nothing")).status == 404
        assert (await session.post(f"{url}/completions", data=b"{")).status == 400


FREE = Costs(worker_s=0.0, coordinator_s=0.0)


def test_slots_that_nobody_keeps_waiting_are_always_busy() -> None:
    outcome = simulate(Cluster(3, 8, 1.0, 0.6, workers=2), FREE, calls=5000)
    assert outcome.utilisation == pytest.approx(1.0)
    assert outcome.bottleneck == "replicas"


@pytest.mark.parametrize(
    ("costs", "who"), [(Costs(0.001, 0.01), "coordinator"), (Costs(0.02, 0.001), "workers")]
)
def test_the_slowest_stage_sets_the_rate_of_all(costs: Costs, who: str) -> None:
    cluster = Cluster(10, 20, 1.0, 0.6, workers=1)
    outcome = simulate(cluster, costs, calls=20_000)
    assert outcome.utilisation == pytest.approx(bound(cluster, costs), rel=0.02)
    assert outcome.bottleneck == who


def test_without_a_queue_a_slot_idles_while_its_reply_is_dealt_with() -> None:
    # One slot, one call at a time: a second of service, then a quarter until the next call is there.
    outcome = simulate(Cluster(1, 1, 1.0, 0.0, workers=1, queue=1.0), Costs(0.25, 0.0), calls=1000)
    assert outcome.utilisation == pytest.approx(1 / 1.25, rel=0.01)


def test_a_worker_is_never_far_ahead_of_its_coordinator() -> None:
    slow = simulate(Cluster(1, 500, 1.0, 0.0, workers=1), Costs(0.0001, 0.01), calls=3000)
    assert slow.worker < 0.02  # it waits for the coordinator, and does not pile up
    assert slow.coordinator == pytest.approx(1.0, abs=0.05)
