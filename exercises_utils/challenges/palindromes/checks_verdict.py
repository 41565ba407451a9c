"""The checks of lesson 03, sections 1 to 3: the verdict, who writes it, and where END looks."""

import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_common import (
    LESSON,
    MODELS,
    draw_tokens,
    lesson_model,
    seen_at,
    verdict_bias,
    verdict_direction,
)
from exercises_utils.checking import Case, Check, Question
from exercises_utils.tools import circuits, hooks

# ── 1 · the verdict ─────────────────────────────────────────────────────────────────────────────────────────


def verdicts(model: Any, tokens: Tensor) -> Float[Tensor, " sequence"]:
    """The logit difference at END, from the stream that is unembedded."""
    (read,) = seen_at(model, tokens, "unembed.hook_in")
    return read[:, -1] @ verdict_direction(model) + verdict_bias(model)


def _logit_diff_cases() -> list[Case]:
    cases = []
    for name, fresh in list(MODELS.items())[:3]:
        model = fresh.get()
        tokens = task.make_data(32, seed=3).tokens if name == LESSON else draw_tokens(model, 7, seed=3)
        right = verdicts(model, tokens)
        logits = model(tokens)
        at_end = logits[:, -1]
        every = logits[..., 1] - logits[..., 0]
        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("sequence",),
                mistakes={
                    "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": -right,
                    "These are the logits of the last value; read them at END, the last position.": every[
                        :, -2
                    ],
                    "These are the logits of START; read them at END, the last position.": every[:, 0],
                    "This is the mean over positions; the model answers at END only.": every.mean(-1),
                    "This is one value for each position; read the logits at END only, position -1.": every,
                    "These are probabilities; return the difference of the logits, before the softmax.": at_end.softmax(
                        -1
                    )
                    @ torch.tensor([-1.0, 1.0]),
                    "This is the logit of palindrome alone; subtract the logit of no palindrome.": at_end[
                        :, 1
                    ],
                    "This is the probability of palindrome; return the difference of the logits.": at_end.softmax(
                        -1
                    )[:, 1],
                    "This is the log-probability of palindrome alone; subtract that of no palindrome.": at_end.log_softmax(
                        -1
                    )[:, 1],
                    "This is the mean over sequences; return one number for each sequence.": right.mean(),
                    "These are both logits; return their difference, one number for each sequence.": at_end,
                },
            )
        )
    return cases


logit_diff = Check(
    "logit_diff",
    "The number that everything moves",
    core=True,
    cases=_logit_diff_cases,
    reference=verdicts,
)


# ── 2 · who writes the verdict ──────────────────────────────────────────────────────────────────────────────


def _parts_at_end(model: Any, tokens: Tensor, position: int = -1) -> tuple[Tensor, Tensor]:
    """Components (component, sequence, d_model) from z and W_O, not from `hook_result`; and the last scale."""
    names = [get_act_name("z", layer) for layer in range(model.cfg.n_layers)] + ["ln_final.hook_scale"]
    *zs, scale = seen_at(model, tokens, *names)
    parts = [model.W_E[tokens[:, position]], model.W_pos[tokens.shape[1] - 1].expand(len(tokens), -1)]
    for layer, z in enumerate(zs):
        parts += [z[:, position, head] @ model.W_O[layer, head] for head in range(model.cfg.n_heads)]
    parts.append(model.b_O.sum(0).expand(len(tokens), -1))
    return torch.stack(parts), scale[:, position]


def _logit_attribution(model: Any, tokens: Tensor) -> Float[Tensor, "component sequence"]:
    parts, scale = _parts_at_end(model, tokens)
    return torch.cat([parts / scale @ verdict_direction(model), verdict_bias(model).expand(1, len(tokens))])


def _logit_attribution_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        tokens = task.make_data(32, seed=4).tokens if name == LESSON else draw_tokens(model, 6, seed=4)
        right = _logit_attribution(model, tokens)
        parts, scale = _parts_at_end(model, tokens)
        shares = right[:-1]
        bias = right[-1:]
        unscaled = torch.cat([parts @ verdict_direction(model), bias])
        _, cache = model.run_with_cache(tokens)
        elsewhere, _ = circuits.residual_components(cache, position=-2)
        other_scale = cache["ln_final.hook_scale"][:, -2]
        first_scale = cache["scale", 0, "ln1"][:, -1]
        own_scale = (parts.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("component", "sequence"),
                mistakes={
                    "The rows do not add up to the logit difference: the last LayerNorm's scale is forgotten. Divide "
                    'by `cache["ln_final.hook_scale"]` at END.': unscaled,
                    "Every sequence has its own scale; you divided by the mean of the scales.": torch.cat(
                        [parts / scale.mean() @ verdict_direction(model), bias]
                    ),
                    "This is the scale of the first LayerNorm; the unembedding reads after the last one, `ln_final`.": (
                        torch.cat([parts / first_scale @ verdict_direction(model), bias])
                    ),
                    "Every component was normalised by a scale of its own; divide all by the one scale of their sum, "
                    '`cache["ln_final.hook_scale"]`, or they do not add up.': torch.cat(
                        [parts / own_scale @ verdict_direction(model), bias]
                    ),
                    "You multiplied by the last LayerNorm's scale; divide by it.": torch.cat(
                        [parts * scale @ verdict_direction(model), bias]
                    ),
                    "The row of `b_U` comes first; it is the last row.": torch.cat([bias, shares]),
                    "The row of `b_U` is turned round: `b_U[1] - b_U[0]`.": torch.cat([shares, -bias]),
                    "The last row is `b_U[1]` alone; subtract `b_U[0]`.": torch.cat(
                        [shares, model.b_U[1].expand_as(bias)]
                    ),
                    "The row of the heads' output bias `b_O` is missing.": torch.cat([shares[:-1], bias]),
                    "The sign is turned round: towards palindrome (index 1), away from no palindrome (index 0).": -right,
                    "The last row should be `b_U[1] - b_U[0]`; the rows before it are right. Add it.": shares,
                    "The last row should be `b_U[1] - b_U[0]`, not zero: without it the rows do not add up.": torch.cat(
                        [shares, torch.zeros_like(bias)]
                    ),
                    "The bias is not divided by the scale: it is added after the LayerNorm.": torch.cat(
                        [shares, bias / scale.T]
                    ),
                    "This is the attribution at the last value, position -2; the verdict is read at END, position -1.": (
                        torch.cat([elsewhere / other_scale @ verdict_direction(model), bias])
                    ),
                    "This is the direction of the logit of palindrome alone; subtract `W_U[:, 0]`.": torch.cat(
                        [parts / scale @ model.W_U[:, 1], model.b_U[1].expand(1, len(tokens))]
                    ),
                    "This is the mean over sequences; return one number for each component and sequence.": right.mean(
                        -1
                    ),
                },
            )
        )
    return cases


logit_attribution = Check(
    "logit_attribution",
    "Direct logit attribution that adds up",
    core=True,
    cases=_logit_attribution_cases,
    reference=_logit_attribution,
)


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
    rows = _logit_attribution(model, data.tokens)[2:-2]
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
