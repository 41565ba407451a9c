"""The models that a check runs on: the lesson's own, and random ones that differ from it in everything they can."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from exercises_utils.checking.isolation import Fresh
from exercises_utils.models import ModelConfig, build_model, load_model


def model_family(
    challenge: str,
    config: ModelConfig,
    n_ctx: tuple[int, int],
    *,
    n_layers: tuple[int, int] | None = None,
    n_heads: tuple[int, int] | None = None,
    processed: bool = True,
    seed: int = 17,
) -> dict[str, Fresh]:
    """The lesson's model, a deeper and wider one, and a shallower one, by the names that a message uses.

    The deeper one has one layer more than the lesson's model, two heads more, a larger vocabulary, `n_ctx[0]` positions
    and a large epsilon in its LayerNorms; the other one has a single layer, one head more, a smaller vocabulary and
    `n_ctx[1]` positions. Their head sizes are not d_model / n_heads; no bias is zero, and no LayerNorm's weight is one
    before it is processed. What processing makes 0 (value biases, means of `W_U`) is not 0 in them, so that forgetting
    it is wrong. `n_layers` and `n_heads` are for lessons whose text says how many there are.
    """
    layers = n_layers or (config.n_layers + 1, 1)
    heads = n_heads or (config.n_heads + 2, config.n_heads + 1)
    fixed_outputs = config.d_vocab_out < 4
    special = config.d_vocab - config.d_vocab_out
    fewer = max(8, (config.d_vocab if fixed_outputs else config.d_vocab_out) // 2)
    deeper = replace(
        config,
        n_layers=layers[0],
        n_heads=heads[0],
        d_model=24,
        d_head=7,
        n_ctx=n_ctx[0],
        d_vocab=config.d_vocab + 4,
        d_vocab_out=config.d_vocab_out if fixed_outputs else config.d_vocab_out + 4,
        eps=0.05,
    )
    shallower = replace(
        config,
        n_layers=layers[1],
        n_heads=heads[1],
        d_model=20,
        d_head=6,
        n_ctx=n_ctx[1],
        d_vocab=fewer + (0 if fixed_outputs else special),
        d_vocab_out=config.d_vocab_out if fixed_outputs else fewer,
    )
    models = {"the lesson's model": Fresh(partial(load_model, challenge, device="cpu", processed=processed))}
    for i, sizes in enumerate((deeper, shallower)):
        counts = [
            f"{n} {unit}{'s' * (n > 1)}" for n, unit in ((sizes.n_layers, "layer"), (sizes.n_heads, "head"))
        ]
        width = f" (width {sizes.d_model})" if layers[0] == layers[1] and heads[0] == heads[1] else ""
        models[f"a random model with {' and '.join(counts)}{width}"] = Fresh(
            partial(_random_model, sizes, seed + i, processed)
        )
    return models


def _random_model(config: ModelConfig, seed: int, processed: bool) -> Any:
    """A random model whose parts all matter: large weights, so that patterns are far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in config.shapes().items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            weights[name] = 0.4 * drawn
        elif len(shape) == 1:  # a LayerNorm's weight
            weights[name] = 1 + 0.3 * drawn
        else:
            weights[name] = drawn if "embed.weight" in name else 1.5 * drawn / config.d_model**0.5
    model: Any = build_model(config, weights, device="cpu", processed=processed)
    if processed:  # what processing made 0 is given back, so that an answer without it is wrong
        unembed = model.unembed.original_component
        moved = [unembed.weight, unembed.bias] if config.unembed_bias else [unembed.weight]
        if config.attention_biases:
            moved += [block.attn.v.original_component.bias for block in model.blocks]
        for weight in moved:
            weight += 0.4 * torch.randn(weight.shape, generator=generator)
    return model
