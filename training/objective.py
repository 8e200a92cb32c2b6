"""What a reward model is trained for: margins at tags, and the two losses that keep the policy's knowledge in it.

Knows the network and batches; it must not know the optimiser, files or the command line.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training import model as network
from training.batching import Batch


def states(model: network.Decoder, batch: Batch, *, is_reduced_precision: bool) -> Tensor:
    """Give hidden states (batch, tokens, hidden)."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_reduced_precision):
        return model.branches(batch.tokens, batch.positions, batch.mask).float()


def margins(model: network.Decoder, hidden: Tensor, batch: Batch, ids: tuple[int, int]) -> Tensor:
    """Give l+ - l- after each tag, (labels,), in nats."""
    return _margins(model, hidden[batch.rows, batch.places], ids)


def _margins(model: network.Decoder, hidden: Tensor, ids: tuple[int, int]) -> Tensor:
    good, bad = model.embed_tokens.weight[ids[0]], model.embed_tokens.weight[ids[1]]
    return functional.linear(hidden, (good - bad)[None])[:, 0]


def policy_losses(
    model: network.Decoder, hidden: Tensor, batch: Batch, ids: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Give two losses over the tokens that the policy wrote, each beginning once, in nats a token.

    The first is the policy's own: cross-entropy of the next token. The second asks the labels, after every token
    instead of after tags alone, how likely that token was: a wrong digit is an unlikely one more often than not, labels
    after a step are few and noisy, and what a judge needs first is to see where the writer strayed. Nothing but the
    policy teaches it. Where nearly every token is a likely one, how sure the policy was answers most of the question
    without a look at the token; so it is asked of rivals too, digits that were not written in places where others were.
    """
    log_chances, guesses = _asked(model, hidden, batch, batch.edges, ids)
    rival_chances, rival_guesses = _asked(model, hidden, batch, batch.rivals, ids)
    chances = torch.cat((log_chances, rival_chances)).detach().exp()
    surprise = functional.binary_cross_entropy_with_logits(torch.cat((guesses, rival_guesses)), chances)
    return -log_chances.mean(), surprise


def _asked(
    model: network.Decoder, hidden: Tensor, batch: Batch, edges: Tensor, ids: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Give the log-probability of the token of each edge, and the margin after it: (edges,) each."""
    rows, before, nodes = edges.T
    log_chances = functional.log_softmax(model.logits(hidden[rows, before]), dim=-1)
    chosen = log_chances.gather(-1, batch.tokens[rows, nodes][:, None])[:, 0]
    return chosen, _margins(model, hidden[rows, nodes], ids)
