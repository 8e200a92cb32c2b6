"""Multi-step integer arithmetic: the problems that the embedded policy model answers.

Why it exists: examples, tests and benchmarks need a task that a tiny model solves sometimes, with a ground
truth that nobody has to trust. Level L has exactly L operations, so difficulty is a dial; every solution is
written as MATH solutions are (one step a paragraph, the answer in ``\\boxed{}``), so segmentation, extraction
and grading see the shapes they see in earnest. Training and evaluation never share an expression: a stable
hash of the expression decides its side. It must not know models, tokenisers, sampling or files other
than its own problem set.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

LEVELS = (1, 2, 3, 4, 5)
VALUE_LIMIT = 299  # no operand, intermediate or final value exceeds this in absolute value
TERM_LIMIT = 60  # operands of + and - are drawn from 1..60
FACTOR_LIMIT = 12  # one side of every product is at most this, so that a product is one learnable fact
NEGATIVE_SHARE = 0.1  # share of operands that are negative
GROUP_SHARE = 0.6  # share of problems from level 3 on that carry one pair of parentheses
GROUP_FROM_LEVEL = 3
HELD_OUT_MODULUS = 10  # one expression in ten belongs to evaluation
SHIPPED_SEED = 20240
SHIPPED_PER_LEVEL = 100

Token = int | str  # a value, or one of + - * ( )
Expression = tuple[Token, ...]

_SIGNS = {"+": " + ", "-": " - ", "*": r" \cdot ", "(": "(", ")": ")"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with its reference answer and one correct solution; `level` counts its operations."""

    id: str
    statement: str
    answer: str
    level: int
    solution: str


@dataclass(frozen=True, slots=True)
class Reduction:
    """One operation carried out: `left operator right = value`, and the expression that is left."""

    left: int
    operator: str
    right: int
    value: int
    rest: Expression


def generate(seed: int, level: int, count: int, *, held_out: bool = True) -> list[Problem]:
    """Make `count` distinct problems of `level` (1 to 5), the same on every machine and Python version.

    `held_out` chooses the evaluation side of the split (the default) or the side the model was trained on.
    Raises ValueError for a level or count out of range.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {LEVELS}, found {level}")
    if count < 0:
        raise ValueError(f"count must not be negative, found {count}")
    found: dict[str, Problem] = {}
    stream = problems(seed, level, held_out=held_out)
    while len(found) < count:
        problem = next(stream)
        found.setdefault(problem.statement, problem)
    return list(found.values())


def problems(seed: int, level: int, *, held_out: bool) -> Iterator[Problem]:
    """Yield problems of one level for ever, repeats included: training wants a stream and not a set."""
    draw = random.Random(f"arithmetic:{seed}:{level}")
    while True:
        expression = _draw_expression(draw, level)
        if is_held_out(expression) == held_out and _is_learnable(expression):
            yield _problem(expression, level)


def is_held_out(expression: Expression) -> bool:
    """Say whether an expression belongs to evaluation: its SHA-256 modulo 10 is 0, whatever the seed."""
    digest = sha256(render(expression).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_MODULUS == 0


def reductions(expression: Expression) -> Iterator[Reduction]:
    """Carry out one operation at a time, in the order of the usual rules, until one value is left."""
    while len(expression) > 1:
        reduction = _reduce(expression)
        yield reduction
        expression = reduction.rest


def render(expression: Expression) -> str:
    """Write an expression in LaTeX, negative values in parentheses unless they open it or a group."""
    text = ""
    for place, token in enumerate(expression):
        opens = place == 0 or expression[place - 1] == "("
        text += _SIGNS[token] if isinstance(token, str) else _render_value(token, opens)
    return text


def problem_set() -> Traversable:
    """Give the shipped set: JSON lines of id, problem, answer, level, solution; 100 held-out a level."""
    return files("workers.embedded") / "data" / "arithmetic.jsonl"


def shipped_problems() -> list[Problem]:
    """Make the shipped problem set anew, as the generator stands now."""
    return [problem for level in LEVELS for problem in generate(SHIPPED_SEED, level, SHIPPED_PER_LEVEL)]


def problem_set_text(chosen: list[Problem]) -> str:
    """Write problems as JSON lines, `statement` under the name `problem` that MATH uses."""
    return "".join(json.dumps(_record(problem)) + "\n" for problem in chosen)


def _record(problem: Problem) -> dict[str, str | int]:
    """Order the fields of a problem as the shipped file has them."""
    fields = asdict(problem)
    return {"id": fields.pop("id"), "problem": fields.pop("statement"), **fields}


def _problem(expression: Expression, level: int) -> Problem:
    """Put an expression and its reductions into words."""
    steps = list(reductions(expression))
    answer = str(steps[-1].value)
    paragraphs = [_paragraph(step, is_first=step is steps[0]) for step in steps]
    paragraphs.append(rf"The answer is $\boxed{{{answer}}}$.")
    text = render(expression)
    name = f"arithmetic-{level}-{sha256(text.encode('ascii')).hexdigest()[:10]}"
    return Problem(name, f"Compute ${text}$.", answer, level, "\n\n".join(paragraphs))


def _paragraph(step: Reduction, *, is_first: bool) -> str:
    """Write one step: the operation, its value, and what is left unless that is the value alone."""
    done = f"{render((step.left, step.operator, step.right))} = {step.value}"
    opening = "First" if is_first else "Next"
    rest = "" if len(step.rest) == 1 else f"$, which leaves ${render(step.rest)}"
    return f"{opening}, ${done}{rest}$."


def _render_value(value: int, opens: bool) -> str:
    return str(value) if value >= 0 or opens else f"({value})"


def _reduce(expression: Expression) -> Reduction:
    """Do the first operation: parentheses first, then products before sums, then left before right."""
    start, stop = _innermost(expression)
    place = next((i for i in range(start, stop) if expression[i] == "*"), start + 1)
    left, operator, right = expression[place - 1 : place + 2]
    assert isinstance(left, int)
    assert isinstance(operator, str)
    assert isinstance(right, int)
    value = _apply(left, operator, right)
    rest = (*expression[: place - 1], value, *expression[place + 2 :])
    return Reduction(left, operator, right, value, _drop_empty_group(rest))


def _innermost(expression: Expression) -> tuple[int, int]:
    """Give the span [start, stop) to work out first; there is one pair of parentheses at most."""
    if "(" not in expression:
        return 0, len(expression)
    return expression.index("(") + 1, expression.index(")")


def _drop_empty_group(expression: Expression) -> Expression:
    """Drop the parentheses once they hold a single value."""
    start, stop = _innermost(expression)
    if "(" not in expression or stop - start > 1:
        return expression
    return (*expression[: start - 1], expression[start], *expression[stop + 1 :])


def _apply(left: int, operator: str, right: int) -> int:
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def _draw_expression(draw: random.Random, level: int) -> Expression:
    """Draw operators, then operands that suit them, then perhaps one pair of parentheses."""
    operators = [_draw_operator(draw) for _ in range(level)]
    tokens: list[Token] = []
    for place in range(level + 1):
        is_factor = "*" in operators[max(place - 1, 0) : place + 1]
        tokens.append(_draw_operand(draw, FACTOR_LIMIT if is_factor else TERM_LIMIT))
        tokens.extend(operators[place : place + 1])
    return _with_group(draw, tuple(tokens), level)


def _with_group(draw: random.Random, expression: Expression, level: int) -> Expression:
    """Put parentheses around two or three neighbouring operands, never around everything, from level 3 on."""
    if level < GROUP_FROM_LEVEL or draw.random() >= GROUP_SHARE:
        return expression
    operands = 2 + _below(draw, 2)
    start = 2 * _below(draw, level + 2 - operands)
    stop = start + 2 * operands - 1
    return (*expression[:start], "(", *expression[start:stop], ")", *expression[stop:])


def _draw_operator(draw: random.Random) -> str:
    return "+++---**"[_below(draw, 8)]


def _draw_operand(draw: random.Random, limit: int) -> int:
    """Draw 1..limit (2..limit for factors, since a product with 1 teaches nothing), negative now and then."""
    lowest = 2 if limit == FACTOR_LIMIT else 1
    value = lowest + _below(draw, limit + 1 - lowest)
    return -value if draw.random() < NEGATIVE_SHARE else value


def _below(draw: random.Random, limit: int) -> int:
    """Draw from 0..limit-1 with random() alone, whose sequence every Python version promises to keep."""
    return int(draw.random() * limit)


def _is_learnable(expression: Expression) -> bool:
    """Keep each single operation within reach of a model of a million parameters."""
    return all(_is_small(step) for step in reductions(expression))


def _is_small(step: Reduction) -> bool:
    if step.operator == "*" and min(abs(step.left), abs(step.right)) > FACTOR_LIMIT:
        return False
    return max(abs(step.left), abs(step.right), abs(step.value)) <= VALUE_LIMIT
