"""The checks of lesson 03, sections 1 to 3: the verdict, who writes it, and attention to the mirror."""

import torch

from exercises_utils.challenges.palindromes.checks_common import (
    FAMILY,
    run,
    some_tokens,
    verdict_bias,
    verdict_direction,
)
from exercises_utils.checking import Call, exercise, on_models, then

# ── 1 · the verdict ─────────────────────────────────────────────────────────────────────────────────────────


@exercise("The number that everything moves", core=True, axes="sequence")
def logit_diff(model, tokens, *, towards=(1, 0), position=-1, of="logits"):
    """By a forward pass without hooks."""
    every = run(model, tokens)["logits"]
    logits = every.mean(1) if position == "mean" else every[:, position]
    logits = {"logits": logits, "probs": logits.softmax(-1), "log_probs": logits.log_softmax(-1)}[of]
    if towards is ALL:
        return logits
    first, *second = towards
    return logits[..., first] - logits[..., second[0]] if second else logits[..., first]


ALL = slice(None)
ONE_ALONE = "This is the {} of {} alone; return palindrome (index 1) minus no palindrome (index 0)."
logit_diff.given(on_models(FAMILY, tokens=some_tokens))
logit_diff.slips(
    {
        "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": dict(towards=(0, 1)),
        "These are the logits of the last value; read them at END, the last position.": dict(position=-2),
        "These are the logits of START; read them at END, the last position.": dict(position=0),
        "This is one value for each position; read the logits at END only, position -1.": dict(position=ALL),
        "These are probabilities; return the difference of the logits, before the softmax.": dict(of="probs"),
        ONE_ALONE.format("logit", "palindrome"): dict(towards=(1,)),
        ONE_ALONE.format("logit", "no palindrome"): dict(towards=(0,)),
        "These are both logits; return their difference, one number for each sequence.": dict(towards=ALL),
        "This is the mean over positions; the model answers at END only.": dict(position="mean"),
    }
)


# ── 2 · who writes it ───────────────────────────────────────────────────────────────────────────────────────


@exercise("Direct logit attribution that adds up", core=True, axes="component sequence")
def logit_attribution(
    model, tokens, *, scale="last", eps=None, power=-1, at=-1, towards=(1, 0), bias="last", heads_bias="a row"
):  # fmt: skip
    """From z and W_O, not from `hook_result`."""
    seen = run(model, tokens)
    parts = [model.W_E[tokens[:, at]], model.W_pos[tokens.shape[1] + at].expand(len(tokens), -1)]
    for layer in range(model.cfg.n_layers):
        parts += [seen["z", layer][:, at, head] @ model.W_O[layer, head] for head in range(model.cfg.n_heads)]
    b_O = model.b_O[-1] if heads_bias == "last layer" else model.b_O.sum(0)
    parts += [b_O.expand(len(tokens), -1)] * (heads_bias is not None)
    components = torch.stack(parts)
    divide_by = seen["scale", {"first": 0, "before": model.cfg.n_layers - 1}.get(scale, "last")][:, at]
    if scale == "mean":
        divide_by = divide_by.mean().expand_as(divide_by)
    elif scale == "own":
        divide_by = (components.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    if eps is not None:
        divide_by = (divide_by**2 - model.cfg.eps + eps).sqrt()
    rows = components * divide_by**power @ verdict_direction(model, towards)
    last = verdict_bias(model, towards).expand(1, len(tokens))
    if bias == "in b_O":
        rows[-1] += last[0]
    kinds = {
        "last": [rows, last],
        "first": [last, rows],
        "turned": [rows, -last],
        "zero": [rows, 0 * last],
        "in b_O": [rows, 0 * last],
        "scaled": [rows, last * divide_by.reshape(-1, len(tokens))[:1] ** power],
        "none": [rows],
    }
    return torch.cat(kinds[bias])


logit_attribution.given(on_models(FAMILY, lesson_batch=10, tokens=some_tokens))
logit_attribution.slips(
    {
        "The rows do not add up to the logit difference: the last LayerNorm's scale is forgotten. Divide by "
        '`cache["ln_final.hook_scale"]` at END.': dict(power=0),
        "Every sequence has its own scale; you divided by the mean of the scales.": dict(scale="mean"),
        "This is the scale of the first LayerNorm; the unembedding reads after the last one, `ln_final`.": dict(
            scale="first"
        ),
        "This is the scale that the last layer reads with; the unembedding reads after `ln_final`.": dict(
            scale="before"
        ),
        "Every component was normalised by a scale of its own; divide all by the one scale of their sum, "
        '`cache["ln_final.hook_scale"]`, or they do not add up.': dict(scale="own"),
        "The scale is computed without an epsilon, or with another one (1e-5) than the model's, `model.cfg.eps`; the cache "
        "has the scale as the model used it.": dict(eps=1e-5),
        "You multiplied by the last LayerNorm's scale; divide by it.": dict(power=1),
        "The row of `b_U` comes first; it is the last row.": dict(bias="first"),
        "The row of `b_U` is turned round: `b_U[1] - b_U[0]`.": dict(bias="turned"),
        "The last row should be `b_U[1] - b_U[0]`; the rows before it are right. Add it.": dict(bias="none"),
        "The last row should be `b_U[1] - b_U[0]`, not zero: without it the rows do not add up.": dict(
            bias="zero"
        ),
        "`b_U[1] - b_U[0]` is in the row of `b_O`; it has a row of its own, the last.": dict(bias="in b_O"),
        "The bias is not divided by the scale: it is added after the LayerNorm.": dict(bias="scaled"),
        "The row of the heads' output bias `b_O` is missing.": dict(heads_bias=None),
        "The row of `b_O` holds the last layer's only; it is the sum over layers.": dict(
            heads_bias="last layer"
        ),
        "The sign is turned round: towards palindrome (index 1), away from no palindrome (index 0).": dict(
            towards=(0, 1)
        ),
        "This is the direction of the logit of palindrome alone; subtract `W_U[:, 0]`.": dict(towards=(1,)),
        "This is the attribution at the last value, position -2; the verdict is read at END, position -1.": dict(
            at=-2
        ),
    }
)


# ── 3 · one value changed ───────────────────────────────────────────────────────────────────────────────────


@exercise("Attention to the mirror", core=True, axes="sequence pair")
def mirror_attention(pattern, *, half="second", start=0, shift=0, sides="query key", of="mirror"):
    """By flat indices."""
    size = pattern.shape[-1]
    queries = torch.arange(1, size // 2) if half == "first" else torch.arange(size // 2, size - 1) + start
    keys = queries if of == "itself" else size - 1 - queries + shift
    if sides == "key query":
        queries, keys = keys, queries
    if of == "half":
        return pattern[:, queries, 1 : size // 2].sum(-1)
    return pattern.flatten(1)[:, queries * size + keys]


def _pattern(size: int, n: int) -> torch.Tensor:
    """Not causal, so that a mistake that reads above the diagonal does not read zeros."""
    return torch.randn(size, n + 2, n + 2, generator=torch.Generator().manual_seed(n)).softmax(-1)


mirror_attention.given(
    [
        Call(
            f"patterns of {n} values" + (", one sequence" if size == 1 else ""),
            dict(pattern=_pattern(size, n)),
        )
        for size, n in ((5, 20), (6, 6), (4, 26), (1, 8), (3, 2))
    ]
)
mirror_attention.slips(
    {
        "These go from the first half to the second, which attention cannot do: rows are queries, columns are "
        "keys.": dict(sides="key query"),
        "These go from the first half to the second; the queries are the second half's positions.": dict(
            half="first"
        ),
        "Off by one: the mirror of position i is n + 1 - i, not n - i (START is position 0).": dict(shift=-1),
        "Off by one: the mirror of position i is n + 1 - i, not n + 2 - i.": dict(shift=1),
        "Off by one: the second half starts at position n/2 + 1, not n/2 (START is position 0).": dict(
            start=-1
        ),
        "Off by one: n is the number of values, two less than there are positions.": dict(start=1, shift=1),
        "Off by one: the second half starts at position n/2 + 1, not n/2 + 2.": dict(start=1),
        "This is the attention of each position to itself, the diagonal; the mirror is at n + 1 - i.": dict(
            of="itself"
        ),
        "This is the attention to the whole first half; only the mirror is asked for.": dict(of="half"),
        "This is the whole antidiagonal, with START, END and the first half; only the second half's values are asked "
        "for.": lambda pattern: pattern.flip(-1).diagonal(dim1=1, dim2=2),
        "START and END have no mirror; leave out the last number, END's.": lambda pattern: pattern.flip(
            -1
        ).diagonal(dim1=1, dim2=2)[:, pattern.shape[-1] // 2 :],
        "Pairs are in the order of the first half; start with the middle pair, as the second half does.": then(
            lambda right: right.flip(-1)
        ),
    }
)
