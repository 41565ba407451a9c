"""The checks of lesson 05's second part: the logits as a sum over what the layers and the heads write.

Their truths come from a model written out by hand.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.checks_common import MODELS, Plain, as_of, other_tokens
from exercises_utils.checking import Draw, Question, arg, exercise, on_models, then


def _tokens(draw: Draw) -> Int[Tensor, "batch position"]:
    """Multiplications for the bundled model, random tokens for the others."""
    if draw.is_lesson:
        return task.sequences(task.make_data(draw.batch, 52, order="long first", answer_digits=5))
    return draw.randint(0, draw.model.cfg.d_vocab, draw.batch, 8)


READ: Any = dict(batch=5, lesson_batch=6, tokens=_tokens)
READ["position"] = lambda draw: (11, 6, 2)[draw.index] if draw.batch > 1 else 0
ROWS: Any = READ | dict(
    right=lambda draw: draw.randint(0, draw.model.cfg.d_vocab, draw.batch),
    wrong=lambda draw: other_tokens(draw["right"], draw.model.cfg.d_vocab, draw.generator),
)


def _outputs(plain: Plain, tokens: Tensor, at: int) -> Float[Tensor, "part batch d_model"]:
    """The embedding, and what each layer's attention and MLP write."""
    names = [("embed", -1), *((name, i) for i in range(plain.n_layers) for name in ("attn_out", "mlp_out"))]
    return torch.stack([plain.run(tokens)[name][:, at] for name in names])


def _divisor(plain: Plain, tokens: Tensor, at: int, part: Tensor, scale: str) -> Tensor:
    """What a part of the residual stream is divided by: the model's final scale at the position, or another one."""
    final = plain.run(tokens)["scale", -1]
    return {
        "final": final[:, at],
        "none": torch.ones(()),
        "own": plain.scale(part),
        "mean": final[:, at].mean(0, keepdim=True),
        "positions": final.mean(1),
        "last": final[:, -1],
        "length": part.norm(dim=-1, keepdim=True),
        "square": plain.scale(part) ** 2,
        "deviation": part.std(-1, keepdim=True),
        "no epsilon": part.pow(2).mean(-1, keepdim=True).sqrt(),
    }[scale]


@exercise("The logit lens", core=False, axes="depth batch digit", atol=2e-4)
def lens(
    model, tokens, position, ids, *, scale="own", b_U=True, late=0, parts=False, centred=False, of="logits"
):
    """From sums over what each layer adds to the embedding."""
    plain, at = Plain.of(model), position + late
    stream = _outputs(plain, tokens, at)
    stream = stream if parts else stream.cumsum(0)
    stream = stream - centred * stream.mean(-1, keepdim=True)
    logits = stream / _divisor(plain, tokens, at, stream, scale) @ plain.W_U + plain.b_U * b_U
    logits = {"logits": logits, "probs": logits.softmax(-1), "log_probs": logits.log_softmax(-1)}[of]
    return as_of(model, logits if ids is None else logits[..., list(ids)])


lens.given(
    on_models(MODELS, **READ, ids=lambda draw: draw.randn(draw.model.cfg.d_vocab).topk(10)[1].tolist())
)
lens.slips(
    {
        "Every depth is divided by the *final* scale; give each its own.": dict(scale="final"),
        "The norm is left out: divide each depth by its own sqrt(mean square + eps).": dict(scale="none"),
        "The norm and b_U are left out: divide by the depth's scale, add b_U.": dict(scale="none", b_U=False),
        "b_U is left out; add `b_U[ids]` at the end.": dict(b_U=False),
        "The mean is subtracted, as in LayerNorm; RMSNorm only divides.": dict(centred=True),
        "It is divided by its length, not by the root of the *mean* square.": dict(scale="length"),
        "It is divided by the mean square; its root is missing.": dict(scale="square"),
        "The epsilon is left out, or a number in the code; add `model.cfg.eps`.": dict(scale="no epsilon"),
        "It is divided by the standard deviation, not by sqrt(mean square).": dict(scale="deviation"),
        "These are the parts that each component adds, not the stream up to a depth.": dict(parts=True),
        "The columns are 0 to 9 of the vocabulary; take `ids`.": dict(ids=range(10)),
        "All tokens of the vocabulary are there; take the columns `ids`.": dict(ids=None),
        "The position is one too late; take the stream at `position`.": dict(late=1),
        "The position is one too early; take the stream at `position`.": dict(late=-1),
        "The last position is taken; take `position`.": dict(position=-1),
        "Softmax is taken over the vocabulary; logits are asked for.": dict(of="probs"),
        "Logarithms of probabilities are returned; logits are asked for.": dict(of="log_probs"),
        "The streams after each attention (`resid_mid`) are missing.": then(lambda right: right[::2]),
        "Only the streams before each layer are there.": then(lambda right: right[:-1:2]),
    }
)

TURNED = dict(right=arg("wrong"), wrong=arg("right"))
COMMON: Any = {
    "They do not add up: the final scale, `ln_final.hook_scale`, is left out.": dict(scale="none"),
    "They do not add up: each is divided by its own scale, not by the final one.": dict(scale="own"),
    "The scale is averaged over the batch; each row has its own.": dict(scale="mean"),
    "The scale is averaged over positions; take that of `position`.": dict(scale="positions"),
    "The scale is that of the last position; take that of `position`.": dict(scale="last"),
    "Everything is taken at the last position; take `position`.": dict(position=-1),
    "Everything is taken one position too late; take `position`.": dict(late=1),
    "Everything is taken one position too early; take `position`.": dict(late=-1),
    "The sign is turned round: logit(right) minus logit(wrong).": TURNED,
    "Every row is projected on the direction of the first; each has its own.": dict(along="first"),
    "This is the right token's logit alone; subtract the wrong token's.": dict(along="right"),
}


def _projected(plain, tokens, at, right, wrong, parts, scale, along):
    """Parts of the stream, (part, batch, d_model), along each row's direction in W_U: (part, batch)."""
    right, wrong = plain.W_U[:, right].T, plain.W_U[:, wrong].T
    towards = right - wrong * (along != "right")
    towards = towards[:1] if along == "first" else towards
    return (parts / _divisor(plain, tokens, at, parts, scale) * towards).sum(-1)


@exercise("What each layer adds", core=True, axes="component batch", atol=2e-4)
def component_attribution(
    model, tokens, position, right, wrong, *, scale="final", late=0, so_far=False, along="own", bias="last"
):
    """The bias's row is made of the tokens alone."""
    plain, at = Plain.of(model), position + late
    parts = _outputs(plain, tokens, at)
    parts = parts.cumsum(0) if so_far else parts
    rows = _projected(plain, tokens, at, right, wrong, parts, scale, along)
    last = (plain.b_U[right] - plain.b_U[wrong] * (along != "right" and bias != "right"))[None]
    if bias == "scaled":
        last = last / plain.run(tokens)["scale", -1][:, at, 0]
    return as_of(model, torch.cat({"first": [last, rows], None: [rows]}.get(bias, [rows, last])))


def _layers(change: Any) -> then:
    """A change of the layers' rows, (layer, attention or MLP, batch)."""
    return then(lambda x: torch.cat([x[:1], change(x[1:-1].unflatten(0, (-1, 2))).flatten(0, -2), x[-1:]]))


component_attribution.given(on_models(MODELS, **ROWS))
component_attribution.slips(
    {
        "The scale is left out, and so is the row of b_U, the last.": dict(scale="none", bias=None),
        "The parts are divided by the norm of each, not by the final scale.": dict(scale="length"),
        "The row of b_U is missing; it is the last.": dict(bias=None),
        "The row of b_U is divided by the scale; it is added after the norm.": dict(bias="scaled"),
        "The row of b_U comes first; it is the last.": dict(bias="first"),
        "The wrong token is left out of b_U's row; it is b_U[right] - b_U[wrong].": dict(bias="right"),
        "These are the stream so far; take what each part *adds*: `attn_out`, `mlp_out`.": dict(so_far=True),
        "In each layer the MLP comes first; the order is attention, MLP.": _layers(lambda x: x.flip(1)),
        "All attentions come first; the order is by layer.": _layers(lambda x: x.transpose(0, 1)),
        "Each layer has one row, attention and MLP together.": _layers(lambda x: x.sum(1)),
        **COMMON,
    }
)


@exercise("What each head adds", core=False, axes="layer head batch", atol=2e-4)
def head_attribution(
    model, tokens, position, right, wrong, *, scale="final", late=0, along="own", z="z", W_O="own", b_O=None
):
    """One head at a time."""
    plain, at = Plain.of(model), position + late
    seen, n, size = plain.run(tokens), plain.n_heads, plain.n_heads // plain.n_groups
    parts = []
    for layer in range(plain.n_layers):
        in_turns = seen["v", layer].repeat(1, 1, size, 1)
        values = seen["v", layer].repeat_interleave(size, 2)
        mixed = torch.einsum("bhqk,bkhd->bqhd", seen["pattern", layer], in_turns)
        here = {"z": seen["z", layer], "values": values, "turns": mixed}[z][:, at]
        whole = plain.W_O(layer)
        turned = whole.unflatten(0, (size, -1)).transpose(0, 1).flatten(0, 1)
        cut = whole.flatten(0, 1).unflatten(0, (plain.d_head, n)).transpose(0, 1)
        matrices = {"own": whole, "turns": turned, "cut": cut}[W_O]
        bias = plain.b_O(layer) * {None: 0.0, "shared": 1 / n, "all": 1.0}[b_O]
        parts += [here[:, head] @ matrices[head] + bias for head in range(n)]
    rows = _projected(plain, tokens, at, right, wrong, torch.stack(parts), scale, along)
    return as_of(model, rows.unflatten(0, (plain.n_layers, n)))


def _by_group(model: Any, *arguments: Any) -> Float[Tensor, "layer kv_head batch"]:
    return head_attribution.truth(model, *arguments).unflatten(1, (model.cfg.n_key_value_heads, -1)).sum(2)


head_attribution.given(on_models(MODELS, **ROWS))
head_attribution.slips(
    {
        "b_O is shared out among the heads; leave it out.": dict(b_O="shared"),
        "b_O is added to every head; leave it out.": dict(b_O="all"),
        "Heads that share a key/value head are added up; give each *query* head its own row.": _by_group,
        "W_O is cut the wrong way: its first d_head rows are head 0's, the next head 1's.": dict(W_O="cut"),
        "These are the values at `position`; take z, the values weighted by the attention.": dict(z="values"),
        "Layer and head are one axis; keep them apart.": then(lambda right: right.flatten(0, 1)),
        "Query heads are given to key/value heads in turns; neighbours read the same one.": dict(z="turns"),
        "W_O is reordered as if key/value heads took turns; take it as it is.": dict(W_O="turns"),
        **COMMON,
    }
)

sum_or_mean = Question(
    "sum_or_mean",
    "Find the bug: 2.746 or 0.229?",
    core=False,
    options={
        "a": (
            "the normalisation is missing in the second figure",
            "without it, the quotient would differ from prompt to prompt. What is it here, and what else is so many?",
        ),
        "b": (
            "the one is a mean over twelve answer tokens, the other their sum",
            "the einsum sums over answers and divides by prompts: 2.746 / 12 is 0.229. Nothing asserted that parts add up.",
        ),
        "c": (
            "rounding: the second way sums many small terms",
            "float32 keeps about seven digits; rounding does not make a number twelve times as large.",
        ),
        "d": (
            "the BOS token is missing in one of the two runs",
            "both figures come from the same run, its logits and its cache.",
        ),
    },
    answer="b",
)
