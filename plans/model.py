"""ModelSpec: a language model's numbers, from its Hugging Face `config.json` alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plans.source import SpecError, read_json

VOCABULARY_PADDING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What an architecture fixes beyond the numbers in its config."""

    qkv_bias: bool = False
    qk_norm: bool = False


FAMILIES = {
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(),
    "Qwen2ForCausalLM": Family(qkv_bias=True),
    "Qwen3ForCausalLM": Family(qk_norm=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A Hugging Face tensor: its shape, and the dim tensor parallelism cuts (None: replicated)."""

    name: str
    shape: tuple[int, ...]
    shard_dim: int | None
    layer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A dense decoder-only transformer of the Llama family."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_size: int
    vocab_size: int
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    rope_theta: float
    norm_epsilon: float
    max_positions: int

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as both engines hold it: vLLM pads to a multiple of 64."""
        return -(-self.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING

    @property
    def queries_per_kv_head(self) -> int:
        return self.head_count // self.kv_head_count

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the model under its Hugging Face name, in file order."""
        return (*self._outer("model.embed_tokens.weight"), *self._layers(), *self._last())

    @property
    def parameter_count(self) -> int:
        tables = 1 if self.tied_embeddings else 2
        outside = tables * self.vocab_size * self.hidden_size + self.hidden_size
        return self.layer_count * self.layer_parameters() + outside

    @property
    def qkv_parameters(self) -> int:
        """Parameters of one layer's q, k and v projections; all cut by tensor parallelism."""
        width = (self.head_count + 2 * self.kv_head_count) * self.head_size
        return width * (self.hidden_size + self.qkv_bias)

    @property
    def layer_matrix_parameters(self) -> int:
        """Parameters of one layer's matrices: two FLOPs each and token in a forward pass."""
        width = (2 * self.head_count + 2 * self.kv_head_count) * self.head_size
        return self.hidden_size * (width + 3 * self.intermediate_size)

    def layer_parameters(self, tp: int = 1) -> int:
        """Parameters of one layer on one of `tp` ranks; norms are whole on each."""
        biases = (self.head_count + 2 * self.kv_head_count) * self.head_size * self.qkv_bias
        norms = 2 * self.hidden_size + 2 * self.head_size * self.qk_norm
        return (self.layer_matrix_parameters + biases) // tp + norms

    def _outer(self, name: str) -> tuple[Tensor, ...]:
        return (Tensor(name=name, shape=(self.vocab_size, self.hidden_size), shard_dim=0),)

    def _last(self) -> tuple[Tensor, ...]:
        norm = Tensor(name="model.norm.weight", shape=(self.hidden_size,), shard_dim=None)
        return (norm,) if self.tied_embeddings else (norm, *self._outer("lm_head.weight"))

    def _layers(self) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(name=f"model.layers.{layer}.{name}", shape=shape, shard_dim=dim, layer=layer)
            for layer in range(self.layer_count)
            for name, shape, dim in self._layer()
        )

    def _layer(self) -> list[tuple[str, tuple[int, ...], int | None]]:
        hidden, inner = self.hidden_size, self.intermediate_size
        q, kv = self.head_count * self.head_size, self.kv_head_count * self.head_size
        rows: list[tuple[str, tuple[int, ...], int | None]] = [
            ("input_layernorm.weight", (hidden,), None)
        ]
        for name, width in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
            rows.append((f"self_attn.{name}.weight", (width, hidden), 0))
            if self.qkv_bias:
                rows.append((f"self_attn.{name}.bias", (width,), 0))
        if self.qk_norm:
            rows += [(f"self_attn.{n}_norm.weight", (self.head_size,), None) for n in "qk"]
        return [
            *rows,
            ("self_attn.o_proj.weight", (hidden, q), 1),
            ("post_attention_layernorm.weight", (hidden,), None),
            ("mlp.gate_proj.weight", (inner, hidden), 0),
            ("mlp.up_proj.weight", (inner, hidden), 0),
            ("mlp.down_proj.weight", (hidden, inner), 1),
        ]


def read_model(folder: Path) -> ModelSpec:
    """The model in a folder; SpecError when its config.json is missing or not understood."""
    return from_config(read_json(folder / "config.json"), str(folder / "config.json"))


def from_config(config: dict[str, Any], where: str) -> ModelSpec:
    """A ModelSpec from the contents of a config.json; `where` names the file in errors."""
    architecture = str((config.get("architectures") or ["missing"])[0])
    family = FAMILIES.get(architecture)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise SpecError(f"{where}: architecture {architecture!r} is not known; known: {known}")
    try:
        return _from_family(architecture, family, config)
    except KeyError as error:
        raise SpecError(f"{where}: {error.args[0]}: missing") from None


def _from_family(architecture: str, family: Family, config: dict[str, Any]) -> ModelSpec:
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or config
    return ModelSpec(
        architecture=architecture,
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        layer_count=int(config["num_hidden_layers"]),
        head_count=heads,
        kv_head_count=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocab_size=int(config["vocab_size"]),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bool(config.get("attention_bias", family.qkv_bias)),
        qk_norm=family.qk_norm,
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        max_positions=int(config["max_position_embeddings"]),
    )
