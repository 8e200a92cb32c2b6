r"""Grading: fast rules, killable processes, clusters, and agreement with 324 cases of other graders."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.answers import extract
from workers.errors import GradingError
from workers.grading import GRADERS, GraderPool, GraderSettings, Verdict, grade_fast, grade_strict
from workers.grading.clusters import cluster
from workers.grading.fast import cluster_key
from workers.types import Outcome

DISAGREEMENTS = Path(__file__).with_name("grader_disagreements.yaml")
HANGS = "9^{9^{9}}"


def data(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("TTC_TEST_DATA")
    if not folder:
        pytest.skip("TTC_TEST_DATA is not set: it names the folder with the cases of other graders")
    return [json.loads(line) for line in (Path(folder) / name).read_text("utf-8").splitlines()]


def fast(gold: str, answer: str) -> str | None:
    grade = grade_fast(gold, answer)
    return grade.verdict.value if grade else None


# --- what takes no algebra

EQUAL = [
    ("7425000", "7,425,000"),
    ("32,349", r"32,\!349"),
    ("10{,}000", "10000"),
    ("1000", "1 000"),
    ("1/2", r"\frac12"),
    ("0.5", r"\dfrac{1}{2}"),
    ("-1/2", r"\frac{-1}{2}"),
    (r"1\frac{4}{5}", "1.8"),
    ("3 1/2", "3.5"),
    ("1500", r"1.5 \times 10^3"),
    (".0000672", r"6.72 \times 10^{-5}"),
    ("1/12", "0.0833333333333333"),
    ("10", r"10\text{ cm}"),
    ("10", r"10 \text{ m}"),
    (r"1-\frac{1}{\mathrm{e}}", r"1-\frac1e"),
    ("15", r"15\mbox{ cm}^2"),
    ("5", "5 dollars"),
    (r"\$18.90", "18.9"),
    (r"90^\circ", "90"),
    (r"50\%", "50"),
    ("4210_{5}", "4210_5"),
    (r"5\text{ million}", "5,000,000"),
    ("11", "x = 11"),
    (r"\text{Evelyn}", "evelyn"),
    (r"\text{(C)}", "C"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("3, 5, 7", "7,3,5"),
    (r"\{1, 2\}", "2, 1"),
    (r"6 \text{ and } 8", "8, 6"),
    ("(5, 8), (8, 5)", "(8,5),(5,8)"),
    ("(1,2)", "1,2"),
    ("$[0,1)$", r"\left[0, 1\right)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\boxed{7}", "$7.$"),
    ("x \\in [-2,7]", "[-2, 7]"),
]
DIFFERENT = [
    ("1/3", "0.3333"),
    ("2/3", "0.666666"),
    ("10000", "10000.9"),
    ("50", "0.5"),
    (r"50\%", "0.5"),
    ("31/2", "3 1/2"),
    ("32349", "32, 349"),
    ("5", r"5\text{ million}"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("204_5", "204_6"),
    ("(0,9)", "[0,9)"),
    ("(2,1)", "1,2"),
    ("1,2", "(2,1)"),
    (r"\{1,2\}", "(1,2)"),
    ("3,5", "3,5,7"),
    ("(3,1)", "(1,3)"),
    (r"\text{odd}", r"\text{even}"),
    ("Carla", "Clara"),
    ("A", "C"),
    ("7", r"\text{seven}"),
]
UNDECIDED = [
    (r"\sqrt{2}", r"\frac{2}{\sqrt{2}}"),
    ("x", "2x/2"),
    ("xy", "yx"),
    ("x=5", "y=5"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    ("5", r"5\text{ or more}"),
    ("1/0", "2/0"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_surely_equal(one: str, other: str) -> None:
    assert fast(one, other) == fast(other, one) == "correct"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_surely_different(one: str, other: str) -> None:
    assert fast(one, other) == fast(other, one) == "wrong"


@pytest.mark.parametrize(("one", "other"), UNDECIDED)
def test_takes_algebra(one: str, other: str) -> None:
    assert fast(one, other) is fast(other, one) is None


NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.integers(-(10**7), 10**7).map(lambda n: f"{n:,}"),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda f: f"\\frac{{{f[0]}}}{{{f[1]}}}"),
    st.tuples(st.integers(0, 99), st.integers(1, 99)).map(lambda f: f"{f[0]}/{f[1]}"),
    st.decimals(-999, 999, places=3).map(lambda d: f"{d:f}"),
    st.integers(0, 360).map(lambda n: rf"{n}^\circ"),
    st.integers(0, 100).map(lambda n: rf"{n}\%"),
)
WORDS = st.sampled_from(["A", "B", "x", "odd", r"\text{even}", r"\text{(C)}", r"\sqrt{2}", r"\pi", "a+b"])
TUPLES = st.lists(st.one_of(NUMBERS, WORDS), min_size=2, max_size=3)
ANSWERS = st.one_of(
    NUMBERS, WORDS, TUPLES.map(", ".join), TUPLES.map(lambda items: f"({', '.join(items)})"),
    TUPLES.map(lambda items: rf"\left[{','.join(items)}\right)"), TUPLES.map(lambda items: rf"\{{{','.join(items)}\}}"),
    st.text(alphabet="0123456789.,/{}()[]\\$%^_ frac-textbd=", min_size=1, max_size=40),
)  # fmt: skip


@given(ANSWERS)
def test_everything_readable_equals_itself_in_any_wrapping(answer: str) -> None:
    assume(answer.strip() and "$" not in answer and not answer.endswith("\\"))
    for wrapped in (answer, f" ${answer}$.", f"\\({answer}\\)", f"\\!{answer}"):
        assert fast(answer, wrapped) == "correct"
    assert grade_strict(answer, answer).verdict is Verdict.CORRECT


@given(ANSWERS, ANSWERS)
def test_the_fast_rules_are_symmetric(one: str, other: str) -> None:
    assume(one.strip() and other.strip())
    assert fast(one, other) == fast(other, one)


@given(NUMBERS, NUMBERS)
def test_numbers_are_always_decided_and_keys_say_the_same(one: str, other: str) -> None:
    grade = grade_fast(one, other)
    assert grade is not None
    if grade.method in ("exact", "number"):
        assert (cluster_key(one) == cluster_key(other)) == (grade.verdict is Verdict.CORRECT)


@pytest.mark.parametrize("answer", ["1\0", "1\u202e2", "\ud800", "x" * 10_000_000, " "])
def test_what_no_answer_needs_is_not_read(answer: str) -> None:
    assert fast("7", answer) == "unparsable"
    assert fast(answer, "7") == "gold_unparsable"
    assert grade_strict("7", answer).verdict is Verdict.UNPARSABLE


@pytest.mark.parametrize(
    "answer",
    [
        "(" * 500 + ")" * 500,
        "(1," * 240 + "1" + ")" * 240,
        "\\frac" * 200,
        "\\text{" * 160,
        "9" * 1000,
        "1," * 500,
    ],
)
def test_deep_and_long_answers_do_not_break_the_fast_rules(answer: str) -> None:
    assert fast("7", answer) in ("wrong", None)


# --- the strict grader


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        ("1/2", r"\frac{1}{2}", True),
        ("1/2", "2/4", False),
        ("1/2", "0.5", False),
        ("5", "10/2", False),
        ("37.50", "37.5", True),
        (".5", "0.50", True),
        ("1,000", "1000", True),
        (r"10\text{ cm}", "10", True),
        (r"90^\circ", "90", True),
        ("(1, 1/2)", r"\left(1,\frac12\right)", True),
        ("(1,2)", "[1,2]", False),
        ("1,2", "2,1", False),
        ("x=5", "5", True),
        (r"\text{Evelyn}", "Evelyn", True),
        ("2^{10}", "1024", False),
    ],
)
def test_strict_means_as_written(gold: str, answer: str, correct: bool) -> None:
    assert (grade_strict(gold, answer).verdict is Verdict.CORRECT) is correct


def test_the_graders_have_names_and_versions() -> None:
    assert set(GRADERS) == {"math", "strict"}
    assert all(grader.version and grader.name == name for name, grader in GRADERS.items())


# --- processes


def children() -> set[int]:
    return {
        child.pid for child in psutil.Process().children() if "workers.grading.process" in child.cmdline()
    }


async def test_numbers_start_no_process() -> None:
    async with GraderPool() as pool:
        assert (await pool.grade("1/2", "0.5")).verdict is Verdict.CORRECT
        assert await pool.cluster(["1/2", "0.5", "2"]) == [1, 1, 2]
        assert await pool.verify_gold("(1, 2)")
        assert not children()


async def test_algebra_a_kill_and_a_pool_that_goes_on() -> None:
    async with GraderPool(GraderSettings(processes=1, timeout_s=2)) as pool:
        assert (await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")).verdict is Verdict.CORRECT
        before = children()
        assert (await pool.grade(r"\sqrt{8}", HANGS)).verdict is Verdict.TIMEOUT
        assert len(before) == 1
        assert not children() & before
        assert (await pool.grade(r"\sqrt{8}", r"3\sqrt{2}")).verdict is Verdict.WRONG
        await hostile_answers(pool)
        await asymmetric_equalities(pool)
    assert not children()


async def hostile_answers(pool: GraderPool) -> None:
    canary = f"canary-{os.getpid()}"
    for answer in (
        f"__import__('pathlib').Path('{canary}').touch()",
        f"\\text{{}}__import__('os').system('touch {canary}')",
        "{" * 300 + "}" * 300,
        "\\sqrt{" * 100,
        "\\begin{pmatrix}" * 60,
    ):
        assert (await pool.grade(r"\sqrt{8}", answer)).verdict is not Verdict.CORRECT
    assert canary not in os.listdir()
    assert (await pool.grade("\\sqrt{", "7")).verdict is Verdict.GOLD_UNPARSABLE


async def asymmetric_equalities(pool: GraderPool) -> None:
    equal = [
        (
            r"\begin{pmatrix}1 & 2 \\3 & 4\end{pmatrix}",
            r"\left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right]",
        ),
        (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"),
        ("0<f(x)<1", "(0,1)"),
        ("x \\in [-2,7]", r"-2 \le x \le 7"),
        (r"(2,\infty)", "x>2"),
        (r"3\sqrt{2}", r"3 \sqrt{2} \text{ cm}"),
        (r"\{1\pm\sqrt5,-2\}", r"\{-2,1+\sqrt5,1-\sqrt5\}"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        ("0", r"\sqrt{2}\sqrt{3}-\sqrt{6}"),
        ("0", "x^2 - x^2"),
    ]
    different = [
        (r"(\sqrt{2}, 1)", r"1, \sqrt{2}"),
        (r"1, \sqrt{2}", r"(\sqrt{2}, 1)"),
        (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}"),
        (r"\frac{\pi}{10^8}", "0.00000003"),
        ("x=5", "y=5"),
        ("5", "5m"),
        ("5", r"5\text{ or more}"),
        ("3", r"3\text{ half}"),
        ("10", "10!"),
        (r"\pm 2021", "2021"),
        ("x<3", r"x \le 3"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
        (r"\log 2", r"\ln 2"),
    ]
    for gold, answer in equal:
        assert (await pool.grade(gold, answer)).verdict is Verdict.CORRECT, (gold, answer)
    for gold, answer in different:
        assert (await pool.grade(gold, answer)).verdict is Verdict.WRONG, (gold, answer)


async def test_a_cancelled_caller_leaves_no_busy_process() -> None:
    async with GraderPool(GraderSettings(processes=1, timeout_s=60)) as pool:
        await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")
        hanging = asyncio.create_task(pool.grade(r"\sqrt{8}", HANGS))
        await until(lambda: any(map(busy, children())))
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert not children()
        assert (await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")).verdict is Verdict.CORRECT


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


def busy(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_RUNNING


async def test_a_process_that_dies_twice_is_a_verdict_and_one_that_cannot_start_an_error() -> None:
    async with GraderPool(GraderSettings(processes=1)) as pool:
        await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")
        killer = asyncio.create_task(kill_whatever_starts())
        grade = await pool.grade(r"\sqrt{8}", HANGS)
        killer.cancel()
        assert grade.verdict is Verdict.CRASHED
        assert (await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")).verdict is Verdict.CORRECT
    async with GraderPool(GraderSettings(processes=1, memory_bytes=40 << 20)) as pool:
        with pytest.raises(GradingError, match="did not start"):
            await pool.grade(r"\sqrt{8}", r"2\sqrt{2}")


async def kill_whatever_starts() -> None:
    while True:
        for pid in children():
            if psutil.Process(pid).cpu_times().user > 0.2 and busy(pid) and await is_ready(pid):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.02)


async def is_ready(pid: int) -> bool:
    """Whether the process has closed its start-up output, the last thing it does before it takes a request."""
    try:
        return os.readlink(f"/proc/{pid}/fd/2") == os.devnull
    except OSError:
        return False


@pytest.fixture
def orphan() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "workers.grading.process", "-9.5", str(2 << 30)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"ready" in process.stdout.readline()
        yield process
        process.kill()


def test_a_process_ends_with_its_input(orphan: subprocess.Popen[bytes]) -> None:
    assert orphan.stdin is not None
    orphan.stdin.close()
    assert orphan.wait(timeout=30) == 0


def test_a_busy_orphan_ends_by_itself(orphan: subprocess.Popen[bytes]) -> None:
    assert orphan.stdin is not None
    request = json.dumps({"gold": "1", "answer": HANGS, "both": False})
    orphan.stdin.write(request.encode() + b"\n")
    orphan.stdin.close()
    assert orphan.wait(timeout=60) == -signal.SIGALRM


# --- clusters


async def never(*answers: str) -> bool:
    raise AssertionError(f"{answers} were compared")


async def always(answer: str) -> bool:
    return True


def partition(answers: list[str], heads: list[int]) -> set[frozenset[str]]:
    return {frozenset(a for a, h in zip(answers, heads, strict=True) if h == head) for head in heads}


async def test_answers_with_keys_are_never_compared() -> None:
    answers = [
        r"50\%",
        "50",
        "0.5",
        "1/2",
        r"\frac{2}{4}",
        "(1,2)",
        "(2,1)",
        "2,1",
        r"\{1,2\}",
        "A",
        r"\text{A}",
        "",
    ]
    heads = await cluster(answers, never, never)
    assert partition(answers, heads) == {
        frozenset({r"50\%", "50"}), frozenset({"0.5", "1/2", r"\frac{2}{4}"}), frozenset({"(1,2)"}),
        frozenset({"(2,1)"}), frozenset({"2,1", r"\{1,2\}"}), frozenset({"A", r"\text{A}"}), frozenset({""}),
    }  # fmt: skip
    assert all(heads[head] == head for head in heads)


@pytest.mark.timeout(120)
async def test_every_order_gives_the_same_clusters() -> None:
    families = [
        [r"50\%", "50", "0.5", r"\frac12"],
        [r"(\sqrt2,1)", r"1,\sqrt2", r"\sqrt2,1", r"(1,\sqrt2)"],
        [r"\sqrt{2}", "1.414214", "2^{1/2}", "2"],
        ["x+1", "1+x", r"\frac{2x+2}{2}", "y+1"],
    ]
    async with GraderPool() as pool:
        for family in families:
            found = {
                frozenset(partition(list(order), await pool.cluster(order)))
                for order in itertools.permutations(family)
            }
            assert len(found) == 1, family


async def test_an_answer_without_verdict_is_a_cluster_of_its_own() -> None:
    asked: list[tuple[str, str]] = []

    async def silent(one: str, other: str) -> None:
        asked.append((one, other))

    answers = ["a+b", "a+c", "a+d", "a+e", "a+f"]
    assert await cluster(answers, silent, always) == [0, 1, 2, 3, 4]
    assert len(asked) <= 2 * len(answers)


async def test_an_answer_that_hangs_is_never_a_representative() -> None:
    async def is_sane(answer: str) -> bool:
        return HANGS not in answer

    async def are_equal(one: str, other: str) -> bool:
        assert HANGS not in one + other
        return sorted(one) == sorted(other)

    assert await cluster([HANGS, "a+b", "b+a", f"1+{HANGS}"], are_equal, is_sane) == [0, 1, 1, 3]


# --- the cases of other graders, and golds


def answer_of(case: dict[str, Any]) -> str | None:
    """What we would grade: the extracted answer; the whole prediction where the case is about a bare answer."""
    found = extract(case["pred"], Outcome.COMPLETE)
    if found is not None:
        return found.text
    return None if case["kind"] == "free-text" else str(case["pred"])


async def is_correct(pool: GraderPool, case: dict[str, Any]) -> bool:
    answer = answer_of(case)
    return answer is not None and (await pool.grade(gold_of(case), answer)).verdict is Verdict.CORRECT


def gold_of(case: dict[str, Any]) -> str:
    found = extract(case["gold"], Outcome.COMPLETE)
    return found.text if found and found.method == "boxed" else str(case["gold"])


@pytest.mark.timeout(180)
async def test_the_cases_of_other_graders() -> None:
    cases = data("grader_cases.jsonl")
    reasons = yaml.safe_load(DISAGREEMENTS.read_text("utf-8"))
    async with GraderPool() as pool:
        verdicts = await asyncio.gather(*(is_correct(pool, case) for case in cases))
    disagreements = {
        case["id"] for case, correct in zip(cases, verdicts, strict=True) if correct != case["expected"]
    }
    assert len(cases) == 324
    assert disagreements == set(reasons)
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in reasons.values())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["math500.jsonl", "gsm8k_test.jsonl"])
async def test_every_gold_verifies_against_itself(name: str) -> None:
    golds = {row["answer"].rpartition("####")[2].strip() for row in data(name)}
    async with GraderPool() as pool:
        assert [gold for gold in sorted(golds) if not await pool.verify_gold(gold)] == []


@pytest.mark.timeout(180)
async def test_verdicts_on_real_samples_are_those_recorded_with_them() -> None:
    rows = data("samples/bon8_qwen25math_orm.jsonl")
    recorded = {
        (row["gold"], s["answer"]): s["correct"] for row in rows for s in row["samples"] if s["answer"]
    }
    async with GraderPool() as pool:
        for (gold, answer), correct in recorded.items():
            assert ((await pool.grade(gold, answer)).verdict is Verdict.CORRECT) == correct, (gold, answer)
