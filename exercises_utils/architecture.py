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

    def __post_init__(self) -> None:
        _require_valid(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The config that a card stores. Unknown and missing keys are errors, so that no setting is lost."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(values.keys() - names), sorted(names - values.keys())
        if unknown or missing:
            raise ValueError(
                f"A model config needs exactly {sorted(names)}; unknown: {unknown}, missing: {missing}."
            )
        _require_valid(values)
        return cls(**values)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by its name in the state dict."""
        return {name: tuple(weight.shape) for name, weight in PlainTransformer(self).state_dict().items()}


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
        self.ln1 = nn.LayerNorm(config.d_model) if config.normalization else nn.Identity()
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
            self.ln_final = nn.LayerNorm(config.d_model) if config.normalization else nn.Identity()
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
