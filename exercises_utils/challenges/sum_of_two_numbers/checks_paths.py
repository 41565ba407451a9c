"""The checks of lesson 04 on paths: the logits as a sum over ways through the layers, and circuits of two heads."""

from functools import partial

import torch
import torch.nn.functional as F

from exercises_utils.challenges.sum_of_two_numbers.checks_setup import FAMILY, lesson_model, recorded, sums
from exercises_utils.checking import Call, Draw, Fresh, arg, exercise, on_models, then
from exercises_utils.models import ModelConfig, build_model

_WIDE = ModelConfig(2, d_model=22, n_heads=5, d_head=6, n_ctx=18, d_vocab=14, d_vocab_out=13, eps=0.05)
_NARROW = ModelConfig(2, d_model=18, n_heads=2, d_head=7, n_ctx=14, d_vocab=12, d_vocab_out=12)
TWO_LAYERS = {"the lesson's model": lesson_model} | {
    f"a random model with {sizes.n_heads} heads": Fresh(partial(build_model, sizes, seed=29, device="cpu"))
    for sizes in (_WIDE, _NARROW)
}
"""Value biases are 0 in them, as the exercise's text says: rows for them are not asked for."""


@exercise("The logits as a sum over paths", core=False, axes="path sequence token", atol=1e-4)
def path_attribution(
    model, tokens, place,
    *, read=9, first="keys", last="own", attention="own", embedding="one", late=True, order="heads", biases="both",
    tens=slice(None),
):  # fmt: skip
    """With all sources at once, and each head's OV circuit as one matrix."""
    norms = ("blocks.1.ln1.hook_scale", "ln_final.hook_scale")
    z, pattern, scale, end = recorded(
        model, tokens, "blocks.0.attn.hook_z", "blocks.1.attn.hook_pattern", *norms
    )
    at, n_heads = read + place, model.cfg.n_heads
    embed, where = model.W_E[tokens], model.W_pos[: tokens.shape[1]]
    tokens_and_where = {"one": [embed + where], "token": [embed], "apart": [embed, where.expand_as(embed)]}
    heads = [z[:, :, head] @ model.W_O[0, head] for head in range(n_heads)]
    # (source, sequence, position, d_model), and below (sequence, head, key)
    early = torch.stack([*tokens_and_where[embedding], *heads, model.b_O[0].expand_as(embed)])
    looks = pattern[..., at] if attention == "exchanged" else pattern[:, :, at]
    looks = looks * F.one_hot(torch.tensor(at), looks.shape[-1]).to(looks) if attention == "itself" else looks
    through = early / {"keys": scale, "query": scale[:, at, None], "last": end, None: scale**0}[first]
    moved = torch.einsum("shk,iskd,hde->hise", looks, through, model.W_V[1] @ model.W_O[1])
    moved = (moved if order == "heads" else moved.transpose(0, 1)).flatten(0, 1)
    b_O = model.b_O[1].expand_as(embed[:, 0])[None]
    by = {"own": end[:, at], "first": scale[:, at], "before": end[:, at - 1], None: end[:, at] ** 0}[last]
    direct, b_U = early[:, :, at] / by, model.b_U.expand(1, len(tokens), -1)
    if biases == "b_O twice":
        direct = torch.cat([direct[:-1], direct[-1:] + b_O / by])
    written = [direct, moved / by] if late else [direct]
    last_b_U = b_U / by if biases == "scaled" else b_U
    ends = [(b_O if biases == "bare" else b_O / by) @ model.W_U, last_b_U]
    ends = {"no b_U": ends[:1], "exchanged": ends[::-1]}.get(biases, ends)
    return torch.cat([torch.cat(written) @ model.W_U, *(ends if late else [])])[..., tens]


def _place(draw: Draw) -> int:
    return 2 if draw.batch == 1 else (1, 3, 0)[draw.index]


path_attribution.given(on_models(TWO_LAYERS, lesson_batch=12, tokens=sums, place=_place))
PLACE = "the digit of place i is predicted at position 9 + i, not"
path_attribution.slips(
    {
        "No LayerNorm scale is divided by: the paths do not add up.": dict(first=None, last=None),
        "The scale of layer 1's LayerNorm is missing: each key position has its own.": dict(first=None),
        "The scale of the last LayerNorm is missing: divide every row but `b_U` by it.": dict(last=None),
        "Layer 1's scale is taken at the query position; take it at each key's.": dict(first="query"),
        "The last division is by layer 1's scale; at the end it is `ln_final`'s.": dict(last="first"),
        "Layer 1 reads through `blocks.1.ln1`'s scale, not `ln_final`'s.": dict(first="last"),
        "The last scale is that of the position before: place i is read at 9 + i.": dict(last="before"),
        "Queries and keys are exchanged: take the row of position 9 + place.": dict(attention="exchanged"),
        f"One position too late: {PLACE} 10 + i.": dict(read=10),
        f"One position too early: {PLACE} 8 + i.": dict(read=8),
        "Only the answer position itself is read in layer 1; add up all keys.": dict(attention="itself"),
        "The positional embedding is missing: `embed` is W_E and W_pos together.": dict(embedding="token"),
        "Token and position have rows of their own; add them, into one row `embed`.": dict(embedding="apart"),
        "The paths through layer 1 are in another order: for each head, all it reads.": dict(order="sources"),
        "The row of `b_U` is missing; it is the last.": dict(biases="no b_U"),
        "`b_U` is divided by the scale; it is added after the LayerNorm.": dict(biases="scaled"),
        "`b_O 1` is not divided by the last LayerNorm's scale.": dict(biases="bare"),
        "`b_O 1` is also in the row of `b_O 0`, so it is counted twice.": dict(biases="b_O twice"),
        "The last two rows are exchanged: `b_O 1`, then `b_U`.": dict(biases="exchanged"),
        "The paths through layer 1 are missing.": dict(late=False),
        "Only the ten digits are there; return the logits of all tokens.": dict(tens=slice(10)),
    }
)


@exercise("Two heads, on pairs of digits", core=False, axes="a b digit")
def pair_sums(
    model, early, late, *, without=None, digits=10, outputs=10, pairs="sum", W_pos=False, b_V=0, b_U=0
):
    """By moving each pair's sum through both heads."""
    x = model.W_E[:digits] + model.W_pos[:digits] if W_pos else model.W_E[:digits]
    x = {"sum": x[:, None] + x, "first": x[:, None].expand(-1, len(x), -1)}.get(pairs, x)
    for name, head in (("early", early), ("late", late)):
        if name != without:
            x = (x @ model.W_V[head] + b_V * model.b_V[head]) @ model.W_O[head]
    x = x @ model.W_U[:, :outputs] + b_U * model.b_U[:outputs]
    return x[:, None] * x if pairs == "product" else x


def _late(draw: Draw) -> tuple[int, int]:
    """A head of the next layer, or of the same one where there is no other."""
    layer, head = draw["early"]
    return min(layer + 1, draw.model.cfg.n_layers - 1), head - 1


def _not_from_layer_0() -> list[Call]:
    name, model = list(FAMILY.items())[1]
    return [Call(f"{name}, 1.2 → 2.4", dict(model=model, early=(1, 2), late=(2, 4)))]


pair_sums.given(
    on_models(FAMILY, early=lambda draw: (0, draw.model.cfg.n_heads - 1), late=_late), _not_from_layer_0
)
pair_sums.slips(
    {
        "The heads act in the wrong order: the early one first.": dict(early=arg("late"), late=arg("early")),
        "The late head is missing.": dict(without="late"),
        "The early head is missing.": dict(without="early"),
        "All tokens' logits are there; take the ten digits, `W_U[:, :10]`.": dict(outputs=None),
        '"+" and "=" are among the digits; take the first ten rows of W_E.': dict(digits=None),
        "The two digits are multiplied; add them.": dict(pairs="product"),
        "Only the first digit is there; add the second.": dict(pairs="first"),
        "This is the table of single digits; add the rows of a and of b.": dict(pairs="single"),
        "The pairs are flattened into one axis; keep a and b apart.": then(lambda right: right.flatten(0, 1)),
        "The positions are in it; take the embeddings of the digits alone.": dict(W_pos=True),
        "The bias b_V is in it; leave it out.": dict(b_V=1),
        "The bias b_U is in it; leave it out.": dict(b_U=1),
    }
)
