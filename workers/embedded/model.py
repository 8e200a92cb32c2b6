"""A Llama decoder in NumPy whose result for a row never depends on the other rows of the batch.

Every matrix product runs on blocks of one fixed number of rows, so BLAS sees one shape however many sequences
are running (`blas.py`), and every reduction is over the last axis; a row therefore goes through the same
instructions whatever it is batched with. Attention is handed in by the caller (`attention.py`). This module knows
weights and arithmetic; it must not know sequences, slots, sampling or text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from workers.embedded.blas import Floats, product, uniform_block

Ints = NDArray[np.int64]
Attend = Callable[[int, Floats, Floats, Floats], Floats]
"""(layer, query (rows, heads, dim), key, value (rows, kv_heads, dim)) -> (rows, heads * dim)."""


class UnsupportedModelError(ValueError):
    """The folder does not hold a Llama checkpoint that this engine can run."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json says about the network, under shorter names; `context` is in tokens."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rope_theta: float
    rms_norm_eps: float
    end_ids: tuple[int, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read Hugging Face's config.json. Raises UnsupportedModelError for anything beyond plain Llama."""
        _refuse_variants(config)
        heads = config["num_attention_heads"]
        return cls(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            context=config["max_position_embeddings"],
            rope_theta=float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10000.0),
            rms_norm_eps=config.get("rms_norm_eps", 1e-6),
            end_ids=_ids(config.get("eos_token_id")),
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """Matrices of one layer as (inputs, outputs); each norm's weight is folded into the matrix after it."""

    qkv: Floats
    attention_out: Floats
    gate_up: Floats
    down: Floats


class Model:
    """Weights and the dense part of the forward pass."""

    def __init__(self, architecture: Architecture, tensors: Mapping[str, Floats]) -> None:
        self.architecture = architecture
        self._embedding = tensors["model.embed_tokens.weight"]
        head = tensors.get("lm_head.weight", self._embedding)
        self._head = _folded(tensors["model.norm.weight"], head)
        self._layers = [_layer(architecture, tensors, index) for index in range(architecture.layers)]
        self._cos, self._sin = _rotation(architecture)
        self.block = uniform_block([*self._matrices(), self._head])
        """Rows come in multiples of this number."""

    @property
    def parameters(self) -> int:
        """Number of weights, norms not counted."""
        return self._embedding.size + sum(matrix.size for matrix in self._matrices())

    def forward(self, tokens: Ints, positions: Ints, attend: Attend, kept: Ints | None = None) -> Floats:
        """Map token ids at positions, (rows,) each, to normalised hidden states (rows, hidden).

        `rows` must be a multiple of `block`; what the caller pads with does not matter. With `kept`, a multiple of
        `block` too, the last layer mixes those rows only, `attend` gives them alone, and so does the result.
        """
        x = self._embedding[tokens]
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        for index, layer in enumerate(self._layers):
            query, key, value = self._heads(self._times(self._normal(x), layer.qkv), cos, sin)
            mixed = attend(index, query, key, value)
            if kept is not None and index == len(self._layers) - 1:
                x = x[kept]
            x += self._times(mixed, layer.attention_out)
            x += self._times(_swiglu(self._times(self._normal(x), layer.gate_up)), layer.down)
        return self._normal(x)

    def logits(self, hidden: Floats) -> Floats:
        """Map normalised hidden states (rows, hidden) to logits (rows, vocabulary); any number of rows."""
        rows = len(hidden)
        padded = np.zeros((self.padded(rows), hidden.shape[1]), np.float32)
        padded[:rows] = hidden
        return self._times(padded, self._head)[:rows]

    def padded(self, rows: int) -> int:
        """Round a number of rows up to whole blocks."""
        return -(-rows // self.block) * self.block

    def _times(self, x: Floats, weight: Floats) -> Floats:
        return product(x, weight, self.block)

    def _matrices(self) -> Iterator[Floats]:
        for layer in self._layers:
            yield from (layer.qkv, layer.attention_out, layer.gate_up, layer.down)

    def _normal(self, x: Floats) -> Floats:
        """RMSNorm without its weight (Zhang and Sennrich 2019)."""
        mean_square = np.vecdot(x, x) / np.float32(x.shape[1])
        scale: Floats = 1 / np.sqrt(mean_square + np.float32(self.architecture.rms_norm_eps))
        return x * scale[:, None]

    def _heads(self, qkv: Floats, cos: Floats, sin: Floats) -> tuple[Floats, Floats, Floats]:
        """Split into heads and turn queries and keys by their positions."""
        shape = self.architecture
        heads = qkv.reshape(len(qkv), -1, shape.head_dim)
        turned = shape.heads + shape.kv_heads
        _rotate(heads[:, :turned], cos, sin)
        return heads[:, : shape.heads], heads[:, shape.heads : turned], heads[:, turned:]


def load(folder: Path) -> Model:
    """Read config.json and the safetensors files of a Hugging Face folder.

    Raises UnsupportedModelError with the reason when the folder is not one, or holds something other than
    Llama.
    """
    config = json.loads(_existing(folder / "config.json").read_text(encoding="utf-8"))
    architecture = Architecture.from_config(config)
    paths = sorted(folder.glob("*.safetensors")) or [_existing(folder / "model.safetensors")]
    tensors = {name: np.asarray(t, np.float32) for path in paths for name, t in load_file(path).items()}
    try:
        return Model(architecture, tensors)
    except KeyError as error:
        raise UnsupportedModelError(f"{folder}: the checkpoint has no tensor {error}") from error


def _swiglu(gate_up: Floats) -> Floats:
    """Map (rows, 2 * intermediate) to silu(gate) * up, (rows, intermediate) (Shazeer 2020)."""
    half = gate_up.shape[1] // 2
    gate, up = gate_up[:, :half], gate_up[:, half:]
    # exp overflows to infinity for gate < -88, and gate / infinity is the right limit: -0
    with np.errstate(over="ignore"):
        denominator: Floats = np.exp(-gate)
    denominator += 1
    np.divide(gate, denominator, out=denominator)
    denominator *= up
    return denominator


def _rotate(heads: Floats, cos: Floats, sin: Floats) -> None:
    """Turn the first half of each head against the second, in place (RoPE, Su et al. 2021, HF's layout)."""
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    turned = first * cos - second * sin
    second *= cos
    second += first * sin
    first[...] = turned


def _rotation(shape: Architecture) -> tuple[Floats, Floats]:
    """Give cosine and sine, (context, head_dim / 2) each."""
    frequencies = shape.rope_theta ** (-np.arange(0, shape.head_dim, 2, dtype=np.float32) / shape.head_dim)
    angles = np.arange(shape.context, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _layer(shape: Architecture, tensors: Mapping[str, Floats], index: int) -> Layer:
    """Fuse the matrices that share an input; 1/sqrt(head_dim) of the scores goes into the queries."""
    prefix = f"model.layers.{index}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    query = tensors[attention + "q_proj.weight"] * np.float32(shape.head_dim**-0.5)
    qkv = np.concatenate([query, tensors[attention + "k_proj.weight"], tensors[attention + "v_proj.weight"]])
    gate_up = np.concatenate([tensors[mlp + "gate_proj.weight"], tensors[mlp + "up_proj.weight"]])
    return Layer(
        qkv=_folded(tensors[prefix + "input_layernorm.weight"], qkv),
        attention_out=np.ascontiguousarray(tensors[attention + "o_proj.weight"].T),
        gate_up=_folded(tensors[prefix + "post_attention_layernorm.weight"], gate_up),
        down=np.ascontiguousarray(tensors[mlp + "down_proj.weight"].T),
    )


def _folded(norm: Floats, weight: Floats) -> Floats:
    """Turn (outputs, inputs) into (inputs, outputs) with the weight of the norm before it multiplied in."""
    return np.ascontiguousarray((weight * norm).T)


def _refuse_variants(config: Mapping[str, Any]) -> None:
    if config.get("model_type") != "llama":
        raise UnsupportedModelError(
            f"model_type is {config.get('model_type')!r}, this engine runs 'llama' only"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError(f"hidden_act is {config['hidden_act']!r}, wanted 'silu'")
    biased = [name for name in ("attention_bias", "mlp_bias") if config.get(name)]
    if biased:
        raise UnsupportedModelError(f"{biased[0]} is set: biases are not supported")
    kind = _rope(config).get("rope_type") or _rope(config).get("type") or "default"
    if kind != "default":
        raise UnsupportedModelError(f"rope_type is {kind!r}, wanted 'default'")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the rope settings under their newer (`rope_parameters`) or older (`rope_scaling`) name."""
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UnsupportedModelError(f"no file {path}")
    return path
