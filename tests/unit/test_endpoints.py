"""Replicas: routing by load and affinity, ejection, probation and return."""

from __future__ import annotations

from collections import Counter

import pytest

from workers.endpoints import TRIAL_IN_FLIGHT, UNSEEN, Replica, Replicas
from workers.load import Load

A, B, C = "http://a/v1", "http://b/v1", "http://c/v1"


def fail(replicas: Replicas, replica: Replica, now: float, times: int = 1) -> list[bool]:
    results = []
    for _ in range(times):
        epoch = replicas.begin(replica)
        results.append(replicas.on_failure(replica, epoch, "refused", now))
        replicas.end(replica)
    return results


def test_a_problem_keeps_to_its_replica_and_problems_spread() -> None:
    replicas = Replicas([A, B, C])
    chosen = {problem: replicas.pick(problem) for problem in range(300)}
    assert all(replicas.pick(problem) is replica for problem, replica in chosen.items())
    sizes = Counter(replica.url for replica in chosen.values() if replica)
    assert min(sizes.values()) > 60


def test_a_crowded_preference_gives_way_to_the_least_loaded() -> None:
    replicas = Replicas([A, B, C])
    preferred = replicas.pick(7)
    assert preferred is not None
    others = [replica for replica in replicas.all if replica is not preferred]
    for replica in replicas.all:
        replica.in_flight = 20
    preferred.in_flight = 27  # mean 22.3: the border is 28.9
    assert replicas.pick(7) is preferred
    preferred.in_flight = 33
    others[1].in_flight = 19
    assert replicas.pick(7) is others[1]


def test_load_stays_balanced_when_all_work_is_one_problem() -> None:
    replicas = Replicas([A, B, C])
    for _ in range(300):
        replica = replicas.pick(7)
        assert replica is not None
        replicas.begin(replica)
    assert max(r.in_flight for r in replicas.all) <= 1.25 * 100 + 2
    assert min(r.in_flight for r in replicas.all) >= 80


def test_without_affinity_the_least_loaded_is_chosen() -> None:
    replicas = Replicas([A, B, C])
    for replica, in_flight in zip(replicas.all, (3, 1, 2), strict=True):
        replica.in_flight = in_flight
    assert all(replicas.pick(None) is replicas.all[1] for _ in range(3))


def test_what_a_replica_says_of_its_queue_goes_before_what_we_see() -> None:
    replicas = Replicas([A, B])
    small, large = replicas.all
    small.in_flight, large.in_flight = 4, 40
    replicas.on_load(small, Load(waiting=2.0))
    replicas.on_load(large, Load(waiting=0.0))
    assert replicas.pick(None) is large
    assert {replicas.pick(problem) for problem in range(20)} == {large}
    replicas.on_load(large, Load(waiting=5.0))
    assert replicas.pick(None) is small  # both have a queue: the shorter one
    replicas.on_load(small, Load(waiting=0.0))
    assert replicas.pick(None) is small


def test_an_account_of_no_queue_is_good_for_some_requests_only() -> None:
    replicas = Replicas([A, B])
    said, silent = replicas.all
    replicas.on_load(said, Load(waiting=0.0))
    silent.in_flight = 30
    while replicas.pick(None) is said:
        replicas.begin(said)
    assert UNSEEN < said.in_flight < 2 * UNSEEN
    replicas.on_load(said, Load(waiting=0.0))
    assert replicas.pick(None) is said


def test_an_account_from_before_we_left_says_nothing() -> None:
    replicas = Replicas([A, B])
    replicas.on_load(replicas.all[0], Load(waiting=9.0))
    replicas.all[1].in_flight = 1
    assert replicas.pick(None) is replicas.all[0]


def test_a_replica_may_be_full() -> None:
    replicas = Replicas([A, B], most_in_flight=2)
    for _ in range(4):
        replica = replicas.pick(7)
        assert replica is not None
        replicas.begin(replica)
    assert [replica.in_flight for replica in replicas.all] == [2, 2]
    assert replicas.pick(7) is None


def test_a_retry_goes_elsewhere_if_there_is_an_elsewhere() -> None:
    replicas = Replicas([A, B])
    preferred = replicas.pick(1)
    assert preferred is not None
    other = replicas.pick(1, avoid=preferred)
    assert other is not preferred
    assert other is not None
    fail(replicas, other, 0.0, 3)
    assert replicas.pick(1, avoid=preferred) is preferred


def test_ejected_after_three_consecutive_failures_only() -> None:
    replicas = Replicas([A, B])
    first, second = replicas.all
    assert fail(replicas, first, 0.0, 2) == [False, False]
    replicas.on_success(first)
    assert fail(replicas, first, 0.0, 3) == [False, False, True]
    assert {replicas.pick(problem) for problem in range(20)} == {second}
    assert not replicas.is_everything_down
    fail(replicas, second, 0.0, 3)
    assert replicas.pick(0) is None
    assert first.failures == 5
    assert replicas.is_everything_down


def test_where_many_are_in_flight_a_few_failures_are_no_death() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    epochs = [replicas.begin(replica) for _ in range(256)]
    ejected_at = next(k for k, epoch in enumerate(epochs, 1) if replicas.on_failure(replica, epoch, "x", 0.0))
    assert ejected_at == 32


def test_probation_doubles_with_every_failed_probe_up_to_its_cap() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    fail(replicas, replica, 100.0, 3)
    waits, now = [], 100.0
    for _ in range(8):
        at = replicas.next_probe_at()
        assert at is not None
        assert replicas.due(at - 0.001) is None
        assert replicas.due(at) is replica
        waits.append(at - now)
        now = at
        replica.is_probed = True
        assert replicas.due(now) is None
        assert replicas.next_probe_at() is None
        assert not replicas.on_probe(replica, "refused", now)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_after_a_probe_one_failure_ejects_again_and_one_success_absolves() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    fail(replicas, replica, 0.0, 3)
    assert replicas.on_probe(replica, None, 1.0)
    assert replicas.pick(0) is replica
    assert fail(replicas, replica, 1.0) == [True]
    assert replica.probe_at == pytest.approx(3.0)
    assert replicas.on_probe(replica, None, 3.0)
    assert not replicas.on_success(replica)
    assert fail(replicas, replica, 4.0, 3) == [False, False, True]
    assert replica.probe_at == pytest.approx(5.0)


def test_a_replica_on_trial_gets_few_requests_until_it_answers_one() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    fail(replicas, replica, 0.0, 3)
    replicas.on_probe(replica, None, 1.0)
    given = 0
    while replicas.pick(0) is not None:
        replicas.begin(replica)
        given += 1
    assert given == TRIAL_IN_FLIGHT
    replicas.on_success(replica)
    assert replicas.pick(0) is replica


def test_old_news_does_not_eject_a_replica_that_came_back() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    old = [replicas.begin(replica) for _ in range(10)]
    fail(replicas, replica, 0.0, 3)
    replicas.on_probe(replica, None, 1.0)
    assert [replicas.on_failure(replica, epoch, "old", 1.0) for epoch in old] == [False] * 10
    assert replica.is_up


def test_a_late_answer_brings_an_ejected_replica_back() -> None:
    replicas = Replicas([A])
    (replica,) = replicas.all
    fail(replicas, replica, 0.0, 3)
    assert replicas.on_success(replica)
    assert replicas.pick(0) is replica
    assert not replicas.on_probe(replica, "late probe", 0.5)
    assert replica.is_up


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    replicas = Replicas(["https://user:secret@host:8000/v1/?key=secret"])
    assert replicas.all[0].name == "https://host:8000/v1/"


def test_no_replica_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        Replicas([])


def test_replicas_that_stay_keep_their_state_and_new_ones_join() -> None:
    replicas = Replicas([A, B])
    fail(replicas, replicas.all[1], now=0.0, times=3)
    stays = replicas.all[1]
    replicas.update([B, C + "/"])
    assert [each.url for each in replicas.all] == [B, C]
    assert replicas.all[0] is stays
    assert not stays.is_up
    assert {replicas.pick(problem) for problem in range(50)} == {replicas.all[1]}


def test_a_leaving_replica_gets_nothing_more_and_is_forgotten_when_it_is_done() -> None:
    replicas = Replicas([A, B])
    gone = replicas.all[0]
    epoch = replicas.begin(gone)
    replicas.update([B])
    assert {replicas.pick(problem) for problem in range(50)} == {replicas.all[0]}
    assert replicas.leaving == (gone,)
    for _ in range(9):
        assert not replicas.on_failure(gone, epoch, "reset", now=0.0)  # no ejection: that it ends is no news
    replicas.end(gone)
    assert replicas.leaving == ()


def test_without_any_replica_everything_is_down_until_one_joins() -> None:
    replicas = Replicas([A])
    replicas.update([])
    assert replicas.is_everything_down
    assert replicas.pick(7) is None
    assert replicas.due(1e9) is None
    assert replicas.next_probe_at() is None
    replicas.update([B])
    assert not replicas.is_everything_down
    assert replicas.pick(7) is replicas.all[0]
