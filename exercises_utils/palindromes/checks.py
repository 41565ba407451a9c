"""The checks of lesson 03, in the order of the lesson. This file contains the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other shapes; `mistakes` maps a
message to the value that a common mistake gives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import get_act_name

from exercises_utils import circuits, hooks
from exercises_utils.checking import Case, Check, CheckList, Fresh, Question
from exercises_utils.models import ModelConfig, build_model, load_model
from exercises_utils.palindromes import task

CHECKS = CheckList("03 palindromes")
progress = CHECKS.progress

LESSON = "the lesson's model"
_lesson_model = Fresh(lambda: load_model(task.CHALLENGE, device="cpu"))
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
_MODELS = {LESSON: _lesson_model, **_random_models}


def _tokens(model: Any, size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Random tokens of the full length for a model of any shape; values and special tokens alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.cfg.d_vocab, (size, model.cfg.n_ctx), generator=generator)


def _at_end(model: Any, tokens: Tensor, *names: str) -> list[Tensor]:
    with hooks.record(model, *names) as seen:
        model(tokens)
    return [seen[name] for name in names]


def _direction(model: Any) -> Float[Tensor, " d_model"]:
    return model.W_U[:, 1] - model.W_U[:, 0]


def _bias(model: Any) -> Float[Tensor, ""]:
    return model.b_U[1] - model.b_U[0]


# ── 1 · the verdict ─────────────────────────────────────────────────────────────────────────────────────────


def _logit_diff(model: Any, tokens: Tensor) -> Float[Tensor, " sequence"]:
    (read,) = _at_end(model, tokens, "unembed.hook_in")
    return read[:, -1] @ _direction(model) + _bias(model)


def _logit_diff_cases() -> list[Case]:
    cases = []
    for name, fresh in list(_MODELS.items())[:3]:
        model = fresh.get()
        tokens = task.make_data(32, seed=3).tokens if name == LESSON else _tokens(model, 7, seed=3)
        right = _logit_diff(model, tokens)
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
                    "This is the mean over sequences; return one number for each sequence.": right.mean(),
                    "These are both logits; return their difference, one number for each sequence.": at_end,
                },
            )
        )
    return cases


logit_diff = CHECKS.add(
    Check(
        "logit_diff",
        "The number that everything moves",
        core=True,
        cases=_logit_diff_cases,
        reference=_logit_diff,
    )
)


# ── 2 · who writes the verdict ──────────────────────────────────────────────────────────────────────────────


def _parts_at_end(model: Any, tokens: Tensor, position: int = -1) -> tuple[Tensor, Tensor]:
    """Components (component, sequence, d_model) from z and W_O, not from `hook_result`; and the last scale."""
    names = [get_act_name("z", layer) for layer in range(model.cfg.n_layers)] + ["ln_final.hook_scale"]
    *zs, scale = _at_end(model, tokens, *names)
    parts = [model.W_E[tokens[:, position]], model.W_pos[tokens.shape[1] - 1].expand(len(tokens), -1)]
    for layer, z in enumerate(zs):
        parts += [z[:, position, head] @ model.W_O[layer, head] for head in range(model.cfg.n_heads)]
    parts.append(model.b_O.sum(0).expand(len(tokens), -1))
    return torch.stack(parts), scale[:, position]


def _logit_attribution(model: Any, tokens: Tensor) -> Float[Tensor, "component sequence"]:
    parts, scale = _parts_at_end(model, tokens)
    return torch.cat([parts / scale @ _direction(model), _bias(model).expand(1, len(tokens))])


def _logit_attribution_cases() -> list[Case]:
    cases = []
    for name, fresh in _MODELS.items():
        model = fresh.get()
        tokens = task.make_data(32, seed=4).tokens if name == LESSON else _tokens(model, 6, seed=4)
        right = _logit_attribution(model, tokens)
        parts, scale = _parts_at_end(model, tokens)
        shares = right[:-1]
        bias = right[-1:]
        unscaled = torch.cat([parts @ _direction(model), bias])
        _, cache = model.run_with_cache(tokens)
        elsewhere, _ = circuits.residual_components(cache, position=-2)
        other_scale = cache["ln_final.hook_scale"][:, -2]
        first_scale = cache["scale", 0, "ln1"][:, -1]
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
                        [parts / scale.mean() @ _direction(model), bias]
                    ),
                    "This is the scale of the first LayerNorm; the unembedding reads after the last one, `ln_final`.": (
                        torch.cat([parts / first_scale @ _direction(model), bias])
                    ),
                    "The sign is turned round: towards palindrome (index 1), away from no palindrome (index 0).": -right,
                    "The last row should be `b_U[1] - b_U[0]`; the rows before it are right. Add it.": shares,
                    "The last row should be `b_U[1] - b_U[0]`, not zero: without it the rows do not add up.": torch.cat(
                        [shares, torch.zeros_like(bias)]
                    ),
                    "The bias is not divided by the scale: it is added after the LayerNorm.": torch.cat(
                        [shares, bias / scale.T]
                    ),
                    "This is the attribution at the last value, position -2; the verdict is read at END, position -1.": (
                        torch.cat([elsewhere / other_scale @ _direction(model), bias])
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


logit_attribution = CHECKS.add(
    Check(
        "logit_attribution",
        "Direct logit attribution that adds up",
        core=True,
        cases=_logit_attribution_cases,
        reference=_logit_attribution,
    )
)


@functools.cache
def _head_costs() -> dict[tuple[int, int], float]:
    """Nats that mean-ablating each head costs on 1,000 sequences."""
    model, data = _lesson_model.get(), task.make_data(1000, seed=5)
    before = task.loss(model(data.tokens), data)
    costs = {}
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with hooks.ablate(model, [(layer, head)], activation="z", how="mean"):
                costs[layer, head] = (task.loss(model(data.tokens), data) - before).item()
    return costs


def _is_head(value: Any) -> str | None:
    if not (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    ):
        return f"A head is a pair of whole numbers, (layer, head), such as (0, 1); got {value!r}."
    if tuple(value) not in _head_costs():
        return f"The model has no head {tuple(value)}: layers are 0 and 1, heads are 0 and 1."
    return None


def _refuse_reading_head(value: Any) -> str | None:
    if problem := _is_head(value):
        return problem
    costs = _head_costs()
    layer, head = value
    if layer == 0:
        return (
            f"Head {layer}.{head} is in layer 0. Ablating it costs {costs[layer, head]:.3f} nats, but what matters here is "
            "what is written directly to END and read by the unembedding: compare the rows of the heads, not their size."
        )
    best = max(cost for (a, _), cost in costs.items() if a == layer)
    if costs[layer, head] < 0.1 * best:
        return (
            f"Mean-ablating head {layer}.{head} costs {costs[layer, head]:.3f} nats, another head of this layer {best:.3f}. "
            "A head may write a lot, or the same for all sequences: look for the largest difference between the two classes."
        )
    return None


def _best_reading_head() -> tuple[int, int]:
    last = [head for head in _head_costs() if head[0] == 1]
    return max(last, key=lambda head: _head_costs()[head])


reading_head = CHECKS.add(
    Check(
        "reading_head",
        "Which head writes the verdict",
        core=True,
        cases=lambda: [Case(LESSON, requires=_refuse_reading_head)],
        reference=_best_reading_head,
    )
)


# ── 3 · where END looks ─────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _noticed() -> tuple[int, Tensor, Tensor]:
    """The position of the second half whose change moves the verdict most, and sequences before and after."""
    model = _lesson_model.get()
    intact = palindromes(128, seed=6)
    changed = {position: task.change_value(intact, position, seed=6) for position in task.SECOND_HALF}
    position = min(changed, key=lambda p: _logit_diff(model, changed[p]).mean().item())
    return position, intact, changed[position]


def palindromes(size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Palindromes only, without labels."""
    data = task.make_data(2 * size, seed)
    return data.tokens[data.is_palindrome][:size]


def _where_end_looks() -> str:
    position, intact, broken = _noticed()
    model, layer_head = _lesson_model.get(), _best_reading_head()
    name = get_act_name("pattern", layer_head[0])
    gain = (
        _at_end(model, broken, name)[0].sum(1)[:, -1] - _at_end(model, intact, name)[0].sum(1)[:, -1]
    ).mean(0)
    return {task.mirror(position): "a", position: "b", 0: "d"}.get(int(gain.argmax()), "?")


where_end_looks = CHECKS.add(
    Question(
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
                "only this position has seen both values, so only here can a mark of the disagreement stand.",
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
)


# ── 4 · who compares ────────────────────────────────────────────────────────────────────────────────────────


def _mirror_attention(pattern: Tensor) -> Float[Tensor, "sequence pair"]:
    n = pattern.shape[-1] - 2
    rows = []
    for sequence in pattern:
        rows.append(torch.stack([sequence[query, n + 1 - query] for query in range(n // 2 + 1, n + 1)]))
    return torch.stack(rows)


def _mirror_attention_cases() -> list[Case]:
    cases = []
    for i, n in enumerate((20, 6, 8)):
        # not causal, so that a mistake that reads above the diagonal does not read zeros
        scores = torch.randn(5 + i, n + 2, n + 2, generator=torch.Generator().manual_seed(i))
        pattern = scores.softmax(-1)
        queries = torch.arange(n // 2 + 1, n + 1)
        right = _mirror_attention(pattern)
        cases.append(
            Case(
                f"patterns of {n} values",
                (pattern,),
                right,
                axes=("sequence", "pair"),
                mistakes={
                    "These go from the first half to the second, which attention cannot do: rows are queries, "
                    "columns are keys.": pattern[:, n + 1 - queries, queries],
                    "These go from the first half to the second; the queries are the second half's positions.": pattern[
                        :, torch.arange(1, n // 2 + 1), n + 1 - torch.arange(1, n // 2 + 1)
                    ],
                    "The order is turned round: start with the middle pair, as the second half does.": right.flip(
                        -1
                    ),
                    "Off by one: the mirror of position i is n + 1 - i, not n - i (START is position 0).": pattern[
                        :, queries, n - queries
                    ],
                    "Off by one: the second half starts at position n/2 + 1, not n/2 (START is position 0).": pattern[
                        :, queries - 1, n + 2 - queries
                    ],
                    "This is the whole antidiagonal, with START, END and the first half; only the second half's values "
                    "are asked for.": pattern.flip(-1).diagonal(dim1=1, dim2=2),
                    "This is the mean over sequences; return a row for each sequence.": right.mean(0),
                    "The axes are swapped: sequences are the rows, pairs the columns.": right.T,
                },
            )
        )
    return cases


mirror_attention = CHECKS.add(
    Check(
        "mirror_attention",
        "Attention to the mirror",
        core=True,
        cases=_mirror_attention_cases,
        reference=_mirror_attention,
    )
)


def _token_circuit(model: Any, head: tuple[int, int], scale: float) -> Float[Tensor, "query_value key_value"]:
    layer, index = head
    W_QK = FactoredMatrix(model.W_Q[layer, index], model.W_K[layer, index].T)
    values = model.W_E[: model.cfg.d_vocab - 2]
    return (values @ W_QK @ values.T).AB / (scale * scale * model.cfg.d_head**0.5)


def _token_circuit_cases() -> list[Case]:
    cases = []
    for name, head, scale in (
        (LESSON, (0, 0), 1.4),
        (LESSON, (0, 1), 0.7),
        ("a random model with 3 layers and 3 heads", (0, 2), 0.6),
        ("a random model with 1 layer and 4 heads", (0, 1), 1.7),
    ):
        fresh = _MODELS[name]
        model = fresh.get()
        right = _token_circuit(model, head, scale)
        values, root = model.W_E[:-2], model.cfg.d_head**0.5
        layer, index = head
        W_Q, W_K = model.W_Q[layer, index], model.W_K[layer, index]
        everything = model.W_E @ W_Q @ W_K.T @ model.W_E.T / (scale**2 * root)
        biased = (values @ W_Q / scale + model.b_Q[layer, index]) @ (
            values @ W_K / scale + model.b_K[layer, index]
        ).T
        cases.append(
            Case(
                f"{name}, head {layer}.{index}",
                (fresh, head, scale),
                right,
                axes=("query value", "key value"),
                mistakes={
                    "The scores are not divided by sqrt(d_head): attention divides by it before the softmax.": right
                    * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "The scores are divided by sqrt(d_model); the width of a head is d_head.": right
                    * root
                    / model.cfg.d_model**0.5,
                    "The scale is used once; it divides the query and the key, so the scores by its square.": right
                    * scale,
                    "The LayerNorm scale is forgotten: divide both sides by it.": right * scale**2,
                    "You multiplied by the LayerNorm scale; divide by it, on both sides.": right * scale**4,
                    "Rows and columns are swapped: the query's value is the row, the key's value the column.": right.T,
                    "The two special tokens are in it: leave out the last two rows of W_E.": everything,
                    "A softmax has been taken; return the scores.": right.softmax(-1),
                    "The biases b_Q and b_K are in it; the exercise leaves them out.": biased / root,
                    "This is the OV circuit's W_V W_O; attention scores come from W_Q and W_K.": values
                    @ model.W_V[layer, index]
                    @ model.W_O[layer, index]
                    @ values.T
                    / (scale**2 * root),
                },
            )
        )
    return cases


token_circuit = CHECKS.add(
    Check(
        "token_circuit",
        "Full QK circuit of the values",
        core=True,
        cases=_token_circuit_cases,
        reference=_token_circuit,
    )
)


@functools.cache
def _flips_of_layer_0() -> dict[int, float]:
    """For each head of layer 0: the share of verdicts that turn to "no palindrome" when the head's whole output at
    a changed position comes from the changed sequence, over the positions whose change the model notices."""
    model = _lesson_model.get()
    intact = palindromes(64, seed=8)
    flips: dict[int, list[Tensor]] = {head: [] for head in range(model.cfg.n_heads)}
    for position in task.SECOND_HALF:
        broken = task.change_value(intact, position, seed=position)
        (z,) = _at_end(model, broken, get_act_name("z", 0))
        noticed = (_logit_diff(model, broken) < 0) & (_logit_diff(model, intact) > 0)
        for head in flips:
            with hooks.patch(model, "z", 0, z, heads=[head], positions=[position]):
                flips[head].append((_logit_diff(model, intact) < 0)[noticed].float())
    return {head: torch.cat(values).mean().item() for head, values in flips.items()}


def _refuse_matching_head(value: Any) -> str | None:
    if problem := _is_head(value):
        return problem
    layer, head = value
    if layer != 0:
        return (
            f"Head {layer}.{head} is in layer {layer}. The reading head finds the changed position marked already, so the "
            "comparing happens in a layer before it."
        )
    flips = _flips_of_layer_0()
    best = max(flips.values())
    if flips[head] < 0.5 * best:
        return (
            f"Putting head 0.{head}'s output on broken sequences into intact ones turns {flips[head]:.0%} of the verdicts, "
            f"another head's {best:.0%}. Take the head whose attention to the mirror depends on whether the values agree; "
            "attention to the mirror that is there anyway compares nothing."
        )
    return None


def _best_matching_head() -> tuple[int, int]:
    flips = _flips_of_layer_0()
    return 0, max(flips, key=lambda head: flips[head])


matching_head = CHECKS.add(
    Check(
        "matching_head",
        "Which head compares",
        core=True,
        cases=lambda: [Case(LESSON, requires=_refuse_matching_head)],
        reference=_best_matching_head,
    )
)
