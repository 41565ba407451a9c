"""The checks of lesson 02, sections 4 and 5: what the weights say, why heads look where they look, near neighbours.

This file contains the answers.
"""

from typing import Any

import torch
import torch.nn.functional as F

from exercises_utils.challenges.sorted_list_two_heads import checks_common as ours
from exercises_utils.checking import Call, Draw, Question, exercise, on_models, then


def _weights(model, head, layer, names="QKVO"):
    """Weight matrices of a head, and the biases of its queries, keys and values."""
    at = (head[0] if layer is None else layer, head[1])
    return [getattr(model, f"W_{name}")[at] for name in names], [getattr(model, f"b_{n}")[at] for n in "QKV"]


LAYER_0: dict[str, Any] = {"`layer` is not used: this is the head of that number in layer 0.": dict(layer=0)}
NO_ROOT = "{} not divided by sqrt(d_head): attention divides by it before the softmax."
WHOLE = "{} divided by d_head; attention divides by its square root."
ONCE = "{} divided by the scale once; it divides the query and the key, so the scores by its square."


# ── 4 · OV and QK ───────────────────────────────────────────────────────────────────────────────────────────

BOTH = {"ov": "source prediction", "qk": "query key"}


@exercise("The full OV and QK circuits of a head", core=True, axes=BOTH)
def head_circuits(
    model, head, scale, final_scale, *, layer=None, up_to=None, ends="W_U", b_V=0, b_QK=0, direct=0,
    ov=1, ov_final=1, ov_root=0, qk=2, qk_final=0, root=0.5, of="d_head",
):  # fmt: skip
    """From a vector for each token: query, key, value. `ov`, `qk` and the like are powers of what it is divided by."""
    (W_Q, W_K, W_V, W_O), biases = _weights(model, head, layer)
    W_E, out = model.W_E[:up_to], {"W_U": model.W_U, "W_E": model.W_E.T}[ends][:, :up_to]
    values = W_E / scale**ov @ W_V + b_V * biases[2]
    logits = values @ (W_O @ out) / (final_scale**ov_final * model.cfg.d_head**ov_root)
    q, k = W_E / scale ** (qk / 2) @ W_Q + b_QK * biases[0], W_E / scale ** (qk / 2) @ W_K + b_QK * biases[1]
    scores = torch.einsum("qh,kh->qk", q, k) / (final_scale**qk_final * getattr(model.cfg, of) ** root)
    return logits + direct * W_E @ out / final_scale, scores


def _scale(draw):
    return (1.3, 0.6, 1.7)[draw.index]


head_circuits.given(
    on_models(ours.FAMILY, head=Draw.head, scale=_scale, final_scale=lambda draw: (2.1, 0.9, 2.3)[draw.index])
)
head_circuits.slips(
    {
        "`ov` lacks the final scale: divide by `scale` and by `final_scale`.": dict(ov_final=0),
        "`ov` lacks the scale before the head: divide by `scale` and by `final_scale`.": dict(ov=0),
        "`ov` is divided by `scale` twice; one of the two is `final_scale`.": dict(ov=2, ov_final=0),
        "`ov` is not divided by the scales; divide by `scale * final_scale`.": dict(ov=0, ov_final=0),
        "`ov` is divided by sqrt(d_head); that belongs to the scores only.": dict(ov_root=0.5),
        "The biases b_V are in `ov`; the exercise leaves biases out.": dict(b_V=1),
        "The direct path W_E W_U is in `ov`; the head's part alone is asked for.": dict(direct=1),
        "`ov` ends with W_E^T; what a head writes is read by W_U.": dict(ends="W_E"),
        NO_ROOT.format("`qk` is"): dict(root=0),
        WHOLE.format("`qk` is"): dict(root=1),
        "`qk` is divided by sqrt(d_model); the width of a head is d_head.": dict(of="d_model"),
        ONCE.format("`qk` is"): dict(qk=1),
        "`qk` is not divided by the scale; divide by its square.": dict(qk=0),
        "`qk` is divided by `scale * final_scale`; queries and keys are both read after the first LayerNorm: "
        "divide by `scale ** 2`.": dict(qk=1, qk_final=1),
        "The biases b_Q and b_K are in `qk`; the exercise leaves biases out.": dict(b_QK=1),
        "The two come in the other order: return ov, then qk.": then(lambda right: right[::-1]),
        "SEP is left out; return all tokens.": dict(up_to=-1),
        "SEP's rows are left out; return all tokens.": then(lambda right: tuple(part[:-1] for part in right)),
        "The LayerNorm scales are forgotten.": dict(ov=0, ov_final=0, qk=0),
        "You multiplied by the scales; LayerNorm divides by them.": dict(ov=-1, ov_final=-1, qk=-2),
        **LAYER_0,
    }
)


@exercise("Which head can copy which number", core=False, axes="number")
def copying_head(ov, *, less="largest", along="predictions", sep=None, answers=-1, returned="head"):
    """Number by number, in a loop over heads."""
    margins = torch.zeros(len(ov), ov.shape[1] + answers)
    for head, table in enumerate(ov if along == "predictions" else ov.transpose(1, 2)):
        for n in range(margins.shape[1]):
            row = table[n, : None if sep else -1]
            rest = torch.cat([row[:n], row[n + 1 :]])
            others = {"mean": rest.mean(), "none": 0, "itself": row.max(), "0": rest.max().clamp(min=0)}
            margins[head, n] = row[n] - others.get(less, rest.max())
    columns = [column.tolist() for column in margins.T]
    others = {
        "worst": margins.argmin(0),
        "size": margins.abs().argmax(0),
        "last": len(ov) - 1 - margins.flip(0).argmax(0),
        "margins": margins,
        "largest margin": margins.amax(0),
        "number": margins.argmax(1),
    }
    return others.get(returned, torch.tensor([column.index(max(column)) for column in columns]))


def _tables():
    """Random tables whose diagonal is more or less raised: one with ties, one in which half of the rows are negative."""
    calls = []
    for i, (n_heads, n_numbers) in enumerate(((2, 14), (3, 23), (4, 60))):
        generator = torch.Generator().manual_seed(20 + i)
        ov = 2 * torch.randn(n_heads, n_numbers + 1, n_numbers + 1, generator=generator)
        ov.diagonal(dim1=1, dim2=2).add_(8 * torch.rand(n_heads, n_numbers + 1, generator=generator))
        ov[:, :, -1] += 3 * torch.rand(n_heads, n_numbers + 1, generator=generator)  # SEP as a prediction
        ov = ov.round() if i == 1 else ov
        ov[:, ::2] -= 12.0 * (i == 2)
        calls.append(Call(f"circuits of {n_heads} heads and {n_numbers} numbers", dict(ov=ov)))
    return calls


copying_head.given(_tables)
copying_head.slips(
    {
        "You compare the diagonal alone; a head may raise all its predictions. Subtract the largest of the "
        "other numbers' logits.": dict(less="none"),
        "SEP is among the other predictions; leave out the last column.": dict(sep=True),
        "The other entries are taken along the sources; take those of the same source, along the last "
        "axis.": dict(along="sources"),
        "This is the head with the smallest margin; take the largest.": dict(returned="worst"),
        "The mean of the other predictions is subtracted; subtract the largest.": dict(less="mean"),
        "The diagonal is among the others, so no margin is above 0; leave it out.": dict(less="itself"),
        "The diagonal is put to 0, larger than a negative logit; put minus infinity there.": dict(less="0"),
        "The sizes are compared, without their sign; a negative margin is no copying.": dict(returned="size"),
        "SEP has an answer as well; numbers only.": dict(sep=True, answers=0),
        "These are the margins; return the head with the largest for each number.": dict(returned="margins"),
        "This is the largest margin of each number; return its head.": dict(returned="largest margin"),
        "This is the number that each head copies best; return a head for each.": dict(returned="number"),
        "At a tie the last head is taken; take the lowest.": dict(returned="last"),
    }
)


@exercise("One pattern for all heads", core=False, axes="list answer vocabulary")
def shared_pattern(model, tokens, giver, *, share="giver", by="pattern", layer=0, everywhere=False):
    """By z, the product of patterns and values."""
    pattern, values = ours.seen(model, tokens, "pattern", "v", layer=layer)
    given = pattern[:, [giver]]
    others = {
        "nothing": pattern,
        "exchanged": pattern.flip(1),
        "mean": pattern.mean(1, keepdim=True),
        "others off": pattern * F.one_hot(torch.tensor(giver), model.cfg.n_heads)[:, None, None],
        "first list": given[:1],
        "mean of lists": given.mean(0, keepdim=True),
    }
    new = others.get(share, given).expand_as(pattern)
    values = values if by == "pattern" else values[:, :, [giver]].expand_as(values)
    z = torch.einsum("bhqk,bkhd->bqhd", new, values)
    logits = ours.run_with(model, tokens, "z", lambda _: z, layer)
    return logits if everywhere else ours.at_answers(logits, tokens)


shared_pattern.given(
    on_models(ours.FAMILY, tokens=ours.lists, giver=lambda draw: draw.head()[1], lesson_batch=6)
)
shared_pattern.slips(
    {
        "Nothing is shared: these are the model's own logits.": dict(share="nothing"),
        "The patterns are exchanged between the heads; the giver keeps its own.": dict(share="exchanged"),
        "All heads use the mean of the patterns; they use the giver's.": dict(share="mean"),
        "The other heads are switched off; they go on with the giver's pattern.": dict(share="others off"),
        "All heads got the giver's output `z`; each keeps its own values.": dict(by="z"),
        "Every list got the first one's pattern; each has its own.": dict(share="first list"),
        "Every list got the mean pattern; each has its own.": dict(share="mean of lists"),
        "The heads of the last layer share; those of layer 0 do.": dict(layer=-1),
        ours.EVERYWHERE: dict(everywhere=True),
    }
)


@exercise("A token's scores for every number", core=False, axes="number")
def key_scores(
    model, head, query, position, *, layer=None, norm="own", eps=None, b_Q=1, b_K=1, root=0.5, moved=1,
    keys_at="list", sep=False, exchanged=False,
):  # fmt: skip
    """With LayerNorm's scale as a standard deviation: the embeddings' means are 0."""
    (W_Q, W_K), biases = _weights(model, head, layer, "QK")
    n, W_pos = model.cfg.n_ctx // 2, model.W_pos
    places = {"list": W_pos[:n], "all": W_pos, "SEP": W_pos[: n + 1], "first": W_pos[:1], "none": 0 * W_pos}
    place = W_pos[:n, None] if keys_at == "each" else places[keys_at].mean(0)
    asks, keys = model.W_E[query] + moved * W_pos[position], model.W_E[: None if sep else -1] + place
    asks, keys = (keys, asks[None]) if exchanged else (asks, keys)
    of = [x.var(-1, correction=0, keepdim=True) for x in (asks, asks if norm == "query" else keys)]
    scales = [1.0 if norm is None else (v + (model.cfg.eps if eps is None else eps)).sqrt() for v in of]
    q, k = asks / scales[0] @ W_Q + b_Q * biases[0], keys / scales[1] @ W_K + b_K * biases[1]
    scores = (q * k).sum(-1) / model.cfg.d_head**root
    return scores.mean(0) if keys_at == "each" else scores


def _anywhere(draw):
    """A sorted number, a number of the list, SEP."""
    return (14, 3, 6)[draw.index]


key_scores.given(
    on_models(ours.FAMILY, head=Draw.head, query=lambda draw: (25, 40, 25)[draw.index], position=_anywhere),
    on_models(ours.FAMILY, head=(0, 0), query=7, position=lambda draw: (18, 22, 9)[draw.index]),
)
PLACES = "The keys {}; add the mean of W_pos over the list's positions, the first L."
key_scores.slips(
    {
        NO_ROOT.format("The scores are"): dict(root=0),
        WHOLE.format("The scores are"): dict(root=1),
        "The biases b_Q and b_K are missing.": dict(b_Q=0, b_K=0),
        "The query's bias b_Q is missing.": dict(b_Q=0),
        "The keys' bias b_K is missing.": dict(b_K=0),
        "The LayerNorm is missing: divide the query and every key by its own scale.": dict(norm=None),
        "The keys are divided by the query's scale; every key has its own.": dict(norm="query"),
        ours.EPSILON: dict(eps=1e-5),
        "The epsilon is missing: add `model.cfg.eps` before the root.": dict(eps=0),
        "The position is missing from the query: add W_pos[position].": dict(moved=0),
        PLACES.format("have no positions, which are missing from the keys"): dict(keys_at="none"),
        PLACES.format("have the mean over all positions"): dict(keys_at="all"),
        PLACES.format("have the mean over the first L + 1 positions, SEP's included"): dict(keys_at="SEP"),
        PLACES.format("stand at position 0"): dict(keys_at="first"),
        "The mean is over the scores at each place; take it of W_pos, and score once.": dict(keys_at="each"),
        "SEP is among the keys; return numbers only.": dict(sep=True),
        "Query and key are exchanged: here the numbers of the list ask.": dict(exchanged=True),
        **LAYER_0,
    }
)


@exercise("What a position asks for", core=False, axes="position key")
def position_key_scores(
    model, head, scale, *, layer=None, sides="position token", by="QK", power=2, root=0.5, bias=0, rows="all"
):
    """With one bilinear form for the two matrices."""
    (W_Q, W_K), (b_Q, b_K, _) = _weights(model, head, layer, by)
    asks, keys = ({"position": model.W_pos, "token": model.W_E}[side] for side in sides.split())
    n, scale = model.cfg.n_ctx // 2, scale ** (power / 2)
    asks = {"all": asks, "answers": asks[n : 2 * n], "list": asks[:n]}[rows] / scale
    biases = (asks @ W_Q @ b_K)[:, None] + keys / scale @ W_K @ b_Q + b_Q @ b_K
    return (asks @ (W_Q @ W_K.T) @ keys.T / scale + bias * biases) / model.cfg.d_head**root


position_key_scores.given(on_models(ours.FAMILY, head=Draw.head, scale=_scale))
position_key_scores.slips(
    {
        NO_ROOT.format("The scores are"): dict(root=0),
        WHOLE.format("The scores are"): dict(root=1),
        ONCE.format("The scores are"): dict(power=1),
        "The LayerNorm scale is forgotten: divide both sides by it.": dict(power=0),
        "You multiplied by the scale; divide by it, on both sides.": dict(power=-2),
        "Here the token asks. W_pos goes through W_Q, W_E through W_K.": dict(sides="token position"),
        "Query and key are exchanged: W_pos goes through W_Q, W_E through W_K.": dict(by="KQ"),
        "These are positions on both sides; the keys are tokens, W_E.": dict(sides="position position"),
        "These are tokens on both sides; the queries are positions, W_pos.": dict(sides="token token"),
        "The biases b_Q and b_K are in it; the exercise leaves them out.": dict(bias=1),
        "SEP is left out; return all tokens.": then(lambda right: right[:, :-1]),
        "Only the answer positions are there; return all positions.": dict(rows="answers"),
        "Only the list's positions are there; return all positions.": dict(rows="list"),
        **LAYER_0,
    }
)


@exercise("Take the direct path away", core=False, axes="list answer vocabulary")
def without_direct_path(
    model,
    tokens,
    *,
    of="token",
    times=-1,
    by="last",
    at="unembed.hook_in",
    kept=1,
    layer=None,
    everywhere=False,
):
    """By what the unembedding reads, less the embedding at the scale of the run."""
    final, first, resid = ours.seen(
        model, tokens, ours.FINAL_SCALE, "blocks.0.ln1.hook_scale", "resid_post", layer=layer or 0
    )
    W_E, places = model.W_E[tokens], model.W_pos[: tokens.shape[1]]
    answers = model.W_E[tokens.roll(-1, -1)]
    direct = {"position": places, "both": W_E + places, "answer": answers}.get(of, W_E)
    mean = ours.at_answers(final, tokens).mean()
    scale = {"last": final, "first": first, "mean": mean}[by] if at == "unembed.hook_in" and by else 1.0

    def change(read):
        return kept * (read if layer is None else resid / final) + times * direct / scale

    logits = ours.run_with(model, tokens, at, change) - (1 - kept) * model.b_U
    return logits if everywhere else ours.at_answers(logits, tokens)


without_direct_path.given(on_models(ours.FAMILY, tokens=ours.lists, lesson_batch=4))
without_direct_path.slips(
    {
        "Nothing is taken away: these are the model's own logits.": dict(times=0),
        "The direct path is added; subtract it.": dict(times=1),
        "These are the direct path's logits alone; subtract them.": dict(times=1, kept=0),
        "The last LayerNorm's scale is missing: divide the embedding by it.": dict(by=None),
        "This is the scale of the first LayerNorm, `ln1`; take that of `ln_final`.": dict(by="first"),
        "The mean of the scale is used; every position has its own.": dict(by="mean"),
        "The positions' direct path is taken away as well; W_pos stays.": dict(of="both"),
        "The positions' direct path is taken away instead of the tokens'.": dict(of="position"),
        "The right answer's embedding is taken away; take the token at the position.": dict(of="answer"),
        "The scale is computed again; keep that of the run.": dict(at="ln_final.hook_in"),
        "The embedding was removed at the input, so that the heads do not see it either; only its direct path "
        "to the logits goes.": dict(at="hook_embed"),
        ours.FIRST_STREAM: dict(layer=0),
        ours.EVERYWHERE: dict(everywhere=True),
    }
)


@exercise("Logits from each source", core=False, axes="list source prediction")
def dla_from_sources(
    model, tokens, head, queries, sources, predictions, *, layer=None, scale="query", power=-1, weights="pattern",
    values="v", first=None, W_O_of=0, b_U=0, every=False,
):  # fmt: skip
    """List by list, each source's vector taken to the logits."""
    at, found = head[0] if layer is None else layer, []
    norms = [f"blocks.{at}.ln1.hook_scale", "blocks.0.ln1.hook_scale", ours.FINAL_SCALE]
    pattern, v, resid, *scales = ours.seen(model, tokens, "pattern", "v", "resid_pre", *norms, layer=at)
    ln1, ln1_0, final = scales
    mean = final[torch.arange(len(tokens)), queries].mean()
    parts = {"queries": queries, "sources": sources, "predictions": predictions}
    for i in range(len(tokens)):
        query, source, prediction = (part[0 if name == first else i] for name, part in parts.items())
        by = {"query": final[i, query], "source": final[i, source], "mean": mean, "ln1": ln1[i, query]}
        divide_by, total = by.get(scale, ln1_0[i, query]), torch.zeros(len(source), len(prediction))
        for h in range(model.cfg.n_heads) if every else [head[1]]:
            (W_V, W_O), (_, _, b_V) = _weights(model, (at, h), None, "VO")
            vector = {
                "v": v[i, source, h],
                "no bias": v[i, source, h] - b_V,
                "stream": resid[i, source] @ W_V,
            }
            written = vector.get(values, model.W_E[tokens[i, source]] @ W_V)
            to, back = pattern[i, h, query, source], pattern[i, h, source, query]
            weight = {"pattern": to, "none": torch.ones_like(to), "turned": back}[weights][:, None]
            W_O = model.W_O[at, (h + W_O_of) % model.cfg.n_heads]
            total += weight * written @ W_O * divide_by**power @ model.W_U[:, prediction]
        found.append(total + b_U * model.b_U[prediction])
    return torch.stack(found)


def _some(high, counts):
    """Different whole numbers below `high(draw)`, so many for each list; `counts` has one number for each model."""
    order = lambda draw: torch.rand(draw.batch, high(draw), generator=draw.generator).argsort(-1)  # noqa: E731
    return lambda draw: order(draw)[:, : counts[draw.index]]


dla_from_sources.given(
    on_models(
        ours.FAMILY,
        tokens=ours.lists,
        head=Draw.head,
        batch=4,
        lesson_batch=4,
        queries=lambda draw: draw.randint(4, draw["tokens"].shape[1], draw.batch),
        sources=_some(lambda draw: draw["tokens"].shape[1], (3, 4, 5)),
        predictions=_some(lambda draw: draw.model.cfg.d_vocab - 1, (2, 3, 4)),
    )
)
OF_FIRST = "Every list has the first one's {0}; use `{0}[i]` for list i."
CACHE = '; take the values from the cache, `cache["v", layer]`.'
dla_from_sources.slips(
    {
        "The last LayerNorm's scale is missing: divide by it, at the query.": dict(power=0),
        "You multiplied by the last LayerNorm's scale; divide by it.": dict(power=1),
        "This is the last scale at the source; a head writes at the query.": dict(scale="source"),
        "This is the scale of the first LayerNorm, `ln1`; take that of `ln_final`.": dict(scale="first"),
        "This is the scale of the head's own layer, `ln1`; take that of `ln_final`.": dict(scale="ln1"),
        "The scale is averaged; every list has its own at its query.": dict(scale="mean"),
        "The attention is missing: multiply by the pattern, query to source.": dict(weights="none"),
        "The pattern is read the other way round: rows are queries, columns keys.": dict(weights="turned"),
        "The first LayerNorm and the bias are missing" + CACHE: dict(values="stream"),
        "The values come from the token embeddings alone" + CACHE: dict(values="embedding"),
        "The value bias b_V is missing" + CACHE: dict(values="no bias"),
        "This is W_O of another head; use `head`.": dict(W_O_of=1),
        "All heads are added up; return what `head` writes.": dict(every=True),
        "The bias b_U is in it; it is no part of a head.": dict(b_U=1),
        OF_FIRST.format("queries"): dict(first="queries"),
        OF_FIRST.format("sources"): dict(first="sources"),
        OF_FIRST.format("predictions"): dict(first="predictions"),
        "Each source has only its own prediction; return every source for every prediction.": then(
            lambda right: right.diagonal(dim1=1, dim2=2)
        ),
        **LAYER_0,
    }
)


swapped_axes = Question(
    "swapped_axes",
    "Find the bug: which axis is which?",
    core=False,
    answer="b",
    options={
        "a": (
            "comment and figure are both right",
            "they name the axes in two orders. The shapes of the indices say which: `sources[:, None, :]` varies along "
            "the last axis.",
        ),
        "b": (
            "the comment is wrong, the figure is right",
            "`tokens[:, :, None]` varies along the rows and `sources[:, None, :]` along the columns, so `picked` is "
            "(list, prediction, source): rows are predictions, the figure's y, and columns sources, its x.",
        ),
        "c": (
            "the comment is right, the figure is wrong",
            "see where the `None` stands: `tokens[:, :, None]`, the predictions, varies along the middle axis, the rows.",
        ),
        "d": ("comment and figure are both wrong", "they contradict each other: one of two orders is right."),
    },
)
