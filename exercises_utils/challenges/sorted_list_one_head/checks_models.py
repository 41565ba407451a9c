"""The models and the lists that the checks of lesson 01 run on, and one head computed by hand."""

import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.checking import Fresh
from exercises_utils.models import ModelConfig, PlainTransformer, build_model, load_model

LESSON = "the lesson's model"
LOGIT_NOISE = 5e-5
"""Allowed error of logits as a share of the largest: they are sums of terms that nearly cancel, by the hundreds."""
SMALL = "a random model of 15 numbers"
LARGE = "a random model of 29 numbers"
_OTHER_SHAPES = {
    SMALL: ModelConfig(
        n_layers=1, n_heads=1, d_model=24, d_head=9, n_ctx=task.N_CTX, d_vocab=17, d_vocab_out=15,
        normalization=None, attention_biases=False, unembed_bias=False,
    ),
    LARGE: ModelConfig(
        n_layers=1, n_heads=1, d_model=18, d_head=30, n_ctx=task.N_CTX, d_vocab=31, d_vocab_out=29,
        normalization=None, attention_biases=False, unembed_bias=False,
    ),
}  # fmt: skip


def _random_model(config: ModelConfig, seed: int) -> Any:
    """With weights so large that attention is sharp, and scores far from zero."""
    weights = {name: 2.5 * weight for name, weight in PlainTransformer(config, seed).state_dict().items()}
    return build_model(config, weights, device="cpu")


MODELS = {LESSON: Fresh(lambda: load_model(task.CHALLENGE, device="cpu"))}
for _i, (_name, _config) in enumerate(_OTHER_SHAPES.items()):
    MODELS[_name] = Fresh(functools.partial(_random_model, _config, seed=31 + _i))


def lists(name: str, size: int, seed: int) -> Int[Tensor, "list 22"]:
    """Lists as a model of this vocabulary reads them: the lesson's with repeats, where its answers are not all right."""
    if name == LESSON:
        return task.triple_lists(size, seed).tokens
    n_numbers = _OTHER_SHAPES[name].d_vocab_out
    numbers = torch.randint(n_numbers, (size, task.LENGTH), generator=torch.Generator().manual_seed(seed))
    column = numbers.new_ones((size, 1))
    ordered = numbers.sort(-1).values
    return torch.cat([n_numbers * column, numbers, (n_numbers + 1) * column, ordered], dim=-1)


def residual(model: Any, tokens: Tensor) -> Float[Tensor, "list position d_model"]:
    """What the head reads: token and position embeddings."""
    return model.W_E[tokens] + model.W_pos[: tokens.shape[1]]


def scores(
    model: Any, queries: Tensor, keys: Tensor, root: float | None = None
) -> Float[Tensor, "*list query key"]:
    """Attention scores of head 0.0 between vectors of the residual stream, divided by `root`: sqrt(d_head)."""
    qk = model.W_Q[0, 0] @ model.W_K[0, 0].T
    return queries @ qk @ keys.transpose(-1, -2) / (model.cfg.d_head**0.5 if root is None else root)


def later(n: int) -> Tensor:
    """Which keys (columns) come after which queries (rows)."""
    return torch.ones(n, n, dtype=torch.bool).triu(1)


def masked(values: Tensor) -> Tensor:
    """The scores with minus infinity after the query."""
    return values.masked_fill(later(values.shape[-1]), float("-inf"))


def logits_with(model: Any, tokens: Tensor, pattern: Tensor) -> Float[Tensor, "list position d_vocab_out"]:
    """The logits that follow from an attention pattern, by the weights."""
    resid = residual(model, tokens)
    return (resid + pattern @ (resid @ model.W_V[0, 0]) @ model.W_O[0, 0]) @ model.W_U


def at_answers(values: Tensor, dim: int = 1) -> Tensor:
    """The ten answer positions, MID first."""
    return values.narrow(dim, task.ANSWER_POSITIONS.start, len(task.ANSWER_POSITIONS))
