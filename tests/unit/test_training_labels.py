"""Labelled solutions: read as they were written, split by problem, joined into trees that lose nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from training import labels, tokenizer
from training.labels import Solution, Tree
from workers.embedded import arithmetic

TOKENIZER = tokenizer.build(has_tag=True)
TAG = TOKENIZER.token_to_id(tokenizer.STEP)
ROW: dict[str, Any] = {
    "prompt": "Compute $2 + 3$.",
    "completions": ["First, $2 + 3 = 5$.", r"The answer is $\boxed{5}$."],
    "labels": [0.75, 1.0],
    "problem_id": "p1",
}


def drawn(count: int, seed: int = 0) -> list[Solution]:
    """Solutions of a few problems that share steps, with labels that belong to the prefix."""
    draw = random.Random(seed)
    problems = arithmetic.generate(3, 3, 6, held_out=False)
    made = []
    for _ in range(count):
        problem = draw.choice(problems)
        steps = tuple(problem.solution.split("\n\n"))
        changed = draw.randint(0, len(steps))
        steps = steps[:changed] + tuple(step.replace("1", draw.choice("127")) for step in steps[changed:])
        values = [random.Random(f"{problem.id}{steps[:end]}").random() for end in range(1, len(steps) + 1)]
        made.append(Solution(problem.id, problem.statement, steps, tuple(values)))
    return made


def test_the_tag_is_one_token_more_and_all_others_stay() -> None:
    policy = tokenizer.build()
    assert (
        policy.get_vocab(with_added_tokens=True).items() < TOKENIZER.get_vocab(with_added_tokens=True).items()
    )
    assert (TAG, TOKENIZER.get_vocab_size()) == (111, 112)


def test_json_lines_and_parquet_are_read_alike(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "labels": [True, False], "extra": 1}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: [row[name] for row in rows] for name in ROW if name != "labels"}
    table = pa.table({**columns, "labels": [[0.75, 1.0], [1.0, 0.0]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = labels.read(tmp_path / "a.jsonl")
    assert found == labels.read(tmp_path / "a.parquet")
    assert found[0] == Solution("p1", ROW["prompt"], tuple(ROW["completions"]), (0.75, 1.0))
    assert [solution.outcome for solution in found] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [0.5]}, "2 completions and 1 labels"),
        ({"labels": [0.5, 1.5]}, "between 0 and 1"),
        ({"labels": [0.5, float("nan")]}, "between 0 and 1"),
        ({"completions": [], "labels": []}, "0 completions"),
        ({"labels": ["good", "bad"]}, "wanted prompt"),
        ({"labels": None}, "wanted prompt"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_named(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl, row 2: .*{words}"):
        labels.read(path)


def test_the_layout_is_what_reward_models_read() -> None:
    solution = Solution("p", "Compute $2 + 3$.", ("First, $2 + 3 = 5$. \n", "The end."), (1.0, 1.0))
    assert solution.text == "Compute $2 + 3$.\n\nFirst, $2 + 3 = 5$.<|step|>\n\nThe end.<|step|>"


def test_whole_problems_are_held_out_whatever_else_is_there() -> None:
    made = [Solution(f"p{index % 500}", "q", ("a",), (1.0,)) for index in range(2000)]
    kept, held = labels.split(made, 1)
    assert len(kept) + len(held) == 2000
    assert not {solution.problem_id for solution in kept} & {solution.problem_id for solution in held}
    assert 25 < len({solution.problem_id for solution in held}) < 80
    assert labels.split(made[:700], 1)[1] == [solution for solution in made[:700] if solution in held]
    assert labels.split(made, 2)[1] != held


@pytest.mark.parametrize("is_outcome", [False, True])
def test_a_tree_holds_every_beginning_once_with_its_labels(
    is_outcome: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "TREE_TOKENS", 150)
    made = drawn(60)
    trees = labels.trees(made, TOKENIZER, 1024, is_outcome=is_outcome)
    found: Counter[tuple[int, ...]] = Counter()
    target: dict[tuple[int, ...], float] = {}
    for tree in trees:
        paths = [path(tree, node) for node in range(len(tree.tokens))]
        assert len(set(paths)) == len(paths)
        for place, value, weight in zip(tree.places, tree.targets, tree.weights, strict=True):
            found[paths[place]] += int(weight)
            target[paths[place]] = value
        assert all(parent < node for node, parent in enumerate(tree.parents))
    wanted: Counter[tuple[int, ...]] = Counter()
    for solution in made:
        ids = TOKENIZER.encode(solution.text).ids
        ends = [end for end, token in enumerate(ids, 1) if token == TAG]
        for end, label in list(zip(ends, solution.labels, strict=True))[-1 if is_outcome else 0 :]:
            wanted[tuple(ids[:end])] += 1
            assert target[tuple(ids[:end])] == pytest.approx(label)
    assert found == wanted
    assert len(trees) > 6  # more than one a problem: they were cut


def path(tree: Tree, node: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while node >= 0:
        tokens.append(tree.tokens[node])
        node = tree.parents[node]
    return tuple(reversed(tokens))


def test_packed_rows_hold_the_same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "TREE_TOKENS", 150)
    trees = labels.trees(drawn(60), TOKENIZER, 1024, is_outcome=False)
    monkeypatch.setattr(labels, "TREE_TOKENS", 400)
    rows = labels.packed(trees)
    assert max(len(row.tokens) for row in rows) <= max(400, *(len(tree.tokens) for tree in trees))
    assert len(rows) < len(trees)

    def facts(many: list[Tree]) -> Counter[object]:
        labelled = [
            (path(tree, place), target, weight)
            for tree in many
            for place, target, weight in zip(tree.places, tree.targets, tree.weights, strict=True)
        ]
        written = [("written", path(tree, node)) for tree in many for node in tree.written]
        unwritten = [("unwritten", path(tree, node)) for tree in many for node in tree.unwritten]
        return Counter([*labelled, *written, *unwritten])

    assert facts(rows) == facts(trees)


def test_what_the_policy_wrote_is_neither_the_problem_nor_a_tag_nor_after_one() -> None:
    (tree,) = labels.trees(
        [Solution("p", "Compute $2 + 3$.", ("a", "b"), (1.0, 0.5))], TOKENIZER, 64, is_outcome=False
    )
    pieces = [TOKENIZER.id_to_token(token) for token in tree.tokens]
    assert [pieces[node] for node in tree.written] == ["a", "b"]


def test_rivals_are_other_digits_in_the_place_of_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "UNWRITTEN_SHARE", 1.0)
    solution = Solution("p", "Compute $2 + 3$.", ("$2 + 3 = 5$", "so 5"), (1.0, 0.5))
    (tree,) = labels.trees([solution], TOKENIZER, 64, is_outcome=False)
    pieces = [TOKENIZER.id_to_token(token) for token in tree.tokens]
    digits = [node for node in tree.written if pieces[node].isdigit()]
    assert len(tree.unwritten) in range(len(digits) - 2, len(digits) + 1)  # a rival may be the digit itself
    for node in tree.unwritten:
        (rivalled,) = [each for each in digits if tree.parents[each] == tree.parents[node]]
        assert pieces[node].isdigit()
        assert pieces[node] != pieces[rivalled]
        assert node not in tree.parents
        assert node not in tree.places
    again = labels.trees([solution], TOKENIZER, 64, is_outcome=False)
    assert again == [tree]


def test_labels_of_equal_prefixes_are_averaged() -> None:
    same = [Solution("p", "q", ("a", "b"), (value, 1.0)) for value in (0.2, 0.4, 0.9)]
    (tree,) = labels.trees(same, TOKENIZER, 64, is_outcome=False)
    assert tree.targets == pytest.approx((0.5, 1.0))
    assert tree.weights == (3.0, 3.0)


def test_texts_that_cannot_be_read_are_left_out() -> None:
    tagged = Solution("p", "q", ("a<|step|>b",), (1.0,))
    long = Solution("p", "q", ("a" * 100,), (1.0,))
    fine = Solution("p", "q", ("a",), (1.0,))
    (tree,) = labels.trees([tagged, long, fine], TOKENIZER, 50, is_outcome=False)
    assert tree.weights == (1.0,)
    assert "3 solutions (100.0% right), 3 steps" in labels.summary("training", [tagged, long, fine], [tree])
