"""Strategies by name: built-in kinds, module references, entry points, and what is said of a wrong one."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.search_world import FakeSearch, Step, run
from workers.errors import StrategyError
from workers.strategies import KINDS, Candidate, NodeEnd, Search, build, load, names
from workers.strategies.beam import BeamOptions
from workers.strategies.registry import built_in_options

HERE = "tests.unit.test_strategies_registry"
NOT_A_FUNCTION = 3


async def first_of(search: Search, count: int = 1) -> Sequence[Candidate]:
    """A strategy of one's own: it takes the first finished steps."""
    nodes = await search.sample(search.root, search.budget)
    search.prune(nodes[count:], "not first")
    return [Candidate(node, None) for node in nodes[:count]]


class Choosy:
    """A strategy as an object."""

    async def __call__(self, search: Search) -> Sequence[Candidate]:
        return await first_of(search)


choosy = Choosy()


def not_async(search: Search) -> list[Candidate]:
    return []


def ended() -> FakeSearch:
    return FakeSearch(lambda *_: Step("42", NodeEnd.FINISHED), budget=4)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that offers strategies, as if it were installed."""
    (tmp_path / "their_strategies.py").write_text(f"from {HERE} import first_of, not_async\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ttc.strategies]\n"
        "theirs = their_strategies:first_of\n"
        "gone = their_strategies:gone\n"
        "wrong = their_strategies:not_async\n"
        "beam = their_strategies:first_of\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", KINDS)
async def test_builds_each_kind_with_its_defaults(name: str) -> None:
    assert await run(build(name), ended())
    assert built_in_options(name, {}) == KINDS[name].options()


def test_reads_options_by_their_types() -> None:
    assert built_in_options("beam", {"expansion": None}) == BeamOptions(None)
    options = built_in_options("rebase", {"temperature": 1, "rule": "round", "dedupe_siblings": True})
    assert (options.temperature, options.rule, options.dedupe_siblings) == (1.0, "round", True)
    assert type(options.temperature) is float


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("beam", {"width": 4}, "strategy 'beam' has no option 'width'; it has expansion, dedupe_siblings"),
        (
            "beam",
            {"expansion": "4"},
            "option 'expansion' of strategy 'beam' is '4'; wanted: a whole number or null",
        ),
        ("beam", {"expansion": True}, "is True; wanted: a whole number"),
        ("beam", {"expansion": 0}, "strategy 'beam': expansion must be at least 1, not 0"),
        ("beam", {"dedupe_siblings": "False"}, "is 'False'; wanted: true or false"),
        ("rebase", {"rule": "ceil"}, "is 'ceil'; wanted: sequential or round"),
        ("rebase", {"temperature": 0}, "temperature must be above 0"),
        ("mcts", {"exploration": "1"}, "is '1'; wanted: a number"),
        ("best", {}, "no strategy 'best'; there are greedy, parallel, beam"),
        (":first_of", {}, "not of the form module:function"),
        (f"{HERE}:", {}, "not of the form module:function"),
        ("no_such_module_here:f", {}, "cannot be imported (ModuleNotFoundError"),
        (f"{HERE}:absent", {}, "has no 'absent'"),
        (f"{HERE}:not_async", {}, "must be an async function of a search"),
        (f"{HERE}:NOT_A_FUNCTION", {}, "must be an async function of a search"),
        (
            f"{HERE}:first_of",
            {"size": 3},
            "does not take these options: got an unexpected keyword argument 'size'",
        ),
    ],
)
def test_says_what_is_wrong(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError) as raised:
        build(name, options)
    assert message in str(raised.value)


async def test_takes_a_function_of_a_module_with_its_options() -> None:
    assert len(await run(build(f"{HERE}:first_of"), ended())) == 1
    assert len(await run(build(f"{HERE}:first_of", {"count": 3}), ended())) == 3


async def test_takes_an_object_that_is_called() -> None:
    assert len(await run(build(f"{HERE}:choosy"), ended())) == 1


@pytest.mark.usefixtures("package")
async def test_takes_what_an_installed_package_offers() -> None:
    assert len(await run(build("theirs", {"count": 2}), ended())) == 2
    assert names() == [*KINDS, "gone", "theirs", "wrong"]


@pytest.mark.usefixtures("package")
async def test_a_built_in_kind_hides_its_namesake() -> None:
    assert len(await run(build("beam"), ended())) == 4


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "cannot be loaded (AttributeError"), ("wrong", "must be an async function")],
)
def test_says_what_is_wrong_with_an_offer(name: str, message: str) -> None:
    with pytest.raises(StrategyError) as raised:
        build(name)
    assert message in str(raised.value)


def test_two_packages_may_not_offer_the_same_name(package: Path) -> None:
    info = package / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ttc.strategies]\ntheirs = others:strategy\n")
    with pytest.raises(StrategyError, match="more than one installed package offers a strategy 'theirs'"):
        load("theirs")


def test_the_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(StrategyError("no strategy 'x'")))
    assert (str(error), error.retryable, error.kind) == ("no strategy 'x'", False, "strategy_error")
