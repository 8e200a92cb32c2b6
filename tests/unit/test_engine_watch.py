"""The life of an engine: when a server is up, when it is killed, when the next one starts, when there is none."""

from __future__ import annotations

import pytest

from workers.engines import EngineSettings, Phase, fill
from workers.engines.engine import environment_for
from workers.engines.watch import Watch

SETTINGS = EngineSettings(
    "models.policy", ("serve",), start_timeout_s=100.0, hang_timeout_s=30.0, max_restarts=3, settle_s=60.0
)


def started(now: float = 0.0) -> Watch:
    watch = Watch(SETTINGS)
    watch.on_start(now)
    return watch


def test_the_first_answer_brings_it_up_and_no_other_is_news() -> None:
    watch = started()
    assert watch.phase is Phase.STARTING
    assert watch.on_answer(42.0)
    assert (watch.phase, watch.start_took_s()) == (Phase.UP, 42.0)
    assert not watch.on_answer(43.0)


def test_a_server_that_starts_is_not_ailing_and_has_until_the_end_of_its_time() -> None:
    watch = started(10.0)
    assert not watch.on_silence()
    assert watch.phase is Phase.STARTING
    assert watch.overdue(109.9) is None
    assert "100 s" in str(watch.overdue(110.0))


def test_silence_is_borne_for_a_while_and_counts_from_the_last_answer() -> None:
    watch = started()
    watch.on_answer(5.0)
    watch.on_answer(50.0)
    assert watch.on_silence()
    assert not watch.on_silence()
    assert watch.phase is Phase.AILING
    assert watch.overdue(79.9) is None
    assert "30 s" in str(watch.overdue(80.0))


def test_an_answer_ends_the_ailing() -> None:
    watch = started()
    watch.on_answer(5.0)
    watch.on_silence()
    assert not watch.on_answer(20.0)
    assert watch.phase is Phase.UP
    assert watch.overdue(1000.0) is None


def test_deaths_in_a_row_are_followed_by_longer_pauses_and_then_by_nothing() -> None:
    watch = Watch(SETTINGS)
    pauses = []
    for now in (1.0, 2.0, 3.0, 4.0):
        watch.on_start(now)
        pauses.append(watch.on_end(now))
    assert pauses == [1.0, 2.0, 4.0, None]
    assert watch.phase is Phase.FAILED


def test_pauses_have_a_longest() -> None:
    watch = Watch(EngineSettings("e", (), max_restarts=99, backoff_cap_s=10.0))
    pauses = [watch.on_end(0.0) for _ in range(80)]
    assert pauses[:5] == [1.0, 2.0, 4.0, 8.0, 10.0]
    assert pauses[-1] == 10.0


def test_a_server_that_was_up_for_long_makes_earlier_deaths_forgotten() -> None:
    watch = started()
    for _ in range(3):
        assert watch.on_end(1.0) is not None
    watch.on_start(10.0)
    watch.on_answer(11.0)
    assert watch.on_end(11.0 + SETTINGS.settle_s) == 1.0
    assert watch.phase is Phase.BACKING_OFF


def test_a_server_that_comes_up_and_dies_again_and_again_is_given_up() -> None:
    watch = Watch(SETTINGS)
    ends = []
    for now in (0.0, 100.0, 200.0, 300.0):
        watch.on_start(now)
        watch.on_answer(now + 1)
        ends.append(watch.on_end(now + 2))
    assert ends[-1] is None


def test_looks_are_frequent_at_first() -> None:
    watch = started()
    assert watch.poll_s(0.0) < watch.poll_s(6.0) < watch.poll_s(60.0) <= SETTINGS.poll_s
    watch.on_answer(60.0)
    assert watch.poll_s(60.0) == SETTINGS.poll_s


def test_only_known_braces_are_filled_in_and_words_stay_words() -> None:
    words = ("serve", "--port={port}", '{"a": 1}', "{model}", "{other}")
    assert fill(words, {"port": 80, "model": "a b"}) == ("serve", "--port=80", '{"a": 1}', "a b", "{other}")
    assert fill(("{host}:{port}",), {"host": "h"}) == ("h:{port}",)


@pytest.mark.parametrize(
    ("name", "is_inherited"),
    [
        ("PATH", True),
        ("CUDA_VISIBLE_DEVICES", True),
        ("TOKENIZERS_PARALLELISM", True),
        ("OPENAI_API_KEY", False),
        ("HF_TOKEN", False),
        ("AWS_SECRET_ACCESS_KEY", False),
        ("PGPASSWORD", False),
        ("TTC_DATABASE_URL", False),
        ("VLLM_API_KEY", True),
    ],
)
def test_secrets_are_inherited_only_where_they_are_named(name: str, is_inherited: bool) -> None:
    settings = EngineSettings("models.policy", (), environment=("VLLM_API_KEY",))
    assert (name in environment_for(settings, {name: "value"})) == is_inherited
