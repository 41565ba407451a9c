"""The checks of lesson 03, in the order of the lesson. This file contains the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other shapes; `mistakes` maps a
message to the value that a common mistake gives.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import get_act_name

from exercises_utils import circuits, hooks
from exercises_utils.checking import Case, Check, CheckList, Fresh, Question
from exercises_utils.checkpoints import checkpoint_path
from exercises_utils.evidence import CircuitScorer, circuit_score
from exercises_utils.evidence_checks import CircuitCheck, CounterexamplesCheck, ExplanationCheck
from exercises_utils.evidence_files import Evidence, load_evidence
from exercises_utils.models import DEFAULT_INSTANCE, ModelConfig, build_model, load_model
from exercises_utils.palindromes import evidence as evidence_task
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
                    "This is the log-probability of palindrome alone; subtract that of no palindrome.": at_end.log_softmax(
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
                        [parts / scale.mean() @ _direction(model), bias]
                    ),
                    "This is the scale of the first LayerNorm; the unembedding reads after the last one, `ln_final`.": (
                        torch.cat([parts / first_scale @ _direction(model), bias])
                    ),
                    "Every component was normalised by a scale of its own; divide all by the one scale of their sum, "
                    '`cache["ln_final.hook_scale"]`, or they do not add up.': torch.cat(
                        [parts / own_scale @ _direction(model), bias]
                    ),
                    "You multiplied by the last LayerNorm's scale; divide by it.": torch.cat(
                        [parts * scale @ _direction(model), bias]
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
    model, data = _lesson_model.get(), task.make_data(1000, seed=5)
    rows = _logit_attribution(model, data.tokens)[2:-2]
    gaps = rows[:, data.is_palindrome].mean(-1) - rows[:, ~data.is_palindrome].mean(-1)
    return dict(zip(_head_costs(), gaps.tolist(), strict=True))


def _refuse_reading_head(value: Any) -> str | None:
    if problem := _is_head(value):
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
                    "Off by one: n is the number of values, two less than there are positions.": pattern[
                        :, torch.arange(n // 2 + 2, n + 2), n + 2 - torch.arange(n // 2 + 2, n + 2)
                    ],
                    "This is the attention of each position to itself, the diagonal; the mirror is at n + 1 - i.": pattern[
                        :, queries, queries
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


def _position_circuit(model: Any, head: tuple[int, int], scale: float) -> Float[Tensor, "query key"]:
    layer, index = head
    W_QK = FactoredMatrix(model.W_Q[layer, index], model.W_K[layer, index].T)
    return (model.W_pos @ W_QK @ model.W_pos.T).AB / (scale * scale * model.cfg.d_head**0.5)


def _position_circuit_cases() -> list[Case]:
    cases = []
    for name, head, scale in (
        (LESSON, (0, 0), 1.4),
        ("a random model with 3 layers and 3 heads", (0, 2), 0.6),
        ("a random model with 1 layer and 4 heads", (0, 3), 1.7),
    ):
        fresh = _MODELS[name]
        model = fresh.get()
        right, root = _position_circuit(model, head, scale), model.cfg.d_head**0.5
        cases.append(
            Case(
                f"{name}, head {head[0]}.{head[1]}",
                (fresh, head, scale),
                right,
                axes=("query position", "key position"),
                mistakes={
                    "The scores are not divided by sqrt(d_head).": right * root,
                    "The scale is used once; it divides the query and the key, so the scores by its square.": right
                    * scale,
                    "The LayerNorm scale is forgotten: divide both sides by it.": right * scale**2,
                    "Rows and columns are swapped: the query's position is the row.": right.T,
                    "A softmax has been taken; return the scores of the whole square.": right.softmax(-1),
                    "A softmax has been taken; return the scores of the whole square, before mask and softmax.": (
                        circuits.causal(right).softmax(-1)
                    ),
                    "The causal mask is in it; return the whole square.": circuits.causal(right),
                    "START and END are left out; return all positions, the first and the last included.": right[
                        1:-1, 1:-1
                    ],
                    "This is the circuit of the values: put W_pos on both sides, not W_E.": _token_circuit(
                        model, head, scale
                    ),
                },
            )
        )
    return cases


position_circuit = CHECKS.add(
    Check(
        "position_circuit",
        "The λ of the positions",
        core=False,
        cases=_position_circuit_cases,
        reference=_position_circuit,
    )
)


def _attention_without_positions(
    model: Any,
    head: tuple[int, int],
    tokens: Tensor,
    *,
    masked: bool = True,
    normalised: bool = True,
    epsilon: float = 1e-5,
) -> Float[Tensor, "query key"]:
    layer, index = head
    x = model.W_E[tokens]
    if normalised:
        x = x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
    queries = x @ model.W_Q[layer, index] + model.b_Q[layer, index]
    keys = x @ model.W_K[layer, index] + model.b_K[layer, index]
    scores = queries @ keys.T / model.cfg.d_head**0.5
    return (circuits.causal(scores) if masked else scores).softmax(-1)


def _attention_without_positions_cases() -> list[Case]:
    cases = []
    for name, head in (
        (LESSON, (0, 0)),
        (LESSON, (0, 1)),
        ("a random model with 3 layers and 3 heads", (0, 2)),
        ("a random model with 1 layer and 4 heads", (0, 1)),
    ):
        fresh = _MODELS[name]
        model = fresh.get()
        layer, index = head
        tokens = (
            torch.tensor([31, *[4, 9, 4, 30] * 5, 32])
            if name == LESSON
            else _tokens(model, 1, seed=9 + index)[0]
        )
        _, cache = model.run_with_cache(tokens[None])
        right = _attention_without_positions(model, head, tokens)
        x = model.W_E[tokens] / cache["scale", 0, "ln1"][0]
        scores = (x @ model.W_Q[layer, index] + model.b_Q[layer, index]) @ (
            x @ model.W_K[layer, index] + model.b_K[layer, index]
        ).T
        unbiased = x @ model.W_Q[layer, index] @ model.W_K[layer, index].T @ x.T / model.cfg.d_head**0.5
        short = model.W_E[tokens] / (model.W_E[tokens].pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        no_bias = (
            short @ model.W_Q[layer, index] @ model.W_K[layer, index].T @ short.T / model.cfg.d_head**0.5
        )
        cases.append(
            Case(
                f"{name}, head {layer}.{index}",
                (fresh, head, tokens),
                right,
                axes=("query", "key"),
                mistakes={
                    "The positions are still in it: this is the model's own pattern.": cache[
                        "pattern", layer
                    ][0, index],
                    "The causal mask is missing: a query attends to nothing after it.": _attention_without_positions(
                        model, head, tokens, masked=False
                    ),
                    "The LayerNorm is missing: normalise the embeddings, which are now all there is.": (
                        _attention_without_positions(model, head, tokens, normalised=False)
                    ),
                    "LayerNorm's epsilon is missing: the model adds 1e-5 to the mean square, under the root.": (
                        _attention_without_positions(model, head, tokens, epsilon=0.0)
                    ),
                    "The scores are not divided by sqrt(d_head).": (
                        right.log() * model.cfg.d_head**0.5
                    ).softmax(-1),
                    "Numbers after the mask were set to 0 when the softmax had been taken; mask the scores before it.": (
                        _attention_without_positions(model, head, tokens, masked=False).tril()
                    ),
                    "The scale is that of the full residual stream, and no biases; without positions the vector "
                    "is shorter, so LayerNorm divides by less.": circuits.causal(unbiased).softmax(-1),
                    "The scale is that of the full residual stream; without positions the vector is shorter, so LayerNorm "
                    "divides by less.": circuits.causal(scores / model.cfg.d_head**0.5).softmax(-1),
                    "The biases b_Q and b_K are missing.": circuits.causal(no_bias).softmax(-1),
                    "The softmax runs over the queries; it runs over the keys, the last axis.": _wrong_axis(
                        model, head, tokens
                    ),
                    "This is the position circuit's half: the token embeddings are gone instead.": _tokens_gone(
                        model, head, tokens
                    ),
                },
            )
        )
    return cases


def _wrong_axis(model: Any, head: tuple[int, int], tokens: Tensor) -> Tensor:
    with model.hooks(fwd_hooks=[("hook_pos_embed", lambda activation, hook: torch.zeros_like(activation))]):
        (scores,) = _at_end(model, tokens[None], get_act_name("attn_scores", head[0]))
    return scores[0, head[1]].softmax(0)


def _tokens_gone(model: Any, head: tuple[int, int], tokens: Tensor) -> Tensor:
    with model.hooks(fwd_hooks=[("hook_embed", lambda activation, hook: torch.zeros_like(activation))]):
        (pattern,) = _at_end(model, tokens[None], get_act_name("pattern", head[0]))
    return pattern[0, head[1]]


attention_without_positions = CHECKS.add(
    Check(
        "attention_without_positions",
        "What positions add",
        core=False,
        cases=_attention_without_positions_cases,
        reference=_attention_without_positions,
    )
)


# ── 5 · is that the message ─────────────────────────────────────────────────────────────────────────────────


def _swap_pattern(
    model: Any, head: tuple[int, int], intact: Tensor, broken: Tensor, position: int
) -> Float[Tensor, " sequence"]:
    """By the head's output: the row of attention of the broken run times the values of the intact one, put into z."""
    layer, index = head
    (pattern,) = _at_end(model, broken, get_act_name("pattern", layer))
    (values,) = _at_end(model, intact, get_act_name("v", layer))

    def put(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, position, index] = torch.einsum("sk,skd->sd", pattern[:, index, position], values[:, :, index])
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", layer), put)]):
        return _logit_diff(model, intact)


def _with_patches(model: Any, tokens: Tensor, *patches: tuple[Any, ...]) -> Tensor:
    """Logit differences with patches (activation, layer, value, heads, positions)."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for activation, layer, value, heads, positions in patches:
            stack.enter_context(
                hooks.patch(model, activation, layer, value, heads=heads, positions=positions)
            )
        return _logit_diff(model, tokens)


def _pair_of_runs(name: str, seed: int, position: int) -> tuple[Any, Tensor, Tensor]:
    """A model, sequences, and the same sequences with one value changed."""
    model = _MODELS[name].get()
    if name == LESSON:
        intact = palindromes(24, seed)
        return model, intact, task.change_value(intact, position, seed)
    intact = _tokens(model, 6, seed)
    broken = intact.clone()
    broken[:, position] = (broken[:, position] + 1 + torch.arange(6) % 3) % model.cfg.d_vocab
    return model, intact, broken


def _swap_pattern_cases() -> list[Case]:
    cases = []
    best = _best_matching_head()
    position = _noticed()[0]
    for name, head, place in (
        (LESSON, best, position),
        ("a random model with 3 layers and 3 heads", (1, 2), 7),
        ("a random model with 2 layers and 3 heads", (0, 1), 5),
    ):
        model, intact, broken = _pair_of_runs(name, 11, place)
        layer, index = head
        broken_pattern, broken_z = _at_end(
            model, broken, get_act_name("pattern", layer), get_act_name("z", layer)
        )
        (intact_pattern,) = _at_end(model, intact, get_act_name("pattern", layer))
        (broken_v,) = _at_end(model, broken, get_act_name("v", layer))
        right, last = _swap_pattern(model, head, intact, broken, place), intact.shape[1] - 1
        entry = intact_pattern.clone()
        entry[:, index, place, last - place] = broken_pattern[:, index, place, last - place]
        column = intact_pattern.clone()
        column[:, index, :, place] = broken_pattern[:, index, :, place]
        logits = model(intact)
        cases.append(
            Case(
                f"{name}, head {layer}.{index}, position {place}",
                (_MODELS[name], head, intact, broken, place),
                right,
                axes=("sequence",),
                mistakes={
                    "Nothing was swapped that differs: these are the logit differences of the intact sequences. Does the "
                    "forward pass stand inside the `with` block, does the pattern come from `broken`, and is it the row of "
                    "`position`?": _logit_diff(model, intact),
                    "These are the logit differences of the broken sequences; run `intact` inside the block.": _logit_diff(
                        model, broken
                    ),
                    "The two runs are exchanged: the intact run's attention was put into the broken one.": _with_patches(
                        model, broken, ("pattern", layer, intact_pattern, [index], [place])
                    ),
                    "All rows of the head's pattern were swapped; swap only the row of query `position` "
                    "(`positions=[position]`).": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, [index], None)
                    ),
                    "All heads of the layer were swapped; swap only `head` (`heads=[index]`).": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, None, [place])
                    ),
                    "The column was swapped: who attends *to* the position. Swap the row, where the position itself "
                    "attends.": _with_patches(model, intact, ("pattern", layer, column, [index], None)),
                    "The head's output `z` was swapped, which takes the broken run's values along; swap the pattern "
                    "only.": _with_patches(model, intact, ("z", layer, broken_z, [index], [place])),
                    "The values `v` were swapped, not the pattern.": _with_patches(
                        model, intact, ("v", layer, broken_v, [index], [place])
                    ),
                    "The row of END was swapped; swap the row of `position`.": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, [index], [last])
                    ),
                    "Only the attention to the mirror was swapped; swap the whole row of `position`.": _with_patches(
                        model, intact, ("pattern", layer, entry, [index], [place])
                    ),
                    "This is a difference of probabilities; return the difference of the logits.": (
                        right / 2
                    ).tanh(),
                    "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": -right,
                    "These are both logits; return their difference, one number for each sequence.": logits[
                        :, -1
                    ],
                },
            )
        )
    return cases


swap_pattern = CHECKS.add(
    Check(
        "swap_pattern",
        "One row of attention, swapped",
        core=True,
        cases=_swap_pattern_cases,
        reference=_swap_pattern,
    )
)


def _swap_inputs(
    model: Any, layer: int, inputs: Sequence[str], intact: Tensor, broken: Tensor, position: int
) -> Float[Tensor, " sequence"]:
    """By hand-written hooks, one for each input."""
    end = intact.shape[1] - 1
    fwd_hooks: list[tuple[str, Callable[..., Tensor]]] = []
    for name in inputs:
        place = end if name == "q" else position
        (source,) = _at_end(model, broken, get_act_name(name, layer))

        def put(activation: Tensor, hook: Any, source: Tensor = source, place: int = place) -> Tensor:
            activation[:, place] = source[:, place]
            return activation

        fwd_hooks.append((get_act_name(name, layer), put))
    with model.hooks(fwd_hooks=fwd_hooks):
        return _logit_diff(model, intact)


def _swap_inputs_cases() -> list[Case]:
    cases = []
    noticed = _noticed()[0]
    for name, layer, inputs, place in (
        (LESSON, 1, ("k", "v"), noticed),
        (LESSON, 1, ("v",), noticed),
        ("a random model with 3 layers and 3 heads", 2, ("q", "k"), 7),
        ("a random model with 2 layers and 3 heads", 1, ("q",), 5),
        ("a random model with 2 layers and 3 heads", 1, ("k", "q", "v"), 4),
    ):
        model, intact, broken = _pair_of_runs(name, 12, place)
        end = intact.shape[1] - 1
        source = {n: _at_end(model, broken, get_act_name(n, layer))[0] for n in "qkv"}

        def patched(
            places: dict[str, int | None],
            heads: list[int] | None = None,
            model: Any = model,
            intact: Tensor = intact,
            layer: int = layer,
            inputs: tuple[str, ...] = inputs,
            source: dict[str, Tensor] = source,
        ) -> Tensor:
            """With each input taken at its place; None stands for all places."""
            at = {name: None if place is None else [place] for name, place in places.items()}
            return _with_patches(model, intact, *[(n, layer, source[n], heads, at[n]) for n in inputs])

        right, before = _swap_inputs(model, layer, inputs, intact, broken, place), _logit_diff(model, intact)
        alone = {n: _swap_inputs(model, layer, (n,), intact, broken, place) for n in inputs}
        end_or_place = end if inputs[-1] == "q" else place
        bound_late = [(n, layer, source[inputs[-1]], None, [end_or_place]) for n in inputs]
        cases.append(
            Case(
                f"{name}, layer {layer}, {' and '.join(inputs)}",
                (_MODELS[name], layer, inputs, intact, broken, place),
                right,
                axes=("sequence",),
                mistakes={
                    "Nothing was swapped: these are the logit differences of the intact sequences.": _logit_diff(
                        model, intact
                    ),
                    "Queries were taken at `position`; END asks, so take them at END.": patched(
                        dict.fromkeys("qkv", place)
                    ),
                    "Keys and values were taken at END; take them at `position`.": patched(
                        dict.fromkeys("qkv", end)
                    ),
                    "All positions were swapped; take queries at END, keys and values at `position`.": patched(
                        dict.fromkeys("qkv")
                    ),
                    "Only one head was swapped; swap all heads of the layer.": patched(
                        {"q": end, "k": place, "v": place}, heads=[0]
                    ),
                    "Only the first of the `inputs` was swapped; swap them all, in the same run.": _swap_inputs(
                        model, layer, inputs[:1], intact, broken, place
                    ),
                    "Only the last of the `inputs` was swapped; swap them all, in the same run.": alone[
                        inputs[-1]
                    ],
                    "Each of the `inputs` was swapped in a run of its own, and the effects added; swap them all in the same "
                    "run.": before + torch.stack([one - before for one in alone.values()]).sum(0),
                    "Every hook puts in the last of the `inputs`: a function made in a loop sees the loop variable as the "
                    "loop left it. Bind it when the hook is made: `def put(value, hook, name=name)`.": _with_patches(
                        model, intact, *bound_late
                    ),
                    "Keys and values were taken at the mirror of `position`; take them at `position`.": patched(
                        {"q": end, "k": end - place, "v": end - place}
                    ),
                    "The two runs are exchanged: inputs of the intact run were put into the broken one.": _swap_inputs(
                        model, layer, inputs, broken, intact, place
                    ),
                    "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": -right,
                    "These are the logit differences of the broken sequences; run `intact` inside the blocks.": _logit_diff(
                        model, broken
                    ),
                },
            )
        )
    return cases


swap_inputs = CHECKS.add(
    Check(
        "swap_inputs",
        "Through queries, keys or values?",
        core=False,
        cases=_swap_inputs_cases,
        reference=_swap_inputs,
    )
)


def _composed_key_scores(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int], query: Tensor
) -> Float[Tensor, " position"]:
    """From the query back to the positions, one factor after the other."""
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_K[l1, h1] @ query / model.cfg.d_head**0.5
    return model.W_pos @ (model.W_V[l0, h0] @ (model.W_O[l0, h0] @ asked))


def _composed_verdict(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int]
) -> Float[Tensor, " position"]:
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_V[l1, h1] @ (model.W_O[l1, h1] @ _direction(model))
    return model.W_pos @ (model.W_V[l0, h0] @ (model.W_O[l0, h0] @ asked))


_COMPOSED = (
    (LESSON, (0, 0), (1, 1)),
    (LESSON, (0, 1), (1, 0)),
    ("a random model with 3 layers and 3 heads", (0, 2), (2, 1)),
    ("a random model with 2 layers and 3 heads", (0, 1), (1, 2)),
)


def _composed_key_scores_cases() -> list[Case]:
    cases = []
    for i, (name, matcher, reader) in enumerate(_COMPOSED):
        model = _MODELS[name].get()
        query = torch.randn(model.cfg.d_head, generator=torch.Generator().manual_seed(i))
        right, root = _composed_key_scores(model, matcher, reader, query), model.cfg.d_head**0.5
        direct = model.W_pos @ model.W_K[reader] @ query / root
        swapped_heads = (
            model.W_pos @ model.W_V[reader] @ model.W_O[reader] @ model.W_K[matcher] @ query / root
        )
        as_query = model.W_pos @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_Q[reader] @ query / root
        through_v = model.W_pos @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_V[reader] @ query / root
        tokens = model.W_E @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_K[reader] @ query / root
        cases.append(
            Case(
                f"{name}, heads {matcher[0]}.{matcher[1]} and {reader[0]}.{reader[1]}",
                (_MODELS[name], matcher, reader, query),
                right,
                axes=("position",),
                mistakes={
                    "The score is not divided by sqrt(d_head).": right * root,
                    "The matching head is missing: this is the position embedding read directly.": direct,
                    "The two heads are exchanged: the matching head moves, the reading head's W_K reads.": swapped_heads,
                    "This goes through the reading head's W_Q; keys are made with W_K.": as_query,
                    "This goes through the reading head's W_V; keys are made with W_K.": through_v,
                    "The score is divided by d_head; attention divides by its square root.": right / root,
                    "The position embedding itself is in it; only what the matching head moves is asked for.": right
                    + direct,
                    "These are the token embeddings; use W_pos.": tokens,
                    "START and END are left out; return all positions.": right[1:-1],
                    "A softmax has been taken; return the scores.": right.softmax(0),
                },
            )
        )
    return cases


def _composed_verdict_cases() -> list[Case]:
    cases = []
    for name, matcher, reader in _COMPOSED:
        model = _MODELS[name].get()
        right = _composed_verdict(model, matcher, reader)
        moved = circuits.ov_output(model, matcher, model.W_pos)
        cases.append(
            Case(
                f"{name}, heads {matcher[0]}.{matcher[1]} and {reader[0]}.{reader[1]}",
                (_MODELS[name], matcher, reader),
                right,
                axes=("position",),
                mistakes={
                    "The sign is turned round: towards palindrome is W_U[:, 1] - W_U[:, 0].": -right,
                    "The matching head is missing: only the reading head moves the embedding.": circuits.ov_output(
                        model, reader, model.W_pos
                    )
                    @ _direction(model),
                    "The reading head is missing: this is what the matching head writes, read directly.": moved
                    @ _direction(model),
                    "The two heads are in the wrong order: the matching head moves first.": circuits.ov_output(
                        model, matcher, circuits.ov_output(model, reader, model.W_pos)
                    )
                    @ _direction(model),
                    "These are the token embeddings; use W_pos.": circuits.ov_output(
                        model, reader, circuits.ov_output(model, matcher, model.W_E)
                    )
                    @ _direction(model),
                    "This is the logit of palindrome alone; subtract W_U[:, 0].": circuits.ov_output(
                        model, reader, moved
                    )
                    @ model.W_U[:, 1],
                    "This is the logit of no palindrome alone; take W_U[:, 1] - W_U[:, 0].": circuits.ov_output(
                        model, reader, moved
                    )
                    @ model.W_U[:, 0],
                    "START and END are left out; return all positions.": right[1:-1],
                },
            )
        )
    return cases


composed_key_scores = CHECKS.add(
    Check(
        "composed_key_scores",
        "K-composition by position",
        core=False,
        cases=_composed_key_scores_cases,
        reference=_composed_key_scores,
    )
)
composed_verdict = CHECKS.add(
    Check(
        "composed_verdict",
        "V-composition by position",
        core=False,
        cases=_composed_verdict_cases,
        reference=_composed_verdict,
    )
)


def _composition_score(A: Tensor, B: Tensor) -> float:
    """By singular values: the Frobenius norm is the root of the sum of their squares."""

    def norm(matrix: Tensor) -> Tensor:
        return torch.linalg.svdvals(matrix).pow(2).sum().sqrt()

    return (norm(A @ B) / (norm(A) * norm(B))).item()


def _composition_score_cases() -> list[Case]:
    cases = []
    for seed, (d_in, d_mid, d_out) in enumerate(((6, 6, 6), (5, 8, 3), (12, 4, 9))):
        generator = torch.Generator().manual_seed(seed)
        A = torch.randn(d_in, d_mid, generator=generator)
        B = torch.randn(d_mid, d_out, generator=generator)
        mistakes = {
            "These are spectral norms (the largest singular value); use Frobenius norms.": (
                torch.linalg.matrix_norm(A @ B, 2)
                / (torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(B, 2))
            ).item(),
            "The square root is missing: these are squared norms.": _composition_score(A, B) ** 2,
            "Divide by both norms, of A and of B.": ((A @ B).norm() / A.norm()).item(),
            "Divide by the product of the norms, not by their sum.": (
                (A @ B).norm() / (A.norm() + B.norm())
            ).item(),
            "Brackets are missing: `x / a * b` multiplies by b. Divide by both norms.": (
                (A @ B).norm() / A.norm() * B.norm()
            ).item(),
            "This is the norm of the product; divide it by the norms of A and of B.": (A @ B).norm().item(),
        }
        if d_in == d_out:
            mistakes["The order is turned round: A comes first, A @ B."] = _composition_score(B, A)
            mistakes["B is transposed; A @ B is what reaches the second head."] = _composition_score(A, B.T)
        cases.append(
            Case(
                f"matrices {d_in}×{d_mid} and {d_mid}×{d_out}",
                (A, B),
                _composition_score(A, B),
                mistakes=mistakes,
            )
        )
    return cases


composition_score = CHECKS.add(
    Check(
        "composition_score",
        "Composition score",
        core=False,
        cases=_composition_score_cases,
        reference=_composition_score,
    )
)


def _verdict_by_position(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int], tokens: Tensor
) -> Float[Tensor, "sequence value_position"]:
    """By linearity, one position and sequence at a time, from the direction back to the value."""
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_O[l0, h0] @ (model.W_V[l1, h1] @ (model.W_O[l1, h1] @ _direction(model)))
    (values,) = _at_end(model, tokens, get_act_name("v", l0))
    last = tokens.shape[1] - 1
    return torch.stack([values[:, position, h0] @ asked for position in range(1, last)], dim=1)


def _verdict_by_position_cases() -> list[Case]:
    cases = []
    for name, matcher, reader in _COMPOSED:
        model = _MODELS[name].get()
        tokens = palindromes(16, 13) if name == LESSON else _tokens(model, 5, seed=13)
        right = _verdict_by_position(model, matcher, reader, tokens)
        (l0, h0), (l1, h1) = matcher, reader
        v, z, other = (
            _at_end(model, tokens, get_act_name(n, at))[0] for n, at in (("v", l0), ("z", l0), ("v", l1))
        )
        asked = model.W_V[l1, h1] @ (model.W_O[l1, h1] @ _direction(model))
        every = v[:, :, h0] @ model.W_O[l0, h0] @ asked
        cases.append(
            Case(
                f"{name}, heads {l0}.{h0} and {l1}.{h1}",
                (_MODELS[name], matcher, reader, tokens),
                right,
                axes=("sequence", "position"),
                mistakes={
                    "START and END are in it; return the values' positions only.": every,
                    "Off by one: leave out START (position 0) and END (the last).": every[:, :-2],
                    "The sign is turned round: towards palindrome is W_U[:, 1] - W_U[:, 0].": -right,
                    "This is the head's output `z`, already averaged by its attention; take the value `v` of each "
                    "position.": (z[:, :, h0] @ model.W_O[l0, h0] @ asked)[:, 1:-1],
                    "These are the reading head's values; start from the matching head's.": (
                        other[:, 1:-1, h1] @ model.W_O[l1, h1] @ _direction(model)
                    ),
                    "The reading head is missing: this is the direct effect of what the matching head writes.": (
                        v[:, 1:-1, h0] @ model.W_O[l0, h0] @ _direction(model)
                    ),
                    "This is the logit of palindrome alone; subtract W_U[:, 0].": (
                        v[:, :, h0]
                        @ model.W_O[l0, h0]
                        @ model.W_V[l1, h1]
                        @ model.W_O[l1, h1]
                        @ model.W_U[:, 1]
                    )[:, 1:-1],
                    "This is the mean over sequences; return a row for each.": right.mean(0),
                },
            )
        )
    return cases


verdict_by_position = CHECKS.add(
    Check(
        "verdict_by_position",
        "What each value is worth as a vote",
        core=False,
        cases=_verdict_by_position_cases,
        reference=_verdict_by_position,
    )
)


def _ablation_costs(
    model: Any, tokens: Tensor, labels: Tensor, activation: str, how: str
) -> Float[Tensor, "layer head"]:
    """With in-place hooks of its own."""

    def loss() -> Tensor:
        log_probs = model(tokens)[:, -1].log_softmax(-1)
        return -log_probs[torch.arange(len(tokens)), labels].mean()

    before = loss()
    costs = []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):

            def put(value: Tensor, hook: Any, head: int = head) -> Tensor:
                value[:, :, head] = 0.0 if how == "zero" else value[:, :, head].mean(0)
                return value

            with model.hooks(fwd_hooks=[(get_act_name(activation, layer), put)]):
                costs.append(loss() - before)
    return torch.stack(costs).view(model.cfg.n_layers, model.cfg.n_heads)


def _costs_with(
    model: Any,
    tokens: Tensor,
    labels: Tensor,
    activation: str,
    how: str,
    together: dict[tuple[int, int], list[tuple[int, int]]],
) -> Float[Tensor, "layer head"]:
    """What it costs to ablate, for each head, the heads that `together` names."""
    before = F.cross_entropy(model(tokens)[:, -1], labels)
    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with hooks.ablate(model, together[layer, head], activation=activation, how=how):
                costs[layer, head] = F.cross_entropy(model(tokens)[:, -1], labels) - before
    return costs


def _ablation_costs_cases() -> list[Case]:
    cases = []
    for name, activation, how in (
        (LESSON, "q", "mean"),
        (LESSON, "z", "zero"),
        ("a random model with 3 layers and 3 heads", "v", "mean"),
        ("a random model with 1 layer and 4 heads", "k", "zero"),
    ):
        model = _MODELS[name].get()
        if name == LESSON:
            data = task.make_data(64, seed=14)
            tokens, labels = data.tokens, data.labels.long()
        else:
            tokens = _tokens(model, 8, seed=14)
            labels = torch.arange(8) % 3 % 2
        right = _ablation_costs(model, tokens, labels, activation, how)
        before = F.cross_entropy(model(tokens)[:, -1], labels)
        n_layers, n_heads = right.shape
        heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
        data_of = (tokens, labels)

        # Many forward passes each: made only for an answer that is wrong.
        def instead(
            a: str, h: str, name: str = name, data_of: tuple[Tensor, Tensor] = data_of
        ) -> Callable[[], Tensor]:
            return lambda: _ablation_costs(_MODELS[name].get(), *data_of, a, h)

        def together(
            which: Callable[[Any, Any], bool],
            name: str = name,
            data_of: tuple[Tensor, Tensor] = data_of,
            a: str = activation,
            h: str = how,
            heads: Any = heads,
        ) -> Callable[[], Tensor]:
            groups = {one: [other for other in heads if which(other, one)] for one in heads}
            return lambda: _costs_with(_MODELS[name].get(), *data_of, a, h, groups)

        mistakes: dict[str, Any] = {
            "These are the losses after ablation; subtract the loss before it.": right + before,
            "The sign is turned round: the loss after ablation minus the loss before it.": -right,
            "Everything is log(2) times too large: bits, not nats.": right / torch.tensor(2.0).log(),
            "Mean and zero are exchanged.": instead(activation, "zero" if how == "mean" else "mean"),
            **{
                f"This is always {one} ablation; pass the argument `how` on.": instead(activation, one)
                for one in ("mean", "zero")
            },
            **{
                f"This is always the ablation of `{one}`; pass the argument `activation` on.": instead(
                    one, how
                )
                for one in "qkvz"
            },
            "The loss is summed over sequences; take the mean.": right * len(tokens),
            "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the `with` "
            "block, the loss after inside it.": torch.zeros_like(right),
            "All heads of the layer are ablated at once; ablate one head at a time.": together(
                lambda other, one: other[0] == one[0]
            ),
            "The heads before are still ablated; ablate one head at a time, from a fresh list.": together(
                lambda other, one: other <= one
            ),
        }
        if n_layers == n_heads:
            mistakes["Rows and columns are swapped: layers are the rows."] = right.T
        cases.append(
            Case(
                f"{name}, {how} ablation of {activation}",
                (_MODELS[name], tokens, labels, activation, how),
                right,
                axes=("layer", "head"),
                mistakes=mistakes,
                atol=2e-5,
            )
        )
    return cases


ablation_costs = CHECKS.add(
    Check(
        "ablation_costs",
        "What each activation of each head is worth",
        core=False,
        cases=_ablation_costs_cases,
        reference=_ablation_costs,
    )
)


stale_label = CHECKS.add(
    Question(
        "stale_label",
        "Find the bug: whose queries?",
        core=False,
        options={
            "a": (
                "head 0.0's, as the line says",
                "the line prints `layer` and `head`; the hook uses `target_layer` and `target_head`.",
            ),
            "b": (
                "head 1.0's",
                "the hook acts on head 1.0, the line prints variables left over from an early cell. In the write-up, such "
                "lines mislabel results of the reading head as results of the matching head.",
            ),
            "c": (
                "nobody's",
                "2.491 nats came from somewhere: the hook is called for the queries of layer 1.",
            ),
            "d": ("those of all heads of layer 1", "the third index picks one head, `target_head`."),
        },
        answer="b",
    )
)


# ── 7 · evidence ────────────────────────────────────────────────────────────────────────────────────────────


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


def _non_palindromes(size: int, generator: torch.Generator) -> Int[Tensor, "sequence position"]:
    """Random draws of the kind that counterexamples must be: the training data without its palindromes."""
    data = task.make_data(2 * size + size // 20 + 20, generator)
    return data.tokens[~data.is_palindrome][:size]


def _known_counterexamples() -> Int[Tensor, "sequence position"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[(pool.right_answers == 0) & ~pool.model_is_right][:50]


def _palindromes_among(tokens: Tensor) -> str | None:
    count = int(evidence_task.right_answers(tokens).sum())
    if count == 0:
        return None
    return (
        f"{count} of them are palindromes, and the model says so: a counterexample must be answered wrongly."
    )


counterexamples = CHECKS.add(
    CounterexamplesCheck(
        "counterexamples",
        "Non-palindromes that the model accepts",
        core=True,
        model=_lesson_model,
        task=evidence_task,
        sample=_non_palindromes,
        count=50,
        needed=40,
        reference=_known_counterexamples,
        describe=_palindromes_among,
    )
)


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    data = task.make_data(500, seed=15)

    def accuracy_of(logits: Tensor) -> float:
        return float(task.correct(logits, data).double().mean())

    return CircuitScorer(
        model, data.tokens, accuracy_of, chance=evidence_task.CHANCE, ablation="resample", trained=trained
    )


def _lesson_scorer() -> CircuitScorer:
    return _scorer(_lesson_model.get())


def _twin_scorer(trained: float) -> CircuitScorer:
    return _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained)


def _best_circuit() -> list[tuple[int, ...]]:
    """By exhaustive search: the best three heads, less those that add nothing."""
    scorer = _lesson_scorer()
    sets = list(combinations(scorer.all_heads, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = circuit_score(scorer, best)
    return [head for head in best if score.lost[head] >= 0.02]


circuit = CHECKS.add(
    CircuitCheck(
        "circuit",
        "The heads that do the work",
        core=False,
        scorer=_lesson_scorer,
        twin=_twin_scorer,
        weights=_weights,
        task=evidence_task,
        most_heads=3,
        needed=0.8,
        reference=_best_circuit,
    )
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """The attention of both heads of layer 0 from tables of scores, both heads of layer 1 read with the mean query.

    Tables by (value, position) pairs where the lesson's own explanation multiplies matrices.
    """
    tokens = palindromes(300, 16)
    _, cache = model.run_with_cache(tokens)
    root = model.cfg.d_head**0.5
    resid = model.W_E[:, None] + model.W_pos[None]  # (token, position, d_model)
    normed = resid / (resid.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    numbers = {
        "queries": torch.stack([normed @ model.W_Q[0, h] + model.b_Q[0, h] for h in range(2)]) / root,
        "keys": torch.stack([normed @ model.W_K[0, h] + model.b_K[0, h] for h in range(2)]),
        "scale_1": cache["scale", 1, "ln1"][:, :, 0].mean(0),
    }
    direction = _direction(model) / cache["ln_final.hook_scale"][:, -1].mean()
    asked, vote = [], []
    for reader in range(2):
        asked.append(model.W_K[1, reader] @ cache["q", 1][:, -1, reader].mean(0) / root)
        vote.append(model.W_V[1, reader] @ model.W_O[1, reader] @ direction)
    for name, vectors in (("key", asked), ("vote", vote)):
        read = torch.stack(vectors)  # (reader, d_model)
        numbers[f"own_{name}"] = torch.einsum("rd,tpd->rtp", read, resid + model.b_O[0])
        W_OV = model.W_V[0] @ model.W_O[0]
        numbers[f"moved_{name}"] = torch.einsum("rd,hed,tpe->rhtp", read, W_OV, normed)
    at_end = (
        model.W_E[task.END] + model.W_pos[-1] + model.b_O.sum(0) + cache["result", 0][:, -1].sum(1).mean(0)
    )
    numbers["bias"] = at_end @ direction + _bias(model)

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        places = torch.arange(inputs.shape[1])
        later = places[None, :] > places[:, None]
        patterns = []
        for head in range(2):
            q, k = numbers["queries"][head][inputs, places], numbers["keys"][head][inputs, places]
            patterns.append((q @ k.transpose(1, 2)).masked_fill(later, float("-inf")).softmax(-1))
        verdict = numbers["bias"]
        for reader in range(2):
            total = {}
            for name in ("key", "vote"):
                total[name] = numbers[f"own_{name}"][reader][inputs, places]
                for head in range(2):
                    moved = numbers[f"moved_{name}"][reader, head][inputs, places]
                    total[name] = total[name] + (patterns[head] @ moved[..., None])[..., 0]
            attention = (total["key"] / numbers["scale_1"]).softmax(-1)
            verdict = verdict + (attention * total["vote"] / numbers["scale_1"]).sum(-1)
        return (verdict > 0).long()

    return simulate, numbers


explanation = CHECKS.add(
    ExplanationCheck(
        "explanation",
        "Predict the model, mistakes included",
        core=False,
        model=_lesson_model,
        evidence=_evidence,
        needed=0.65,
        reference=_explanation,
    )
)


what_processing_keeps = CHECKS.add(
    Question(
        "what_processing_keeps",
        "What processing the weights can change",
        core=False,
        options={
            "a": (
                "the probability of palindrome",
                "it depends on the logit difference alone, and that stays.",
            ),
            "b": (
                "the logit difference",
                "centring `W_U` over its outputs takes the same amount from both logits, and the rest is exact algebra.",
            ),
            "c": (
                "the two logits, by the same amount",
                "centring `W_U` and `b_U` over the outputs shifts both logits alike, which the softmax does not see.",
            ),
            "d": (
                "the attention patterns",
                "folding moves LayerNorm's weights into W_Q and W_K; the scores stay what they were.",
            ),
        },
        answer="c",
    )
)
