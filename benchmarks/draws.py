"""What the stub writes: service time, text and answer of a sample or a step, from its prompt and seed alone, and
scores of steps.

Pure and cheap: everything that does not depend on the sample is rendered once. It knows nothing of HTTP.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from statistics import NormalDist

CHARACTERS_A_TOKEN = 4
SEPARATOR = "\n\n"
FEWEST_STEPS, MOST_STEPS = 4, 10
"""Of a solution that is drawn step by step; from the fewest on one step in four is the last."""
ANSWERS = 8
STEP_TOKENS = 24
_QUANTILES = 4096
_MASK = (1 << 64) - 1
_MIX_A, _MIX_B, _GOLDEN = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15
# 64 draws: 29 right, the rest spread over seven wrong answers, so that votes have something to do.
_ANSWER_OFFSETS = [0] * 29 + [1] * 11 + [2] * 8 + [3] * 6 + [4] * 4 + [5] * 3 + [6] * 2 + [7]


def mixed(prompt_hash: int, seed: int) -> int:
    """64 bits that look random (the end of splitmix64): consecutive seeds must not give regular draws."""
    x = ((seed + 1) * _GOLDEN + (prompt_hash << 32)) & _MASK
    x = ((x ^ (x >> 30)) * _MIX_A) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_B) & _MASK
    return x ^ (x >> 31)


def hash_of(prompt: str) -> int:
    """32 bits of a prompt."""
    return zlib.crc32(prompt.encode("utf-8", "surrogatepass"))


def gold(prompt: str) -> int:
    """The right answer to a prompt: the one drawn most often."""
    return hash_of(prompt) % 1000


class ServiceTimes:
    """Seconds a sample takes: constant for sigma 0, else log-normal (mean, and sigma of the logarithm)."""

    def __init__(self, mean_s: float, sigma: float) -> None:
        normal = NormalDist()
        raw = [math.exp(sigma * normal.inv_cdf((i + 0.5) / _QUANTILES)) for i in range(_QUANTILES)]
        scale = mean_s * _QUANTILES / math.fsum(raw)
        self._table = [value * scale for value in raw]

    def of(self, bits: int) -> float:
        """Service time of a sample with these mixed bits."""
        return self._table[bits & (_QUANTILES - 1)]


@dataclass(frozen=True, slots=True)
class Wants:
    """What a request asks for about every choice."""

    max_tokens: int
    has_token_ids: bool
    has_logprobs: bool


class Writer:
    """Renders choices as JSON; `is_verbose`: log probabilities as vLLM 0.32 writes them, else bare values."""

    def __init__(self, characters: int, *, is_verbose: bool = False) -> None:
        self._head, self._tail = _solution(characters)
        self.tokens = math.ceil(len(self._head + self._tail) / CHARACTERS_A_TOKEN)
        self._is_verbose = is_verbose
        self._forms: dict[Wants, bytes] = {}
        self._step_forms: dict[Wants, tuple[bytes, bytes]] = {}

    def text(self, prompt_hash: int, seed: int, bits: int) -> str:
        """The solution as a client reads it, uncut."""
        return f"{self._head}{seed}{self._tail}\\boxed{{{_answer(prompt_hash, bits)}}}$."

    def choice(self, index: int, prompt_hash: int, seed: int, bits: int, wants: Wants) -> bytes:
        """One choice of a reply."""
        form = self._forms.get(wants)
        if form is None:
            form = self._forms[wants] = self._form(wants)
        if wants.max_tokens >= self.tokens:
            return form % (index, seed, _answer(prompt_hash, bits))
        text = self.text(prompt_hash, seed, bits)[: wants.max_tokens * CHARACTERS_A_TOKEN]
        return form % (index, _escaped(text).encode())

    def step(self, index: int, problem_hash: int, depth: int, seed: int, bits: int, wants: Wants) -> bytes:
        """One choice of a reply to whom a step is enough: the step after `depth` others, never cut."""
        is_last = depth + 1 >= MOST_STEPS or (depth + 1 >= FEWEST_STEPS and bits >> 18 & 3 == 0)
        forms = self._step_forms.get(wants)
        if forms is None:
            forms = self._step_forms[wants] = (self._step_form(wants), self._last_step_form(wants))
        if is_last:
            return forms[1] % (index, seed, _answer(problem_hash, bits))
        return forms[0] % (index, depth + 1, seed)

    def count(self, wants: Wants) -> int:
        """Tokens of one choice."""
        return min(self.tokens, wants.max_tokens)

    def _form(self, wants: Wants) -> bytes:
        is_cut = wants.max_tokens < self.tokens
        text = "%s" if is_cut else f"{_escaped(self._head)}%d{_escaped(self._tail)}\\\\boxed{{%d}}$."
        return self._rendered(text, self.count(wants), wants, '"length"' if is_cut else '"stop"', "null")

    def _step_form(self, wants: Wants) -> bytes:
        text = "Step %d, as attempt %d has it: both sides change by 7, which keeps $x + 3 = y$."
        return self._rendered(text, STEP_TOKENS, wants, '"stop"', f'"{_escaped(SEPARATOR)}"')

    def _last_step_form(self, wants: Wants) -> bytes:
        text = "Hence, as attempt %d has it, the final answer is $\\\\boxed{%d}$."
        return self._rendered(text, STEP_TOKENS, wants, '"stop"', "null")

    def _rendered(self, text: str, tokens: int, wants: Wants, reason: str, stop_reason: str) -> bytes:
        """A form, of which only what stands in the text is still open."""
        ids = (
            f"[{','.join(str(100 + i * 37 % 9000) for i in range(tokens))}]"
            if wants.has_token_ids
            else "null"
        )
        logprobs = self._logprobs(tokens) if wants.has_logprobs else "null"
        return (
            f'{{"index":%d,"text":"{text}","logprobs":{logprobs},"finish_reason":{reason},'
            f'"stop_reason":{stop_reason},'
            f'"token_ids":{ids},"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}}'
        ).encode()

    def _logprobs(self, tokens: int) -> str:
        values = [f"-{(i * 53 % 400 + 1) / 1000}8765432" for i in range(tokens)]
        rendered = f'"token_logprobs":[{",".join(values)}]'
        if not self._is_verbose:
            return f'{{"text_offset":[],{rendered},"tokens":[],"top_logprobs":[]}}'
        words = [f"tk{i % 97:02d}" for i in range(tokens)]
        offsets = ",".join(str(i * CHARACTERS_A_TOKEN) for i in range(tokens))
        tops = ",".join(f'{{"{word}":{value}}}' for word, value in zip(words, values, strict=True))
        names = ",".join(f'"{word}"' for word in words)
        return f'{{"text_offset":[{offsets}],{rendered},"tokens":[{names}],"top_logprobs":[{tops}]}}'


def scored(text: str, tag: str) -> bytes:
    """What a process reward model says of a text: two classes at each tag, as JSON, from what stands before it."""
    rows, state = [], 0
    for part in text.split(tag)[:-1]:
        state = zlib.crc32(part.encode("utf-8", "surrogatepass"), state)
        good = (state % 1000 + 0.5) / 1000
        rows.append(f"[{1 - good:.4f},{good:.4f}]")
    return f"[{','.join(rows)}]".encode()


def _answer(prompt_hash: int, bits: int) -> int:
    return prompt_hash % 1000 + _ANSWER_OFFSETS[bits >> 12 & 63]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _solution(characters: int) -> tuple[str, str]:
    """Beginning and end of a solution of about this length; the seed goes between, the answer after."""
    head = "Let $x$ be the number that is asked for; this is attempt number "
    tail = ".\n\n"
    step = 0
    while len(head) + len(tail) < characters - 60:
        step += 1
        tail += f"Step {step}: both sides change by {step * 7}, which keeps $x + {step * 3} = y$.\n\n"
    return head, tail + "Hence the final answer is $"
