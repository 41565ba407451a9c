"""The checks of lesson 04 on paths: the logits as a sum over ways through the layers, and circuits of two heads."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers.checks_setup import (
    LESSON,
    MODELS,
    THREE_LAYERS,
    TWO_HEADS,
    TWO_LAYERS,
    recorded,
    some_tokens,
)
from exercises_utils.checking import Case, Check
from exercises_utils.tools import circuits

Head = tuple[int, int]


class _Run:
    """What path attribution needs of one run: early parts, late patterns, scales."""

    def __init__(self, model: Any, tokens: Tensor) -> None:
        z, pattern, scale_1, scale_final = recorded(
            model,
            tokens,
            get_act_name("z", 0),
            get_act_name("pattern", 1),
            "blocks.1.ln1.hook_scale",
            "ln_final.hook_scale",
        )
        self.pattern, self.scale_1, self.scale_final = pattern, scale_1, scale_final
        # Copies: the model may be changed before a wrong value is needed.
        self.W_OV = (model.W_V[1] @ model.W_O[1]).clone()
        self.W_U, self.b_U, self.b_O = model.W_U.clone(), model.b_U.clone(), model.b_O.clone()
        embed = model.W_E[tokens]
        position = model.W_pos[: tokens.shape[1]].expand_as(embed)
        self.embed, self.position = embed, position
        heads = [z[:, :, head] @ model.W_O[0, head] for head in range(model.cfg.n_heads)]
        self.early = [embed + position, *heads, model.b_O[0].expand_as(embed)]

    def rows(
        self,
        place: int,
        *,
        early: list[Tensor] | None = None,
        scale_1: Tensor | None = None,
        scale_final: Tensor | None = None,
        pattern: Tensor | None = None,
        bias: bool = True,
        read: int = 9,
    ) -> Float[Tensor, "path sequence token"]:
        """The paths, key position by key position; keywords replace something by what a mistake takes."""
        at = read + place
        early = self.early if early is None else early
        scale_1 = self.scale_1 if scale_1 is None else scale_1
        final = (self.scale_final if scale_final is None else scale_final)[:, at]
        pattern = self.pattern if pattern is None else pattern
        rows = [part[:, at] / final @ self.W_U for part in early]
        for late in range(len(self.W_OV)):
            for part in early:
                moved = torch.zeros_like(part[:, at])
                for key in range(pattern.shape[-1]):
                    moved = moved + pattern[:, late, at, key, None] * (part[:, key] / scale_1[:, key])
                rows.append(moved @ self.W_OV[late] / final @ self.W_U)
        rows.append((self.b_O[1] / final) @ self.W_U)
        if bias:
            rows.append(self.b_U.expand(len(final), -1))
        return torch.stack(rows)


def _path_attribution(model: Any, tokens: Tensor, place: int) -> Float[Tensor, "path sequence token"]:
    return _Run(model, tokens).rows(place)


def _path_attribution_cases() -> list[Case]:
    cases = []
    for name, place in ((LESSON, 1), (TWO_LAYERS, 3), (TWO_HEADS, 0)):
        fresh = MODELS[name]
        model, tokens = fresh.get(), some_tokens(name, 12 if name == LESSON else 5, seed=31)
        run = _Run(model, tokens)
        n_heads, at = model.cfg.n_heads, 9 + place
        right = run.rows(place)
        ones = torch.ones_like(run.scale_1)
        width = n_heads + 2
        late = right[width : width * (n_heads + 1)].view(n_heads, width, *right.shape[1:])
        by_early = late.transpose(0, 1).flatten(0, 1)
        last = right[-1:]
        at_query = run.scale_1[:, at : at + 1].expand_as(run.scale_1)
        final_bias = right.clone()
        final_bias[-1] = last[0] / run.scale_final[:, at]
        bare = right.clone()
        bare[-2] = model.b_O[1] @ model.W_U
        no_position = [run.embed, *run.early[1:]]
        twice = right.clone()
        twice[width - 1] = ((model.b_O[0] + model.b_O[1]) / run.scale_final[:, at]) @ model.W_U
        split = [run.embed, run.position, *run.early[1:]]
        itself = run.pattern * torch.eye(run.pattern.shape[-1])
        logits = model(tokens)[:, at]
        cases.append(
            Case(
                f"{name}, place {place}",
                (fresh, tokens, place),
                right,
                axes=("path", "sequence", "token"),
                atol=1e-4,
                mistakes={
                    "The paths do not add up to the logits: no LayerNorm scale is divided by. Divide by the last one's "
                    "at the answer position, and what goes through layer 1 by its scale at each key position as well.": (
                        partial(run.rows, place, scale_1=ones, scale_final=ones)
                    ),
                    "The scale of layer 1's LayerNorm is missing in the paths through it: divide each key position by its "
                    "own.": partial(run.rows, place, scale_1=ones),
                    "The scale of the last LayerNorm is missing: divide every row but `b_U` by it.": partial(
                        run.rows, place, scale_final=ones
                    ),
                    "Layer 1's scale is taken at the query position; each key position is divided by its own.": partial(
                        run.rows, place, scale_1=at_query
                    ),
                    "The direct paths, or all, are divided by layer 1's scale; at the end it is `ln_final`'s.": partial(
                        run.rows, place, scale_final=run.scale_1
                    ),
                    "What goes through layer 1 is divided by the last LayerNorm's scale at the key positions; there it is "
                    "`blocks.1.ln1`'s.": partial(run.rows, place, scale_1=run.scale_final),
                    "Every scale is that of another place: the digit of place i is read at position 9 + i.": partial(
                        run.rows, place, scale_final=run.scale_final.roll(1, 1)
                    ),
                    "Queries and keys of the pattern are exchanged: take the row of position 9 + place.": partial(
                        run.rows, place, pattern=run.pattern.transpose(2, 3)
                    ),
                    "The digit of place i is predicted at position 9 + i, not 10 + i.": partial(
                        run.rows, place, read=10
                    ),
                    "The digit of place i is predicted at position 9 + i, not 8 + i.": partial(
                        run.rows, place, read=8
                    ),
                    "Only what stands at the answer position itself goes through layer 1; sum over all key positions, "
                    "weighted by the attention.": partial(run.rows, place, pattern=itself),
                    "The positional embedding is missing: `embed` is W_E and W_pos together.": partial(
                        run.rows, place, early=no_position
                    ),
                    "Token and position have rows of their own; add them, into one row `embed`.": partial(
                        run.rows, place, early=split
                    ),
                    "The paths through layer 1 stand in another order: for each head of layer 1, all that it reads.": (
                        torch.cat([right[:width], by_early, right[-2:]])
                    ),
                    "The row of `b_U` is missing; it is the last.": right[:-1],
                    "`b_U` is divided by the scale; it is added after the LayerNorm.": final_bias,
                    "`b_O 1` is not divided by the last LayerNorm's scale.": bare,
                    "`b_O 0` and `b_O 1` are added in the row of `b_O 0`; that of layer 1 has its own row, so it is counted "
                    "twice.": twice,
                    "The last two rows are exchanged: `b_O 1`, then `b_U`.": right[
                        [*range(len(right) - 2), -1, -2]
                    ],
                    "The paths through layer 1 are missing.": right[:width],
                    "This is the sum over paths, the logits themselves; return one row for each path.": logits,
                    "Only the ten digits are there; return the logits of all tokens.": right[..., :10],
                    "This is the mean over sequences; return one row for each path and sequence.": right.mean(
                        1
                    ),
                },
            )
        )
    return cases


path_attribution = Check(
    "path_attribution",
    "The logits as a sum over paths",
    core=False,
    cases=_path_attribution_cases,
    reference=_path_attribution,
)


def _pair_sums(model: Any, early: Head, late: Head) -> Float[Tensor, "a b digit"]:
    """By the two heads' OV circuits, one digit at a time."""
    moved = circuits.ov_output(model, late, circuits.ov_output(model, early, model.W_E[:10]))
    votes = moved @ model.W_U[:, :10]
    return torch.stack([torch.stack([votes[a] + votes[b] for b in range(10)]) for a in range(10)])


def _pair_sums_cases() -> list[Case]:
    cases = []
    for name, early, late in (
        (LESSON, (0, 1), (1, 0)),
        (TWO_LAYERS, (0, 3), (1, 2)),
        (THREE_LAYERS, (1, 1), (2, 0)),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        right = _pair_sums(model, early, late)
        digits = model.W_E[:10]
        OV_early = model.W_V[early] @ model.W_O[early]
        OV_late = model.W_V[late] @ model.W_O[late]

        def pairs(single: Tensor) -> Tensor:
            return single[:, None] + single[None, :]

        tokens = model.W_E @ OV_early @ OV_late @ model.W_U
        backwards = digits @ OV_late @ OV_early @ model.W_U[:, :10]
        positions = (model.W_E[:10] + model.W_pos[:10]) @ OV_early @ OV_late @ model.W_U[:, :10]
        single = digits @ OV_early @ OV_late @ model.W_U[:, :10]
        biased = single + model.b_U[:10] / 2
        cases.append(
            Case(
                f"{name}, {early[0]}.{early[1]} → {late[0]}.{late[1]}",
                (fresh, early, late),
                right,
                axes=("a", "b", "digit"),
                mistakes={
                    "This is the mean of the two digits; add them.": right / 2,
                    "The heads act in the wrong order: the early head first, then the late one.": pairs(
                        backwards
                    ),
                    "The late head is missing.": pairs(digits @ OV_early @ model.W_U[:, :10]),
                    "The early head is missing.": pairs(digits @ OV_late @ model.W_U[:, :10]),
                    "All tokens are there, as digits and in the logits; take the ten digits.": pairs(tokens),
                    "All tokens' logits are there; take the ten digits, `W_U[:, :10]`.": pairs(tokens[:10]),
                    '"+" and "=" are among the digits; take the first ten rows of W_E.': pairs(
                        tokens[:, :10]
                    ),
                    "The two digits are multiplied; add them.": single[:, None] * single[None, :],
                    "Only the first digit is there; add the second.": single[:, None]
                    .expand(10, 10, 10)
                    .clone(),
                    "This is the table of single digits; add the rows of a and of b for each pair.": single,
                    "The pairs are flattened into one axis of 100; keep a and b apart.": right.flatten(0, 1),
                    "The positions are in it; take the embeddings of the digits alone.": pairs(positions),
                    "The bias b_U is in it; leave it out.": pairs(biased),
                },
            )
        )
    return cases


pair_sums = Check(
    "pair_sums",
    "Two heads, on pairs of digits",
    core=False,
    cases=_pair_sums_cases,
    reference=_pair_sums,
)
