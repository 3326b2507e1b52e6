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
    """A ModelSpec from the contents of a config.json; `where` names the file in errors.

    Raises SpecError for unknown architectures, wrong numbers, and for whatever the engines
    would not compute as the config says: a model half understood trains to nonsense.
    """
    found = config.get("architectures")
    architecture = str(found[0]) if isinstance(found, list) and found else "missing"
    family = FAMILIES.get(architecture)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise SpecError(f"{where}: architecture {architecture!r} is not known; known: {known}")
    facts = _Facts(where, config)
    _refuse_variants(facts)
    return _from_family(architecture, family, facts)


def _from_family(architecture: str, family: Family, facts: _Facts) -> ModelSpec:
    hidden, heads = facts.count("hidden_size"), facts.count("num_attention_heads")
    kv_heads = facts.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise facts.wrong("num_key_value_heads", f"a divisor of {heads} heads")
    return ModelSpec(
        architecture=architecture,
        hidden_size=hidden,
        intermediate_size=facts.count("intermediate_size"),
        layer_count=facts.count("num_hidden_layers"),
        head_count=heads,
        kv_head_count=kv_heads,
        head_size=facts.count("head_dim", hidden // heads),
        vocab_size=facts.count("vocab_size"),
        tied_embeddings=bool(facts.data.get("tie_word_embeddings", False)),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        rope_theta=facts.rope.rate("rope_theta", 10000.0),
        norm_epsilon=facts.rate("rms_norm_eps", 1e-6),
        max_positions=facts.count("max_position_embeddings"),
    )


def _refuse_variants(facts: _Facts) -> None:
    """SpecError for switches of the known families that no engine here implements."""
    rope = facts.rope.data
    windowed = facts.data.get("sliding_window") and facts.data.get("use_sliding_window", True)
    window = facts.count("sliding_window") if windowed else facts.count("max_position_embeddings")
    refused = (
        ("hidden_act", facts.data.get("hidden_act", "silu") not in ("silu", "swish"), "silu"),
        ("mlp_bias", bool(facts.data.get("mlp_bias")), "false"),
        ("attention_bias", bool(facts.data.get("attention_bias")), "false"),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")) != "default", "default"),
        ("sliding_window", window < facts.count("max_position_embeddings"), "null"),
    )
    for name, wrong, known in refused:
        if wrong:
            raise SpecError(f"{facts.where}: {name}: this variant is not supported; known: {known}")


@dataclass(frozen=True, slots=True)
class _Facts:
    """The numbers of a config.json, or an error that names the file and the key."""

    where: str
    data: dict[str, Any]

    @property
    def rope(self) -> _Facts:
        """Where the rotary embedding is described; transformers has moved it twice."""
        inner = self.data.get("rope_parameters") or self.data.get("rope_scaling")
        return _Facts(self.where, {**self.data, **inner} if isinstance(inner, dict) else self.data)

    def count(self, key: str, otherwise: int | None = None) -> int:
        """A positive whole number; `otherwise` when the key is missing or null."""
        value = self._get(key, otherwise)
        if type(value) is not int or value < 1:
            raise self.wrong(key, "a positive whole number")
        return value

    def rate(self, key: str, otherwise: float) -> float:
        """A positive number; `otherwise` when the key is missing or null."""
        value = self._get(key, otherwise)
        if type(value) not in (int, float) or value <= 0:
            raise self.wrong(key, "a positive number")
        return float(value)

    def wrong(self, key: str, expected: str) -> SpecError:
        return SpecError(f"{self.where}: {key}: expected {expected}, got {self.data.get(key)!r}")

    def _get(self, key: str, otherwise: float | None) -> Any:
        value = self.data.get(key)
        if value is None and otherwise is None:
            raise SpecError(f"{self.where}: {key}: missing")
        return otherwise if value is None else value
