"""The checks of lesson 01's sections that rebuild the model from tables, and drop terms of its scores."""

import functools
import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from exercises_utils.challenges.sorted_list_one_head import checks_models as shared
from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.terms import score_terms
from exercises_utils.checking import Call, exercise, then
from exercises_utils.tools import causal

TERMS = tuple(itertools.product(("token", "position"), repeat=2))
QK = tuple(f"{query}_{key}" for query, key in TERMS)
DIRECT = ("direct_token", "direct_position")


def tables_of(model: Any) -> dict[str, Tensor]:
    """The eight tables that a model with one head and no LayerNorm is made of."""
    parts = {"token": model.W_E, "position": model.W_pos}
    W_OV = model.W_V[0, 0] @ model.W_O[0, 0]
    return {
        **{name: shared.scores(model, parts[q], parts[k]) for name, (q, k) in zip(QK, TERMS, strict=True)},
        **{f"ov_{part}": vectors @ W_OV @ model.W_U for part, vectors in parts.items()},
        **{f"direct_{part}": vectors @ model.W_U for part, vectors in parts.items()},
    }


@exercise("The model from eight tables", core=True, axes="list position logit")
def rebuilt_logits(
    tables, tokens, *, without=(), turned=(), mixed=False, own_place=False, mask="before", over=-1, root=1
):
    """As one table of all tokens and places, from which a sequence takes rows and columns by ones and zeros."""
    t = {name: table.double() * (name not in without) for name, table in tables.items()}
    t |= {name: t[name].T for name in turned}
    if mixed:
        t["token_position"], t["position_token"] = t["position_token"].T, t["token_position"].T
    if own_place:
        t["direct_position"], t["ov_position"] = t["direct_position"] + t["ov_position"], 0 * t["ov_position"]
    places = torch.eye(len(t["position_position"]))[: tokens.shape[1]]
    x = torch.cat([one_hot(tokens, len(t["token_token"])), places.expand(len(tokens), -1, -1)], -1).double()
    table = torch.cat([torch.cat([t[name] for name in QK[i : i + 2]], -1) for i in (0, 2)])
    values, direct = (x @ torch.cat([t[f"{what}_token"], t[f"{what}_position"]]) for what in ("ov", "direct"))
    raw = x @ table @ x.mT / root
    pattern = (causal(raw) if mask == "before" else raw).softmax(over)
    return direct + (pattern.tril() if mask == "after" else pattern) @ values


def _tables() -> list[Call]:
    """The lesson's tables, and random ones of other sizes; some sequences are shorter than the tables."""
    tables = {name: table.clone() for name, table in tables_of(shared.MODELS[shared.LESSON].get()).items()}
    calls = [Call(shared.LESSON, dict(tables=tables, tokens=task.triple_lists(2, seed=8).tokens))]
    for n_tokens, n_ctx, n_out, batch, length in ((13, 9, 7, 5, 9), (60, 26, 11, 2, 22), (6, 12, 10, 1, 8)):
        generator = torch.Generator().manual_seed(n_tokens)
        sizes = {"token": n_tokens, "position": n_ctx}
        shapes = {name: (sizes[q], sizes[k]) for name, (q, k) in zip(QK, TERMS, strict=True)}
        shapes |= {f"{what}_{part}": (sizes[part], n_out) for what in ("ov", "direct") for part in sizes}
        tables = {name: 2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        tokens = torch.randint(n_tokens, (batch, length), generator=generator)
        name = f"random tables of {n_tokens} tokens and {n_ctx} positions, sequences of {length}"
        calls.append(Call(name, dict(tables=tables, tokens=tokens)))
    return calls


rebuilt_logits.given(_tables)
rebuilt_logits.slips(
    {
        "The causal mask is missing: a query attends to nothing after it.": dict(mask=None),
        "What comes after the query is set to 0 after the softmax; mask before it.": dict(mask="after"),
        "The softmax runs over the queries; it runs over the keys, the last axis.": dict(over=-2),
        "The direct path is missing: add its two tables, at the query.": dict(without=DIRECT),
        "The head is missing: this is the direct path alone.": dict(without=("ov_token", "ov_position")),
        "What the head writes for positions, `ov_position`, is missing.": dict(without=("ov_position",)),
        "What the head writes for tokens, `ov_token`, is missing.": dict(without=("ov_token",)),
        "The attention is uniform: no scores are looked up.": dict(without=QK),
        **{f"The term `{name}` of the scores is missing.": dict(without=(name,)) for name in QK},
        **{
            f"`{name}`, the direct path of the {name[7:]}, is missing.": dict(without=(name,))
            for name in DIRECT
        },
        **{
            f"`{name}` is turned round: the query is the row, the key the column.": dict(turned=(name,))
            for name in QK[::3]
        },
        "The scores are divided by sqrt(d_head) once more; the tables have it already.": dict(root=128**0.5),
        "`ov_position` is taken at the query; take it at the place attended to.": dict(own_place=True),
        "`token_position` and `position_token` are mixed up: the query's part comes first.": dict(mixed=True),
        "These are logits at the answers alone; return those of all.": then(lambda logits: logits[:, 11:21]),
    }
)


@exercise("Where the ramps bend", core=False, axes="source inner_number")
def second_differences(ov, *, weights=(1, -2, 1), ends="cut"):
    """By moving the whole table along its rows, which makes them go round their ends."""
    bends = sum(weight * ov.roll(step, 1) for weight, step in zip(weights, (1, 0, -1), strict=True))
    if ends == "round":
        return bends
    return pad(bends[:, 1:-1], (1, 1)) if ends == "zeros" else bends[:, 1:-1]


def _ramps(rows: int, columns: int) -> Call:
    ov = 10 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).cumsum(1)
    return Call(f"a random circuit of {rows} × {columns} numbers", dict(ov=ov))


second_differences.given(lambda: [_ramps(*sizes) for sizes in ((7, 12), (9, 9), (12, 5), (1, 8))])
second_differences.slips(
    {
        "These are first differences; take the difference of them once more.": lambda ov: ov.diff(dim=1),
        "This goes from source to source; go along each row.": lambda ov: ov[2:] - 2 * ov[1:-1] + ov[:-2],
        "The ends are there too, as zeros; return the inner numbers, two columns fewer.": dict(ends="zeros"),
        "The row goes on round its ends; return the inner numbers, two columns fewer.": dict(ends="round"),
        "The middle counts once; it counts twice: f(x+1) − 2 f(x) + f(x−1).": dict(weights=(1, -1, 1)),
        "This is f(x+1) − f(x−1), a slope; f(x+1) − 2 f(x) + f(x−1) is a bend.": dict(weights=(-1, 0, 1)),
    }
)


def _logits_with_terms(model, tokens, kept, others=0.0, mask=True, power=0.0, attention=1.0):
    """With some terms kept, and `others` times the mean over lists of the others."""
    terms = score_terms(model, tokens)
    parts = [term if name in kept else others * term.mean(0).expand_as(term) for name, term in terms.items()]
    total = torch.stack(parts).sum(0) * model.cfg.d_head**power
    pattern = (causal(total) if mask else total).softmax(-1)[:, None]
    return shared.logits_with(model, tokens, attention * pattern)


@exercise("With some terms only", core=True, atol=0.002)
def accuracy_with_terms(
    model,
    tokens,
    kept,
    *,
    keep="kept",
    others=0.0,
    mask=True,
    power=0.0,
    attention=1.0,
    first=11,
    n=10,
    of=None,
):
    """By the weights. One answer of 600 may differ, by rounding."""
    kept = {
        "kept": kept,
        "others": [term for term in TERMS if term not in kept],
        "all": TERMS,
        "exchanged": [term[::-1] for term in kept],
    }[keep]
    best = _logits_with_terms(model, tokens, kept, others, mask, power, attention).argmax(-1)
    hits = (best[:, first : first + n] == tokens[:, -n:]).double()
    return hits.mean(0) if of == "each" else float((of(hits) if of else hits).mean())


def _kept() -> list[Call]:
    """Other terms and numbers of lists in each case; random models get the lists that they know with these terms."""
    lesson, wide, narrow = shared.ONE_HEAD
    of_lesson = (TERMS[:1], TERMS[2::-2], TERMS[2::-1], (), TERMS)
    cases = [(lesson, 60 + 5 * i, kept) for i, kept in enumerate(of_lesson)]
    cases += [(wide, 20, TERMS[:2] + TERMS[3:]), (narrow, 25, TERMS[1:2]), (wide, 1, TERMS[2:])]
    calls = []
    for i, (name, size, kept) in enumerate(cases):
        generator = torch.Generator().manual_seed(i)
        tokens = task.triple_lists(size, generator).tokens
        if name != lesson:
            answer = functools.partial(_logits_with_terms, kept=kept)
            tokens = shared.known_lists(shared.ONE_HEAD[name].get(), size, generator, answer)
        what = f"{name}, {size} list{'s' * (size > 1)}, {len(kept)} term{'s' * (len(kept) != 1)}"
        calls.append(Call(what, dict(model=shared.ONE_HEAD[name], tokens=tokens, kept=list(kept))))
    return calls


accuracy_with_terms.given(_kept)
accuracy_with_terms.slips(
    {
        "The kept terms are dropped, and the others kept.": dict(keep="others"),
        "All terms are kept: this is the model's own accuracy. Does the hook return the new scores, and does the "
        "model run with it?": dict(keep="all"),
        "The parts are exchanged: the first name is the query's part.": dict(keep="exchanged"),
        "The other terms are replaced by their mean over lists; drop them altogether.": dict(others=1.0),
        "The causal mask is missing: set the scores after the query to minus infinity.": dict(mask=False),
        "The terms are not divided by sqrt(d_head), so the softmax is too sharp.": dict(power=0.5),
        "The terms are divided by sqrt(d_head) twice, so the softmax is too flat.": dict(power=-0.5),
        "The logits are read one position too late; the answers are at 11 to 20.": dict(first=12),
        "All positions are counted; count the ten answer positions, 11 to 20.": dict(first=0, n=21),
        "The head writes nothing: the pattern is 0. Replace the scores, before it.": dict(attention=0.0),
        "This is the share of lists without a mistake; count answers.": dict(of=lambda hits: hits.prod(-1)),
        "This is the share at MID alone; take the mean over all answers.": dict(of=lambda hits: hits[:, 0]),
        "This is a share for each answer position; take the mean over all of them.": dict(of="each"),
    }
)
