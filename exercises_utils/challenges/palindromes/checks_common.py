"""What the checks of lesson 03 share: models, pairs of runs, a forward pass of their own, and slips of reading."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.palindromes import task
from exercises_utils.checking import Draw, Exercise, Fresh, model_family
from exercises_utils.tools import circuits

LESSON = "the lesson's model"
FAMILY = model_family(task.CHALLENGE, task.CONFIG, n_ctx=(26, 12))
DEEP = dict(list(FAMILY.items())[:2])
"""Those with a layer after the first."""
lesson_model: Fresh = FAMILY[LESSON]


# ── sequences ───────────────────────────────────────────────────────────────────────────────────────────────


def palindromes(size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Palindromes only, without labels."""
    data = task.make_data(2 * size + 20, seed)
    return data.tokens[data.is_palindrome][:size]


def some_tokens(draw: Draw) -> Int[Tensor, "sequence position"]:
    """The lesson's own data for its model; for the others random tokens, also fewer than their full length."""
    if draw.is_lesson:
        return task.make_data(draw.batch, seed=3).tokens
    return draw.tokens()[:, : draw.model.cfg.n_ctx + 1 - draw.index]


def intact_tokens(draw: Draw, size: int | None = None) -> Int[Tensor, "sequence position"]:
    """Palindromes for the lesson's model; for the others random tokens, one fewer than their full length."""
    size = size or draw.batch
    if draw.is_lesson:
        return palindromes(size, 11)
    return draw.randint(0, draw.model.cfg.d_vocab, size, draw.model.cfg.n_ctx - 1)


def few_tokens(draw: Draw) -> Int[Tensor, "sequence position"]:
    """Six such sequences, also in calls that come with no single one."""
    return intact_tokens(draw, 6)


def broken_tokens(draw: Draw) -> Int[Tensor, "sequence position"]:
    """The same with another value at `position`; for random models about half of the other tokens differ, too."""
    intact, position = draw["intact"], draw["position"]
    if draw.is_lesson and 0 < position <= task.LENGTH:
        return task.change_value(intact, position, draw.generator)
    vocabulary = draw.model.cfg.d_vocab
    differs = draw.randint(0, 2, *intact.shape)
    differs[:, position] = 1
    return (intact + differs * draw.randint(1, vocabulary, *intact.shape)) % vocabulary


def near_the_threshold(draw: Draw) -> Int[Tensor, "sequence position"]:
    """Broken tokens; for random models such that the model is undecided, so that shares lie between 0 and 1."""
    if draw.is_lesson:
        return broken_tokens(draw)
    drawn = draw.randint(0, draw.model.cfg.d_vocab, 20 * len(draw["intact"]), draw["intact"].shape[1])
    return drawn[verdict(run(draw.model, drawn)).abs().argsort()[: len(draw["intact"])]]


def pick(*values: Any) -> Callable[[Draw], Any]:
    """A value for each model of a family, in their order."""
    return lambda draw: values[draw.index]


# ── a forward pass of the checks' own ───────────────────────────────────────────────────────────────────────

Site = tuple[str, int]
"""An activation and its layer, as ("pattern", 0)."""
Edits = Mapping[Site, Callable[[Tensor], Tensor]]


def run(model: Any, tokens: Tensor, edits: Edits | None = None) -> dict[Any, Tensor]:
    """Every activation q, k, v, pattern, z and scale, by name and layer, and the "logits".

    Plain algebra on processed weights, without hooks. `edits` change an activation before it is used.
    """
    edits = edits or {}
    seen: dict[Any, Tensor] = {}

    def kept(name: str, layer: int, value: Tensor) -> Tensor:
        edit = edits.get((name, layer))
        seen[name, layer] = value if edit is None else edit(value.clone())
        return seen[name, layer]

    cfg, weights, biases = model.cfg, (model.W_Q, model.W_K, model.W_V), (model.b_Q, model.b_K, model.b_V)
    stream = model.W_E[tokens] + model.W_pos[: tokens.shape[1]]
    for layer, (W_O, b_O) in enumerate(zip(model.W_O, model.b_O, strict=True)):
        seen["scale", layer] = (stream.pow(2).mean(-1, keepdim=True) + cfg.eps).sqrt()
        normed = stream / seen["scale", layer]
        q, k, v = (
            kept(name, layer, torch.einsum("spd,hde->sphe", normed, W[layer]) + b[layer])
            for name, W, b in zip("qkv", weights, biases, strict=True)
        )
        scores = torch.einsum("sqhe,skhe->shqk", q, k) / cfg.d_head**0.5
        pattern = kept("pattern", layer, circuits.causal(scores).softmax(-1))
        z = kept("z", layer, torch.einsum("shqk,skhe->sqhe", pattern, v))
        stream = stream + torch.einsum("sqhe,hed->sqd", z, W_O) + b_O
    seen["scale", "last"] = (stream.pow(2).mean(-1, keepdim=True) + cfg.eps).sqrt()
    seen["logits"] = stream / seen["scale", "last"] @ model.W_U + model.b_U
    return seen


def put(
    name: str,
    source: Tensor,
    heads: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    keys: Sequence[int] | None = None,
) -> Callable[[Tensor], Tensor]:
    """An edit that takes an activation from another run: of some heads, at some positions (of a pattern: queries)."""
    head_axis = 1 if name == "pattern" else 2

    def edit(value: Tensor) -> Tensor:
        mask = torch.ones(value.shape[1:], dtype=torch.bool)
        for axis, chosen in ((head_axis, heads), (3 - head_axis, rows), (3, keys)):
            if chosen is not None:
                keep = torch.zeros(value.shape[axis], dtype=torch.bool)
                keep[list(chosen)] = True
                mask = mask & keep.view([-1 if i == axis else 1 for i in range(1, 4)])
        return torch.where(mask, source, value)

    return edit


# ── the verdict, and how it is misread ──────────────────────────────────────────────────────────────────────


def verdict(seen: Mapping[Any, Tensor]) -> Float[Tensor, " sequence"]:
    """The logit of palindrome minus that of no palindrome at END."""
    return difference(seen["logits"][:, -1].T)


def difference(rows: Tensor, towards: tuple[int, ...] = (1, 0)) -> Tensor:
    """The row of palindrome (index 1) less that of no palindrome (index 0); one of them alone where one is named."""
    first, *second = towards
    return rows[first] - rows[second[0]] if second else rows[first]


def verdict_direction(model: Any, towards: tuple[int, ...] = (1, 0)) -> Float[Tensor, " d_model"]:
    """What the residual stream is projected on for the verdict."""
    return difference(model.W_U.T, towards)


def verdict_bias(model: Any, towards: tuple[int, ...] = (1, 0)) -> Float[Tensor, ""]:
    """The same difference of the unembedding's biases."""
    return difference(model.b_U, towards)


MISREAD: dict[str, Any] = {
    "This is a difference of probabilities; return the difference of the logits.": dict(
        read=lambda seen: difference(seen["logits"][:, -1].softmax(-1).T)
    ),
    "This is the logit of palindrome alone; subtract that of no palindrome (index 0).": dict(
        read=lambda seen: seen["logits"][:, -1, 1]
    ),
}
"""Slips of every intervention: how its verdict is read."""


def misread_head(exercise: Exercise, name: str = "head") -> dict[str, Any]:
    """Slips of taking a head (layer, head) apart, for the argument of this name."""
    at = exercise.parameters.index(name)

    def other(change: Callable[[Any, int, int], tuple[int, int]]) -> Callable[..., Any]:
        def wrong(*arguments: Any) -> Any:
            chosen = change(arguments[exercise.parameters.index("model")], *arguments[at])
            return exercise.truth(*arguments[:at], chosen, *arguments[at + 1 :])

        return wrong

    return {
        f"The layer in `{name}` is not used: this is layer 0, whatever it says.": other(
            lambda m, layer, i: (0, i)
        ),
        f"The layer in `{name}` is not used: this is the last layer, whatever it says.": other(
            lambda m, layer, i: (m.cfg.n_layers - 1, i)
        ),
        f"The second number in `{name}` is not used: this is head 0 of its layer.": other(
            lambda m, layer, i: (layer, 0)
        ),
    }
