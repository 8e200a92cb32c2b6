"""A policy server on loopback that writes solutions step by step, as a function of prompt and seed. For tests only.

It answers `/v1/completions` with one step where the separator is among the stop strings, and goes on from whatever a
prompt ends with. It counts what it serves, so that a test can tell what was paid twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import Any

from aiohttp import web

from tests.loopback import Loopback

STEPS = 3
"""Steps before the answer, at most."""
SEPARATOR = "\n\n"


def digest(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def continuation(prompt: str, seed: int, *, is_greedy: bool) -> list[str]:
    """The steps that follow a prompt; the number of steps so far is that of the separators after the statement."""
    key = (prompt, 0 if is_greedy else seed)
    depth = prompt.count(SEPARATOR) - 1
    steps: list[str] = []
    while depth + len(steps) < STEPS and digest(*key, len(steps)) % 8:
        steps.append(f"Take {digest(*key, len(steps), 'step') % 5}.")
    return [*steps, f"The answer is \\boxed{{{digest(*key, 'answer') % 4}}}."]


class StepServer(Loopback):
    """Async context manager; `url` ends in `/v1`."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.served: Counter[tuple[str, int, bool, bool]] = Counter()
        """Texts handed out by (prompt, seed, greedily, one step only)."""
        self.requests = 0
        self.in_flight = 0

    def is_idle(self) -> bool:
        """Nothing is being answered: what a client that was killed had asked for is done with, too."""
        return self.in_flight == 0

    def app(self) -> web.Application:
        """Routes and handlers."""
        app = web.Application()
        app.router.add_get("/v1/models", self._on_models)
        app.router.add_post("/v1/completions", self._on_completions)
        return app

    async def _on_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "stub", "max_model_len": 4096}]})

    async def _on_completions(self, request: web.Request) -> web.Response:
        payload = await request.json()
        self.requests += 1
        self.in_flight += 1
        try:
            await asyncio.sleep(self.delay_s * (1 + digest(payload["seed"]) % 3))
        finally:
            self.in_flight -= 1
        choices = [self._choice(payload, index) for index in range(payload["n"])]
        tokens = sum(len(choice["text"]) for choice in choices)
        usage = {"prompt_tokens": len(payload["prompt"]), "completion_tokens": tokens}
        return web.json_response({"choices": choices, "usage": usage})

    def _choice(self, payload: dict[str, Any], index: int) -> dict[str, Any]:
        prompt, seed = payload["prompt"], payload["seed"] + index
        is_greedy = payload["temperature"] == 0
        is_stepwise = SEPARATOR in payload.get("stop", ())
        self.served[prompt, seed, is_greedy, is_stepwise] += 1
        steps = continuation(prompt, seed, is_greedy=is_greedy)
        text = steps[0] if is_stepwise else SEPARATOR.join(steps)
        stop_reason = SEPARATOR if is_stepwise and len(steps) > 1 else None
        ids = list(range(len(text)))
        logprobs = {"token_logprobs": [-0.25] * len(text)}
        return {
            "index": index, "text": text, "finish_reason": "stop", "stop_reason": stop_reason, "token_ids": ids,
            "logprobs": logprobs,
        }  # fmt: skip
