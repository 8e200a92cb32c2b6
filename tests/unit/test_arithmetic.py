"""The arithmetic problems: right in every step, the same everywhere, on one side of the split each.

Values are checked by an evaluator written here, from the rules of arithmetic and not from the generator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from workers.embedded import arithmetic
from workers.embedded.arithmetic import Problem, generate

MODEL = Path(arithmetic.__file__).parent / "models" / "arithmetic"
LEXEMES = re.compile(r"\d+|\\cdot|[-+()]")
STEP = re.compile(r"(First|Next), \$(?P<left>.+?) = (?P<value>-?\d+)(\$, which leaves \$(?P<rest>.+))?\$\.")
FINAL = re.compile(r"The answer is \$\\boxed\{(-?\d+)\}\$\.")


class Evaluator:
    """Recursive descent over a LaTeX expression; counts binary operations while it works the value out."""

    def __init__(self, latex: str) -> None:
        self.lexemes = LEXEMES.findall(latex)
        assert "".join(self.lexemes) == latex.replace(" ", ""), latex
        self.operations = 0
        self.value = self._sum()
        assert not self.lexemes, latex

    def _accept(self, *wanted: str) -> str:
        return self.lexemes.pop(0) if self.lexemes and self.lexemes[0] in wanted else ""

    def _sum(self) -> int:
        total = self._product()
        while sign := self._accept("+", "-"):
            self.operations += 1
            total += self._product() * (1 if sign == "+" else -1)
        return total

    def _product(self) -> int:
        total = self._factor()
        while self._accept("\\cdot"):
            self.operations += 1
            total *= self._factor()
        return total

    def _factor(self) -> int:
        if self._accept("-"):
            return -self._factor()
        if self._accept("("):
            inner = self._sum()
            assert self._accept(")")
            return inner
        return int(self.lexemes.pop(0))


def expression_of(problem: Problem) -> str:
    """Cut the expression out of the statement."""
    return problem.statement.removeprefix("Compute $").removesuffix("$.")


def sample_problems() -> Iterator[Problem]:
    """Give problems of all levels, from both sides of the split."""
    for level in arithmetic.LEVELS:
        yield from generate(7, level, 150)
        yield from generate(7, level, 150, held_out=False)


def test_the_evaluator_of_this_test_knows_the_rules() -> None:
    assert Evaluator(r"-5 + 3 \cdot (2 - (-4)) - 1").value == 12
    assert Evaluator(r"2 - 3 - 4").value == -5


@pytest.mark.parametrize("level", arithmetic.LEVELS)
def test_the_same_seed_gives_the_same_distinct_problems(level: int) -> None:
    once = generate(3, level, 80)
    assert once == generate(3, level, 80)
    assert once[:20] == generate(3, level, 20)
    assert len({problem.statement for problem in once}) == len({problem.id for problem in once}) == 80
    assert {problem.statement for problem in once} != {
        problem.statement for problem in generate(4, level, 80)
    }


def test_a_known_seed_gives_known_problems() -> None:
    """Pinned text: another machine or Python version must draw exactly these."""
    assert [generate(1, level, 1)[0].statement for level in arithmetic.LEVELS] == [
        r"Compute $5 \cdot 12$.",
        r"Compute $2 \cdot 3 \cdot 11$.",
        r"Compute $14 + 16 - 45 + 30$.",
        r"Compute $33 - (-5 \cdot 4) - 49 + 3$.",
        r"Compute $42 + 4 \cdot 4 \cdot (-3) - 22 + 55$.",
    ]


def test_level_is_the_number_of_operations_and_answers_are_right() -> None:
    for problem in sample_problems():
        worked_out = Evaluator(expression_of(problem))
        assert worked_out.operations == problem.level
        assert str(worked_out.value) == problem.answer
        assert abs(worked_out.value) <= arithmetic.VALUE_LIMIT


def test_every_step_is_one_true_operation_and_keeps_the_value() -> None:
    for problem in sample_problems():
        *steps, last = problem.solution.split("\n\n")
        assert len(steps) == problem.level
        remaining = expression_of(problem)
        for number, paragraph in enumerate(steps):
            found = STEP.fullmatch(paragraph)
            assert found is not None, paragraph
            assert found[1] == ("Next" if number else "First")
            done = Evaluator(found["left"])
            assert (done.operations, str(done.value)) == (1, found["value"]), paragraph
            rest = found["rest"] or found["value"]
            after, before = Evaluator(rest), Evaluator(remaining)
            assert (after.value, after.operations) == (before.value, before.operations - 1), paragraph
            remaining = rest
        boxed = FINAL.fullmatch(last)
        assert boxed is not None
        assert boxed[1] == remaining == problem.answer


def test_hard_levels_use_parentheses_products_and_negative_values() -> None:
    problems = generate(5, 5, 200)
    groups = [problem for problem in problems if re.search(r"\([^)]* [^)]*\)", problem.statement)]
    assert 60 < len(groups) < 180
    assert any(r"\cdot" in problem.statement for problem in problems)
    assert any(problem.answer.startswith("-") for problem in problems)


def test_training_and_evaluation_share_no_expression() -> None:
    for level in arithmetic.LEVELS:
        trained = islice(arithmetic.problems(11, level, held_out=False), 3000)
        seen = {problem.statement for problem in trained}
        shipped = {problem.statement for problem in arithmetic.shipped_problems() if problem.level == level}
        assert len(shipped) == arithmetic.SHIPPED_PER_LEVEL
        assert not seen & shipped


def test_about_one_expression_in_ten_is_held_out() -> None:
    expressions = [(left, "+", right) for left in range(1, 61) for right in range(1, 61)]
    share = sum(map(arithmetic.is_held_out, expressions)) / len(expressions)
    assert 0.08 < share < 0.12


def test_the_shipped_file_is_what_the_generator_makes_now() -> None:
    shipped = arithmetic.problem_set().read_text(encoding="utf-8")
    assert shipped == arithmetic.problem_set_text(arithmetic.shipped_problems())
    records = [json.loads(line) for line in shipped.splitlines()]
    assert [list(record) for record in records] == [["id", "problem", "answer", "level", "solution"]] * 500
    assert [record["level"] for record in records] == [
        level for level in arithmetic.LEVELS for _ in range(100)
    ]


@pytest.mark.parametrize(("level", "count"), [(0, 1), (6, 1), (1, -1)])
def test_a_level_or_count_out_of_range_is_refused(level: int, count: int) -> None:
    with pytest.raises(ValueError, match="must"):
        generate(1, level, count)


def test_the_tokenizer_gives_back_every_shipped_problem_in_few_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    lengths = []
    for problem in arithmetic.shipped_problems():
        whole = problem.statement + "\n\n" + problem.solution
        tokens, ids = tokenizer.encode(whole).tokens, tokenizer.encode(whole).ids
        assert tokenizer.decode(ids) == whole
        assert tokens.count("\n\n") == problem.level + 1
        prompt = tokenizer.encode(problem.statement + "\n\n").ids
        body = tokenizer.encode(problem.solution + "<|end|>").ids
        assert prompt + body[:-1] == ids
        lengths.append(len(body))
    assert sum(lengths) / len(lengths) < 65
    assert max(lengths) < 150


def test_the_tokenizer_takes_any_printable_ascii() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    text = "".join(map(chr, range(32, 127))) + "\n\n\n \\frac{1}{2}\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("1é2").tokens == ["1", "<unk>", "2"]


def test_the_checkpoint_is_whole_and_agrees_with_its_tokenizer() -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {entry["content"]: entry["id"] for entry in vocabulary["added_tokens"]}
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["vocab_size"] == 1 + max(ids.values())
    assert (config["eos_token_id"], config["pad_token_id"]) == (ids["<|end|>"], ids["<|pad|>"])
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 8_000_000
