"""The checks of lesson 03, sections 1 to 3: the verdict, who writes it, and where END looks."""

import functools
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_old_common import (
    FAMILY,
    LESSON,
    lesson_model,
    seen_at,
    some_tokens,
    verdict_bias,
    verdict_direction,
)
from exercises_utils.checking import Case, Check, Question, exercise, on_models
from exercises_utils.tools import hooks

# ── 1 · the verdict ─────────────────────────────────────────────────────────────────────────────────────────


@exercise("The number that everything moves", core=True, axes="sequence")
def logit_diff(model, tokens, *, towards=(1, 0), position=-1, of="logits"):
    """From the stream that is unembedded."""
    (read,) = seen_at(model, tokens, "unembed.hook_in")
    every = read @ model.W_U + model.b_U
    logits = every.mean(1) if position == "mean" else every[:, position]
    logits = {"logits": logits, "probs": logits.softmax(-1), "log_probs": logits.log_softmax(-1)}[of]
    if towards is ALL:
        return logits
    first, *second = towards
    return logits[..., first] - logits[..., second[0]] if second else logits[..., first]


ALL = slice(None)
PALINDROME = "This is the {} of palindrome alone; subtract that of no palindrome (index 0)."
logit_diff.given(on_models(FAMILY, tokens=some_tokens))
logit_diff.slips(
    {
        "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": dict(towards=(0, 1)),
        "These are the logits of the last value; read them at END, the last position.": dict(position=-2),
        "These are the logits of START; read them at END, the last position.": dict(position=0),
        "This is one value for each position; read the logits at END only, position -1.": dict(position=ALL),
        "These are probabilities; return the difference of the logits, before the softmax.": dict(of="probs"),
        PALINDROME.format("logit"): dict(towards=(1,)),
        PALINDROME.format("log-probability"): dict(towards=(1,), of="log_probs"),
        PALINDROME.format("probability"): dict(towards=(1,), of="probs"),
        "These are both logits; return their difference, one number for each sequence.": dict(towards=ALL),
        "This is the mean over positions; the model answers at END only.": dict(position="mean"),
    }
)


@exercise("Direct logit attribution that adds up", core=True, axes="component sequence")
def logit_attribution(
    model, tokens, *, scale="ln_final", power=-1, at=-1, towards=(1, 0), bias="last", heads_bias=True
):
    """From z and W_O, not from `hook_result`."""
    names = [get_act_name("z", layer) for layer in range(model.cfg.n_layers)]
    norm = "blocks.0.ln1" if scale == "first" else "ln_final"
    *zs, divide_by = seen_at(model, tokens, *names, f"{norm}.hook_scale")
    parts = [model.W_E[tokens[:, at]], model.W_pos[tokens.shape[1] + at].expand(len(tokens), -1)]
    for layer, z in enumerate(zs):
        parts += [z[:, at, head] @ model.W_O[layer, head] for head in range(model.cfg.n_heads)]
    parts += [model.b_O.sum(0).expand(len(tokens), -1)] * heads_bias
    components = torch.stack(parts)
    divide_by = divide_by[:, at]
    if scale == "mean":
        divide_by = divide_by.mean()
    elif scale == "own":
        divide_by = (components.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    rows = components * divide_by**power @ verdict_direction(model, towards)
    last = verdict_bias(model, towards).expand(1, len(tokens))
    if bias == "scaled":
        last = last / divide_by.reshape(1, -1)
    order = {
        "last": [rows, last],
        "first": [last, rows],
        None: [rows],
        "zero": [rows, 0 * last],
        "scaled": [rows, last],
    }
    return torch.cat([rows, -last] if bias == "turned" else order[bias])


logit_attribution.given(on_models(FAMILY, tokens=some_tokens))
logit_attribution.slips(
    {
        "The rows do not add up to the logit difference: the last LayerNorm's scale is forgotten. Divide by "
        '`cache["ln_final.hook_scale"]` at END.': dict(power=0),
        "Every sequence has its own scale; you divided by the mean of the scales.": dict(scale="mean"),
        "This is the scale of the first LayerNorm; the unembedding reads after the last one, `ln_final`.": dict(
            scale="first"
        ),
        "Every component was normalised by a scale of its own; divide all by the one scale of their sum, "
        '`cache["ln_final.hook_scale"]`, or they do not add up.': dict(scale="own"),
        "You multiplied by the last LayerNorm's scale; divide by it.": dict(power=1),
        "The row of `b_U` comes first; it is the last row.": dict(bias="first"),
        "The row of `b_U` is turned round: `b_U[1] - b_U[0]`.": dict(bias="turned"),
        "The last row should be `b_U[1] - b_U[0]`; the rows before it are right. Add it.": dict(bias=None),
        "The last row should be `b_U[1] - b_U[0]`, not zero: without it the rows do not add up.": dict(
            bias="zero"
        ),
        "The bias is not divided by the scale: it is added after the LayerNorm.": dict(bias="scaled"),
        "The row of the heads' output bias `b_O` is missing.": dict(heads_bias=False),
        "The sign is turned round: towards palindrome (index 1), away from no palindrome (index 0).": dict(
            towards=(0, 1)
        ),
        "This is the direction of the logit of palindrome alone; subtract `W_U[:, 0]`.": dict(towards=(1,)),
        "This is the attribution at the last value, position -2; the verdict is read at END, position -1.": dict(
            at=-2
        ),
    }
)


verdicts = logit_diff.truth


@functools.cache
def _head_costs() -> dict[tuple[int, int], float]:
    """Nats that mean-ablating each head costs on 1,000 sequences."""
    model, data = lesson_model.get(), task.make_data(1000, seed=5)
    before = task.loss(model(data.tokens), data)
    costs = {}
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with hooks.ablate(model, [(layer, head)], activation="z", how="mean"):
                costs[layer, head] = (task.loss(model(data.tokens), data) - before).item()
    return costs


def why_no_head(value: Any) -> str | None:
    """Why this is no head of the lesson's model, or None."""
    if not (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    ):
        problem = f"A head is a pair of whole numbers, (layer, head), such as (0, 1); got {value!r}."
        in_tensor = isinstance(value, Tensor) or (
            isinstance(value, tuple | list) and any(isinstance(i, Tensor) for i in value)
        )
        return problem + (" Take the numbers out of the tensor with `int(...)`." if in_tensor else "")
    if tuple(value) not in _head_costs():
        return f"The model has no head {tuple(value)}: layers are 0 and 1, heads are 0 and 1."
    return None


@functools.cache
def _separations() -> dict[tuple[int, int], float]:
    """By how many logits the direct contributions of each head separate the classes, on 1,000 sequences."""
    model, data = lesson_model.get(), task.make_data(1000, seed=5)
    rows = logit_attribution.truth(model, data.tokens)[2:-2]
    gaps = rows[:, data.is_palindrome].mean(-1) - rows[:, ~data.is_palindrome].mean(-1)
    return dict(zip(_head_costs(), gaps.tolist(), strict=True))


def _refuse_reading_head(value: Any) -> str | None:
    if problem := why_no_head(value):
        return problem
    gaps = _separations()
    layer, head = value
    if layer == 0:
        return (
            f"Head {layer}.{head} is in layer 0. Ablating it costs {_head_costs()[layer, head]:.3f} nats, but what matters "
            "here is what is written directly to END and read by the unembedding: compare the rows of the heads, not "
            "their size."
        )
    if gaps[layer, head] < 0.9 * max(gaps.values()):
        return (
            f"Between the two classes, what head {layer}.{head} writes differs by {gaps[layer, head]:.1f} logits, what "
            f"another head writes by {max(gaps.values()):.1f}. A head may write a lot, or the same for all sequences: "
            "look for the largest difference between the means of the classes."
        )
    return None


def _best_reading_head() -> tuple[int, int]:
    return max(_separations(), key=lambda head: _separations()[head])


reading_head = Check(
    "reading_head",
    "Which head writes the verdict",
    core=True,
    cases=lambda: [Case(LESSON, requires=_refuse_reading_head)],
    reference=_best_reading_head,
)


# ── 3 · where END looks ─────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def noticed_change() -> tuple[int, Tensor, Tensor]:
    """The position of the second half whose change moves the verdict most, and sequences before and after."""
    model = lesson_model.get()
    intact = palindromes(128, seed=6)
    changed = {position: task.change_value(intact, position, seed=6) for position in task.SECOND_HALF}
    position = min(changed, key=lambda p: verdicts(model, changed[p]).mean().item())
    return position, intact, changed[position]


def palindromes(size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Palindromes only, without labels."""
    data = task.make_data(2 * size, seed)
    return data.tokens[data.is_palindrome][:size]


def _where_end_looks() -> str:
    position, intact, broken = noticed_change()
    model, layer_head = lesson_model.get(), _best_reading_head()
    name = get_act_name("pattern", layer_head[0])
    gain = (
        seen_at(model, broken, name)[0].sum(1)[:, -1] - seen_at(model, intact, name)[0].sum(1)[:, -1]
    ).mean(0)
    return {task.mirror(position): "a", position: "b", 0: "d"}.get(int(gain.argmax()), "?")


where_end_looks = Question(
    "where_end_looks",
    "Predict where END attends",
    core=False,
    options={
        "a": (
            "at the partner in the first half",
            "that position stands before its partner, and attention is causal: it cannot know that they disagree.",
        ),
        "b": (
            "at the partner in the second half",
            "of the two, only this position has seen both values, so here a mark of the disagreement can stand.",
        ),
        "c": (
            "at both, equally",
            "the two know different things: the one in the first half has not seen its partner.",
        ),
        "d": (
            "at `START`",
            "some models rest there while nothing is wrong, but this sequence has something wrong in it.",
        ),
    },
    answer=_where_end_looks,
)
