"""A search tree for the terminal: scores coloured, pruned branches dim. Pure: nodes in, a rich tree out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

from orchestrator.store import NodeRecord
from orchestrator.terminal import printable

CHARACTERS = 100
"""Of a step that are shown."""
GOOD, POOR = 0.7, 0.3
"""Scores from here on are green, and below that red."""
ENDS = {"finished": "■", "truncated": "✂", "empty": "∅"}


def tree_view(title: str, nodes: Sequence[NodeRecord], *, shows_all: bool) -> Tree:
    """The tree of a search; without `shows_all` pruned nodes that nothing hangs on are counted and not shown."""
    children: defaultdict[str, list[NodeRecord]] = defaultdict(list)
    for node in sorted(nodes, key=lambda each: each.child_index):
        children[node.parent_path].append(node)
    root = Tree(Text(printable(title), "bold"))
    _grow(root, "", children, shows_all=shows_all)
    return root


def _grow(branch: Tree, path: str, children: defaultdict[str, list[NodeRecord]], *, shows_all: bool) -> None:
    hidden: dict[str, int] = {}
    for node in children[path]:
        if node.pruned_reason and not shows_all and not children[node.path]:
            hidden[node.pruned_reason] = hidden.get(node.pruned_reason, 0) + 1
            continue
        _grow(branch.add(_line(node)), node.path, children, shows_all=shows_all)
    for reason, count in hidden.items():
        branch.add(Text(f"{count} more pruned: {reason}", "dim italic"))


def _line(node: NodeRecord) -> Text:
    text = printable(" ".join(node.text.split()))
    shown = text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
    faint = "dim" if node.pruned_reason else ""
    line = Text.assemble((_score(node.score), _colour(node.score)), " ", (shown, faint))
    if node.ended in ENDS:
        line.append(f" {ENDS[node.ended]}", "cyan")
    if node.pruned_reason:
        line.append(f"  ({printable(node.pruned_reason)})", "dim italic")
    return line


def _score(score: float | None) -> str:
    return "  – " if score is None else f"{score:.2f}"


def _colour(score: float | None) -> str:
    if score is None:
        return "dim"
    return "green" if score >= GOOD else "red" if score < POOR else "yellow"
