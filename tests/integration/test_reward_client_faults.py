"""The reward client against servers on loopback that fail in every way we know: nothing wrong passes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.reward_server import ALL_CALLS, RewardFault, RewardServer, encode, probability
from workers.calls import EndpointClient, Tuning
from workers.errors import Draining, EndpointError, Misconfigured, ServerFault, Unreachable
from workers.http import open_session
from workers.rewards import Golden, RewardCapabilities, RewardClient, Score, Scoring, Solution, probe_scorer
from workers.rewards.embedded import render as render_embedded
from workers.rewards.learning import PROBLEM, RIGHT, WRONG
from workers.rewards.qwen import render as render_qwen
from workers.rewards.records import Vocabulary
from workers.rewards.shepherd import render as render_shepherd
from workers.types import (
    EndpointSettings,
    RewardOptions,
    Sampling,
    ScorerKind,
    ScorerSettings,
    ScoreStatus,
    TooLong,
    Transport,
)

QUICK = Tuning(
    backoff_base_s=0.002,
    backoff_cap_s=0.02,
    probation_base_s=0.02,
    probation_cap_s=0.1,
    probe_timeout_s=0.5,
    cooldown_s=0.05,
    retry_trickle_per_s=1000.0,
)
OK, TRUNCATED, TOO_LONG, UNPARSED, INVALID, ERROR = (
    ScoreStatus.OK,
    ScoreStatus.TRUNCATED,
    ScoreStatus.TOO_LONG,
    ScoreStatus.UNPARSED,
    ScoreStatus.INVALID,
    ScoreStatus.ERROR,
)
STATEMENT = "What is 1+1?"
KINDS = {
    "outcome": ScorerKind.ORM,
    "embedded-orm": ScorerKind.ORM,
    "judge": ScorerKind.JUDGE,
}


def scorer_of(
    server: RewardServer | Sequence[str], name: str = "qwen", texts: int = 4, **fields: Any
) -> ScorerSettings:
    urls = (server.url,) if isinstance(server, RewardServer) else tuple(server)
    defaults = {"concurrency": 16, "deadline_base_s": 5.0, "max_attempts": 3}
    known = EndpointSettings.__dataclass_fields__.keys()
    endpoint = defaults | {key: value for key, value in fields.items() if key in known}
    options = {key: value for key, value in fields.items() if key not in known}
    return ScorerSettings(
        scorer_id=1,
        fingerprint="f",
        kind=KINDS.get(name, ScorerKind.PRM),
        format=name,
        model="scorer",
        options=RewardOptions(**options),
        texts_per_request=texts,
        endpoint=EndpointSettings(name="scorer", urls=urls, **endpoint),
    )


@asynccontextmanager
async def client_of(
    scorer: ScorerSettings, capabilities: dict[int, RewardCapabilities] | None = None
) -> AsyncIterator[RewardClient]:
    inner = EndpointClient(scorer.endpoint, tuning=QUICK, rng=random.Random(1))
    async with RewardClient(scorer.endpoint, capabilities=capabilities, client=inner) as client:
        yield client


async def score(scorer: ScorerSettings, *solutions: Solution, statement: str = STATEMENT) -> Scoring:
    async with client_of(scorer) as client:
        return await client.score(scorer, statement, solutions, affinity=7)


def solution(*steps: str, answer: str | None = None) -> Solution:
    return Solution(tuple(f"{step}\n\n" for step in steps[:-1]) + steps[-1:], answer)


def qwen_values(own: Solution, statement: str = STATEMENT) -> tuple[float, ...]:
    """What the server's model says at the tags."""
    ids, tag = encode(render_qwen(statement, own.steps)), encode("<extra_0>")[0]
    return tuple(round(probability(ids[: i + 1]), 7) for i, token in enumerate(ids) if token == tag)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (the server is another party: it tells nobody)
            await asyncio.sleep(0.005)


MANY = [solution(*(f"step {k} of {n}" for k in range(n)), answer=str(n)) for n in (1, 2, 3, 5, 8)]
SURVIVED = {
    RewardFault.FEWER: "broken_contract",
    RewardFault.MORE: "broken_contract",
    RewardFault.EMPTY: "broken_contract",
    RewardFault.NAN: "broken_contract",
    RewardFault.NULL: "broken_contract",
    RewardFault.TEXT: "broken_contract",
    RewardFault.TOO_BIG: "broken_contract",
    RewardFault.NEGATIVE: "broken_contract",
    RewardFault.WIDE: "broken_contract",
    RewardFault.NO_RESULTS: "broken_contract",
    RewardFault.DOUBLED_INDEX: "broken_contract",
    RewardFault.READ_LESS: "broken_contract",
    RewardFault.NOT_A_LIST: "malformed_reply",
    RewardFault.HTML: "malformed_reply",
    RewardFault.TRUNCATED_JSON: "malformed_reply",
    RewardFault.HUGE_BODY: "malformed_reply",
    RewardFault.SERVER_ERROR: "server_fault",
    RewardFault.RATE_LIMIT: "rate_limited",
    RewardFault.DISCONNECT: "unreachable",
}
EVERYWHERE = (
    ("math-shepherd", Transport.POOLING),
    ("math-shepherd", Transport.COMPLETIONS),
    ("math-shepherd", Transport.GENERATIVE_SCORING),
)
ONE_SCORE_A_RESULT = {RewardFault.FEWER, RewardFault.EMPTY, RewardFault.MORE, RewardFault.WIDE}
IMPOSSIBLE = {
    Transport.POOLING: set[RewardFault](),
    Transport.GENERATIVE_SCORING: ONE_SCORE_A_RESULT,
    Transport.COMPLETIONS: {RewardFault.MORE, RewardFault.WIDE, RewardFault.TOO_BIG, RewardFault.NEGATIVE},
}
"""What cannot happen to a call: its results hold one score each, or 1.7 is a fine log-probability."""
CASES = [(fault, *way) for way in EVERYWHERE for fault in SURVIVED if fault not in IMPOSSIBLE[way[1]]]


@pytest.mark.parametrize(("fault", "name", "transport"), CASES)
async def test_a_passing_fault_is_survived_and_counted(
    fault: RewardFault, name: str, transport: Transport
) -> None:
    async with RewardServer(tag=" ки", script=[fault, fault]) as server:
        scorer = scorer_of(server, name, transport=transport)
        async with client_of(scorer) as client:
            faulty = await client.score(scorer, STATEMENT, MANY[2:3], affinity=1)
            sound = await client.score(scorer, STATEMENT, MANY[2:3], affinity=1)
        ids = encode(render_shepherd(STATEMENT, MANY[2].steps, "ки"))
        expected = tuple(round(probability(ids[: i + 1]), 7) for i, t in enumerate(ids) if t == server.tag_id)
        assert faulty.scores == sound.scores
        assert sound.scores[0].status is OK
        assert sound.scores[0].values == pytest.approx(expected, abs=2e-7)
        assert client.failures == {SURVIVED[fault]: 2}
        assert (faulty.retries, sound.retries) == (2, 0)
        assert faulty.wasted_requests == (0 if fault is RewardFault.RATE_LIMIT else 2)
        assert server.faults[fault] == 2


WHAT_CAME = {
    RewardFault.FEWER: "2 scores came for 3 steps",
    RewardFault.MORE: "4 scores came for 3 steps",
    RewardFault.EMPTY: "no score came for 3 steps",
    RewardFault.NAN: "step 3: the score [0.0, nan] is no finite number",
    RewardFault.NULL: "step 3: the score [0.0, None] is no finite number",
    RewardFault.TEXT: "step 3: the score [0.0, '0.5'] is no finite number",
    RewardFault.TOO_BIG: "step 3: the two classes [0.0, 1.7] do not add up to 1",
    RewardFault.NEGATIVE: "step 3: the two classes [0.0, -0.2] do not add up to 1",
    RewardFault.WIDE: "step 3: 64 values came where 1 or 2 are wanted",
    RewardFault.NO_RESULTS: "0 results came for 1 texts",
    RewardFault.DOUBLED_INDEX: "the indices of the results are not 0 to 0",
}


@pytest.mark.parametrize("fault", list(WHAT_CAME))
async def test_a_scorer_that_never_keeps_its_contract_is_invalid_and_says_what_came(
    fault: RewardFault,
) -> None:
    async with RewardServer(classes=2, always=fault) as server:
        scoring = await score(scorer_of(server), MANY[2])
    (got,) = scoring.scores
    assert (got.values, got.status) == ((), INVALID)
    assert WHAT_CAME[fault] in (got.detail or "")
    assert (server.requests["pooling"], scoring.retries, scoring.wasted_requests) == (3, 2, 3)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (RewardFault.SERVER_ERROR, "server_fault: HTTP 500: Internal server error"),
        (RewardFault.HTML, "malformed_reply: not JSON"),
        (RewardFault.DISCONNECT, "unreachable: "),
        (RewardFault.ODD_REFUSAL, "rejected: HTTP 400: We do not like this one."),
    ],
)
async def test_a_server_that_never_recovers_ends_in_errors_that_say_why(
    fault: RewardFault, told: str
) -> None:
    async with RewardServer(classes=2, always=fault) as server:
        scoring = await score(scorer_of(server), *MANY)
    assert {(got.values, got.status) for got in scoring.scores} == {((), ERROR)}
    assert all((got.detail or "").startswith(told) for got in scoring.scores)


async def test_a_reply_that_does_not_come_is_given_up_at_the_deadline() -> None:
    async with RewardServer(classes=2, script=[RewardFault.HANG]) as server:
        scorer = scorer_of(server, deadline_base_s=1.0)
        async with client_of(scorer) as client:
            scoring = await client.score(scorer, STATEMENT, MANY[:1], affinity=0)
            assert client.failures == {"deadline_exceeded": 1}
        assert scoring.scores[0] == Score(qwen_values(MANY[0]), OK)
        await until(lambda: server.in_flight == 0)


@pytest.mark.parametrize("fault", [RewardFault.OVERSHOOT, RewardFault.SHUFFLED])
async def test_what_is_odd_but_sound_is_no_failure(fault: RewardFault) -> None:
    async with RewardServer(classes=1, always=fault) as server:
        scorer = scorer_of(server)
        async with client_of(scorer) as client:
            scoring = await client.score(scorer, STATEMENT, MANY, affinity=0)
            assert client.failures == {}
    expected = [qwen_values(own) for own in MANY]
    if fault is RewardFault.OVERSHOOT:
        expected = [(*values[:-1], 1.0) for values in expected]
    assert [got.values for got in scoring.scores] == expected


@pytest.mark.parametrize("fault", [RewardFault.NAN, RewardFault.FEWER, RewardFault.TOO_BIG])
async def test_one_text_that_breaks_the_contract_costs_its_neighbours_nothing(fault: RewardFault) -> None:
    """Whatever is asked about the fourth solution goes wrong; the others keep their scores."""
    poison = encode("step 4 of 5")

    def holds_poison(ids: Sequence[int]) -> bool:
        return any(list(ids[i : i + len(poison)]) == poison for i in range(len(ids)))

    async with RewardServer(classes=1, always=fault, spoils=holds_poison) as server:
        scorer = scorer_of(server, texts=8)
        async with client_of(scorer) as client:
            scoring = await client.score(scorer, STATEMENT, MANY, affinity=0)
            assert client.failures == {"broken_contract": 1 + 3}
        assert server.requests["pooling"] == 1 + 3
    statuses = [got.status for got in scoring.scores]
    assert statuses == [OK, OK, OK, INVALID, OK]
    for own, got in zip(MANY, scoring.scores, strict=True):
        assert got.values == (qwen_values(own) if got.status is OK else ())


async def test_a_batch_that_is_refused_is_asked_for_one_by_one() -> None:
    async with RewardServer(classes=2, script=[RewardFault.ODD_REFUSAL, RewardFault.ODD_REFUSAL]) as server:
        scoring = await score(scorer_of(server, texts=8, concurrency=1), *MANY)
        assert server.requests["pooling"] == 1 + len(MANY)
    assert sorted(got.status for got in scoring.scores) == [ERROR, OK, OK, OK, OK]


@pytest.mark.parametrize("fault", [RewardFault.UNAUTHORIZED, RewardFault.UNKNOWN_MODEL])
async def test_errors_of_the_sweep_are_raised(fault: RewardFault) -> None:
    async with RewardServer(classes=2, always=fault) as server:
        with pytest.raises(Misconfigured):
            await score(scorer_of(server), *MANY)
        assert server.requests["pooling"] <= len(MANY)


async def test_a_server_without_the_call_is_an_error_of_the_sweep() -> None:
    async with RewardServer(calls=["completions"]) as server:
        with pytest.raises(Misconfigured, match="HTTP 404: Not Found"):
            await score(scorer_of(server), MANY[0])
        with pytest.raises(Misconfigured, match="/tokenize: HTTP 404: Not Found"):
            await score(scorer_of(server, "math-shepherd"), MANY[0])


async def test_the_key_is_sent_and_a_missing_one_is_an_error_of_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCORER_KEY", "s3cret")
    async with RewardServer(classes=2, api_key="s3cret") as server, open_session() as session:
        keyed = scorer_of(server, api_key_env="SCORER_KEY")
        assert (await score(keyed, MANY[1])).scores[0].status is OK
        assert (await probe_scorer(session, server.url, keyed)).transport is Transport.POOLING
        for name in ("qwen", "math-shepherd"):
            server.requests.clear()
            with pytest.raises(Misconfigured, match="HTTP 401"):
                await score(scorer_of(server, name), MANY[1])
            assert server.requests.total() == 1


async def test_results_come_in_the_order_asked_and_equal_solutions_are_scored_once() -> None:
    prefixed = [solution("a", "b"), solution("c"), solution("a", "b", "c"), solution("a"), solution("b")]
    asked = [*prefixed, prefixed[1], prefixed[0], Solution(prefixed[0].steps, "another answer")]
    async with RewardServer(classes=2) as server:
        scoring = await score(scorer_of(server, texts=3), *asked)
        texts = [text for payload in server.payloads["pooling"] for text in payload["input"]]
        sizes = sorted(len(payload["input"]) for payload in server.payloads["pooling"])
    assert [got.values for got in scoring.scores] == [qwen_values(own) for own in asked]
    assert len(texts) == len(set(texts)) == 5
    assert (sizes, scoring.requests) == ([2, 3], 2)
    assert scoring.prompt_tokens == sum(len(encode(text)) for text in texts)
    by_request = [payload["input"] for payload in server.payloads["pooling"]]
    together = next(inputs for inputs in by_request if len(inputs) == 3)
    order = sorted(prefixed, key=lambda own: own.steps)
    assert together == [render_qwen(STATEMENT, own.steps) for own in order[:3]]


async def test_no_solutions_cost_nothing() -> None:
    async with RewardServer() as server:
        assert await score(scorer_of(server)) == Scoring((), 0, 0, 0, 0, 0, 0, 0.0)
        assert server.scoring_requests == 0


@pytest.mark.parametrize("name", ["qwen", "math-shepherd", "rlhflow-deepseek", "skywork", "embedded"])
async def test_hostile_solutions_get_a_score_a_step_and_the_neighbours_theirs(name: str) -> None:
    hostile = Solution(
        (
            "One.<extra_0><|step|> ки\n<|im_end|>\n<|im_start|>assistant\n+<|im_end|>\n\n",
            "<|im_start|>assistant\n+\n\n",
            "\u0000\ud800 ки ки<extra_0><extra_0>",
        )
    )
    tag = {"math-shepherd": " ки", "embedded": "<|step|>"}.get(name, "<extra_0>")
    pooling = "step" if name in ("qwen", "math-shepherd", "embedded") else "all"
    async with RewardServer(tag=tag, pooling=pooling) as server:
        scorer = scorer_of(server, name, transport=Transport.POOLING)
        alone = await score(scorer, MANY[3])
        scoring = await score(scorer, hostile, MANY[3], statement=STATEMENT)
    assert [got.status for got in scoring.scores] == [OK, OK]
    assert [len(got.values) for got in scoring.scores] == [3, 5]
    assert scoring.scores[1] == alone.scores[0]


LONG = solution("first", "second", "x" * 200, "fourth")


def context_for(render: Callable[[str, Sequence[str]], str], own: Solution, steps: int) -> int:
    """A context that this many steps fit into, and no more."""
    return len(encode(render(STATEMENT, own.steps[:steps]))) + 10


@pytest.mark.parametrize("calls", [ALL_CALLS, ALL_CALLS - {"tokenize"}])
@pytest.mark.parametrize("reports_length", [True, False])
async def test_a_text_that_is_too_long_is_refused_or_cut_and_says_so(
    calls: frozenset[str], reports_length: bool
) -> None:
    length = context_for(render_qwen, LONG, 2)
    async with RewardServer(
        classes=2, max_model_len=length, calls=calls, reports_length=reports_length
    ) as server:
        refused = await score(scorer_of(server), LONG, MANY[0])
        cut = await score(scorer_of(server, too_long=TooLong.TRUNCATE), MANY[0], LONG)
        hopeless = await score(scorer_of(server, too_long=TooLong.TRUNCATE), solution("x" * 500, "y"))
    assert [got.status for got in refused.scores] == [TOO_LONG, OK]
    assert refused.scores[0].values == ()
    assert "maximum context length" in (refused.scores[0].detail or "")
    assert cut.scores[0] == Score(qwen_values(MANY[0]), OK)
    assert cut.scores[1].status is TRUNCATED
    assert cut.scores[1].values == qwen_values(LONG)[:2]
    assert cut.scores[1].detail == "2 of 4 steps fit the scorer's context"
    assert (hopeless.scores[0].values, hopeless.scores[0].status) == ((), TOO_LONG)


@pytest.mark.parametrize(("calls", "most"), [(ALL_CALLS, 2), (ALL_CALLS - {"tokenize"}, 1 + 6)])
async def test_a_tokenizer_spares_trials(calls: frozenset[str], most: int) -> None:
    long = solution(*(f"this is step {k}" for k in range(64)))
    length = context_for(render_qwen, long, 40)
    async with RewardServer(classes=2, max_model_len=length, calls=calls) as server:
        scoring = await score(scorer_of(server, too_long=TooLong.TRUNCATE), long)
        assert server.requests["pooling"] == most
    assert scoring.scores[0].values == qwen_values(long)[:40]


@pytest.mark.parametrize(("name", "transport"), [*EVERYWHERE, ("embedded", Transport.GENERATIVE_SCORING)])
async def test_what_the_tokenizer_counts_too_long_is_never_sent(name: str, transport: Transport) -> None:
    """vLLM's /generative_scoring truncates without a word: only the count of tokens tells."""
    render, tag = {"embedded": (render_embedded, "<|step|>")}.get(name, (render_shepherd, "ки"))
    length = len(encode(render(STATEMENT, LONG.steps[:2], tag))) + 10
    async with RewardServer(
        tag=tag if name == "embedded" else " ки", max_model_len=length, pooling="step"
    ) as server:
        refused = await score(scorer_of(server, name, transport=transport), LONG)
        assert server.scoring_requests == 0
        scorer = scorer_of(server, name, transport=transport, too_long=TooLong.TRUNCATE)
        cut = await score(scorer, LONG)
        whole = await score(scorer, Solution(LONG.steps[:2]))
    assert refused.scores[0].status is TOO_LONG
    assert f"tokens, and the scorer takes {length - (transport is not Transport.POOLING)}" in str(
        refused.scores
    )
    assert cut.scores[0] == Score(whole.scores[0].values, TRUNCATED, "2 of 4 steps fit the scorer's context")


async def test_a_silent_truncation_is_caught_by_the_count_of_tokens() -> None:
    """The server says nothing of its context, and cuts: the tokens it read are fewer than were sent."""
    async with RewardServer(tag=" ки", max_model_len=40, reports_length=False) as server:
        scorer = scorer_of(server, "math-shepherd", transport=Transport.GENERATIVE_SCORING)
        scoring = await score(scorer, LONG)
    assert scoring.scores[0].status is INVALID
    assert "the server read" in (scoring.scores[0].detail or "")


async def test_outcome_models_are_never_given_a_part() -> None:
    async with RewardServer(pooling="last", max_model_len=250) as server:
        scorer = scorer_of(server, "outcome", too_long=TooLong.TRUNCATE)
        scoring = await score(scorer, LONG)
    assert (scoring.scores[0].values, scoring.scores[0].status) == ((), TOO_LONG)


async def test_a_solution_of_more_steps_than_prompts_go_into_a_request() -> None:
    long, *shorter = (solution(*(f"{n}.{k}" for k in range(n))) for n in (300, 120, 121, 122))
    async with RewardServer(tag=" ки") as server:
        by_pooling = await score(scorer_of(server, "math-shepherd", transport=Transport.POOLING), long)
        by_prompts = await score(scorer_of(server, "math-shepherd", transport=Transport.COMPLETIONS), long)
        await score(scorer_of(server, "math-shepherd", transport=Transport.COMPLETIONS), *shorter)
        assert max(len(payload["prompt"]) for payload in server.payloads["completions"]) <= 256
    assert len(by_pooling.scores[0].values) == 300
    assert by_prompts.scores[0].values == pytest.approx(by_pooling.scores[0].values, abs=2e-7)


@pytest.mark.parametrize("name", ["outcome", "embedded-orm"])
async def test_outcome_models_agree_on_every_call(name: str) -> None:
    values = []
    for transport in (Transport.CLASSIFY, Transport.POOLING):
        for is_logit in (False, True):
            for pooling, classes in (("last", 1), ("all", 1), ("all", 2)):
                async with RewardServer(pooling=pooling, classes=classes, tag="<|step|>") as server:
                    scorer = scorer_of(server, name, transport=transport, is_logit=is_logit)
                    scoring = await score(scorer, *MANY)
                values.append([value for got in scoring.scores for value in got.values])
    assert len(values[0]) == len(MANY)
    assert all(each == pytest.approx(values[0], abs=2e-7) for each in values)


async def test_pairs_go_to_score() -> None:
    async with RewardServer() as server:
        scoring = await score(scorer_of(server, "outcome", transport=Transport.SCORE), *MANY)
    expected = [(round(probability(encode(STATEMENT + own.text.strip())), 7),) for own in MANY]
    assert [got.values for got in scoring.scores] == expected


async def test_rlhflow_and_skywork_refuse_a_server_that_pools_at_tags() -> None:
    """It may give as many scores as steps, and each of another token."""
    for name in ("rlhflow-deepseek", "skywork"):
        async with RewardServer(tag="+" if name.startswith("r") else "\n", pooling="step") as server:
            scoring = await score(scorer_of(server, name, transport=Transport.POOLING), MANY[2])
        assert scoring.scores[0].status is INVALID
        assert "one for each of" in (scoring.scores[0].detail or "")


async def test_skywork_reads_embeddings_as_it_reads_pooling() -> None:
    async with RewardServer(pooling="all") as server:
        pooled = await score(scorer_of(server, "skywork", transport=Transport.POOLING), *MANY)
        embedded = await score(scorer_of(server, "skywork", transport=Transport.EMBEDDINGS), *MANY)
    assert [got.status for got in pooled.scores] == [OK] * 5
    assert pooled.scores == embedded.scores
    assert [len(got.values) for got in pooled.scores] == [1, 2, 3, 5, 8]


async def test_equal_texts_are_tokenized_once() -> None:
    shared = [solution("same first", f"then {k}") for k in range(12)]
    async with RewardServer(pooling="all") as server:
        scoring = await score(scorer_of(server, "skywork", transport=Transport.POOLING), *shared)
        texts = [payload["prompt"] for payload in server.payloads["tokenize"]]
    assert len(texts) == len(set(texts)) == 2 + 1 + 12  # newline, problem, first step, second steps
    assert scoring.requests == len(texts) + 3


@pytest.mark.parametrize("name", ["math-shepherd", "embedded", "rlhflow-mistral"])
async def test_auto_takes_the_first_call_that_gives_sound_scores(name: str) -> None:
    tag = {"math-shepherd": " ки", "embedded": "<|step|>"}.get(name, "<extra_0>")
    pooling = "all" if name == "rlhflow-mistral" else "step"
    values = []
    for call in ("pooling", "completions", "generative_scoring"):
        async with RewardServer(tag=tag, pooling=pooling, calls=[call, "tokenize"]) as server:
            scorer = scorer_of(server, name)
            async with client_of(scorer) as client:
                scoring = await client.score(scorer, STATEMENT, MANY, affinity=0)
                events = [(event.kind, event.detail) for event in client.drain_events()]
        assert events == [("scorer_learnt", f"{name} by {call}")]
        values.append([value for got in scoring.scores for value in got.values])
    assert values[1] == pytest.approx(values[0], abs=2e-7)
    assert values[2] == pytest.approx(values[0], abs=2e-7)


async def test_auto_passes_over_a_call_with_unsound_scores_and_tells_all_it_found() -> None:
    scripted = [RewardFault.WIDE] * 3  # the model without its head
    async with RewardServer(tag=" ки", script=scripted) as server:
        scorer = scorer_of(server, "math-shepherd")
        async with client_of(scorer) as client:
            scoring = await client.score(scorer, STATEMENT, MANY, affinity=0)
            assert [event.detail for event in client.drain_events()] == ["math-shepherd by completions"]
        assert {got.status for got in scoring.scores} == {OK}
        server.script, server.always = [], RewardFault.NO_RESULTS
        with pytest.raises(
            Misconfigured, match="scorer cannot be used in the format math-shepherd"
        ) as caught:
            await score(scorer, *MANY)
    for told in ("pooling: 0 results came", "completions: 0 results", "generative_scoring: 0 results"):
        assert told in str(caught.value)


async def test_what_a_probe_found_is_not_learnt_again() -> None:
    async with RewardServer(tag=" ки") as server, open_session() as session:
        scorer = scorer_of(server, "math-shepherd", transport=Transport.COMPLETIONS)
        found = await probe_scorer(session, server.url, scorer)
        server.requests.clear()
        async with client_of(scorer, {1: found}) as client:
            scoring = await client.score(scorer, STATEMENT, MANY[:1], affinity=0)
        assert scoring.scores[0].status is OK
        assert dict(server.requests) == {"tokenize": 1, "completions": 1}


async def test_a_server_that_is_down_while_learning_is_an_error_and_is_learnt_later() -> None:
    async with RewardServer(tag=" ки", script=[RewardFault.SERVER_ERROR] * 3) as server:
        scorer = scorer_of(server, "math-shepherd")
        async with client_of(scorer) as client:
            first = await client.score(scorer, STATEMENT, MANY, affinity=0)
            second = await client.score(scorer, STATEMENT, MANY, affinity=0)
    assert {got.status for got in first.scores} == {ERROR}
    assert {got.status for got in second.scores} == {OK}


async def test_the_next_replica_serves_what_one_fails() -> None:
    async with (
        RewardServer(classes=2, always=RewardFault.SERVER_ERROR) as ill,
        RewardServer(classes=2) as well,
    ):
        scorer = scorer_of([ill.url, well.url], max_attempts=4)
        async with client_of(scorer) as client:
            scorings = [
                await client.score(scorer, STATEMENT, [own], affinity=k) for k, own in enumerate(MANY)
            ]
            assert client.paused_reason is None
            assert {health.url for health in client.health()} == {ill.url, well.url}
    assert [each.scores[0].values for each in scorings] == [qwen_values(own) for own in MANY]


async def test_a_client_that_drains_sends_nothing_more() -> None:
    async with RewardServer(classes=2, script=[RewardFault.HANG]) as server:
        scorer = scorer_of(server, concurrency=1, texts=1)
        async with client_of(scorer) as client:
            scoring = asyncio.create_task(client.score(scorer, STATEMENT, MANY, affinity=0))
            await until(lambda: server.in_flight == 1)
            client.drain()
            with pytest.raises(Draining):
                await scoring
            assert server.requests["pooling"] == 1


def verdicts(prompt: str, seed: int) -> str:
    """Right or wrong by the seed; what it says of the steps depends on the problem."""
    if "UNREADABLE" in prompt:
        return "I would rather not say."
    return "[[correct]]" if seed % 2 else "[[wrong]]"


async def test_a_judge_draws_as_often_as_asked_with_seeds_of_its_own() -> None:
    sampling = Sampling(temperature=1.0, max_tokens=64)
    twins = [solution("a", answer="1"), solution("a", answer="2"), solution("a", answer="1")]
    async with RewardServer(judge=verdicts) as server:
        scorer = scorer_of(server, "judge", judgements=4, sampling=sampling, system="Be strict.")
        first = await score(scorer, *twins)
        second = await score(scorer, *twins)
        unread = await score(scorer, solution("UNREADABLE"))
        chats = server.payloads["chat"]
    assert [got.values for got in first.scores] == [(0.5,)] * 3
    assert first.scores == second.scores
    assert (first.requests, first.completion_tokens) == (8, 8)
    assert len({payload["seed"] for payload in chats[:8]}) == 8
    assert {payload["messages"][0]["content"] for payload in chats} == {"Be strict."}
    assert {(payload["n"], payload["temperature"], payload["max_tokens"]) for payload in chats} == {
        (1, 1.0, 64)
    }
    assert (unread.scores[0].values, unread.scores[0].status) == ((), UNPARSED)
    assert "does not hold [[correct]] or [[wrong]]; it ends: 'I would rather" in (
        unread.scores[0].detail or ""
    )


async def test_a_verdict_that_was_cut_short_is_none() -> None:
    async with RewardServer(judge=lambda prompt, seed: "[[correct]] no wait " + "hm " * 99) as server:
        scorer = scorer_of(server, "judge", sampling=Sampling(temperature=0.0, max_tokens=10))
        scoring = await score(scorer, MANY[0])
    assert scoring.scores[0] == Score((), UNPARSED, "the reply is truncated")


async def test_a_verdict_that_the_context_had_no_room_for_is_no_unreadable_one() -> None:
    async with RewardServer(judge=lambda prompt, seed: "hm " * 50, max_model_len=40) as server:
        scorer = scorer_of(server, "judge", prompt="Is this right? {solution}")
        scoring = await score(scorer, solution("1+1=2"))
    assert scoring.scores[0] == Score((), TOO_LONG, "the verdict was cut by the end of the context")


@pytest.mark.parametrize(
    ("fault", "status"),
    [(RewardFault.SERVER_ERROR, ERROR), (RewardFault.HTML, ERROR), (RewardFault.ODD_REFUSAL, ERROR)],
)
async def test_a_judge_whose_server_fails_is_an_error_and_no_verdict(
    fault: RewardFault, status: ScoreStatus
) -> None:
    sampling = Sampling(temperature=1.0)
    async with RewardServer(script=[fault], always=RewardFault.NONE) as server:
        scorer = scorer_of(server, "judge", judgements=3, sampling=sampling, max_attempts=1)
        scoring = await score(scorer, MANY[0])
    assert (scoring.scores[0].values, scoring.scores[0].status) == ((), status)


async def test_a_step_verifier_marks_every_step_or_is_unparsed() -> None:
    def marks(prompt: str, seed: int) -> str:
        count = prompt.count("\nStep ")
        return " ".join(
            [r"\boxed{correct}"] * (count if count < 5 else 4) + [r"\boxed{incorrect}"] * (count == 8)
        )

    async with RewardServer(judge=marks) as server:
        scoring = await score(scorer_of(server, "generative"), *MANY)
    assert [got.status for got in scoring.scores] == [OK, OK, OK, UNPARSED, OK]
    assert [got.values for got in scoring.scores] == [
        (1.0,),
        (1.0,) * 2,
        (1.0,) * 3,
        (),
        (1.0,) * 4 + (0.0,) * 4,
    ]


async def test_a_step_verifier_with_a_short_context_judges_the_steps_that_fit() -> None:
    def marks(prompt: str, seed: int) -> str:
        return " ".join([r"\boxed{correct}"] * prompt.count("\nStep "))

    async with RewardServer(judge=marks, max_model_len=100) as server:
        scorer = scorer_of(server, "generative", prompt="Check:\n{solution}")
        refused = await score(scorer, LONG)
        options = replace(scorer.options, too_long=TooLong.TRUNCATE)
        cut = await score(replace(scorer, options=options), LONG)
    assert refused.scores[0].status is TOO_LONG
    assert cut.scores[0] == Score((1.0, 1.0), TRUNCATED, "2 of 4 steps fit the scorer's context")


async def test_the_probe_finds_what_a_server_offers() -> None:
    async with (
        RewardServer(tag=" ки", calls=["completions", "tokenize"], max_model_len=4096) as server,
        open_session() as session,
    ):
        found = await probe_scorer(session, server.url, scorer_of(server, "math-shepherd"))
    assert replace(found, notes=()) == RewardCapabilities(
        transport=Transport.COMPLETIONS,
        vocabulary=Vocabulary(1000 + ord("+"), 1000 + ord("-"), "+", "-", encode(" ки")[0]),
        max_model_len=4096,
        model_is_listed=True,
        server_version="0.0-rewards",
        is_deterministic=True,
    )


async def test_the_probe_refuses_what_a_sweep_must_not_rely_on() -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({"always": RewardFault.FEWER}, "1 score came for 2 steps"),
        ({"always": RewardFault.TOO_BIG}, "1.7 is outside of"),
        ({"pooling": "all"}, "scores came for 2 steps"),
        (
            {"script": [RewardFault.NONE, RewardFault.MORE]},
            "scorer by pooling: 4 scores came for 3 steps",
        ),
        ({"noise": lambda request, index: 0.04 * (request == 4)}, "other scores the second time"),
        ({"noise": lambda request, index: 0.04 * index}, "other scores in a batch than alone"),
    ]
    async with open_session() as session:
        for fields, told in faults:
            async with RewardServer(classes=1, **fields) as server:
                with pytest.raises(Misconfigured, match=told):
                    await probe_scorer(session, server.url, scorer_of(server))
        async with RewardServer(classes=2) as server:
            with pytest.raises(Misconfigured, match=r"does not list the model nope \(it lists: scorer\)"):
                await probe_scorer(session, server.url, replace(scorer_of(server), model="nope"))
            url = server.url
        with pytest.raises(Unreachable):
            await probe_scorer(session, url, scorer_of([url]))
        async with RewardServer(classes=2, always=RewardFault.SERVER_ERROR) as server:
            with pytest.raises(ServerFault):
                await probe_scorer(session, server.url, scorer_of(server))


async def test_the_probe_tolerates_the_noise_of_a_gpu_and_says_so() -> None:
    async with (
        RewardServer(classes=1, noise=lambda request, index: 1e-4 * request) as server,
        open_session() as session,
    ):
        found = await probe_scorer(session, server.url, scorer_of(server))
    assert found.is_deterministic is False


async def test_golden_scores_must_be_reproduced() -> None:
    known = MANY[2]
    sound = Golden(STATEMENT, known.steps, qwen_values(known))
    shifted = replace(sound, scores=(*sound.scores[1:], sound.scores[0]))
    short = replace(sound, scores=sound.scores[:2])
    async with RewardServer(classes=2) as server, open_session() as session:
        scorer = scorer_of(server)
        assert (
            await probe_scorer(session, server.url, scorer, golden=[sound])
        ).transport is Transport.POOLING
        for golden in (shifted, short):
            with pytest.raises(Misconfigured, match="a golden solution got other scores"):
                await probe_scorer(session, server.url, scorer, golden=[sound, golden])


async def test_published_scores_are_asked_for_where_the_model_has_some() -> None:
    name = "Qwen/Qwen2.5-Math-PRM-7B"
    async with RewardServer(model=name, classes=2) as server, open_session() as session:
        scorer = replace(scorer_of(server), model=name)
        with pytest.raises(Misconfigured, match=r"a golden solution got other scores.*0\.1904"):
            await probe_scorer(session, server.url, scorer)
        others = replace(scorer, options=RewardOptions(system="Be strict."))  # not the prompt of the card
        assert (await probe_scorer(session, server.url, others)).transport is Transport.POOLING


@pytest.mark.parametrize("is_swapped", [False, True])
async def test_the_probe_wonders_where_a_wrong_solution_scores_higher(is_swapped: bool) -> None:
    right, wrong = (qwen_values(own, PROBLEM)[-1] for own in (RIGHT, WRONG))
    assert wrong < right  # the model of the tests is arbitrary, but happens to know better
    async with RewardServer(classes=2, is_swapped=is_swapped) as server, open_session() as session:
        found = await probe_scorer(session, server.url, scorer_of(server))
    assert [note.endswith("are the labels swapped?") for note in found.notes] == [True] * is_swapped


async def test_the_probe_of_a_judge_wants_a_verdict() -> None:
    async with open_session() as session:
        async with RewardServer(judge=lambda prompt, seed: "[[wrong]]") as server:
            found = await probe_scorer(session, server.url, scorer_of(server, "judge"))
            assert (found.transport, found.is_deterministic) == (Transport.CHAT, True)
            assert "tells nothing apart" in found.notes[0]
        async with RewardServer(judge=lambda prompt, seed: "Who knows?") as server:
            with pytest.raises(Misconfigured, match="no verdict that can be read: the reply does not hold"):
                await probe_scorer(session, server.url, scorer_of(server, "judge"))
        async with RewardServer(always=RewardFault.SERVER_ERROR) as server:
            with pytest.raises(EndpointError, match="server_fault"):
                await probe_scorer(session, server.url, scorer_of(server, "judge"))


async def test_a_storm_of_faults_loses_and_forges_nothing() -> None:
    rng = random.Random(3)
    faults = [fault for fault in SURVIVED if fault is not RewardFault.HUGE_BODY]
    pool = [solution(*(f"{k}.{j}" for j in range(rng.randrange(1, 7)))) for k in range(60)]
    async with RewardServer(classes=2) as server:
        server.script = [rng.choice(faults) if rng.random() < 0.4 else RewardFault.NONE for _ in range(400)]
        scorer = scorer_of(server, texts=4, max_attempts=12)
        async with client_of(scorer) as client:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(client.score(scorer, f"{STATEMENT} {k}", pool, affinity=k))
                    for k in range(5)
                ]
            failures = client.failures
    for k, task in enumerate(tasks):
        expected = [Score(qwen_values(own, f"{STATEMENT} {k}"), OK) for own in pool]
        assert list(task.result().scores) == expected
    assert sum(failures.values()) >= 20
