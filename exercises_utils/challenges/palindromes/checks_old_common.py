"""What the checks of lesson 03 share: the models that they run on, and tokens for them."""

import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.palindromes import task
from exercises_utils.checking import Draw, Fresh, model_family
from exercises_utils.models import ModelConfig, build_model, load_model
from exercises_utils.tools import hooks

LESSON = "the lesson's model"
lesson_model = Fresh(lambda: load_model(task.CHALLENGE, device="cpu"))
_OTHER_SHAPES = {
    "a random model with 3 layers and 3 heads": ModelConfig(
        n_layers=3, n_heads=3, d_model=20, d_head=6, n_ctx=12, d_vocab=13, d_vocab_out=2
    ),
    "a random model with 1 layer and 4 heads": ModelConfig(
        n_layers=1, n_heads=4, d_model=24, d_head=5, n_ctx=9, d_vocab=17, d_vocab_out=2
    ),
    "a random model with 2 layers and 3 heads": ModelConfig(
        n_layers=2, n_heads=3, d_model=18, d_head=7, n_ctx=10, d_vocab=15, d_vocab_out=2
    ),
}
_random_models = {
    name: Fresh(functools.partial(build_model, config, seed=17 + i, device="cpu"))
    for i, (name, config) in enumerate(_OTHER_SHAPES.items())
}
MODELS = {LESSON: lesson_model, **_random_models}
FAMILY = model_family(task.CHALLENGE, task.CONFIG, n_ctx=(26, 12))


def some_tokens(draw: Draw) -> Int[Tensor, "sequence position"]:
    """The lesson's own data for its model, and random tokens for the others."""
    return task.make_data(draw.batch, seed=3).tokens if draw.is_lesson else draw.tokens()


def draw_tokens(model: Any, size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Random tokens of the full length for a model of any shape; values and special tokens alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.cfg.d_vocab, (size, model.cfg.n_ctx), generator=generator)


def seen_at(model: Any, tokens: Tensor, *names: str) -> list[Tensor]:
    """The activations of these names when the model runs on the tokens."""
    with hooks.record(model, *names) as seen:
        model(tokens)
    return [seen[name] for name in names]


def verdict_direction(model: Any, towards: tuple[int, ...] = (1, 0)) -> Float[Tensor, " d_model"]:
    """What the residual stream is projected on for the verdict: "palindrome" (output 1) less "no palindrome"."""
    return _difference(model.W_U.T, towards)


def verdict_bias(model: Any, towards: tuple[int, ...] = (1, 0)) -> Float[Tensor, ""]:
    """The same difference of the unembedding's biases."""
    return _difference(model.b_U, towards)


def _difference(rows: Tensor, towards: tuple[int, ...]) -> Tensor:
    first, *second = towards
    return rows[first] - rows[second[0]] if second else rows[first]
