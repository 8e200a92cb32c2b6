"""What could run somebody else's code stands in no module, but for the places that SECURITY.md names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICKLES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load"}
MAY_PICKLE = {"orchestrator/execution/ray_pool.py"}
"""Batches of our own workers."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in ("orchestrator", "workers", "migrations"):
        for path in (ROOT / package).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of the packages that a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def called(tree: ast.Module) -> set[str]:
    """What a module calls, as it is written."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_pickles_are_read_in_one_place() -> None:
    assert {name for name, tree in modules() if imported(tree) & PICKLES} == MAY_PICKLE


def test_nothing_evaluates_text_or_reads_yaml_with_tags() -> None:
    assert not {name: found for name, tree in modules() if (found := called(tree) & CALLS)}


def test_no_shell_runs_a_text() -> None:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                shells = [key for key in node.keywords if key.arg == "shell"]
                assert not shells, name
                assert not ast.unparse(node.func).endswith("create_subprocess_shell"), name
