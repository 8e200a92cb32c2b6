"""A Llama-shaped decoder in plain torch, saved in the Hugging Face layout that any Llama server reads.

Why written out: one readable page that another implementation (NumPy, vLLM) can be compared with name by
name. It must not know the task, the tokenizer's text or the training schedule.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (batch, heads, tokens, head_dim)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network, under the names that Hugging Face's config.json gives them."""

    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 5
    num_attention_heads: int = 2
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


class Attention(nn.Module):
    """Causal self-attention with rotary positions; `num_key_value_heads` equals `num_attention_heads`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.num_attention_heads * shape.head_dim
        self.heads, self.head_dim = shape.num_attention_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, width, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden_size, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map (batch, tokens, hidden) to the same shape; also give the keys and values seen so far."""
        query = rotate(self._split(self.q_proj(x)), angles)
        key = rotate(self._split(self.k_proj(x)), angles)
        value = self._split(self.v_proj(x))
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        is_causal = past is None and mask is None
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=is_causal
        )
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return joined, key, value

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)


class Mlp(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., hidden) to (..., hidden)."""
        result: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class Layer(nn.Module):
    """One decoder layer: attention, then SwiGLU, each after RMSNorm and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map (batch, tokens, hidden) to the same shape; also give this layer's keys and values."""
        mixed, key, value = self.self_attn(self.input_layernorm(x), angles, past, mask)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


class Decoder(nn.Module):
    """The whole model; input and output embeddings are the same matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.apply(_initialise)

    def forward(self, tokens: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Map ids (batch, tokens) to hidden states (batch, tokens, hidden) and the next call's cache."""
        start = 0 if past is None else past[0][0].shape[2]
        angles = rotation(self.shape, start, tokens.shape[1])
        x = self.embed_tokens(tokens)
        cache: Cache = []
        for index, layer in enumerate(self.layers):
            x, key, value = layer(x, angles, None if past is None else past[index])
            cache.append((key, value))
        return self.norm(x), cache

    def branches(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Map texts that share beginnings, laid out as trees, to hidden states (batch, tokens, hidden).

        `positions` (batch, tokens) counts from the root, and `mask` (batch, 1, tokens, tokens) is true where the
        second token lies on the way from the root to the first, itself included.
        """
        cosine, sine = rotation(self.shape, 0, int(positions.max()) + 1)
        angles = cosine[positions][:, None], sine[positions][:, None]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x, _, _ = layer(x, angles, None, mask)
        normal: Tensor = self.norm(x)
        return normal

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., hidden) to logits (..., vocabulary)."""
        return functional.linear(hidden, self.embed_tokens.weight)


def rotation(shape: Shape, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Give cosine and sine (tokens, head_dim) for positions start..start+count-1 (RoPE, Su et al. 2021)."""
    exponents = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    angles = torch.arange(start, start + count).float()[:, None] * shape.rope_theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first half of each head against the second half, as Hugging Face's Llama does."""
    first, second = x.chunk(2, dim=-1)
    return x * angles[0] + torch.cat((-second, first), dim=-1) * angles[1]


def save(model: Decoder, directory: Path, *, pad: int, end: int, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json, generation_config.json and model.safetensors (Hugging Face names)."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # it is written for its owner alone
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": str(dtype).removeprefix("torch."),
        **asdict(model.shape),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "use_cache": True,
    }
    _write_json(directory / "config.json", config)
    generation = {"do_sample": True, "temperature": 1.0, "eos_token_id": end, "pad_token_id": pad}
    _write_json(directory / "generation_config.json", generation)


def load(directory: Path) -> Decoder:
    """Read a model that `save` wrote, as float32."""
    model = Decoder(shape_of(directory))
    weights = load_file(directory / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
    return model


def shape_of(directory: Path) -> Shape:
    """Read the sizes of a model that `save` wrote."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return Shape(**{name: config[name] for name in Shape.__slots__})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _initialise(module: nn.Module) -> None:
    """Draw every matrix from a normal distribution of standard deviation 0.02."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
