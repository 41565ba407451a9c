"""What the course's small models are: their sizes, and a plain module to train them in.

Nothing here imports TransformerLens, so training and checkpoints start fast. `models.build_model` turns the
same weights into a model with hooks.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

SIZES = ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab", "d_vocab_out")


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of an attention-only transformer, and the few choices that differ between challenges.

    `normalization` is "LN" or None. `attention_biases=False` means that W_Q, W_K, W_V and W_O have no biases
    at all; it needs `normalization=None`, because folding a LayerNorm's bias would create them again.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_ctx: int
    d_vocab: int
    d_vocab_out: int
    normalization: Literal["LN"] | None = "LN"
    attention_biases: bool = True
    unembed_bias: bool = True
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _require_valid(asdict(self))
        if not 0 < self.eps < 1:
            raise ValueError(f"ModelConfig.eps must be between 0 and 1; got {self.eps!r}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The config that a card stores. Unknown and missing keys are errors, so that no setting is lost."""
        # The cards of models with the usual epsilon do not name it.
        _require_keys(
            values, {field.name for field in fields(cls)} - ({"eps"} - values.keys()), "A model config"
        )
        _require_valid(values)
        return cls(**values)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by its name in the state dict."""
        return {name: tuple(weight.shape) for name, weight in PlainTransformer(self).state_dict().items()}


def _require_keys(values: Mapping[str, Any], names: set[str], what: str) -> None:
    unknown, missing = sorted(values.keys() - names), sorted(names - values.keys())
    if unknown or missing:
        raise ValueError(f"{what} needs exactly {sorted(names)}; unknown: {unknown}, missing: {missing}.")


def _require_valid(values: Mapping[str, Any]) -> None:
    for name in SIZES:
        if type(values[name]) is not int or values[name] < 1:
            raise ValueError(f"ModelConfig.{name} must be a positive integer; got {values[name]!r}.")
    if values["normalization"] not in ("LN", None):
        raise ValueError(f'ModelConfig.normalization must be "LN" or None; got {values["normalization"]!r}.')
    for name in ("attention_biases", "unembed_bias"):
        if type(values[name]) is not bool:
            raise ValueError(f"ModelConfig.{name} must be True or False; got {values[name]!r}.")
    if not values["attention_biases"] and values["normalization"] is not None:
        raise ValueError(
            "ModelConfig(attention_biases=False) needs normalization=None: folding a LayerNorm's bias into "
            "the attention creates the biases that the model should not have."
        )


@dataclass(frozen=True)
class QwenConfig:
    """The sizes of a Qwen2 model: RMSNorm, rotary positions, grouped-query attention with biases on queries, keys
    and values, SwiGLU, and one matrix that embeds and unembeds.

    `n_key_value_heads` divides `n_heads`: so many heads share the keys and values of one. `d_head` is even: rotary
    positions turn pairs of its dimensions.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    rope_theta: float
    eps: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"QwenConfig.{field.name} must be a positive integer; got {value!r}.")
            if field.type is float and (type(value) is not float or not 0 < value < float("inf")):
                raise ValueError(f"QwenConfig.{field.name} must be a positive float; got {value!r}.")
        if self.n_heads % self.n_key_value_heads or self.d_head % 2:
            raise ValueError(
                f"QwenConfig needs n_heads a multiple of n_key_value_heads, and an even d_head; got {self.n_heads}, "
                f"{self.n_key_value_heads} and {self.d_head}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "QwenConfig":
        """The config that a card stores. Unknown and missing keys are errors, so that no setting is lost."""
        _require_keys(values, {field.name for field in fields(cls)}, "A Qwen2 model's config")
        return cls(**values)

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any]) -> "QwenConfig":
        """The sizes in a `config.json` of `transformers`, as version 4 or 5 writes it.

        Raises ValueError where it is not a Qwen2 model of this kind, or a size is missing.
        """
        rope = values.get("rope_parameters") or {}
        wanted: dict[str, tuple[Any, Any]] = {  # what must be so, and what it is when nothing is said
            "model_type": ("qwen2", None),
            "hidden_act": ("silu", "silu"),
            "tie_word_embeddings": (True, False),
            "use_sliding_window": (False, False),
            "rope_scaling": (None, None),
            "quantization_config": (None, None),
            "auto_map": (None, None),
        }
        wrong = {
            name: values.get(name, default)
            for name, (value, default) in wanted.items()
            if values.get(name, default) != value
        }
        if rope.get("rope_type", "default") != "default":
            wrong["rope_type"] = rope["rope_type"]
        if wrong:
            raise ValueError(f"This is not a Qwen2 model of the kind that the course reads: {wrong}.")
        names = {
            "n_layers": "num_hidden_layers",
            "d_model": "hidden_size",
            "n_heads": "num_attention_heads",
            "n_key_value_heads": "num_key_value_heads",
            "d_mlp": "intermediate_size",
            "n_ctx": "max_position_embeddings",
            "d_vocab": "vocab_size",
        }
        missing = sorted(name for name in names.values() if type(values.get(name)) is not int)
        theta = rope.get("rope_theta", values.get("rope_theta"))
        eps = values.get("rms_norm_eps")
        if missing or not isinstance(theta, int | float) or not isinstance(eps, int | float):
            raise ValueError(f"A Qwen2 model's config.json needs {[*missing, 'rope_theta', 'rms_norm_eps']}.")
        sizes = {ours: values[theirs] for ours, theirs in names.items()}
        d_head = values.get("head_dim") or sizes["d_model"] // max(1, sizes["n_heads"])
        return cls(**sizes, d_head=d_head, rope_theta=float(theta), eps=float(eps))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by its name in the file. The unembedding is the embedding, and not in it."""
        keys = self.n_key_value_heads * self.d_head
        queries = self.n_heads * self.d_head
        block = {
            "input_layernorm.weight": (self.d_model,),
            "self_attn.q_proj.weight": (queries, self.d_model),
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.weight": (keys, self.d_model),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.weight": (keys, self.d_model),
            "self_attn.v_proj.bias": (keys,),
            "self_attn.o_proj.weight": (self.d_model, queries),
            "post_attention_layernorm.weight": (self.d_model,),
            "mlp.gate_proj.weight": (self.d_mlp, self.d_model),
            "mlp.up_proj.weight": (self.d_mlp, self.d_model),
            "mlp.down_proj.weight": (self.d_model, self.d_mlp),
        }
        return {
            "model.embed_tokens.weight": (self.d_vocab, self.d_model),
            **{
                f"model.layers.{layer}.{name}": shape
                for layer in range(self.n_layers)
                for name, shape in block.items()
            },
            "model.norm.weight": (self.d_model,),
        }


def misfits(config: ModelConfig | QwenConfig, weights: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the names and shapes of weights that should be a config's, one text each; empty if nothing is."""
    expected, found = config.shapes(), {name: tuple(weight.shape) for name, weight in weights.items()}
    return [
        f"{name}: expected {expected.get(name, 'no such weight')}, got {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bias = config.n_heads * config.d_head, config.attention_biases
        self.n_heads = config.n_heads
        self.q = nn.Linear(config.d_model, width, bias=bias)
        self.k = nn.Linear(config.d_model, width, bias=bias)
        self.v = nn.Linear(config.d_model, width, bias=bias)
        self.o = nn.Linear(width, config.d_model, bias=bias)

    def forward(
        self, resid: Float[Tensor, "batch position d_model"]
    ) -> Float[Tensor, "batch position d_model"]:
        q, k, v = (
            rearrange(
                linear(resid), "batch position (head d_head) -> batch head position d_head", head=self.n_heads
            )
            for linear in (self.q, self.k, self.v)
        )
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(rearrange(z, "batch head position d_head -> batch position (head d_head)"))


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.d_model, config.eps) if config.normalization else nn.Identity()
        self.attn = _Attention(config)

    def forward(
        self, resid: Float[Tensor, "batch position d_model"]
    ) -> Float[Tensor, "batch position d_model"]:
        return resid + self.attn(self.ln1(resid))


class PlainTransformer(nn.Module):
    """An attention-only transformer for training: no hooks, and about a third faster than the hooked one.

    Its state dict has the names that the hooked model has, so `build_model(config, plain.state_dict())` is
    the whole conversion. Weights are drawn on the CPU from `seed` alone: normal with standard deviation 0.8 /
    sqrt(d_model), biases 0, LayerNorm 1 and 0. The global random state is left as it was.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # PyTorch's own initialisation would draw from the global random state
            self.embed = nn.Embedding(config.d_vocab, config.d_model)
            self.pos_embed = nn.Embedding(config.n_ctx, config.d_model)
            self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_layers))
            self.ln_final = (
                nn.LayerNorm(config.d_model, config.eps) if config.normalization else nn.Identity()
            )
            self.unembed = nn.Linear(config.d_model, config.d_vocab_out, bias=config.unembed_bias)
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.weight.fill_(1.0)
                    module.bias.zero_()
                elif isinstance(module, nn.Linear | nn.Embedding):
                    module.weight.normal_(0.0, 0.8 / config.d_model**0.5, generator=generator)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        module.bias.zero_()

    def forward(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position d_vocab_out"]:
        """The logits at every position."""
        resid = self.embed(tokens) + self.pos_embed.weight[: tokens.shape[1]]
        for block in self.blocks:
            resid = block(resid)
        return self.unembed(self.ln_final(resid))
