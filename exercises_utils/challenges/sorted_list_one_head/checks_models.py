"""The models and the lists that the checks of lesson 01 run on, and what their heads compute, by hand."""

import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.checking import Draw, model_family
from exercises_utils.tools import causal, hooks

LESSON = "the lesson's model"
_family = functools.partial(model_family, task.CHALLENGE, task.CONFIG, n_ctx=(task.N_CTX + 4, task.N_CTX))
MODELS = _family()
ONE_LAYER = {**_family(n_layers=(1, 1)), LESSON: MODELS[LESSON]}
ONE_HEAD = {**_family(n_layers=(1, 1), n_heads=(1, 1)), LESSON: MODELS[LESSON]}


def known_lists(model: Any, size: int, generator: torch.Generator, answer: Any = None) -> Tensor:
    """Of 200 random lists, rich in large numbers, those with most right answers of the model (or of `answer`)."""
    n_numbers = model.cfg.d_vocab_out
    numbers = torch.randint(n_numbers, (2, 200, task.LENGTH), generator=generator).amax(0)
    bos, ordered = torch.full((200, 1), n_numbers), numbers.sort(-1).values
    tokens = torch.cat([bos, numbers, bos + 1, ordered], dim=-1)
    logits = answer(model, tokens) if answer else model(tokens)
    n_right = (logits[:, 11:21].argmax(-1) == ordered).sum(-1)
    return tokens[n_right.topk(size).indices]


def some_lists(draw: Draw) -> Int[Tensor, "list 22"]:
    """Lists with repeats, where the lesson's model is not always right; for a random model those that it knows best."""
    if draw.is_lesson:
        return task.triple_lists(draw.batch, draw.generator).tokens
    return known_lists(draw.model, draw.batch, draw.generator)


def shorter(draw: Draw) -> Int[Tensor, "list position"]:
    """The same for exercises that are not about answers: for random models the lists are cut."""
    return some_lists(draw)[:, : task.N_CTX - 3 * draw.index]


def patterns(model: Any, tokens: Tensor, layer: int = 0) -> Float[Tensor, "list head query key"]:
    """The attention patterns of a layer, from its scores."""
    name = get_act_name("attn_scores", layer)
    with hooks.record(model, name) as seen:
        model(tokens)
    return seen[name].softmax(-1)


def residual(model: Any, tokens: Tensor) -> Float[Tensor, "list position d_model"]:
    """What the first layer reads: token and position embeddings."""
    return model.W_E[tokens] + model.W_pos[: tokens.shape[1]]


def scores(model: Any, queries: Tensor, keys: Tensor, head: int = 0) -> Float[Tensor, "*list query key"]:
    """Attention scores of a head of layer 0 between vectors of the residual stream, not masked."""
    qk = model.W_Q[0, head] @ model.W_K[0, head].T
    return queries @ qk @ keys.transpose(-1, -2) / model.cfg.d_head**0.5


def masked_scores(model: Any, tokens: Tensor) -> Float[Tensor, "list head query key"]:
    """The scores of all heads of layer 0, by the weights, with minus infinity after the query."""
    resid = residual(model, tokens)
    by_head = [scores(model, resid, resid, head) for head in range(model.cfg.n_heads)]
    return causal(torch.stack(by_head, dim=1))


def logits_with(
    model: Any, tokens: Tensor, pattern: Float[Tensor, "list head query key"]
) -> Float[Tensor, "list position d_vocab_out"]:
    """The logits of a model with one layer that follow from its attention patterns, by the weights."""
    resid = residual(model, tokens)
    written = pattern @ (resid[:, None] @ (model.W_V[0] @ model.W_O[0]))
    return (resid + written.sum(1)) @ model.W_U
