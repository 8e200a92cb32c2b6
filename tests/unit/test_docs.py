"""The documents say what is so: generated pages are current, and links, commands, sweep files and queries hold."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator.cli import app
from orchestrator.errors import TtcError
from orchestrator.spec.file import load_sweep
from orchestrator.store import Store, Writer
from tests.store_world import build, whole

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"(?:src|srcset)=\"([^\"]+)\"")
SHELL_ENDS = frozenset({"|", ">", ">>", "&&", "||", ";", "&", "2>&1"})
PLACEHOLDER_FIGURE = re.compile(r"<!-- figure: [\w ]+ -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks(*languages: str) -> Iterator[Block]:
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text("utf-8")):
            if language in languages:
                yield Block(page, language, text)


def commands() -> list[str]:
    """Every `ttc` command line of the console blocks."""
    lines = [line[2:] for block in blocks("console") for line in block.text.splitlines() if line[:2] == "$ "]
    return sorted({line for line in lines if line.startswith("ttc ")})


def mentions() -> list[str]:
    """Every `ttc ...` inside the text, where arguments may be left out."""
    found = [
        name
        for page in PAGES
        for name in re.findall(r"`(ttc [^`]*)`", FENCE.sub("", page.read_text("utf-8")))
    ]
    return sorted(set(found) - {"ttc COMMAND --help"})


def queries() -> list[str]:
    """Every query of the documents: sql blocks, and the quoted argument of `ttc sql` and `sqlite3`."""
    found = [block.text for block in blocks("sql")]
    for page in PAGES:
        text = page.read_text("utf-8")
        found += re.findall(r"(?:ttc sql|sqlite3(?: -\w+)* ttc\.db) \"([^\"]+)\"", text)
    return sorted({query.strip() for query in found} - {"...", "SELECT ..."})


def anchor(heading: str) -> str:
    """The anchor that a heading gets when it is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["cli.md", "sweep-file.md", "sql-schema.md"])
def test_generated_reference_is_current(name: str) -> None:
    spec = importlib.util.spec_from_file_location(
        "generate_reference", ROOT / "docs" / "generate_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    current = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert current == module.pages()[name], "run `python docs/generate_reference.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in [*LINK.findall(text), *IMAGE.findall(text)]:
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text("utf-8"))}
    assert {page for page in PAGES if "docs" in page.parts and page != index} <= linked


def test_there_are_commands_and_queries_to_check() -> None:
    assert len(commands()) > 15
    assert len(mentions()) > 15
    assert len(queries()) > 10


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    words = list(iter_words(line))
    parse(typer.main.get_command(app), "ttc", words[1:])


@pytest.mark.parametrize("line", mentions())
def test_mentions_parse(line: str) -> None:
    try:
        parse(typer.main.get_command(app), "ttc", list(iter_words(line))[1:])
    except Exception as error:
        if type(error).__name__ != "MissingParameter":
            raise


def iter_words(line: str) -> Iterator[str]:
    """The words of the first command of a line, as a shell would cut them."""
    for word in shlex.split(line, comments=True):
        if word in SHELL_ENDS:
            return
        yield word


def parse(command: Any, name: str, words: list[str]) -> None:
    """Parse as the program would, down to the command that would run; raises where it would complain."""
    children = getattr(command, "commands", None)
    if children is None:
        command.make_context(name, list(words))
    elif words and words[0] not in {flag for each in command.params for flag in each.opts}:
        assert words[0] in children, f"{name} has no command {words[0]}"
        rest = words[1:]
        if rest or getattr(children[words[0]], "commands", None):  # a bare name stands for the command itself
            parse(children[words[0]], words[0], rest)


def test_a_wrong_command_would_be_noticed() -> None:
    root = typer.main.get_command(app)
    with pytest.raises(AssertionError):
        parse(root, "ttc", ["fly"])
    with pytest.raises(Exception, match="--wings"):
        parse(root, "ttc", ["run", "sweep.yaml", "--wings"])


SWEEPS = [block for block in blocks("yaml") if re.search(r"^problems:", block.text, re.MULTILINE)]


@pytest.mark.parametrize("block", SWEEPS, ids=lambda block: block.page.stem)
def test_sweep_files_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(block.text, "utf-8")
    assert load_sweep(file).strategies


@pytest.mark.parametrize("name", ["math500-vllm.yaml", "gsm8k-openai.yaml"])
def test_how_to_shows_the_example_as_it_is(name: str, tmp_path: Path) -> None:
    example = load_sweep(ROOT / "examples" / name)
    shown = [
        block
        for block in SWEEPS
        if re.search(rf"^name: {re.escape(example.name)}$", block.text, re.MULTILINE)
    ]
    assert shown
    for block in shown:
        file = tmp_path / name
        file.write_text(block.text, "utf-8")
        assert generators(load_sweep(file)) == generators(example)


def generators(sweep: Any) -> Any:
    """What the samples of a sweep depend on, how requests are cut aside."""
    models = {
        name: {**model.model_dump(), "samples_per_request": None} for name, model in sweep.models.items()
    }
    return models, sweep.problems, sweep.strategies, sweep.limits


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store with a drawn sweep, on each database in turn."""
    world = await build(store, count=3, samples=8, task_size=4)
    async with Writer(store, run_id=world.run_id, extractor_id=world.extractor_id) as writer:
        for task in await store.claim(world.sweep_id, world.lane_id, world.run_id, 100):
            await writer.put(whole(task))
    return store


@pytest.mark.parametrize("query", queries(), ids=lambda query: query[:60])
async def test_queries_run(filled: Store, query: str) -> None:
    found = await filled.query(query, limit=1000, timeout_s=20.0)
    assert found.columns


async def test_a_wrong_query_would_be_noticed(filled: Store) -> None:
    with pytest.raises(TtcError):
        await filled.query("select wings from v_samples", limit=1, timeout_s=20.0)


def test_exit_codes_are_those_of_the_errors() -> None:
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    documented = {
        name: int(code)
        for code, names in re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == {each.__name__: each.exit_code for each in _family(TtcError)}


def _family(top: type[TtcError]) -> Iterator[type[TtcError]]:
    """The error tree of orchestrator.errors; classes of other modules inherit their codes."""
    if top.__module__ == TtcError.__module__:
        yield top
        for child in top.__subclasses__():
            yield from _family(child)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_path_of_a_machine_and_no_stray_placeholder(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"(?<![\w.:])/(?:home|root|work|tmp|Users)/", text)
    assert "TODO" not in PLACEHOLDER_FIGURE.sub("", text)
