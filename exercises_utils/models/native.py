"""The small models of the course: sizes and weights in, a hooked TransformerLens model out.

TransformerLens 4 builds small models with `TransformerBridge.boot_native`. As it builds them, they have traps
for an interpretability course. The mends are all here; nothing else in the course knows them:

- `hook_attn_scores` sees the scores before the softmax, and editing them changes the model (natively it sees
  the pattern, and edits are dropped). Scores above the diagonal are -inf when the hook sees them; what the
  hook leaves is what the softmax gets.
- `hook_result` sees what each head writes, [batch, position, head, d_model], and editing it changes the model
  (natively it never fires). `b_O` is added afterwards.
- Every hook can be edited by returning a tensor or in place, and an in-place edit changes no other cached
  activation (natively, an edit of `resid_pre` of a block rewrites the cached `resid_post` of the block
  before).
- Processing centres `W_U` over the output vocabulary and, with LayerNorm, over d_model, whatever the sizes
  (natively the axis is guessed from them, and wrong when d_vocab_out is not d_vocab).
- A config without attention biases has none (`model.b_Q` then raises). The unembedding's bias is a parameter.
- Tokens may be on any device: the model takes them to its own. What it gives back is on its own.
- The model is in evaluation mode and its weights do not ask for gradients (`model.requires_grad_()` if you
  want to train it). No global random state is read or changed.

What TransformerLens does that a learner should know, and that stays so:

- `cache["scale", layer, "ln1"]` is [batch, position, 1]: one scale for all heads. With `normalization=None`
  there is no scale in the cache.
- `resid / scale @ W_U + b_U` equals the logits only with processed weights.
- An attention-only model has no `hook_resid_mid` and no `hook_mlp_out`.
- `model.W_Q` is a copy stacked over layers: to change a weight, write to `model.blocks[layer].attn.W_Q`.
- Inside a hook, `hook.name` is one of the hook's names, not always the one asked for: a hook on
  `blocks.1.hook_resid_pre` sees `blocks.1.hook_in`.
- `hook_q_input` and its like do not exist here: `set_use_split_qkv_input(True)` raises.
- A model cannot be pickled; its `state_dict()` can be saved with safetensors.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import AttentionBridge

from exercises_utils.models.architecture import ModelConfig, PlainTransformer, misfits
from exercises_utils.models.devices import lesson_device


def build_model(
    config: ModelConfig,
    state_dict: Mapping[str, Float[Tensor, "..."]] | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """A hooked model with these weights, or with random ones drawn from `seed` when `state_dict` is None.

    Random models are for checks: their biases are not zero and their LayerNorm weights not one, so that an
    answer that forgets one of them is wrong on them.

    `processed=True` does what the literature does before it reads weights, without changing any probability:
    LayerNorm weights are folded into the matrices that read after them, value biases into `b_O`, everything
    written to the residual stream is centred over d_model, and so is `W_U`; `W_U` and `b_U` are centred over
    the vocabulary. Without LayerNorm only the value biases and the vocabulary are left of this.

    Raises ValueError where the weights' names or shapes are not the config's.
    """
    weights = _random_weights(config, seed) if state_dict is None else dict(state_dict)
    if wrong := misfits(config, weights):
        raise ValueError("These weights do not belong to this config. " + "; ".join(wrong))
    device = lesson_device() if device is None else torch.device(device)
    model: Any = TransformerBridge.boot_native(  # type: ignore[attr-defined]
        TransformerBridgeConfig(
            attn_only=True,
            act_fn="relu",  # asked for, and unused: there are no MLPs
            seed=0,
            n_layers=config.n_layers,
            d_model=config.d_model,
            n_heads=config.n_heads,
            d_head=config.d_head,
            n_ctx=config.n_ctx,
            d_vocab=config.d_vocab,
            d_vocab_out=config.d_vocab_out,
            normalization_type=config.normalization,
            eps=config.eps,
        ),
        device=device,
    )
    _give_parameters(model, config)
    if not config.unembed_bias:
        weights["unembed.bias"] = torch.zeros(config.d_vocab_out)
    model.load_state_dict(weights, strict=True)
    _give_hooks(model)
    take_tokens_from_anywhere(model)
    # TransformerLens guesses the axis of the vocabulary from the sizes, so W_U is centred below instead.
    model.enable_compatibility_mode(disable_warnings=True, no_processing=not processed, center_unembed=False)
    if processed:
        _centre_unembed(model, config)
    return model.eval().requires_grad_(False)


def _random_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Initial weights with every bias and LayerNorm parameter moved from where it starts."""
    weights = PlainTransformer(config, seed).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for weight in weights.values():
        if weight.ndim == 1:
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return dict(weights)


def _give_parameters(model: TransformerBridge, config: ModelConfig) -> None:
    """Make the parameters the config's: no attention biases if it has none, a trainable b_U if it has."""
    if not config.attention_biases:
        for block in model.blocks:
            for linear in (block.attn.q, block.attn.k, block.attn.v, block.attn.o):
                linear.original_component.bias = None
    if config.unembed_bias:
        unembed = model.unembed.original_component
        bias = unembed.bias
        del unembed.bias  # a buffer: it would neither train nor count as a parameter
        unembed.bias = nn.Parameter(bias)


def _give_hooks(model: TransformerBridge) -> None:
    # A class is swapped rather than a method patched, so that a deep copy of the model runs its own hooks.
    for block in model.blocks:
        block.attn.__class__ = _HookedAttention
    model.set_use_attn_result(True)
    separate_hooks(model)


def separate_hooks(model: nn.Module) -> None:
    """Let no hook's in-place edit change what another hook of the model sees or has cached."""
    for module in model.modules():
        if type(module) is HookPoint:
            module.__class__ = _SeparateHookPoint


def take_tokens_from_anywhere(model: Any) -> None:
    """Let tokens go to the model's device by themselves: data is drawn on the CPU, wherever the model is."""

    def along(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        device = model.embed.original_component.weight.device

        def moved(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        return tuple(map(moved, arguments)), {name: moved(value) for name, value in named.items()}

    model.original_model.register_forward_pre_hook(along, with_kwargs=True)


@torch.no_grad()
def _centre_unembed(model: TransformerBridge, config: ModelConfig) -> None:
    unembed = model.unembed.original_component
    unembed.weight -= unembed.weight.mean(dim=0, keepdim=True)  # [d_vocab_out, d_model]
    unembed.bias -= unembed.bias.mean()
    if config.normalization:  # what the last LayerNorm gives has mean zero: this mean of W_U is never read
        unembed.weight -= unembed.weight.mean(dim=1, keepdim=True)


class _SeparateHookPoint(HookPoint):
    """A hook point that hands its hooks a copy, so that an in-place edit changes no other hook's tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone() if self._forward_hooks else x


class _HookedAttention(AttentionBridge):
    """Attention whose scores and per-head results go through hooks on the way to the output."""

    supports_attn_result = True

    def forward(
        self,
        hidden_states: Float[Tensor, "batch position d_model"],
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Float[Tensor, "batch position d_model"], Float[Tensor, "batch head query key"]]:
        if attention_mask is not None:
            raise NotImplementedError("The course's sequences are never padded: attention_mask must be None.")
        native: Any = self.original_component
        split = partial(
            rearrange,
            pattern="batch position (head d_head) -> batch position head d_head",
            head=native.n_heads,
        )
        resid = self.hook_in(hidden_states)
        q, k, v = split(self.q(resid)), split(self.k(resid)), split(self.v(resid))
        scores = einsum(q, k, "batch query head d_head, batch key head d_head -> batch head query key")
        future = native.causal_mask[: resid.shape[1], : resid.shape[1]]
        scores = self.hook_attn_scores((scores / native.scale).masked_fill(future, float("-inf")))
        pattern = self.hook_pattern(scores.softmax(dim=-1))
        z = einsum(pattern, v, "batch head query key, batch key head d_head -> batch query head d_head")
        # `hook_z` is the input hook of W_O; it gives its hooks [batch, position, head, d_head].
        z = split(self.o.hook_in(rearrange(z, "batch query head d_head -> batch query (head d_head)")))
        W_O = rearrange(
            self.o.original_component.weight,
            "d_model (head d_head) -> head d_head d_model",
            head=native.n_heads,
        )
        result = einsum(z, W_O, "batch query head d_head, head d_head d_model -> batch query head d_model")
        out = self.hook_result(result).sum(dim=2)
        if self.o.original_component.bias is not None:
            out = out + self.o.original_component.bias
        return self.hook_out(self.o.hook_out(out)), pattern
