"""Checks of lesson 02, second half: what the weights say, why heads look where they look, near neighbours.

This file contains the answers.
"""

import math
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_two_heads.checks_common import (
    CHECKS,
    FINAL_SCALE,
    FIRST_SCALE,
    FOUR_HEADS,
    LESSON,
    MODELS,
    THREE_HEADS,
    at_answers,
    length_of,
    lists,
    right_answers,
    seen,
)
from exercises_utils.checking import Case, Check

# ── owners ──────────────────────────────────────────────────────────────────────────────────────────────────


def _number_ranges(owner: Tensor) -> dict[int, list[tuple[int, int]]]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    for head, run in groupby(enumerate(owner.tolist()), key=lambda pair: pair[1]):
        numbers = [number for number, _ in run]
        ranges.setdefault(head, []).append((numbers[0], numbers[-1]))
    return ranges


def _number_ranges_cases() -> list[Case]:
    cases = []
    for owner in (
        [0, 0, 1, 0],
        [1, 1, 1, 0, 0, 2, 2, 1, 0, 0, 0, 3],
        [2, 2, 2, 2, 2],
        [0, 1, 0, 1, 1, 1, 0],
    ):
        owners = torch.tensor(owner)
        right = _number_ranges(owners)
        heads = sorted(right)
        everything = {head: [n for n, one in enumerate(owner) if one == head] for head in heads}
        cuts = [0, *[n for n, (a, b) in enumerate(pairwise(owner), 1) if a != b], len(owner)]
        runs = [(a, b - 1, owner[a]) for a, b in pairwise(cuts)]
        cases.append(
            Case(
                f"owners {owner}",
                (owners,),
                right,
                mistakes={
                    "The end of a range is the number after its last; give the last number itself.": {
                        head: [(a, b + 1) for a, b in found] for head, found in right.items()
                    },
                    "Each head has one range from its first to its last number, over those of other heads; give "
                    "its runs.": {head: [(n[0], n[-1])] for head, n in everything.items()},
                    "These are all numbers of each head; give the first and the last of each run.": everything,
                    "Runs of a single number are left out; they are ranges (n, n).": {
                        head: kept
                        for head, found in right.items()
                        if (kept := [(a, b) for a, b in found if a != b])
                    },
                    "A run of a single number is given as that number; write (n, n).": {
                        head: [(a, b) if a != b else a for a, b in found] for head, found in right.items()
                    },
                    "The last run is missing: after the loop, the run that is still open has to be added.": {
                        head: kept
                        for head in heads
                        if (kept := [(a, b) for a, b, one in runs[:-1] if one == head])
                    },
                    "Only the last run of each head is kept; add each to a list.": {
                        head: found[-1:] for head, found in right.items()
                    },
                    "Only the first run of each head is kept; add each to a list.": {
                        head: found[:1] for head, found in right.items()
                    },
                    "The keys are tensors; write `int(head)`.": {
                        str(torch.tensor(head)): found for head, found in right.items()
                    },
                    "The keys are texts; write `int(head)`.": {
                        str(head): found for head, found in right.items()
                    },
                    "Heads that own nothing have an entry; leave them out.": {
                        head: right.get(head, []) for head in range(max(heads) + 1)
                    },
                    "A range is its first number and its length; give its first and its last number.": {
                        head: [(a, b - a + 1) for a, b in found] for head, found in right.items()
                    },
                },
            )
        )
    return cases


number_ranges = CHECKS.add(
    Check(
        "number_ranges",
        "Owners as ranges",
        core=False,
        cases=_number_ranges_cases,
        reference=_number_ranges,
    )
)


# ── OV and QK ───────────────────────────────────────────────────────────────────────────────────────────────


def _head_circuits(
    model: Any, head: tuple[int, int], scale: float, final_scale: float
) -> tuple[Float[Tensor, "source prediction"], Float[Tensor, "query key"]]:
    layer, index = head
    W_OV = FactoredMatrix(model.W_V[layer, index], model.W_O[layer, index])
    W_QK = FactoredMatrix(model.W_Q[layer, index], model.W_K[layer, index].T)
    ov = (model.W_E @ W_OV @ model.W_U).AB / (scale * final_scale)
    qk = (model.W_E @ W_QK @ model.W_E.T).AB / (scale * scale * model.cfg.d_head**0.5)
    return ov, qk


def _head_circuits_cases() -> list[Case]:
    cases = []
    for name, head, scale, final_scale in (
        (LESSON, (0, 0), 1.3, 2.1),
        (LESSON, (0, 1), 0.7, 1.6),
        (THREE_HEADS, (0, 2), 0.6, 0.9),
        (FOUR_HEADS, (0, 1), 1.7, 2.3),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        ov, qk = _head_circuits(model, head, scale, final_scale)
        root, (layer, index) = model.cfg.d_head**0.5, head
        W_E, W_V, W_O = model.W_E, model.W_V[layer, index], model.W_O[layer, index]
        key_bias = (W_E / scale @ model.W_Q[layer, index] + model.b_Q[layer, index]) @ (
            W_E / scale @ model.W_K[layer, index] + model.b_K[layer, index]
        ).T
        value_bias = (W_E / scale @ W_V + model.b_V[layer, index]) @ W_O @ model.W_U / final_scale
        numbers = slice(0, -1)
        # The mistakes of one of the two, each with the other one right; and those of both together.
        in_ov = {
            "`ov` is divided by one scale only: by `scale`, before the head, and by `final_scale`, before the "
            "unembedding. The final one is missing.": ov * final_scale,
            "`ov` is divided by `final_scale` only; divide by `scale` as well, the one before the head.": ov
            * scale,
            "`ov` is divided by `scale` twice; once by `scale` and once by `final_scale`.": ov
            * final_scale
            / scale,
            "`ov` is not divided by the scales; divide by `scale * final_scale`.": ov * scale * final_scale,
            "`ov` is divided by sqrt(d_head); that belongs to the scores only.": ov / root,
            "`ov` is transposed: the source token is the row, the prediction the column.": ov.T,
            "`ov` has the softmax in it; return logits.": ov.softmax(-1),
            "The biases b_V are in `ov`; the exercise leaves biases out.": value_bias,
            "b_U is in `ov`; the exercise leaves biases out.": ov + model.b_U,
            "The direct path W_E W_U is in `ov`; the head's part alone is asked for.": ov
            + W_E @ model.W_U / final_scale,
            "`ov` ends with W_E^T; what a head writes is read by W_U.": W_E
            @ W_V
            @ W_O
            @ W_E.T
            / (scale * final_scale),
        }
        in_qk = {
            "`qk` is not divided by sqrt(d_head): attention divides by it before the softmax.": qk * root,
            "`qk` is divided by d_head; attention divides by its square root.": qk / root,
            "`qk` is divided by sqrt(d_model); the width of a head is d_head.": qk
            * root
            / model.cfg.d_model**0.5,
            "The scale is used once in `qk`; it divides the query and the key, so the scores by its square.": qk
            * scale,
            "`qk` is not divided by the scale; divide by its square.": qk * scale**2,
            "`qk` is divided by `scale * final_scale`; query and key are both read after the first LayerNorm: divide "
            "by `scale ** 2`.": qk * scale / final_scale,
            "`qk` is transposed: the query is the row, the key the column.": qk.T,
            "The biases b_Q and b_K are in `qk`; the exercise leaves biases out.": key_bias / root,
            "`qk` has a softmax in it; return scores.": qk.softmax(-1),
        }
        cases.append(
            Case(
                f"{name}, head {layer}.{index}",
                (fresh, head, scale, final_scale),
                (ov, qk),
                axes=("ov", "qk"),
                mistakes={
                    **{message: (wrong, qk) for message, wrong in in_ov.items()},
                    **{message: (ov, wrong) for message, wrong in in_qk.items()},
                    "The two come in the other order: return ov, then qk.": (qk, ov),
                    "SEP is left out; return all tokens.": (ov[numbers, numbers], qk[numbers, numbers]),
                    "SEP's rows are left out; return all tokens.": (ov[numbers], qk[numbers]),
                    "The LayerNorm scales are forgotten.": (ov * scale * final_scale, qk * scale**2),
                    "The scales and the root of d_head are forgotten.": (
                        ov * scale * final_scale,
                        qk * scale**2 * root,
                    ),
                    "You multiplied by the scales; LayerNorm divides by them.": (
                        ov * (scale * final_scale) ** 2,
                        qk * scale**4,
                    ),
                },
            )
        )
    return cases


head_circuits = CHECKS.add(
    Check(
        "head_circuits",
        "The full OV and QK circuits of a head",
        core=True,
        cases=_head_circuits_cases,
        reference=_head_circuits,
    )
)


def _copying_head(ov: Tensor) -> Int[Tensor, " number"]:
    heads = []
    n_numbers = ov.shape[1] - 1
    for number in range(n_numbers):
        margins = []
        for of_head in ov.tolist():
            row = of_head[number][:n_numbers]
            margins.append(row[number] - max(value for u, value in enumerate(row) if u != number))
        heads.append(margins.index(max(margins)))
    return torch.tensor(heads)


def _margins(ov: Tensor, across: int = 2) -> Float[Tensor, "head number"]:
    """The diagonal minus the largest of the others, along the predictions (2) or along the sources (1)."""
    diagonal = ov.diagonal(dim1=1, dim2=2)
    others = ov.clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return diagonal - others.max(across).values


def _copying_head_cases() -> list[Case]:
    cases = []
    for i, (n_heads, n_numbers) in enumerate(((2, 14), (3, 23), (4, 40))):
        generator = torch.Generator().manual_seed(20 + i)
        ov = 2 * torch.randn(n_heads, n_numbers + 1, n_numbers + 1, generator=generator)
        ov.diagonal(dim1=1, dim2=2).add_(1.0)
        ov[:, :, -1] += 3.0  # SEP as a prediction
        ov[:, :, -1] *= torch.rand(n_heads, n_numbers + 1, generator=generator)
        if i == 1:
            ov = ov.round()  # with ties between heads
        if i == 2:
            ov[:, ::2] -= 12.0  # rows in which no logit is positive
        right = _copying_head(ov)
        numbers = ov[:, :-1, :-1]
        margins, every = _margins(numbers), ov.diagonal(dim1=1, dim2=2)[:, :-1]
        others_mean = (numbers.sum(-1) - every) / (n_numbers - 1)
        cases.append(
            Case(
                f"circuits of {n_heads} heads and {n_numbers} numbers",
                (ov,),
                right,
                axes=("number",),
                mistakes={
                    "You compare the diagonal alone; a head may raise all its predictions. Subtract the largest of the "
                    "other numbers' logits.": every.argmax(0),
                    "SEP is among the other predictions; leave out the last column.": _margins(ov)[
                        :, :-1
                    ].argmax(0),
                    "The other entries are taken along the sources; take the other predictions of the same source, "
                    "along the last axis.": _margins(numbers, 1).argmax(0),
                    "This is the head with the smallest margin; take the largest.": margins.argmin(0),
                    "The mean of the other predictions is subtracted; subtract the largest.": (
                        every - others_mean
                    ).argmax(0),
                    "The diagonal itself is among the others, so that a margin is never above 0; leave it out.": (
                        every - numbers.max(-1).values
                    ).argmax(0),
                    "The diagonal is put to 0, which is larger than any negative logit; put minus infinity there.": (
                        every
                        - numbers.masked_fill(torch.eye(n_numbers, dtype=torch.bool), 0.0).max(-1).values
                    ).argmax(0),
                    "The sizes are compared, without their sign; a negative margin is no copying.": margins.abs().argmax(
                        0
                    ),
                    "SEP has an answer as well; numbers only.": _margins(ov).argmax(0),
                    "These are the margins; return the head with the largest for each number.": margins,
                    "This is the largest margin of each number; return the head that has it.": margins.max(
                        0
                    ).values,
                    "This is, for each head, the number that it copies best; return a head for each number.": margins.argmax(
                        1
                    ),
                    "At a tie the last head is taken; take the lowest.": n_heads
                    - 1
                    - margins.flip(0).argmax(0),
                },
            )
        )
    return cases


copying_head = CHECKS.add(
    Check(
        "copying_head",
        "Which head can copy which number",
        core=False,
        cases=_copying_head_cases,
        reference=_copying_head,
    )
)


def _with_pattern(model: Any, tokens: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The logits at the answer positions with another pattern, by way of z = pattern times values."""
    pattern, values = seen(model, tokens, "pattern", "v")
    new = torch.einsum("bhqk,bkhd->bqhd", change(pattern), values)
    with model.hooks(fwd_hooks=[(get_act_name("z", 0), lambda z, hook: new)]):
        return at_answers(model(tokens), tokens)


def _shared_pattern(model: Any, tokens: Tensor, giver: int) -> Float[Tensor, "batch answer d_vocab_out"]:
    return _with_pattern(
        model, tokens, lambda pattern: torch.stack([pattern[:, giver]] * pattern.shape[1], 1)
    )


def _shared_pattern_cases() -> list[Case]:
    cases = []
    for name, giver in ((LESSON, 0), (LESSON, 1), (THREE_HEADS, 1), (FOUR_HEADS, 3)):
        fresh = MODELS[name]
        model = fresh.get()
        tokens = lists(model, 5, seed=12)
        right = _shared_pattern(model, tokens, giver)

        def instead(
            change: Callable[[Tensor], Tensor], fresh: Any = fresh, tokens: Tensor = tokens
        ) -> Callable[[], Tensor]:
            return lambda: _with_pattern(fresh.get(), tokens, change)

        def zero_values(fresh: Any = fresh, tokens: Tensor = tokens, giver: int = giver) -> Tensor:
            def put(z: Tensor, hook: Any) -> Tensor:
                return z[:, :, giver : giver + 1].expand_as(z)

            model = fresh.get()
            with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
                return at_answers(model(tokens), tokens)

        def others_off(pattern: Tensor, giver: int = giver) -> Tensor:
            kept = torch.zeros_like(pattern)
            kept[:, giver] = pattern[:, giver]
            return kept

        def first_list(pattern: Tensor, giver: int = giver) -> Tensor:
            return pattern[:1, giver : giver + 1].expand_as(pattern)

        def mean_of_lists(pattern: Tensor, giver: int = giver) -> Tensor:
            return pattern[:, giver : giver + 1].mean(0, keepdim=True).expand_as(pattern)

        cases.append(
            Case(
                f"{name}, head {giver} gives",
                (fresh, tokens, giver),
                right,
                axes=("list", "answer", "vocabulary"),
                mistakes={
                    "Nothing is shared: these are the model's own logits.": at_answers(model(tokens), tokens),
                    "Always head 0 gives; use `giver`.": instead(
                        lambda pattern: pattern[:, :1].expand_as(pattern)
                    ),
                    "The patterns are exchanged between the heads; the giver keeps its own as well.": instead(
                        lambda pattern: pattern.flip(1)
                    ),
                    "All heads use the mean of the patterns; they use the giver's.": instead(
                        lambda pattern: pattern.mean(1, keepdim=True).expand_as(pattern)
                    ),
                    "The other heads are switched off; they go on with the giver's pattern and their own values.": instead(
                        others_off
                    ),
                    "All heads got the giver's output `z`; they share the pattern, each with its own values.": zero_values,
                    "Every list got the first one's pattern; each has its own.": instead(first_list),
                    "Every list got the mean pattern; each has its own.": instead(mean_of_lists),
                    "All positions are in it; return the answer positions only.": (
                        lambda fresh=fresh, tokens=tokens, giver=giver: _all_positions(
                            fresh.get(), tokens, giver
                        )
                    ),
                },
            )
        )
    return cases


def _all_positions(model: Any, tokens: Tensor, giver: int) -> Tensor:
    def put(pattern: Tensor, hook: Any) -> Tensor:
        return pattern[:, giver : giver + 1].expand_as(pattern)

    with model.hooks(fwd_hooks=[(get_act_name("pattern", 0), put)]):
        return model(tokens)


shared_pattern = CHECKS.add(
    Check(
        "shared_pattern",
        "One pattern for all heads",
        core=False,
        cases=_shared_pattern_cases,
        reference=_shared_pattern,
    )
)


# ── where the heads look ────────────────────────────────────────────────────────────────────────────────────


def _scores_of(model: Any, head: tuple[int, int], query: Tensor, keys: Tensor) -> Tensor:
    """The model's own scores of a residual stream `query` (d_model) to others `keys` (key, d_model)."""
    layer, index = head
    stream = torch.stack([keys, query.expand_as(keys)], dim=1)
    put = [("blocks.0.hook_resid_pre", lambda resid, hook: stream)]
    with model.hooks(fwd_hooks=put):
        (scores,) = seen(model, torch.zeros(len(keys), 2, dtype=torch.long), "attn_scores")
    return scores[:, index, 1, 0]


def _key_scores(model: Any, head: tuple[int, int], query: int, position: int) -> Float[Tensor, " number"]:
    n = (model.cfg.n_ctx - 1) // 2
    keys = model.W_E[:-1] + model.W_pos[:n].mean(0)
    return _scores_of(model, head, model.W_E[query] + model.W_pos[position], keys)


def _by_matrices(
    model: Any,
    head: tuple[int, int],
    query: Tensor,
    keys: Tensor,
    *,
    biases: bool = True,
    query_bias: bool = True,
    key_bias: bool = True,
    normalised: bool = True,
) -> Tensor:
    layer, index = head

    def scale(x: Tensor) -> Tensor:
        return (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt() if normalised else torch.ones(1)

    q = query / scale(query) @ model.W_Q[layer, index] + (biases and query_bias) * model.b_Q[layer, index]
    k = keys / scale(keys) @ model.W_K[layer, index] + (biases and key_bias) * model.b_K[layer, index]
    return k @ q / model.cfg.d_head**0.5


def _key_scores_cases() -> list[Case]:
    cases = []
    for name, head, query, position in (
        (LESSON, (0, 0), 25, 14),
        (LESSON, (0, 1), 40, 18),
        (THREE_HEADS, (0, 2), 5, 6),
        (FOUR_HEADS, (0, 1), 16, 7),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        right = _key_scores(model, head, query, position)
        root, (layer, index) = model.cfg.d_head**0.5, head
        n = (model.cfg.n_ctx - 1) // 2
        of_places = model.W_pos[:n].mean(0)
        asked, keys = model.W_E[query] + model.W_pos[position], model.W_E[:-1] + of_places
        all_keys = model.W_E + of_places
        asked_scale = (asked.pow(2).mean() + model.cfg.eps).sqrt()
        one_scale = (asked / asked_scale) @ model.W_Q[layer, index] + model.b_Q[layer, index]
        one_scale = (keys / asked_scale @ model.W_K[layer, index] + model.b_K[layer, index]) @ one_scale
        mean_of_scores = torch.stack(
            [_by_matrices(model, head, asked, model.W_E[:-1] + model.W_pos[p]) for p in range(n)]
        ).mean(0)
        cases.append(
            Case(
                f"{name}, head {layer}.{index}, token {query} at position {position}",
                (fresh, head, query, position),
                right,
                axes=("number",),
                mistakes={
                    "The scores are not divided by sqrt(d_head).": right * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "The biases b_Q and b_K are missing.": _by_matrices(
                        model, head, asked, keys, biases=False
                    ),
                    "The query's bias b_Q is missing.": _by_matrices(
                        model, head, asked, keys, query_bias=False
                    ),
                    "The keys' bias b_K is missing.": _by_matrices(model, head, asked, keys, key_bias=False),
                    "The LayerNorm is missing: divide the query and every key by its own scale.": _by_matrices(
                        model, head, asked, keys, normalised=False
                    ),
                    "LayerNorm and biases are missing.": _by_matrices(
                        model, head, asked, keys, normalised=False, biases=False
                    ),
                    "The keys are divided by the query's scale; every key has a scale of its own.": one_scale
                    / root,
                    "The positions are missing from the keys: add the mean of W_pos over the list's positions.": (
                        _by_matrices(model, head, asked, model.W_E[:-1])
                    ),
                    "The position is missing from the query: add W_pos[position].": _by_matrices(
                        model, head, model.W_E[query], keys
                    ),
                    "The positions are missing, from the query and from the keys.": _by_matrices(
                        model, head, model.W_E[query], model.W_E[:-1]
                    ),
                    "The keys have the mean of W_pos over all positions; numbers of the list stand at the first L.": (
                        _by_matrices(model, head, asked, model.W_E[:-1] + model.W_pos.mean(0))
                    ),
                    "The keys have the mean of W_pos over the first L + 1 positions, SEP's included; the list has L.": (
                        _by_matrices(model, head, asked, model.W_E[:-1] + model.W_pos[: n + 1].mean(0))
                    ),
                    "The keys stand at position 0; take the mean of W_pos over the list's positions.": _by_matrices(
                        model, head, asked, model.W_E[:-1] + model.W_pos[0]
                    ),
                    "The scores are averaged over the places of the list; add the mean of W_pos to the key first, and "
                    "score once.": mean_of_scores,
                    "A softmax has been taken; return the scores.": right.softmax(-1),
                    "SEP is among the keys; return numbers only.": _by_matrices(model, head, asked, all_keys),
                    "The score of the query to itself is what you return; the keys are the numbers.": _by_matrices(
                        model, head, asked, asked[None]
                    ),
                    "Query and key are exchanged: these are the scores that the numbers of the list give to the "
                    "query.": torch.stack([_by_matrices(model, head, key, asked[None])[0] for key in keys]),
                },
            )
        )
    return cases


key_scores = CHECKS.add(
    Check(
        "key_scores",
        "A token's scores for every number",
        core=False,
        cases=_key_scores_cases,
        reference=_key_scores,
    )
)


def _position_key_scores(
    model: Any, head: tuple[int, int], scale: float
) -> Float[Tensor, "query_position key_token"]:
    layer, index = head
    W_QK = FactoredMatrix(model.W_Q[layer, index], model.W_K[layer, index].T)
    return (model.W_pos @ W_QK @ model.W_E.T).AB / (scale * scale * model.cfg.d_head**0.5)


def _position_key_scores_cases() -> list[Case]:
    cases = []
    for name, head, scale in (
        (LESSON, (0, 0), 1.4),
        (LESSON, (0, 1), 0.8),
        (THREE_HEADS, (0, 2), 0.6),
        (FOUR_HEADS, (0, 1), 1.7),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        right, root = _position_key_scores(model, head, scale), model.cfg.d_head**0.5
        layer, index = head
        W_Q, W_K, W_E, W_pos = model.W_Q[layer, index], model.W_K[layer, index], model.W_E, model.W_pos
        divide = scale**2 * root
        biased = (W_pos / scale @ W_Q + model.b_Q[layer, index]) @ (
            W_E / scale @ W_K + model.b_K[layer, index]
        ).T
        n = (model.cfg.n_ctx - 1) // 2
        cases.append(
            Case(
                f"{name}, head {layer}.{index}",
                (fresh, head, scale),
                right,
                axes=("query position", "key token"),
                mistakes={
                    "The scores are not divided by sqrt(d_head).": right * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "The scale is used once; it divides the query and the key, so the scores by its square.": right
                    * scale,
                    "The LayerNorm scale is forgotten: divide both sides by it.": right * scale**2,
                    "You multiplied by the scale; divide by it, on both sides.": right * scale**4,
                    "Rows and columns are swapped: the query's position is the row, the key's token the column.": right.T,
                    "Query and key are exchanged: here the token asks and the position answers. W_pos goes through W_Q, "
                    "W_E through W_K.": W_E @ W_Q @ W_K.T @ W_pos.T / divide,
                    "Query and key are exchanged: W_pos goes through W_Q, W_E through W_K.": (
                        W_pos @ W_K @ W_Q.T @ W_E.T / divide
                    ),
                    "These are positions on both sides; the keys are tokens, W_E.": W_pos
                    @ W_Q
                    @ W_K.T
                    @ W_pos.T
                    / divide,
                    "These are tokens on both sides; the queries are positions, W_pos.": W_E
                    @ W_Q
                    @ W_K.T
                    @ W_E.T
                    / divide,
                    "The biases b_Q and b_K are in it; the exercise leaves them out.": biased / root,
                    "SEP is left out; return all tokens.": right[:, :-1],
                    "Only the answer positions are there; return all positions.": right[n : 2 * n],
                    "Only the list's positions are there; return all positions.": right[:n],
                    "A softmax has been taken; return the scores.": right.softmax(-1),
                },
            )
        )
    return cases


position_key_scores = CHECKS.add(
    Check(
        "position_key_scores",
        "What a position asks for",
        core=False,
        cases=_position_key_scores_cases,
        reference=_position_key_scores,
    )
)


# ── near neighbours ─────────────────────────────────────────────────────────────────────────────────────────


def _without_direct_path(model: Any, tokens: Tensor) -> Float[Tensor, "batch answer d_vocab_out"]:
    """By what the unembedding reads, less the embedding at the scale of the run."""
    embed, scale = seen(model, tokens, "hook_embed", FINAL_SCALE)
    with model.hooks(fwd_hooks=[("unembed.hook_in", lambda read, hook: read - embed / scale)]):
        return at_answers(model(tokens), tokens)


def _without_direct_path_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        tokens = lists(model, 5, seed=13)
        right = _without_direct_path(model, tokens)
        logits, n = at_answers(model(tokens), tokens), length_of(tokens)
        scale, first = (at_answers(one, tokens) for one in seen(model, tokens, FINAL_SCALE, FIRST_SCALE))
        embed, places = model.W_E[at_answers(tokens, tokens)], model.W_pos[n : 2 * n]
        W_U = model.W_U

        def hooked(name: str, fresh: Any = fresh, tokens: Tensor = tokens) -> Callable[[], Tensor]:
            def changed() -> Tensor:
                model = fresh.get()
                (embed,) = seen(model, tokens, "hook_embed")
                put = torch.zeros_like if name == "hook_embed" else (lambda resid: resid - embed)
                with model.hooks(fwd_hooks=[(name, lambda activation, hook: put(activation))]):
                    return at_answers(model(tokens), tokens)

            return changed

        def everywhere(fresh: Any = fresh, tokens: Tensor = tokens) -> Tensor:
            model = fresh.get()
            (scale,) = seen(model, tokens, FINAL_SCALE)
            return model(tokens) - model.W_E[tokens] / scale @ model.W_U

        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("list", "answer", "vocabulary"),
                mistakes={
                    "Nothing is taken away: these are the model's own logits.": logits,
                    "The last LayerNorm's scale is missing: the embedding is divided by it on its way to the logits.": (
                        logits - embed @ W_U
                    ),
                    "This is the scale of the first LayerNorm, `ln1`; the direct path goes through `ln_final`.": logits
                    - embed / first @ W_U,
                    "The direct path is added; subtract it.": logits + embed / scale @ W_U,
                    "The positions' direct path is taken away as well; W_pos stays.": logits
                    - (embed + places) / scale @ W_U,
                    "The positions' direct path is taken away instead of the tokens'.": logits
                    - places / scale @ W_U,
                    "These are the direct path's logits alone; subtract them from the model's.": embed
                    / scale
                    @ W_U,
                    "The scale was computed again without the embedding; keep that of the untouched run.": hooked(
                        "ln_final.hook_in"
                    ),
                    "The embedding was removed at the input, so that the heads do not see it either; only its direct path "
                    "to the logits goes.": hooked("hook_embed"),
                    "This takes away the embedding of the right answer; take that of the token at the position.": logits
                    - model.W_E[right_answers(tokens)] / scale @ W_U,
                    "The mean of the scale is used; every position has its own.": logits
                    - embed / scale.mean() @ W_U,
                    "b_U is taken away as well; it is no part of the direct path.": right - model.b_U,
                    "All positions are in it; return the answer positions only.": everywhere,
                },
            )
        )
    return cases


without_direct_path = CHECKS.add(
    Check(
        "without_direct_path",
        "Take the direct path away",
        core=False,
        cases=_without_direct_path_cases,
        reference=_without_direct_path,
    )
)


def _dla_from_sources(
    model: Any,
    tokens: Tensor,
    head: tuple[int, int],
    queries: Tensor,
    sources: Tensor,
    predictions: Tensor,
) -> Float[Tensor, "batch source prediction"]:
    """One source at a time, by what the run's logits lose without it at the scale of the run."""
    layer, index = head
    pattern, values, scale = seen(model, tokens, "pattern", "v", FINAL_SCALE)
    found = torch.zeros(len(tokens), sources.shape[1], predictions.shape[1])
    for i in range(len(tokens)):
        query = int(queries[i])
        for j, source in enumerate(sources[i].tolist()):
            weight = pattern[i, index, query, source]
            written = (weight * values[i, source, index]) @ model.W_O[layer, index]
            logits = (written / scale[i, query]) @ model.W_U
            for k, prediction in enumerate(predictions[i].tolist()):
                found[i, j, k] = logits[prediction]
    return found


def _dla(
    model: Any,
    tokens: Tensor,
    index: int,
    queries: Tensor,
    sources: Tensor,
    predictions: Tensor,
    *,
    scale: Tensor | None = None,
    weights: Tensor | None = None,
    values: Tensor | None = None,
    W_O: Tensor | None = None,
) -> Tensor:
    """The same at once, with parts that a mistake replaces: scale (batch), weights (batch, source), values, W_O."""
    rows = torch.arange(len(tokens))
    pattern, v, final = seen(model, tokens, "pattern", "v", FINAL_SCALE)
    scale = final[rows, queries, 0] if scale is None else scale
    weights = pattern[rows[:, None], index, queries[:, None], sources] if weights is None else weights
    values = v[rows[:, None], sources, index] if values is None else values
    written = values @ (model.W_O[0, index] if W_O is None else W_O) * weights[..., None]
    logits = written / scale[:, None, None] @ model.W_U
    return logits.gather(-1, predictions[:, None].expand(-1, sources.shape[1], -1))


def _dla_from_sources_cases() -> list[Case]:
    cases = []
    for name, head, n_sources, n_predictions in (
        (LESSON, (0, 0), 2, 2),
        (LESSON, (0, 1), 3, 2),
        (THREE_HEADS, (0, 2), 2, 3),
        (FOUR_HEADS, (0, 1), 4, 5),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        tokens = lists(model, 5, seed=14)
        generator = torch.Generator().manual_seed(15)
        n = length_of(tokens)
        rows = torch.arange(len(tokens))

        def draw(
            high: int, count: int, size: int = len(tokens), generator: torch.Generator = generator
        ) -> Tensor:
            return torch.rand(size, high, generator=generator).argsort(-1)[:, :count]

        queries = n + draw(n, 1)[:, 0]
        sources, predictions = draw(n, n_sources), draw(model.cfg.d_vocab - 1, n_predictions)
        arguments = (fresh, tokens, head, queries, sources, predictions)
        right = _dla_from_sources(model, *arguments[1:])
        pattern, v, final, first = seen(model, tokens, "pattern", "v", FINAL_SCALE, FIRST_SCALE)
        index = head[1]
        at = (model, tokens, index, queries, sources, predictions)
        ones = torch.ones(len(tokens))
        resid = (model.W_E[tokens] + model.W_pos[: tokens.shape[1]])[rows[:, None], sources]
        embed_values = model.W_E[tokens][rows[:, None], sources] @ model.W_V[0, index]
        no_bias = v[rows[:, None], sources, index] - model.b_V[0, index]
        other = (index + 1) % model.cfg.n_heads
        with_b_U = right + model.b_U[predictions][:, None]
        every_head = sum(
            _dla(model, tokens, h, queries, sources, predictions) for h in range(model.cfg.n_heads)
        )
        whole = torch.stack(
            [
                _dla(
                    model,
                    tokens,
                    index,
                    queries,
                    torch.arange(tokens.shape[1]).expand(len(tokens), -1),
                    predictions,
                ).sum(1)
            ]
            * sources.shape[1],
            dim=1,
        )
        mistakes = {
            "The last LayerNorm's scale is missing: divide by it, at the query.": _dla(*at, scale=ones),
            "This is the last LayerNorm's scale at the source; what a head writes stands at the query.": (
                _dla(*at, scale=None) * final[rows, queries, 0][:, None, None] / final[rows[:, None], sources]
            ),
            "This is the scale of the first LayerNorm, `ln1`; the logits are read after `ln_final`.": _dla(
                *at, scale=first[rows, queries, 0]
            ),
            "The scale is averaged; every list has its own at its query.": _dla(
                *at, scale=final[rows, queries, 0].mean().expand(len(tokens))
            ),
            "You multiplied by the last LayerNorm's scale; divide by it.": _dla(
                *at, scale=1 / final[rows, queries, 0]
            ),
            "The attention is missing: multiply by the pattern, from the query to the source.": _dla(
                *at, weights=torch.ones_like(sources, dtype=torch.float32)
            ),
            "The pattern is read the other way round: rows are queries, columns keys.": _dla(
                *at, weights=pattern[rows[:, None], index, sources, queries[:, None]]
            ),
            'The values lack the first LayerNorm and the bias; take them from the cache, `cache["v", 0]`.': _dla(
                *at, values=resid @ model.W_V[0, index]
            ),
            'The values come from the token embeddings alone; take them from the cache, `cache["v", 0]`.': _dla(
                *at, values=embed_values
            ),
            'The value bias b_V is missing; take the values from the cache, `cache["v", 0]`.': _dla(
                *at, values=no_bias
            ),
            "These are another head's values and pattern; use `head`.": _dla(
                model, tokens, other, queries, sources, predictions
            ),
            "This is W_O of another head; use `head`.": _dla(*at, W_O=model.W_O[0, other]),
            "Always head 0.0 is looked at; use `head`.": _dla(
                model, tokens, 0, queries, sources, predictions
            ),
            "All heads are added up; return what `head` writes.": every_head,
            "The bias b_U is in it; it is no part of a head.": with_b_U,
            "Every list has the first one's query; use `queries[i]` for list i.": _dla(
                model, tokens, index, queries[:1].expand(len(tokens)), sources, predictions
            ),
            "Every list has the first one's sources; use `sources[i]` for list i.": _dla(
                model, tokens, index, queries, sources[:1].expand(len(tokens), -1), predictions
            ),
            "Every list has the first one's predictions; use `predictions[i]` for list i.": _dla(
                model, tokens, index, queries, sources, predictions[:1].expand(len(tokens), -1)
            ),
            "All sources of the run are added up; return each source that is asked for alone.": whole,
            "This is the mean over lists; return one table for each.": right.mean(0),
            "Sources and predictions are swapped: the source is the row.": right.transpose(1, 2),
            "This is the sum over sources; return each alone.": right.sum(1),
            "Each source has only its own prediction; return every source for every prediction.": right.diagonal(
                dim1=1, dim2=2
            ),
        }
        cases.append(
            Case(
                f"{name}, head {head[0]}.{index}",
                arguments,
                right,
                axes=("list", "source", "prediction"),
                mistakes=mistakes,
            )
        )
    return cases


dla_from_sources = CHECKS.add(
    Check(
        "dla_from_sources",
        "Logits from each source",
        core=False,
        cases=_dla_from_sources_cases,
        reference=_dla_from_sources,
    )
)
