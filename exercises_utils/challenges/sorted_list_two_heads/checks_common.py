"""What the checks of lesson 02 share: the models that they run on, lists for any of them, and runs with a change."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.checking import Draw, model_family
from exercises_utils.tools import hooks

LESSON = "the lesson's model"
# Three layers in the deeper one: a head can then be asked for that is in neither the first nor the last.
_SIZES = replace(task.CONFIG, n_layers=2)
FAMILY = model_family(task.CHALLENGE, _SIZES, n_ctx=(25, 13))
RAW_FAMILY = model_family(task.CHALLENGE, _SIZES, n_ctx=(25, 13), processed=False)
lesson_model = FAMILY[LESSON]
FINAL_SCALE = "ln_final.hook_scale"
FIRST_STREAM = "This is the stream after the first layer; take it after the last one."
EPSILON = "The epsilon is 1e-5 in every model; it is `model.cfg.eps`."
EVERYWHERE = "All positions are in it; return the answer positions only."


def lists(draw: Draw, repeats: bool = False) -> Int[Tensor, "batch position"]:
    """Lists of different numbers, SEP, the sorted lists; in the deeper model shorter than what it could read.

    With `repeats`, a number stands twice in a third of the lists, and three times in another third.
    """
    separator = draw.model.cfg.d_vocab - 1
    numbers = torch.rand(draw.batch, separator, generator=draw.generator).argsort(-1)
    unsorted = numbers[:, : (10, 9, 6)[draw.index]]
    if repeats:
        unsorted[::3, 2] = unsorted[::3, 0]
        unsorted[1::3, 2] = unsorted[1::3, 4] = unsorted[1::3, 0]
    middle = torch.full_like(unsorted[:, :1], separator)
    return torch.cat([unsorted, middle, unsorted.sort(-1).values], dim=-1)


def lists_with_repeats(draw: Draw) -> Int[Tensor, "batch position"]:
    """The same, two thirds of them with repeats."""
    return lists(draw, repeats=True)


def length_of(tokens: Tensor) -> int:
    """How many numbers a list has."""
    return tokens.shape[1] // 2


def at_answers(activation: Tensor, tokens: Tensor, late: int = 0) -> Tensor:
    """An activation (batch, position, ...) at the answer positions."""
    length = length_of(tokens)
    return activation[:, length + late : 2 * length + late]


def numbers_by(tokens: Int[Tensor, "batch position"]) -> dict[str, Int[Tensor, "batch answer"]]:
    """A number for each answer: the right one, that at which the answer is read, or those of the unsorted list."""
    unsorted = tokens[:, : length_of(tokens)]
    return {"right": unsorted.sort(-1).values, "read at": at_answers(tokens, tokens), "unsorted": unsorted}


def _full_name(model: Any, name: str, layer: int) -> str:
    return name if name in model.hook_dict else get_act_name(name, layer % model.cfg.n_layers)


def seen(model: Any, tokens: Tensor, *names: str, layer: int = 0) -> list[Tensor]:
    """Activations of one run, by their full names or, in one layer, their short ones."""
    full = [_full_name(model, name, layer) for name in names]
    with hooks.record(model, *full) as found:
        model(tokens)
    return [found[name] for name in full]


def run_with(
    model: Any, tokens: Tensor, name: str, change: Callable[[Tensor], Tensor], layer: int = 0
) -> Float[Tensor, "batch position d_vocab_out"]:
    """The logits of a run in which an activation is changed."""
    hook = _full_name(model, name, layer), lambda now, hook: change(now.clone())
    with model.hooks(fwd_hooks=[hook]):
        return model(tokens)


def losses(
    model: Any, tokens: Tensor, *, heads: str = "one", how: str = "mean", at: str = "answers", layer: int = 0
) -> Float[Tensor, "group batch answer"]:
    """The cross-entropy of each answer in nats, untouched and then with the heads ablated for each head's cost.

    All in one run, of the lists repeated.
    """
    every = list(range(model.cfg.n_heads))
    groups: list[list[int]] = {
        "one": [[head] for head in every],
        "others": [[other for other in every if other != head] for head in every],
        "all": [every] * len(every),
        "so far": [every[: head + 1] for head in every],
    }[heads]

    def ablate(z: Tensor) -> Tensor:
        for one, group in zip(z.chunk(len(every) + 1)[1:], groups, strict=True):
            instead = {"mean": one.mean(0), "zero": torch.zeros_like(one), "one mean": one.mean((0, 1))}[how]
            one[:, :, group] = instead[..., group, :]
        return z

    tokens = tokens.repeat(len(every) + 1, 1)
    log_probs, right = (
        run_with(model, tokens, "z", ablate, layer).log_softmax(-1),
        numbers_by(tokens)["right"],
    )
    if at == "everywhere":
        log_probs, right = log_probs[:, :-1], tokens[:, 1:]
    else:
        log_probs = at_answers(log_probs, tokens, late=int(at == "late"))
    return -log_probs.gather(-1, right[..., None])[..., 0].unflatten(0, (len(every) + 1, -1))
