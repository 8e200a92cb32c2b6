"""The model client against a server on loopback that fails in every way we know: nothing lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.fault_server import Fault, FaultServer, default_text
from workers.calls import EndpointClient, Tuning
from workers.errors import Draining, Misconfigured
from workers.generation import Draw, ModelClient
from workers.http import open_session
from workers.probe import probe
from workers.types import Api, EndpointSettings, GeneratorSettings, Outcome, Sampling
from workers.wire import Capabilities

QUICK = Tuning(
    backoff_base_s=0.002,
    backoff_cap_s=0.02,
    probation_base_s=0.02,
    probation_cap_s=0.1,
    probe_timeout_s=0.5,
    cooldown_s=0.05,
    retry_trickle_per_s=1000.0,
)
BASE = 7_000_000


def generator_for(
    urls: Sequence[str], *, api: Api = Api.COMPLETIONS, sampling: Sampling | None = None, **endpoint: Any
) -> GeneratorSettings:
    endpoint = {"concurrency": 32, "deadline_base_s": 5.0, "tokens_per_second_floor": 1e6} | endpoint
    return GeneratorSettings(
        generator_id=1,
        fingerprint="f",
        model="stub",
        api=api,
        template="Solve: {problem}\n{not a field}",
        system=None,
        sampling=sampling or Sampling(max_tokens=64),
        samples_per_request=4,
        endpoint=EndpointSettings(name="stub", urls=tuple(urls), **endpoint),
    )


def prompt_of(statement: str) -> str:
    return f"Solve: {statement}\n{{not a field}}"


@asynccontextmanager
async def client_of(
    generator: GeneratorSettings, tuning: Tuning = QUICK, capabilities: Capabilities | None = None
) -> AsyncIterator[ModelClient]:
    inner = EndpointClient(generator.endpoint, tuning=tuning, rng=random.Random(1))
    async with ModelClient(generator.endpoint, capabilities=capabilities, client=inner) as client:
        yield client


async def draw_pool(
    client: ModelClient, generator: GeneratorSettings, statement: str, size: int, chunk: int = 4
) -> list[Draw]:
    """Draw samples 0 to size - 1 in chunks, all at once."""
    starts = range(0, size, chunk)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                client.draw(generator, statement, seed=BASE + k, count=min(chunk, size - k), affinity=k)
            )
            for k in starts
        ]
    return [task.result() for task in tasks]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (the server is another party: it tells nobody)
            await asyncio.sleep(0.005)


def texts_of(draws: Sequence[Draw]) -> list[str]:
    return [sample.text for draw in draws for sample in draw.samples]


def expected_texts(statement: str, size: int) -> list[str]:
    return [default_text(prompt_of(statement), BASE + k) for k in range(size)]


SURVIVED = {
    Fault.RATE_LIMIT: "rate_limited",
    Fault.RATE_LIMIT_SILENT: "rate_limited",
    Fault.SERVER_ERROR: "server_fault",
    Fault.UNAVAILABLE: "server_fault",
    Fault.DISCONNECT: "unreachable",
    Fault.RESET: "unreachable",
    Fault.TRUNCATED_JSON: "malformed_reply",
    Fault.WRONG_N: "malformed_reply",
    Fault.EMPTY_CHOICES: "malformed_reply",
    Fault.DOUBLED_INDEX: "malformed_reply",
    Fault.NO_TEXT: "malformed_reply",
    Fault.HUGE_BODY: "malformed_reply",
    Fault.HTML: "malformed_reply",
    Fault.ABORTED: "server_fault",
    Fault.WRAPPED_ERROR: "server_fault",
}


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("fault", list(SURVIVED))
async def test_a_passing_fault_is_survived_and_counted(fault: Fault, api: Api) -> None:
    async with FaultServer(script=[fault, fault]) as server:
        generator = generator_for([server.url], api=api)
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=3, affinity=0)
        assert [sample.text for sample in draw.samples] == expected_texts("1+1", 3)
        assert {sample.outcome for sample in draw.samples} == {Outcome.COMPLETE}
        assert client.failures == {SURVIVED[fault]: 2}
        assert draw.retries == 2
        assert draw.wasted_requests == (0 if SURVIVED[fault] == "rate_limited" else 2)
        assert server.faults[fault] == 2
        assert server.requests == 3
        assert len({payload["seed"] for payload in server.payloads}) == 1


async def test_a_drain_ends_the_wait_before_a_retry() -> None:
    async with FaultServer(script=[Fault.RATE_LIMIT], retry_after="3600") as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            draw = asyncio.create_task(client.draw(generator, "1+1", seed=BASE, count=2, affinity=0))
            await until(lambda: client.failures.get("rate_limited", 0) == 1)
            client.drain()
            with pytest.raises(Draining):
                await draw
        assert server.requests == 1


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP])
async def test_a_reply_that_does_not_come_is_given_up_at_the_deadline(fault: Fault) -> None:
    async with FaultServer(script=[fault]) as server:
        generator = generator_for([server.url], deadline_base_s=1.0)
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
        assert texts_of([draw]) == expected_texts("1+1", 2)
        assert client.failures == {"deadline_exceeded": 1}
        await until(
            lambda: server.in_flight == 0
        )  # the socket was closed: the server may stop working for us


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.SHUFFLED])
async def test_what_is_odd_but_sound_is_no_failure(fault: Fault) -> None:
    async with FaultServer(script=[fault]) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=4, affinity=0)
        assert texts_of([draw]) == expected_texts("1+1", 4)
        assert (client.failures, draw.retries) == ({}, 0)


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("fault", [Fault.NAN_LOGPROBS, Fault.NO_LOGPROBS])
async def test_bad_logprobs_cost_the_logprobs_and_not_the_sample(fault: Fault, api: Api) -> None:
    async with FaultServer(script=[fault]) as server:
        generator = generator_for([server.url], api=api)
        async with client_of(generator) as client:
            bad = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
            good = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
        assert texts_of([bad]) == texts_of([good]) == expected_texts("1+1", 2)
        assert [sample.logprob_sum for sample in bad.samples] == [None, None]
        assert all(s.logprob_sum == -0.5 * (s.completion_tokens or 0) for s in good.samples)
        assert client.failures == {"bad_logprobs": 2}


async def test_text_is_made_fit_for_stores() -> None:
    async with FaultServer(script=[Fault.ODD_TEXT]) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            draw = await client.draw(generator, "lone \ud800 and \x00", seed=BASE, count=1, affinity=0)
        assert draw.samples[0].text == "a\ufffdb\ufffdc"
        assert server.payloads[0]["prompt"] == prompt_of("lone \ufffd and \ufffd")


async def test_a_server_that_never_recovers_ends_in_error_samples_that_say_why() -> None:
    async with FaultServer(rates={Fault.TRUNCATED_JSON: 1.0}) as server:
        generator = generator_for([server.url], max_attempts=3)
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=3, affinity=0)
        assert [sample.outcome for sample in draw.samples] == [Outcome.ERROR] * 3
        assert all(
            sample.error and sample.error.startswith("malformed_reply: not JSON") for sample in draw.samples
        )
        assert (draw.retries, draw.wasted_requests, server.requests) == (2, 3, 3)


async def test_a_server_that_hangs_for_ever_ends_in_timed_out_samples() -> None:
    async with FaultServer(rates={Fault.HANG: 1.0}) as server:
        generator = generator_for([server.url], max_attempts=2, deadline_base_s=0.05)
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
        assert [sample.outcome for sample in draw.samples] == [Outcome.TIMED_OUT] * 2
        assert client.failures == {"deadline_exceeded": 2}


@pytest.mark.parametrize(
    ("fault", "outcome", "kind"),
    [
        (Fault.OVERFLOW, Outcome.OVERFLOW, "context_overflow"),
        (Fault.CONTENT_FILTER, Outcome.REFUSED, "content_refused"),
        (Fault.ODD_REFUSAL, Outcome.ERROR, "rejected"),
    ],
)
async def test_a_refusal_of_one_problem_is_an_outcome_and_is_not_retried(
    fault: Fault, outcome: Outcome, kind: str
) -> None:
    async with FaultServer(script=[fault]) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=3, affinity=0)
        assert [sample.outcome for sample in draw.samples] == [outcome] * 3
        assert (client.failures, server.requests, draw.wasted_requests) == ({kind: 1}, 1, 0)


@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.UNKNOWN_MODEL, Fault.BAD_PARAMETER])
@pytest.mark.parametrize("count", [1, 9])
async def test_an_error_of_the_sweep_is_raised_at_once(fault: Fault, count: int) -> None:
    async with FaultServer(rates={fault: 1.0}) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            with pytest.raises(Misconfigured, match="HTTP 40"):
                await client.draw(generator, "1+1", seed=BASE, count=count, affinity=0)
            assert client.in_flight == 0
        assert server.requests <= 3


async def test_the_key_reaches_the_server_and_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sk-very-secret")
    async with FaultServer(api_key="sk-very-secret") as server:
        generator = generator_for([server.url], api_key_env="STUB_KEY")
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
            assert draw.samples[0].outcome is Outcome.COMPLETE
            server.api_key = "another"
            with pytest.raises(Misconfigured, match=r"Incorrect API key provided: Bearer \*\*\*") as caught:
                await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
            assert caught.value.__context__ is None
            await server.stop()
            server.script = []
            shown = [
                repr(caught.value),
                repr(client.__dict__),
                repr(client.health()),
                repr(client.drain_events()),
            ]
        assert not [text for text in shown if "very-secret" in text]


async def test_a_key_variable_that_is_not_set_is_named() -> None:
    generator = generator_for(["http://127.0.0.1:9/v1"], api_key_env="NO_SUCH_VARIABLE")
    async with client_of(generator) as client:
        with pytest.raises(Misconfigured, match="NO_SUCH_VARIABLE"):
            await client.draw(generator, "1+1", seed=BASE, count=1, affinity=0)


async def test_a_storm_of_faults_loses_and_doubles_nothing() -> None:
    rates = dict.fromkeys(SURVIVED, 0.02)
    rates |= dict.fromkeys((Fault.SLOW, Fault.SHUFFLED, Fault.NAN_LOGPROBS), 0.02)
    del rates[Fault.HUGE_BODY]
    async with FaultServer(rates=rates, seed=3, latency_s=0.002) as server:
        generator = generator_for([server.url], deadline_base_s=60.0, max_attempts=12)
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 1200)
            assert texts_of(draws) == expected_texts("1+1", 1200)
            failed = sum(client.failures.values()) - client.failures.get("bad_logprobs", 0)
            assert failed == sum(draw.retries for draw in draws) == server.requests - len(draws)
            assert client.in_flight == 0
        delivered = [server.served[prompt_of("1+1"), BASE + k] for k in range(1200)]
        assert min(delivered) == max(delivered) == 1
        assert len(server.served) == 1200


async def test_a_burst_of_429_cuts_the_limit_once_and_every_request_survives() -> None:
    async with FaultServer(script=[Fault.RATE_LIMIT] * 12, latency_s=0.005) as server:
        generator = generator_for([server.url])
        async with client_of(generator, replace(QUICK, cooldown_s=30.0)) as client:
            draws = await draw_pool(client, generator, "1+1", 160)
            assert texts_of(draws) == expected_texts("1+1", 160)
            cuts = [event for event in client.drain_events() if event.kind == "limit_cut"]
            assert [event.detail for event in cuts] == ["20 to 16 (429)"]
            assert client.limit == 16
            assert client.failures == {"rate_limited": 12}


async def test_a_server_that_rejects_beyond_a_limit_is_driven_below_the_ceiling() -> None:
    async with FaultServer(reject_above=24, latency_s=0.005) as server:
        generator = generator_for([server.url], concurrency=200)
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 1200)
            assert texts_of(draws) == expected_texts("1+1", 1200)
            assert client.limit < 100
        assert server.peak_in_flight <= 40


async def test_the_ceiling_governs_a_server_that_queues() -> None:
    async with FaultServer(slots=8, latency_s=0.02) as server:
        generator = generator_for([server.url], concurrency=32)
        async with client_of(generator) as client:
            await draw_pool(client, generator, "1+1", 1000)
            assert client.limit == 32
        assert server.peak_in_flight == 32


async def test_one_dead_replica_of_two_costs_no_sample() -> None:
    async with FaultServer() as alive, FaultServer() as dead:
        await dead.stop()
        generator = generator_for([alive.url, dead.url])
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 200)
            up, down = client.health()
            kinds = {event.kind for event in client.drain_events()}
            assert client.paused_reason is None
        assert texts_of(draws) == expected_texts("1+1", 200)
        assert {draw.replica for draw in draws} == {alive.url}
        assert (up.is_up, down.is_up, down.in_flight) == (True, False, 0)
        assert down.last_error is not None
        assert "replica_ejected" in kinds
        assert "paused" not in kinds


async def test_a_replica_that_answers_nonsense_costs_an_attempt_and_no_sample() -> None:
    """Nonsense ejects nobody, so only avoiding the replica on the retry saves a problem that prefers it."""
    async with FaultServer() as sound, FaultServer(rates={Fault.HTML: 1.0}) as broken:
        generator = generator_for([sound.url, broken.url], max_attempts=2)
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 40, chunk=1)
        assert texts_of(draws) == expected_texts("1+1", 40)
        assert broken.requests == client.failures["malformed_reply"] > 0


async def test_the_token_rate_is_charged_with_what_was_used_and_not_with_the_estimate() -> None:
    async with FaultServer(script=[Fault.NONE, Fault.RATE_LIMIT]) as server:
        sampling = Sampling(max_tokens=60_000)  # by the estimate each request would be a minute's worth
        generator = generator_for([server.url], sampling=sampling, tokens_per_minute=60_000.0)
        async with client_of(generator) as client, asyncio.timeout(30):
            for k in range(4):
                draw = await client.draw(generator, "1+1", seed=BASE + k, count=1, affinity=0)
                assert draw.samples[0].outcome is Outcome.COMPLETE


async def test_an_outage_of_everything_pauses_and_goes_on_without_losing_attempts() -> None:
    async with FaultServer(latency_s=0.01) as first, FaultServer(latency_s=0.01) as second:
        generator = generator_for([first.url, second.url], max_attempts=3, adaptive=False)
        async with client_of(generator) as client:
            drawing = asyncio.create_task(draw_pool(client, generator, "1+1", 800))
            await until(lambda: len(first.served) + len(second.served) >= 100)
            await first.stop()
            await second.stop()
            await until(lambda: client.paused_reason is not None and client.in_flight == 0)
            reason = client.paused_reason
            assert not drawing.done()
            await second.start()
            draws = await drawing
            kinds = [event.kind for event in client.drain_events()]
            assert client.paused_reason is None
        assert reason is not None
        assert "every replica of stub is down" in reason
        assert texts_of(draws) == expected_texts("1+1", 800)
        assert kinds.count("paused") >= 1
        assert kinds.count("resumed") >= 1


async def test_a_request_that_kills_the_only_replica_again_and_again_ends() -> None:
    """The probe succeeds each time and the request fails each time: it must not be sent for ever."""
    async with FaultServer(rates={Fault.DISCONNECT: 1.0}) as server:
        generator = generator_for([server.url], max_attempts=2)
        async with client_of(generator) as client:
            async with asyncio.timeout(20):
                draw = await client.draw(generator, "1+1", seed=BASE, count=1, affinity=0)
        assert draw.samples[0].outcome is Outcome.ERROR
        assert server.requests <= 10


async def test_connections_closed_by_an_idle_server_are_no_failure_of_a_sample() -> None:
    async with FaultServer(keepalive_s=0.01) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            for k in range(30):
                draw = await client.draw(generator, "1+1", seed=BASE + k, count=1, affinity=0)
                assert texts_of([draw]) == [default_text(prompt_of("1+1"), BASE + k)]
                await asyncio.sleep(0.009 + 0.0002 * k)  # around the moment at which the server hangs up


async def test_cancelling_frees_the_slot_and_the_server() -> None:
    async with FaultServer(rates={Fault.HANG: 1.0}) as server:
        generator = generator_for([server.url], concurrency=1)
        async with client_of(generator) as client:
            first = asyncio.create_task(client.draw(generator, "1", seed=BASE, count=1, affinity=0))
            second = asyncio.create_task(client.draw(generator, "2", seed=BASE, count=1, affinity=0))
            await until(lambda: server.in_flight == 1)
            second.cancel()
            first.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert first.cancelled()
            assert second.cancelled()
            assert (client.in_flight, client.failures) == (0, {"aborted": 1})
            await until(lambda: server.in_flight == 0)


async def test_any_chunking_draws_the_same_samples_in_both_apis_and_greedy_takes_one_request_a_sample() -> (
    None
):
    async with FaultServer() as server:
        for api in Api:
            generator = generator_for([server.url], api=api)
            async with client_of(generator) as client:
                whole = await draw_pool(client, generator, "{problem} {x}", 12, chunk=4)
                single = await draw_pool(client, generator, "{problem} {x}", 12, chunk=1)
                beyond_n = await draw_pool(client, generator, "{problem} {x}", 12, chunk=12)
            assert (
                texts_of(whole)
                == texts_of(single)
                == texts_of(beyond_n)
                == expected_texts("{problem} {x}", 12)
            )
        greedy = generator_for([server.url], sampling=Sampling(temperature=0.0, max_tokens=64))
        server.payloads.clear()
        async with client_of(greedy) as client:
            draw = await client.draw(greedy, "1+1", seed=BASE, count=3, affinity=0)
        assert len(draw.samples) == 3
        assert [payload["n"] for payload in server.payloads] == [1, 1, 1]


async def test_truncated_and_empty_are_outcomes() -> None:
    async with FaultServer(
        text=lambda prompt, seed: " \n" if seed % 2 else "one two three four five"
    ) as server:
        generator = generator_for([server.url], sampling=Sampling(max_tokens=3, top_k=5, stop=("\n\n",)))
        async with client_of(generator) as client:
            draw = await client.draw(generator, "1+1", seed=BASE, count=2, affinity=0)
        assert [sample.outcome for sample in draw.samples] == [Outcome.TRUNCATED, Outcome.EMPTY]
        assert [sample.completion_tokens for sample in draw.samples] == [3, 2]
        sent = server.payloads[0]
        assert (sent["top_k"], sent["stop"], sent["top_p"], sent["max_tokens"]) == (5, ["\n\n"], 1.0, 3)


async def test_fields_that_only_inform_are_given_up_when_refused_and_others_are_errors_of_the_sweep() -> None:
    async with FaultServer(refuses=["return_token_ids", "logprobs"]) as server:
        generator = generator_for([server.url])
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 40)
            kinds = [(event.kind, event.subject) for event in client.drain_events()]
        assert texts_of(draws) == expected_texts("1+1", 40)
        assert sorted(kinds) == [("field_refused", "logprobs"), ("field_refused", "return_token_ids")]
        assert draws[0].samples[0].completion_tokens is None
        assert draws[0].completion_tokens > 0
        server.refuses = frozenset({"top_k"})
        generator = generator_for([server.url], sampling=Sampling(top_k=3))
        async with client_of(generator) as client:
            with pytest.raises(Misconfigured, match="top_k"):
                await client.draw(generator, "1+1", seed=BASE, count=1, affinity=0)


async def test_probe_tells_a_server_that_derives_seeds_from_one_that_does_not() -> None:
    async with FaultServer(max_model_len=4096) as server, open_session() as session:
        found = await probe(session, server.url, generator_for([server.url]))
        assert found == Capabilities(model_is_listed=True, max_model_len=4096, server_version="0.0-fault")
        server.child_seeds = False
        server.ignores = frozenset({"return_token_ids", "top_k", "logprobs"})
        found = await probe(session, server.url, generator_for([server.url], api=Api.CHAT))
        assert (found.child_seeds, found.deterministic) == (False, True)
        assert (found.token_ids, found.logprobs, found.top_k) == (False, False, False)
        server.ignores, server.refuses = frozenset(), frozenset({"return_token_ids", "top_k"})
        found = await probe(session, server.url, generator_for([server.url]))
        assert (found.token_ids, found.logprobs, found.top_k) == (False, True, False)
        with pytest.raises(Misconfigured, match="model"):
            await probe(session, server.url, replace(generator_for([server.url]), model="other"))


async def test_a_server_without_child_seeds_gets_one_request_a_sample() -> None:
    async with FaultServer(child_seeds=False) as server:
        generator = generator_for([server.url])
        async with client_of(generator, capabilities=Capabilities(child_seeds=False)) as client:
            draws = await draw_pool(client, generator, "1+1", 16)
        assert texts_of(draws) == expected_texts("1+1", 16)


async def shares_of(reports_load: bool) -> tuple[int, int]:
    """Requests that a server of 2 slots and one of 30 get, 32 at a time."""
    small = FaultServer(latency_s=0.02, slots=2, reports_load=reports_load)
    large = FaultServer(latency_s=0.02, slots=30, reports_load=reports_load)
    async with small, large:
        generator = generator_for([small.url, large.url], adaptive=False, has_affinity=False)
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 1200, chunk=1)
        assert texts_of(draws) == expected_texts("1+1", 1200)
        return small.requests, large.requests


async def test_requests_go_where_none_are_waiting_by_the_servers_own_account() -> None:
    small, large = await shares_of(reports_load=True)
    unaware, _ = await shares_of(reports_load=False)
    assert small < large / 4
    assert small < unaware


async def test_no_replica_gets_more_at_a_time_than_it_may() -> None:
    async with FaultServer(latency_s=0.01) as one, FaultServer(latency_s=0.01) as other:
        generator = generator_for([one.url, other.url], adaptive=False, replica_concurrency=3)
        async with client_of(generator) as client:
            draws = await draw_pool(client, generator, "1+1", 120, chunk=1)
        assert texts_of(draws) == expected_texts("1+1", 120)
        assert (one.peak_in_flight, other.peak_in_flight) == (3, 3)


async def test_a_straggler_is_drawn_again_elsewhere_and_the_first_answer_counts() -> None:
    hangs: set[str] = set()
    async with (
        FaultServer(latency_s=0.01) as sound,
        FaultServer(latency_s=0.01, choose=lambda prompt: Fault.HANG if prompt in hangs else None) as stuck,
    ):
        generator = generator_for([sound.url, stuck.url], deadline_base_s=60.0, hedge_share=0.1)
        async with client_of(generator) as client:
            await draw_pool(client, generator, "1+1", 200, chunk=1)
            hangs.add(prompt_of("2+2"))
            draws = [
                await client.draw(generator, "2+2", seed=BASE, count=4, affinity=affinity)
                for affinity in range(8)  # some of them prefer the replica that hangs
            ]
            assert texts_of(draws[:1]) == expected_texts("2+2", 4)
            assert {texts[0] for texts in map(tuple, (texts_of([draw]) for draw in draws))} == {
                expected_texts("2+2", 4)[0]
            }
            assert {draw.replica for draw in draws} == {sound.url}
            copies = sum(draw.wasted_requests for draw in draws)
            assert 0 < copies <= 8
            assert client.failures == {"aborted": copies}  # those that hung were given up
            assert client.in_flight == 0
        assert stuck.cancelled == copies


async def test_without_a_share_a_straggler_is_waited_for() -> None:
    async with FaultServer(latency_s=0.01) as one, FaultServer(latency_s=0.01) as other:
        generator = generator_for([one.url, other.url])
        async with client_of(generator) as client:
            await draw_pool(client, generator, "1+1", 200, chunk=1)
            one.latency_s = other.latency_s = 0.3
            await draw_pool(client, generator, "1+1", 8, chunk=1)
            assert client.failures == {}
