"""What the checks of lesson 02 share: the list of checks, the models that they run on, and lists for any of them."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.checking import CheckList, Fresh
from exercises_utils.models import ModelConfig, build_model, load_model
from exercises_utils.tools import hooks

CHECKS = CheckList("02 sorted list, two heads")

LESSON = "the lesson's model"
THREE_HEADS = "a random model with 3 heads"
FOUR_HEADS = "a random model with 4 heads"
_CONFIGS = {
    THREE_HEADS: ModelConfig(
        n_layers=1, n_heads=3, d_model=20, d_head=6, n_ctx=9, d_vocab=13, d_vocab_out=15
    ),
    FOUR_HEADS: ModelConfig(
        n_layers=1, n_heads=4, d_model=24, d_head=5, n_ctx=13, d_vocab=17, d_vocab_out=18
    ),
}


def _random_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Weights large enough that every part of the model matters, LayerNorm's and all biases included."""
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
    return weights


def _random_model(config: ModelConfig, seed: int, processed: bool) -> Any:
    """A random model; a processed one gets value biases back, so that an answer without them is wrong."""
    model = build_model(config, _random_weights(config, seed), device="cpu", processed=processed)
    if processed:
        bias = model.blocks[0].attn.v.original_component.bias
        bias += 0.4 * torch.randn(bias.shape, generator=torch.Generator().manual_seed(seed))
    return model


def _models(processed: bool) -> dict[str, Fresh]:
    models = {LESSON: Fresh(lambda: load_model(task.CHALLENGE, device="cpu", processed=processed))}
    for i, (name, config) in enumerate(_CONFIGS.items()):
        models[name] = Fresh(functools.partial(_random_model, config, 17 + i, processed))
    return models


MODELS = _models(processed=True)
RAW_MODELS = _models(processed=False)
lesson_model = MODELS[LESSON]


def lists(model: Any, size: int, seed: int) -> Int[Tensor, "batch position"]:
    """Lists of different numbers for a model of any shape, the last token of its vocabulary, the sorted lists."""
    separator = model.cfg.d_vocab - 1
    length = (model.cfg.n_ctx - 1) // 2
    generator = torch.Generator().manual_seed(seed)
    unsorted = torch.rand(size, separator, generator=generator).argsort(-1)[:, :length]
    middle = torch.full_like(unsorted[:, :1], separator)
    return torch.cat([unsorted, middle, unsorted.sort(-1).values], dim=-1)


def length_of(tokens: Tensor) -> int:
    """How many numbers a list has."""
    return tokens.shape[1] // 2


def at_answers(activation: Tensor, tokens: Tensor) -> Tensor:
    """An activation (batch, position, ...) at the answer positions."""
    length = length_of(tokens)
    return activation[:, length : 2 * length]


def right_answers(tokens: Int[Tensor, "batch position"]) -> Int[Tensor, "batch answer"]:
    """The sorted list, from the list itself."""
    return tokens[:, : length_of(tokens)].sort(-1).values


def seen(model: Any, tokens: Tensor, *names: str) -> list[Tensor]:
    """Activations of one run, by their short names."""
    full = [name if name in model.hook_dict else get_act_name(name, 0) for name in names]
    with hooks.record(model, *full) as found:
        model(tokens)
    return [found[name] for name in full]


FINAL_SCALE, FIRST_SCALE = "ln_final.hook_scale", "blocks.0.ln1.hook_scale"


def answer_losses(model: Any, tokens: Tensor) -> Float[Tensor, "batch answer"]:
    """The cross-entropy of each answer, in nats."""
    log_probs = at_answers(model(tokens), tokens).log_softmax(-1)
    return -log_probs.gather(-1, right_answers(tokens)[..., None])[..., 0]


def ablated_losses(
    model: Any,
    tokens: Tensor,
    heads: Sequence[int],
    *,
    how: str = "mean",
    over: str = "lists",
) -> Float[Tensor, "batch answer"]:
    """The losses with heads ablated, with an in-place hook of its own."""

    def put(z: Tensor, hook: Any) -> Tensor:
        for head in heads:
            if how == "zero":
                z[:, :, head] = 0.0
            else:
                z[:, :, head] = z[:, :, head].mean(0) if over == "lists" else z[:, :, head].mean((0, 1))
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
        return answer_losses(model, tokens)
