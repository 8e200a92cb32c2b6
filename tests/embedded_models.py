"""Random Llama folders and a plain reference decoder, for the tests of the embedded engine.

The reference recomputes everything for every token, in double precision, straight from the tensors; it shares
no code with the engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models

Doubles = NDArray[np.float64]

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
SHIPPED = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 5, "head_dim": 64}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
END = 1
TAG = "<|step|>"


def write_model(
    folder: Path,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 256,
    role: str | None = None,
    is_half: bool = False,
    **sizes: Any,
) -> Path:
    """Write a folder with random weights; `sizes` override TINY and may add any field of config.json.

    `role` (prm or orm) makes it a reward model, whose tokenizer has one token more: the tag. `is_half` stores
    float16.
    """
    config = {
        "model_type": "llama",
        **TINY,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "eos_token_id": END,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        **sizes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(has_tag=role is not None)
    config["vocab_size"] = tokenizer.get_vocab_size()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    weights = _weights(config)
    if is_half:
        weights = {name: tensor.astype(np.float16) for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors")
    if role is not None:
        settings = {"role": role, "tag": TAG, "labels": ["+", "-"]}
        (folder / "reward.json").write_text(json.dumps(settings))
    return folder


def build_tokenizer(*, has_tag: bool = False) -> Tokenizer:
    """Single characters, the blank line as one token, the specials pad, end and unknown, and perhaps the tag."""
    specials = ("<pad>", "<end>", "<unk>")
    characters = ("\n", *(chr(code) for code in range(32, 127)))
    vocabulary = {token: index for index, token in enumerate((*specials, *characters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=False))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    if has_tag:
        tokenizer.add_special_tokens([AddedToken(TAG, normalized=False, special=True)])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _weights(config: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Draw weights large enough that distributions are neither flat nor one-hot, and norms that are not 1."""
    random = np.random.default_rng(7)
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)

    def norm() -> NDArray[np.float32]:
        return random.uniform(0.5, 1.5, hidden).astype(np.float32)

    embedding = matrix(config["vocab_size"], hidden) * 2
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm()}
    for index in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{index}."
        tensors |= {
            prefix + "input_layernorm.weight": norm(),
            prefix + "post_attention_layernorm.weight": norm(),
            prefix + "self_attn.q_proj.weight": matrix(queries, hidden) * 2,
            prefix + "self_attn.k_proj.weight": matrix(keys, hidden) * 2,
            prefix + "self_attn.v_proj.weight": matrix(keys, hidden),
            prefix + "self_attn.o_proj.weight": matrix(hidden, queries),
            prefix + "mlp.gate_proj.weight": matrix(inner, hidden),
            prefix + "mlp.up_proj.weight": matrix(inner, hidden),
            prefix + "mlp.down_proj.weight": matrix(hidden, inner),
        }
    return tensors


class Reference:
    """Llama as in the papers: no cache, no batching, no fusing, float64."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {n: t.astype(np.float64) for n, t in load_file(folder / "model.safetensors").items()}

    def logits(self, tokens: list[int]) -> Doubles:
        """Logits after every token, (tokens, vocabulary)."""
        x = self.tensors["model.embed_tokens.weight"][tokens]
        for index in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{index}."
            x = x + self._attention(prefix, self._norm(prefix + "input_layernorm", x))
            h = self._norm(prefix + "post_attention_layernorm", x)
            gate = self._linear(prefix + "mlp.gate_proj", h)
            silu = gate / (1 + np.exp(-gate))
            x = x + self._linear(prefix + "mlp.down_proj", silu * self._linear(prefix + "mlp.up_proj", h))
        return self._norm("model.norm", x) @ self.tensors["model.embed_tokens.weight"].T

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        """The `count` most likely tokens one after another."""
        tokens = list(tokens)
        for _ in range(count):
            tokens.append(int(self.logits(tokens)[-1].argmax()))
        return tokens[-count:]

    def log_probs(self, tokens: list[int]) -> Doubles:
        """Log-softmax of the logits after every token."""
        logits = self.logits(tokens)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def margins(self, tokens: list[int], tag: int, good: int, bad: int) -> list[float]:
        """The difference of the logits of two labels after every tag."""
        logits = self.logits(tokens)
        return [
            float(row[good] - row[bad]) for token, row in zip(tokens, logits, strict=True) if token == tag
        ]

    def _attention(self, prefix: str, h: Doubles) -> Doubles:
        count, width = len(h), self.config["head_dim"]
        q, k, v = (
            self._linear(f"{prefix}self_attn.{name}_proj", h).reshape(count, -1, width).swapaxes(0, 1)
            for name in "qkv"
        )
        q, k = self._turn(q), self._turn(k)
        share = len(q) // len(k)
        mixed = []
        for head in range(len(q)):
            scores = q[head] @ k[head // share].T / np.sqrt(width)
            scores[np.triu_indices(count, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v[head // share])
        return self._linear(prefix + "self_attn.o_proj", np.concatenate(mixed, axis=-1))

    def _turn(self, x: Doubles) -> Doubles:
        width = x.shape[-1]
        rope = self.config.get("rope_parameters") or self.config
        angles = np.arange(x.shape[1])[:, None] * rope["rope_theta"] ** (-np.arange(0, width, 2) / width)
        angles = np.concatenate([angles, angles], axis=-1)
        swapped = np.concatenate([-x[..., width // 2 :], x[..., : width // 2]], axis=-1)
        return x * np.cos(angles) + swapped * np.sin(angles)

    def _norm(self, name: str, x: Doubles) -> Doubles:
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        scaled: Doubles = x / scale * self.tensors[name + ".weight"]
        return scaled

    def _linear(self, name: str, x: Doubles) -> Doubles:
        result: Doubles = x @ self.tensors[name + ".weight"].T
        return result
