"""How a server can be used for a scorer: which call gives sound scores, and the token ids that the format needs.

A 404 tells that a call is not offered; a 200 proves nothing, so a call counts only once it gave a sound score for
every step of a sample.
"""

from __future__ import annotations

from workers.errors import Misconfigured, Rejected
from workers.rewards.contract import BrokenContract
from workers.rewards.formats import ValueFormat
from workers.rewards.meter import Meter
from workers.rewards.records import RewardCapabilities, Solution
from workers.rewards.scoring import ValueScoring
from workers.rewards.setting import Setting
from workers.rewards.tokens import TokenCache, Tokens
from workers.types import ScorerSettings, Transport

PROBLEM = "Compute $3 \\cdot 4 - 2$."
RIGHT = Solution(
    (
        "First, $3 \\cdot 4 = 12$, which leaves $12 - 2$.\n\n",
        "Next, $12 - 2 = 10$.\n\n",
        "The answer is $\\boxed{10}$.",
    ),
    "10",
)
"""A right solution of three steps."""
WRONG = Solution(
    ("First, $3 \\cdot 4 = 7$, which leaves $7 - 2$.\n\n", "The answer is $\\boxed{5}$."),
    "5",
)
"""A wrong solution of two steps."""
_UNAUTHORIZED = (401, 403)


async def learn(
    meter: Meter,
    scorer: ScorerSettings,
    value_format: ValueFormat,
    cache: TokenCache,
    *,
    must_try: bool = False,
) -> RewardCapabilities:
    """The first call of the format that the server serves soundly, and the ids it needs.

    Where only one call is possible, it is tried if `must_try`. Raises `Misconfigured`, with what was found for each
    call, if none does, and other `EndpointError`s where the server could not be asked.
    """
    candidates = _candidates(scorer, value_format)
    found = []
    for transport in candidates:
        try:
            learnt = await _learnt(meter, scorer, value_format, transport, cache)
            if must_try or len(candidates) > 1:
                scoring = ValueScoring(meter, scorer, value_format, learnt, PROBLEM, cache)
                await scoring.values([WRONG.steps])
        except (Rejected, BrokenContract) as error:
            if error.status in _UNAUTHORIZED:
                raise
            found.append(f"{transport}: {error}")
        else:
            return learnt
    told = "; ".join(found)
    raise Misconfigured(f"{scorer.model} cannot be used in the format {scorer.format} here ({told})")


def _candidates(scorer: ScorerSettings, value_format: ValueFormat) -> tuple[Transport, ...]:
    wanted = scorer.options.transport
    if wanted is Transport.AUTO:
        return value_format.transports
    if wanted not in value_format.transports:
        known = ", ".join(value_format.transports)
        raise Misconfigured(f"the format {scorer.format} is not served by {wanted} (available: {known})")
    return (wanted,)


async def _learnt(
    meter: Meter,
    scorer: ScorerSettings,
    value_format: ValueFormat,
    transport: Transport,
    cache: TokenCache,
) -> RewardCapabilities:
    tokens = Tokens(meter, scorer.model, scorer.endpoint, cache)
    vocabulary = await value_format.learn(Setting(scorer.options, transport, tokens))
    return RewardCapabilities(transport, vocabulary, tokens.max_model_len)
