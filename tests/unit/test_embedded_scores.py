"""Scoring: right numbers, the same bits whatever is batched or remembered, and the bits of log-probabilities too."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from tests.embedded_models import SHIPPED, TAG, Reference, build_tokenizer, write_model
from workers.embedded import engine, model, scores, text
from workers.embedded.batch import Batch, Limits, Request, Wanted
from workers.embedded.blas import limit_threads
from workers.embedded.counters import Counters
from workers.embedded.reward import Reward, Role
from workers.embedded.sampling import Sampling
from workers.embedded.scores import Scorer, Scoring, Texts

Tokens = tuple[int, ...]

TOKENIZER = build_tokenizer(has_tag=True)
STEP = TOKENIZER.token_to_id(TAG)
GOOD, BAD = TOKENIZER.token_to_id("+"), TOKENIZER.token_to_id("-")
REWARD = Reward(Role.PRM, STEP, GOOD, BAD, TAG)


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread() -> None:
    limit_threads(1)  # as the server does


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "prm", role="prm")


@pytest.fixture(scope="module")
def shipped_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("models") / "shape", heads=2, role="prm", is_half=True, **SHIPPED
    )


def make_scorer(folder: Path, *, cached_tokens: int = 4096) -> Scorer:
    return Scorer(model.load(folder), REWARD, Counters(), cached_tokens=cached_tokens)


def run(scorer: Scorer, *requests: list[Tokens]) -> list[Scoring]:
    jobs = [scorer.submit(Texts(tuple(tokens))) for tokens in requests]
    while not scorer.is_idle:
        scorer.step()
    return [job.result() for job in jobs]


def score(scorer: Scorer, tokens: list[Tokens]) -> list[tuple[float, ...]]:
    (scoring,) = run(scorer, tokens)
    return list(scoring.margins)


def solution_of(length: int, tags: int, seed: int) -> Tokens:
    """Random characters, the last of which is a tag; so are some others."""
    draw = random.Random(seed)
    tokens = draw.choices(range(40, 90), k=length)
    for place in {length - 1, *draw.choices(range(length), k=tags)}:
        tokens[place] = STEP
    return tuple(tokens)


def solutions(count: int, seed: int = 0) -> list[Tokens]:
    """Texts of many lengths that share beginnings, as the solutions of a few problems do; some of them equal."""
    draw = random.Random(seed)
    found: list[Tokens] = []
    for index in range(count):
        tail = solution_of(draw.randint(1, 60), 3, 1000 * seed + index)
        base = draw.choice(found) if found and draw.random() < 0.8 else ()
        found.append(
            draw.choice(found) if found and index % 7 == 0 else base[: draw.randint(0, len(base))] + tail
        )
    return [tokens[:200] if tokens[199:] else tokens for tokens in found]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 150, 256])
def test_scores_are_those_of_a_full_recomputation(folder: Path, length: int) -> None:
    tokens = solution_of(length, 5, seed=length)
    (found,) = score(make_scorer(folder), [tokens])
    expected = Reference(folder).margins(list(tokens), STEP, GOOD, BAD)
    assert found == pytest.approx(expected, abs=2e-5)
    assert len(found) == tokens.count(STEP)


def test_weights_of_half_precision_are_computed_in_single(shipped_shape: Path) -> None:
    tokens = solution_of(90, 5, seed=3)
    (found,) = score(make_scorer(shipped_shape), [tokens])
    assert found == pytest.approx(Reference(shipped_shape).margins(list(tokens), STEP, GOOD, BAD), abs=1e-4)


@pytest.mark.parametrize("which", ["folder", "shipped_shape"])
def test_scores_are_the_same_bits_in_every_batch(which: str, request: pytest.FixtureRequest) -> None:
    """One by one without memory, all at once, in another order, in pieces, and with little room to remember."""
    place: Path = request.getfixturevalue(which)
    texts = solutions(60)
    alone = [score(make_scorer(place), [tokens])[0] for tokens in texts]
    assert score(make_scorer(place), texts) == alone
    warm = make_scorer(place)
    score(warm, solutions(60, seed=9))
    assert [one for scoring in run(warm, texts[:17], texts[17:]) for one in scoring.margins] == alone
    order = random.Random(5).sample(range(len(texts)), len(texts))
    crowded = score(make_scorer(place, cached_tokens=0), [texts[index] for index in order] * 2)
    assert crowded == [alone[index] for index in order] * 2


@pytest.mark.parametrize("tokens_a_step", [1, 7, 40])
def test_a_text_cut_into_steps_keeps_its_bits(
    folder: Path, tokens_a_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = solutions(25, seed=4)
    whole = score(make_scorer(folder), texts)
    monkeypatch.setattr(scores, "TOKENS_A_STEP", tokens_a_step)
    assert score(make_scorer(folder), texts) == whole


@pytest.mark.parametrize("which", ["folder", "shipped_shape"])
def test_scores_are_exactly_those_of_log_probabilities(which: str, request: pytest.FixtureRequest) -> None:
    """A completion of the text up to a tag names the two labels' log-probabilities; their difference is the margin."""
    place: Path = request.getfixturevalue(which)
    batch = Batch(model.load(place), text.load(place), (), slots=8, cached_tokens=4096)
    texts = solutions(20, seed=2)
    for tokens, margins in zip(texts, score(make_scorer(place), texts), strict=True):
        ends = [end for end, token in enumerate(tokens, 1) if token == STEP and end < 256]
        wanted = Wanted(top=0, ids=(GOOD, BAD))
        jobs = [
            batch.submit(Request(tokens[:end], (0,), Sampling(0.0), Limits(max_tokens=1), wanted))
            for end in ends
        ]
        while not batch.is_idle:
            batch.step()
        for job, margin in zip(jobs, margins, strict=False):
            (sample,) = job.result().completions
            assert sample.logprobs is not None
            named = dict(sample.logprobs[0].others)
            assert named[GOOD] - named[BAD] == pytest.approx(
                margin, abs=1e-12
            )  # float64 rounding of a difference


def test_what_texts_share_is_computed_once(folder: Path) -> None:
    scorer = make_scorer(folder)
    base = solution_of(70, 2, seed=1)
    first, again, longer = run(scorer, [base, base], [base], [(*base[:50], *solution_of(20, 1, seed=2))])
    assert (first.prompt_tokens, first.cached_tokens) == (140, 70)
    assert (again.prompt_tokens, again.cached_tokens) == (70, 70)
    assert (longer.prompt_tokens, longer.cached_tokens) == (70, 50)
    assert first.margins[0] == first.margins[1] == again.margins[0]


def test_it_counts_what_it_does(folder: Path) -> None:
    counters = Counters()
    scorer = Scorer(model.load(folder), REWARD, counters, cached_tokens=4096)
    base = solution_of(40, 2, seed=1)
    run(scorer, [base, base])
    assert (counters.prompt_tokens, counters.cached_tokens, counters.finished["stop"]) == (80, 40, 2)


def test_a_text_without_a_tag_has_no_scores(folder: Path) -> None:
    assert score(make_scorer(folder), [(50, 51, 52), (50, STEP)])[0] == ()
    assert score(make_scorer(folder), [(50, 51, 52)]) == [()]


def test_a_step_is_bounded_and_jobs_come_out_in_order(folder: Path) -> None:
    scorer = make_scorer(folder)
    texts = [solution_of(200, 2, seed=seed) for seed in range(10)]
    jobs = [scorer.submit(Texts(tuple(texts[at : at + 2]))) for at in range(0, 10, 2)]
    finished, steps = [], 0
    while not scorer.is_idle:
        finished += scorer.step()
        steps += 1
    assert finished == jobs
    assert steps == -(-2000 // scores.TOKENS_A_STEP)


def test_a_cancelled_job_is_dropped_and_the_others_go_on(folder: Path) -> None:
    scorer = make_scorer(folder)
    texts = [solution_of(250, 2, seed=seed) for seed in range(6)]
    long, short = scorer.submit(Texts(tuple(texts))), scorer.submit(Texts((texts[0],)))
    scorer.step()
    scorer.cancel(long)
    assert scorer.waiting == 1
    while not scorer.is_idle:
        scorer.step()
    assert short.result().margins == tuple(score(make_scorer(folder), [texts[0]]))
    scorer.cancel(short)  # too late: nothing happens
    assert len(short.result().margins) == 1


def test_samples_do_not_wait_for_scoring(folder: Path) -> None:
    """A step of the scorer computes a bounded number of tokens, whatever is queued; the engine takes turns."""

    async def both() -> tuple[int, int]:
        async with engine.load(folder, slots=4) as running:
            texts = Texts(tuple(solution_of(250, 2, seed=seed) for seed in range(150)))
            scoring = asyncio.create_task(running.score(texts))
            while not running.waiting:  # noqa: ASYNC110 - the thread has no event to wait for
                await asyncio.sleep(0.001)
            await running.generate(
                Request((50, 51), (1,), Sampling(), Limits(max_tokens=20, ignores_end=True))
            )
            left = running.waiting
            return left, len((await scoring).margins)

    left, done = asyncio.run(both())
    assert left > 0
    assert done == 150


def test_a_cancelled_call_reaches_the_scorer(folder: Path) -> None:
    async def cancel() -> int:
        async with engine.load(folder, slots=4) as running:
            texts = Texts(tuple(solution_of(250, 2, seed=seed) for seed in range(200)))
            call = asyncio.create_task(running.score(texts))
            while not running.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await running.score(Texts(((50, STEP),)))
            assert running.waiting == 0
            return running.counters.finished["abort"]

    assert asyncio.run(cancel()) > 0


def test_the_network_mixes_only_what_is_kept_in_its_last_layer(shipped_shape: Path) -> None:
    loaded = model.load(shipped_shape)
    tokens = np.random.default_rng(0).integers(3, 90, 64)
    places = np.arange(64)
    kept = np.arange(1, 64, 2)

    def attend(layer: int, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        return (query + key + value).reshape(len(query), -1)

    def attend_kept(layer: int, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        mixed = attend(layer, query, key, value)
        return mixed[kept] if layer == SHIPPED["num_hidden_layers"] - 1 else mixed

    everything = loaded.forward(tokens, places, attend)
    assert np.array_equal(loaded.forward(tokens, places, attend_kept, kept), everything[kept])
