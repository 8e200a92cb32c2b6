"""The embedded engine: right numbers, the same bits in every batch, and slots that come back."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.embedded_models import END, SHIPPED, Reference, write_model
from workers.embedded import engine, model, sampling, text
from workers.embedded.batch import Batch, Completion, Generation, Limits, Request, TokenLogprobs, Wanted
from workers.embedded.blas import limit_threads
from workers.embedded.model import UnsupportedModelError
from workers.embedded.sampling import Sampling
from workers.embedded.text import Text, Transcript, find_stop

PLAIN = Sampling()
GREEDY = Sampling(temperature=0.0)
NOTHING = Wanted()
LETTERS = range(40, 90)  # token ids of ordinary characters


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread() -> None:
    limit_threads(1)  # as the server does


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def shipped_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "shape", heads=2, **SHIPPED)


def make_batch(
    folder: Path, *, slots: int = 16, cached_tokens: int = 4096, ends: tuple[int, ...] = ()
) -> Batch:
    return Batch(model.load(folder), text.load(folder), ends, slots=slots, cached_tokens=cached_tokens)


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(LETTERS, k=length))


def request(
    prompt: tuple[int, ...],
    *seeds: int,
    sampling: Sampling = PLAIN,
    wanted: Wanted = NOTHING,
    **limits: object,
) -> Request:
    settings: dict[str, object] = {"max_tokens": 12, **limits}
    return Request(prompt, seeds or (0,), sampling, Limits(**settings), wanted)  # type: ignore[arg-type]


def draw(batch: Batch, *requests: Request) -> list[Generation]:
    jobs = [batch.submit(one) for one in requests]
    while not batch.is_idle:
        batch.step()
    return [job.result() for job in jobs]


def draw_one(batch: Batch, one: Request) -> Completion:
    (generation,) = draw(batch, one)
    return generation.completions[0]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 150])
def test_greedy_tokens_equal_a_full_recomputation(folder: Path, length: int) -> None:
    prompt = prompt_of(length, seed=length)
    made = draw_one(make_batch(folder), request(prompt, sampling=GREEDY, max_tokens=8))
    assert list(made.token_ids) == Reference(folder).greedy(list(prompt), 8)
    assert made.finish_reason == "length"


def test_greedy_tokens_across_a_bucket_boundary(shipped_shape: Path) -> None:
    prompt = prompt_of(60)
    made = draw_one(make_batch(shipped_shape), request(prompt, sampling=GREEDY, max_tokens=10))
    assert list(made.token_ids) == Reference(shipped_shape).greedy(list(prompt), 10)


def test_newer_rope_parameters_are_read(tmp_path: Path) -> None:
    newer = write_model(
        tmp_path / "newer", rope_theta=None, rope_parameters={"rope_theta": 50.0, "rope_type": "default"}
    )
    prompt = prompt_of(40)
    made = draw_one(make_batch(newer), request(prompt, sampling=GREEDY, max_tokens=6))
    assert list(made.token_ids) == Reference(newer).greedy(list(prompt), 6)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mixtral"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    ],
)
def test_what_is_not_plain_llama_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    other = write_model(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UnsupportedModelError):
        model.load(other)


@pytest.mark.parametrize("which", ["folder", "shipped_shape"])
def test_a_row_does_not_depend_on_its_place_or_its_neighbours(
    which: str, request: pytest.FixtureRequest
) -> None:
    loaded = model.load(request.getfixturevalue(which))
    rows = 96
    tokens = np.random.default_rng(0).integers(3, 90, rows)
    places = np.random.default_rng(1).integers(0, 200, rows)

    def run(order: np.ndarray) -> np.ndarray:
        def attend(layer: int, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
            return (query + np.repeat(key + value, query.shape[1] // key.shape[1], axis=1)).reshape(rows, -1)

        return loaded.logits(loaded.forward(tokens[order], places[order], attend))

    straight = run(np.arange(rows))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(rows)
        assert np.array_equal(run(order), straight[order])


@pytest.mark.parametrize(("which", "count"), [("folder", 220), ("shipped_shape", 48)])
def test_a_sample_is_the_same_bits_in_every_batch(
    which: str, count: int, request: pytest.FixtureRequest
) -> None:
    """Alone, in a full batch, in another order with fewer slots, with and without what was cached before."""
    place: Path = request.getfixturevalue(which)
    jobs = _mixed_requests(count)
    full = draw(make_batch(place, slots=128), *jobs)
    single = make_batch(place, slots=3)
    alone = [draw(single, job)[0] for job in jobs]
    shuffled = random.Random(5).sample(range(count), count)
    crowded = dict(
        zip(
            shuffled,
            draw(make_batch(place, slots=37, cached_tokens=0), *[jobs[i] for i in shuffled]),
            strict=True,
        )
    )
    for index in range(count):
        assert full[index].completions == alone[index].completions  # text, ids and log-probabilities, exactly
        assert crowded[index].completions == alone[index].completions


def _mixed_requests(count: int) -> list[Request]:
    """Prompts of many lengths, some of which share a beginning; all kinds of sampling."""
    rng = random.Random(3)
    kinds = [Sampling(), Sampling(0.7, 0.9), Sampling(1.3, 1.0, 5), GREEDY, Sampling(0.4)]
    base = prompt_of(100, seed=99)
    return [
        Request(
            base[: rng.randint(1, 100)] + prompt_of(rng.randint(0, 40), seed=index),
            (index,),
            kinds[index % len(kinds)],
            Limits(max_tokens=rng.randint(1, 40)),
            Wanted(top=2),
        )
        for index in range(count)
    ]


def test_samples_do_not_depend_on_how_a_request_is_cut(folder: Path) -> None:
    prompt = prompt_of(20)
    (whole,) = draw(make_batch(folder), request(prompt, *range(11, 19)))
    parts = draw(make_batch(folder), request(prompt, 11, 12, 13), request(prompt, *range(14, 19)))
    assert whole.completions == parts[0].completions + parts[1].completions
    assert len({sample.token_ids for sample in whole.completions}) == 8


def test_more_samples_than_slots_are_queued_and_keep_their_order(folder: Path) -> None:
    batch = make_batch(folder, slots=3)
    job = batch.submit(request(prompt_of(5), *range(10)))
    batch.step()
    assert (batch.running, batch.waiting) == (3, 7)
    while not batch.is_idle:
        batch.step()
    wide = draw(make_batch(folder, slots=16), request(prompt_of(5), *range(10)))[0]
    assert job.result().completions == wide.completions


def test_an_end_token_ends_the_sample_and_is_counted(folder: Path) -> None:
    prompt = prompt_of(9)
    free = draw_one(make_batch(folder), request(prompt, 4, max_tokens=30))
    end = free.token_ids[5]
    cut = free.token_ids[: free.token_ids.index(end) + 1]
    ended = draw_one(make_batch(folder, ends=(end,)), request(prompt, 4, max_tokens=30))
    assert (ended.token_ids, ended.finish_reason, ended.stop_reason) == (cut, "stop", None)
    ignoring = draw_one(make_batch(folder, ends=(end,)), request(prompt, 4, max_tokens=30, ignores_end=True))
    assert ignoring.token_ids == free.token_ids
    stopped = draw_one(make_batch(folder), request(prompt, 4, max_tokens=30, stop_token_ids=frozenset({end})))
    assert (stopped.token_ids, stopped.stop_reason) == (cut, end)
    assert stopped.text == text.load(folder).decode(cut[:-1])


def test_a_stop_string_cuts_the_text_and_its_tokens_are_counted(folder: Path) -> None:
    prompt = prompt_of(9)
    free = draw_one(make_batch(folder), request(prompt, 1, max_tokens=40))
    stop = free.text[10:13]
    at = free.text.index(stop)
    cut = draw_one(make_batch(folder), request(prompt, 1, max_tokens=40, stop=("never there", stop)))
    assert (cut.text, cut.finish_reason, cut.stop_reason) == (free.text[:at], "stop", stop)
    assert cut.token_ids == free.token_ids[: at + 3]
    kept = draw_one(make_batch(folder), request(prompt, 1, max_tokens=40, stop=(stop,), keeps_stop=True))
    assert kept.text == free.text[: at + 3]


def test_the_stop_string_that_begins_first_wins() -> None:
    assert find_stop("one two three", 5, ("three", "two thr")) == (4, "two thr")
    assert find_stop("one two three", 3, ("one",)) is None  # it was there before: not the newest text's doing
    assert find_stop("ab", 1, ("abc",)) is None


def test_characters_of_several_tokens_are_complete_before_they_count() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    source = Text(tokenizer, None)
    transcript = Transcript(source)
    added = [transcript.push(token) for token in source.encode("né→x")]
    assert added == ["n", "", "é", "", "", "→", "x"]
    assert transcript.text == "né→x"


def test_the_context_is_filled_and_no_more(tmp_path: Path) -> None:
    short = write_model(tmp_path / "short", context=40)
    made = draw_one(make_batch(short), request(prompt_of(33), max_tokens=100))
    assert (len(made.token_ids), made.finish_reason) == (7, "length")


def test_log_probabilities_are_those_of_the_reference(folder: Path) -> None:
    prompt = prompt_of(37)
    made = draw_one(
        make_batch(folder),
        request(prompt, 3, sampling=Sampling(0.5, 0.8), wanted=Wanted(top=4, ids=(50, 60))),
    )
    rows = Reference(folder).log_probs([*prompt, *made.token_ids])[len(prompt) - 1 : -1]
    assert made.logprobs is not None
    for token, entry, row in zip(made.token_ids, made.logprobs, rows, strict=True):
        assert entry.token == token
        assert entry.logprob == pytest.approx(row[token], abs=1e-4)
        assert [i for i, _ in entry.others] == [*np.argsort(-row)[:4], 50, 60]
        assert [value for _, value in entry.others] == pytest.approx(
            [row[i] for i, _ in entry.others], abs=1e-4
        )


def test_a_prompt_is_scored_without_generating(folder: Path) -> None:
    prompt = prompt_of(50)
    (scored,) = draw(make_batch(folder), request(prompt, max_tokens=0, wanted=Wanted(top=0, prompt=True)))
    rows = Reference(folder).log_probs(list(prompt))
    assert scored.completions[0].token_ids == ()
    assert scored.prompt_logprobs is not None
    assert scored.prompt_logprobs[0] is None
    found = [entry.logprob for entry in scored.prompt_logprobs if isinstance(entry, TokenLogprobs)]
    assert found == pytest.approx([rows[i, token] for i, token in enumerate(prompt[1:])], abs=1e-4)


def test_recent_prompts_are_not_computed_again(folder: Path) -> None:
    batch = make_batch(folder)
    prompt = prompt_of(80)
    longer = (*prompt[:70], *prompt_of(30, seed=8))
    first, again, other = (
        draw(batch, request(p, 1, wanted=Wanted(top=1)))[0] for p in (prompt, prompt, longer)
    )
    assert (first.cached_tokens, again.cached_tokens, other.cached_tokens) == (0, 80, 64)
    assert again.completions == first.completions
    assert (
        other.completions == draw(make_batch(folder), request(longer, 1, wanted=Wanted(top=1)))[0].completions
    )
    assert batch.counters.prompt_tokens == 80 + 80 + 100
    assert batch.counters.cached_tokens == 80 + 64


def test_the_prompt_cache_forgets_the_least_recent(folder: Path) -> None:
    batch = make_batch(folder, cached_tokens=130)
    a, b, c = (prompt_of(45, seed=seed) for seed in (1, 2, 3))
    cached = [draw(batch, request(prompt))[0].cached_tokens for prompt in (a, b, a, c, a, b)]
    assert cached == [0, 0, 45, 0, 45, 0]


def test_cancelling_frees_the_slots_at_once(folder: Path) -> None:
    batch = make_batch(folder, slots=4)
    long = batch.submit(request(prompt_of(5), *range(6), max_tokens=200))
    patient = batch.submit(request(prompt_of(7), 1))
    for _ in range(3):
        batch.step()
    batch.cancel(long)
    assert (batch.running, batch.waiting) == (0, 1)
    assert batch.counters.finished["abort"] == 6
    assert batch.counters.aborted_tokens == batch.counters.generated_tokens == 12
    while not batch.is_idle:
        batch.step()
    assert (
        patient.result().completions[0].token_ids
        == draw_one(make_batch(folder), request(prompt_of(7), 1)).token_ids
    )
    batch.cancel(patient)  # too late: nothing happens
    assert batch.counters.finished["abort"] == 6


def test_greedy_takes_the_lowest_id_on_ties() -> None:
    logits = np.array([[1.0, 3.0, 3.0, 2.0]], np.float32)
    assert sampling.choose(logits, [GREEDY], np.array([0.99])) == [1]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (Sampling(), [0, 1, 2, 3, 4]),
        (Sampling(top_k=2), [1, 3]),
        (Sampling(top_p=0.69), [1, 3]),
        (Sampling(top_p=0.71), [0, 1, 3]),
        (Sampling(top_p=1e-9), [1]),
        (Sampling(top_p=0.6, top_k=2), [1, 3]),
        (Sampling(top_p=0.5, top_k=2), [1]),  # 0.4 of the 0.7 that top-k leaves is more than half
        (Sampling(top_k=4), [0, 1, 2, 3, 4]),  # two tokens share the fourth place
    ],
)
def test_filters_keep_exactly_these_tokens(settings: Sampling, kept: list[int]) -> None:
    chances = np.array([0.2, 0.4, 0.05, 0.3, 0.05])
    weights = sampling.probabilities(np.log(chances).astype(np.float32)[None], [settings])[0]
    assert np.flatnonzero(weights).tolist() == kept
    assert weights / weights.sum() == pytest.approx(
        np.where(weights > 0, chances, 0) / chances[kept].sum(), abs=1e-6
    )


@pytest.mark.parametrize("settings", [Sampling(), Sampling(0.5), Sampling(2.0, 0.9), Sampling(1.0, 1.0, 7)])
def test_first_tokens_follow_the_exact_distribution(folder: Path, settings: Sampling) -> None:
    prompt, count = prompt_of(11), 3000
    batch = make_batch(folder, slots=500)
    (made,) = draw(batch, request(prompt, *range(count), sampling=settings, max_tokens=1))
    exact = _exact(Reference(folder).logits(list(prompt))[-1], settings)
    seen = np.bincount([sample.token_ids[0] for sample in made.completions], minlength=len(exact))
    assert not seen[exact == 0].any()
    deviation = np.abs(seen - count * exact) / np.sqrt(np.maximum(count * exact * (1 - exact), 1))
    assert deviation.max() < 5


def _exact(logits: np.ndarray, settings: Sampling) -> np.ndarray:
    """Temperature, then top-k, then the smallest set of likeliest tokens that reaches top-p."""
    chances = np.exp(logits / settings.temperature)
    ranked = sorted(range(len(chances)), key=lambda token: -chances[token])[: settings.top_k or None]
    kept, total = [], sum(chances[token] for token in ranked)
    for token in ranked:
        if sum(chances[k] for k in kept) < settings.top_p * total:
            kept.append(token)
    result = np.zeros_like(chances)
    result[kept] = chances[kept]
    return result / result.sum()


def test_a_longer_sample_begins_with_the_shorter_one(folder: Path) -> None:
    """More than one refill of random numbers, and a budget that changes nothing before its end."""
    long = draw_one(make_batch(folder), request(prompt_of(5), 8, max_tokens=150))
    short = draw_one(make_batch(folder), request(prompt_of(5), 8, max_tokens=70))
    assert long.token_ids[:70] == short.token_ids


async def test_cancelling_a_call_reaches_the_batch(folder: Path) -> None:
    async with engine.load(folder, slots=4) as running:
        call = asyncio.create_task(
            running.generate(request(prompt_of(5), *range(9), max_tokens=240, ignores_end=True))
        )
        while not running.running:  # noqa: ASYNC110 - the decoding thread has no event to wait for
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        after = await running.generate(request(prompt_of(6), 2))
        assert (running.running, running.waiting) == (0, 0)
    assert running.counters.finished["abort"] == 9
    assert len(after.completions) == 1


async def test_a_dead_thread_is_an_error_for_everybody(folder: Path) -> None:
    running = engine.load(folder, slots=4)
    impossible = request((10**6,), 1)  # parsing refuses such a token; the engine takes it on trust
    async with running:
        with pytest.raises(engine.EngineError):
            await running.generate(impossible)
        assert running.failed.is_set()
        with pytest.raises(engine.EngineError):
            await running.generate(replace(impossible, prompt=(50,)))
    assert isinstance(running.failure, IndexError)


async def test_the_folder_names_the_model_and_its_end(folder: Path) -> None:
    card = engine.load(folder, slots=1).card
    assert (card.name, card.end_ids, card.context) == ("tiny", (END,), 256)
