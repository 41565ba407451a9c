"""The checks of lesson 03, section 4: which head compares, and how."""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_old_common import (
    LESSON,
    MODELS,
    draw_tokens,
    lesson_model,
    seen_at,
)
from exercises_utils.challenges.palindromes.checks_old_verdict import palindromes, verdicts, why_no_head
from exercises_utils.checking import Case, Check
from exercises_utils.tools import circuits, hooks

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


mirror_attention = Check(
    "mirror_attention",
    "Attention to the mirror",
    core=True,
    cases=_mirror_attention_cases,
    reference=_mirror_attention,
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
        fresh = MODELS[name]
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


token_circuit = Check(
    "token_circuit",
    "Full QK circuit of the values",
    core=True,
    cases=_token_circuit_cases,
    reference=_token_circuit,
)


@functools.cache
def _flips_of_layer_0() -> dict[int, float]:
    """For each head of layer 0: the share of verdicts that turn to "no palindrome" when the head's whole output at
    a changed position comes from the changed sequence, over the positions whose change the model notices."""
    model = lesson_model.get()
    intact = palindromes(64, seed=8)
    flips: dict[int, list[Tensor]] = {head: [] for head in range(model.cfg.n_heads)}
    for position in task.SECOND_HALF:
        broken = task.change_value(intact, position, seed=position)
        (z,) = seen_at(model, broken, get_act_name("z", 0))
        noticed = (verdicts(model, broken) < 0) & (verdicts(model, intact) > 0)
        for head in flips:
            with hooks.patch(model, "z", 0, z, heads=[head], positions=[position]):
                flips[head].append((verdicts(model, intact) < 0)[noticed].float())
    return {head: torch.cat(values).mean().item() for head, values in flips.items()}


def _refuse_matching_head(value: Any) -> str | None:
    if problem := why_no_head(value):
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


def find_matching_head() -> tuple[int, int]:
    """The head of layer 0 whose swapped output turns most verdicts."""
    flips = _flips_of_layer_0()
    return 0, max(flips, key=lambda head: flips[head])


matching_head = Check(
    "matching_head",
    "Which head compares",
    core=True,
    cases=lambda: [Case(LESSON, requires=_refuse_matching_head)],
    reference=find_matching_head,
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
        fresh = MODELS[name]
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


position_circuit = Check(
    "position_circuit",
    "The λ of the positions",
    core=False,
    cases=_position_circuit_cases,
    reference=_position_circuit,
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
        fresh = MODELS[name]
        model = fresh.get()
        layer, index = head
        tokens = (
            torch.tensor([31, *[4, 9, 4, 30] * 5, 32])
            if name == LESSON
            else draw_tokens(model, 1, seed=9 + index)[0]
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
        (scores,) = seen_at(model, tokens[None], get_act_name("attn_scores", head[0]))
    return scores[0, head[1]].softmax(0)


def _tokens_gone(model: Any, head: tuple[int, int], tokens: Tensor) -> Tensor:
    with model.hooks(fwd_hooks=[("hook_embed", lambda activation, hook: torch.zeros_like(activation))]):
        (pattern,) = seen_at(model, tokens[None], get_act_name("pattern", head[0]))
    return pattern[0, head[1]]


attention_without_positions = Check(
    "attention_without_positions",
    "What positions add",
    core=False,
    cases=_attention_without_positions_cases,
    reference=_attention_without_positions,
)
