"""The checks of lesson 02, sections 1 to 4: probabilities, folded weights, patterns, ablation, who owns which number.

This file contains the answers.
"""

import math
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F

from exercises_utils.challenges.sorted_list_two_heads import checks_common as ours
from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.checking import Call, Question, exercise, on_models, then

# ── 1 · the task ────────────────────────────────────────────────────────────────────────────────────────────


@exercise("How sure the model is of the right number", core=True, axes="list answer")
def answer_probabilities(model, tokens, *, of="p", over="vocabulary", number="right", late=0, up_to=None):
    """From log-probabilities, with the right answers from the list itself."""
    logits, late = model(tokens)[..., :up_to], -ours.length_of(tokens) if late == "list" else late
    axis = {"vocabulary": -1, "positions": 1, "lists": 0}.get(over)
    read = ours.at_answers(logits if axis is None else logits.log_softmax(axis), tokens, late)
    read = read.log_softmax(1) if over == "answers" else read
    if number in (numbers := ours.numbers_by(tokens)):
        read = read.gather(-1, numbers[number][..., None])[..., 0]
    read = read.amax(-1) if number == "best" else read
    return {"p": read.exp(), "losses": -read}.get(of, read)


def _is_right(model, tokens):
    return ours.at_answers(model(tokens), tokens).argmax(-1) == ours.numbers_by(tokens)["right"]


SOFTMAX = "The softmax runs over the {}; it runs over the vocabulary, the last axis."
answer_probabilities.given(on_models(ours.FAMILY, tokens=ours.lists))
answer_probabilities.slips(
    {
        "These are the logits; take a softmax over the vocabulary first.": dict(of="logits", over=None),
        "These are log-probabilities; return probabilities.": dict(of="log-probabilities"),
        "These are losses, minus the log-probabilities; return probabilities.": dict(of="losses"),
        "SEP is left out of the softmax; it runs over the whole vocabulary.": dict(up_to=-1),
        "Off by one: you read one position too late. The first answer is read at SEP.": dict(late=1),
        "The answers are read in the list; they are read from SEP on.": dict(late="list"),
        "This is for the token at the position itself; the answer comes next.": dict(number="read at"),
        "The right numbers are those of the unsorted list; take the sorted one.": dict(number="unsorted"),
        "This is for the model's own best guess; take the right number.": dict(number="best"),
        "These are whole distributions; pick the probability of the right number.": dict(number="all"),
        SOFTMAX.format("positions"): dict(over="positions"),
        SOFTMAX.format("answer positions"): dict(over="answers"),
        SOFTMAX.format("lists"): dict(over="lists"),
        "This is 1 where the model is right; return the probability of the right number.": _is_right,
    }
)


# ── 2 · what processing does to the weights ─────────────────────────────────────────────────────────────────

FOLDED = {"W_U": "d_model vocabulary", "b_U": "vocabulary"}


@exercise("Fold the last LayerNorm into the unembedding", core=False, axes=FOLDED)
def folded_unembedding(model, *, first=False, weight=1, bias=1, again=0, own_bias=1):
    """By putting unit vectors through LayerNorm's last step and the unembedding."""
    ln = model.blocks[0].ln1 if first else model.ln_final
    W_U = model.unembed(torch.diag(ln.w**weight)[None])[0] - model.b_U
    b_U = model.unembed((bias * ln.b * ln.w**again)[None, None])[0, 0]
    return W_U, b_U - (1 - own_bias) * model.b_U


folded_unembedding.given(on_models(ours.RAW_FAMILY))
folded_unembedding.slips(
    {
        "Nothing is folded: these are the model's own W_U and b_U.": dict(weight=0, bias=0),
        "The bias of ln_final is not folded in: b_U' = b_U + b @ W_U.": dict(bias=0),
        "The weight of ln_final is not folded in: it multiplies W_U, row by row.": dict(weight=0),
        "The weight is in `b_U` twice: ln_final's bias goes through the W_U before folding.": dict(again=1),
        "b_U itself is missing: b_U' = b_U + b @ W_U.": dict(own_bias=0),
        "W_U is divided by ln_final's weight; LayerNorm multiplies by it.": dict(weight=-1),
        "ln_final's bias is taken away; LayerNorm adds it.": dict(bias=-1),
        "The two come in the other order: return W_U, then b_U.": then(lambda right: right[::-1]),
        "This is the first LayerNorm, `ln1`; the unembedding reads after `ln_final`.": dict(first=True),
        "Both are centred over the vocabulary as well; only fold.": then(
            lambda right: tuple(part - part.mean(-1, keepdim=True) for part in right)
        ),
    }
)


def _what_folding_changes() -> str:
    """Measured: raw against processed."""
    tokens = task.make_data(20, seed=4).tokens
    shift = ours.lesson_model.get()(tokens) - ours.RAW_FAMILY[ours.LESSON].get()(tokens)
    if shift.abs().max() < 1e-3:
        raise ValueError("processing changes no logit of this model, so the question has no answer")
    return "c" if (shift - shift.mean(-1, keepdim=True)).abs().max() < 1e-3 else "a"


what_folding_changes = Question(
    "what_folding_changes",
    "What processing the weights can change",
    core=False,
    answer=_what_folding_changes,
    options={
        "a": ("the probabilities", "all logits of a position move by the same amount; no softmax sees that."),
        "b": ("the attention patterns", "W_Q, W_K and their biases take in LayerNorm's; the scores stay."),
        "c": (
            "the logits, all of one position by the same amount",
            "centring W_U and b_U over the vocabulary takes the same number from every logit of a position.",
        ),
        "d": (
            "the order of the answers, from the likeliest to the least likely",
            "whatever is taken from all logits alike leaves their order as it was.",
        ),
    },
)


@exercise("LayerNorm with one scale for all", core=False, axes="list answer vocabulary")
def constant_scale_logits(
    model,
    tokens,
    *,
    ln="ln_final",
    mean="answers",
    power=-1,
    bias=1,
    late=0,
    everywhere=False,
    layer=-1,
    eps=None,
):
    """With the scale as a standard deviation."""
    resid, normed = ours.seen(model, tokens, "resid_post", f"{ln}.hook_in", layer=layer)
    scale = (normed.var(-1, correction=0, keepdim=True) + (eps or model.cfg.eps)).sqrt()
    there = ours.at_answers(scale, tokens)
    scale = {
        "answers": there.mean(),
        "all": scale.mean(),
        "late": ours.at_answers(scale, tokens, late=1).mean(),
        "to the end": scale[:, ours.length_of(tokens) :].mean(),
        "own": scale,
        "of lists": scale.mean(0),
        "of positions": there.mean(1, keepdim=True),
        "of inverses": 1 / (1 / there).mean(),
    }[mean]
    logits = resid @ model.W_U * scale**power + model.b_U * (scale**power if bias == "scaled" else bias)
    return logits if everywhere else ours.at_answers(logits, tokens, late)


MEAN = "The mean of the scale is taken over {}; take one, over lists and answer positions."
constant_scale_logits.given(on_models(ours.FAMILY, tokens=ours.lists, lesson_batch=4))
constant_scale_logits.slips(
    {
        "These are the model's own logits, each divided by its own scale; take the mean.": dict(mean="own"),
        MEAN.format("all positions"): dict(mean="all"),
        MEAN.format("the lists only"): dict(mean="of lists"),
        MEAN.format("the positions only"): dict(mean="of positions"),
        "The mean of the scale is taken one position too late; begin at SEP.": dict(mean="late"),
        "The mean of the scale has the last position in it; nothing is asked there.": dict(mean="to the end"),
        "This is the mean of 1/scale; divide by the mean of the scale.": dict(mean="of inverses"),
        "The scale is missing: divide by the mean.": dict(power=0),
        "You multiplied by the mean scale; LayerNorm divides by it.": dict(power=1),
        "b_U is missing.": dict(bias=0),
        "b_U is divided by the scale; it is added after the LayerNorm.": dict(bias="scaled"),
        "This is the scale of the first LayerNorm, `ln1`; take that of `ln_final`.": dict(ln="blocks.0.ln1"),
        ours.EPSILON: dict(eps=1e-5),
        ours.FIRST_STREAM: dict(layer=0),
        "Off by one: the answer positions begin at SEP; the last position is none.": dict(late=1),
        ours.EVERYWHERE: dict(everywhere=True),
    }
)


# ── 3 · patterns ────────────────────────────────────────────────────────────────────────────────────────────


def _sep_attends_to() -> str:
    """By the heads' attention from SEP to the list, mean over heads, on lists as in training."""
    tokens = task.make_data(200, seed=6).tokens
    (pattern,) = ours.seen(ours.lesson_model.get(), tokens, "pattern")
    from_sep = pattern[:, :, task.SEP_POSITION, : task.LENGTH].mean(1)
    in_order = from_sep.gather(-1, tokens[:, : task.LENGTH].argsort(-1)).mean(0)
    found = {"a": in_order[0], "b": in_order[-1], "c": from_sep[:, 0].mean()}
    most = max(found, key=lambda letter: float(found[letter]))
    return most if found[most] > 2 * from_sep.mean() else "d"


sep_attends_to = Question(
    "sep_attends_to",
    "Predict where SEP attends",
    core=False,
    answer=_sep_attends_to,
    options={
        "a": (
            "the smallest number",
            "the answer at SEP is the smallest number, and a head can only copy what it attends to. SEP asks for small "
            "keys, in every list alike.",
        ),
        "b": ("the largest number", "that is the last answer, nine later. What is asked at SEP itself?"),
        "c": ("the number at position 0", "the list is unsorted: that is no more the answer than another."),
        "d": (
            "nothing in particular: its attention is spread evenly",
            "the query is always the same, but the keys are not: they can say how large a number is.",
        ),
    },
)


@exercise("Attention to the right number", core=True, axes="head answer")
def attention_to_next(
    model, tokens, *, of="pattern", to="right", sorted_too=False, copies="all", late=0, layer=0, mean=True
):
    """List by list, place by place."""
    (pattern,) = ours.seen(model, tokens, of, layer=layer)
    n, numbers = ours.length_of(tokens), ours.numbers_by(tokens)[to].tolist()
    found = torch.zeros(len(tokens), model.cfg.n_heads, n)
    for i, row in enumerate(tokens[:, : None if sorted_too else n].tolist()):
        for answer, number in enumerate(numbers[i]):
            there = [place for place, token in enumerate(row) if token == number]
            one = {"first": 0, "one each": numbers[i][:answer].count(number)}.get(copies)
            there = there if one is None else there[one : one + 1]
            found[i, :, answer] = pattern[i, :, n + late + answer, there].sum(-1)
    return found.mean(0) if mean else found


def _to_place_k(model, tokens):
    (pattern,) = ours.seen(model, tokens, "pattern")
    n = ours.length_of(tokens)
    return pattern[:, :, n : 2 * n, :n].mean(0).diagonal(dim1=1, dim2=2)


ITSELF = (
    "This is the attention to the number that stands at the query itself{}; the right answer is the next one."
)
COPIES = (
    "Where a number stands in the list several times, {} counted; add up the attention to all of its places."
)
attention_to_next.given(on_models(ours.FAMILY, tokens=ours.lists_with_repeats))
attention_to_next.slips(
    {
        "Off by one: the queries are one position too late. The first answer is read at SEP.": dict(late=1),
        ITSELF.format(""): dict(to="read at"),
        ITSELF.format(", in the list and in the sorted half"): dict(to="read at", sorted_too=True),
        "All of it is 0, as attention to what comes later always is. Rows are queries, columns keys; and the right "
        "answer is looked up in the list, positions 0 to L − 1, not in the sorted half.": then(
            torch.zeros_like
        ),
        "Answer k is looked up at place k of the list; look up where it stands.": _to_place_k,
        "These are the scores before the softmax; take the pattern.": dict(of="attn_scores"),
        "Every list has a row; take the mean over lists.": dict(mean=False),
        "These are the heads of the last layer; take those of layer 0.": dict(layer=-1),
        COPIES.format("only its first place is"): dict(copies="first"),
        COPIES.format("one of its places is, another one for each answer, is"): dict(copies="one each"),
    }
)


# ── 4 · ablation ────────────────────────────────────────────────────────────────────────────────────────────


@exercise("What each head is worth", core=True, axes="head", atol=2e-5)
def ablation_costs(model, tokens, *, how="mean", heads="one", of=torch.mean, before=1, at="answers", layer=0):
    """All heads in one run, of the lists repeated."""
    start, *after = [of(one) for one in ours.losses(model, tokens, heads=heads, how=how, at=at, layer=layer)]
    return torch.stack(after) - before * start


def _probability(losses):
    return -(-losses).exp().mean()


def _log_of_mean(losses):
    return -(-losses).exp().mean().log()


LAST_LAYER = "These are the heads of the last layer; ablate those of layer 0."
ONE_MEAN = "One mean over lists and positions is put in everywhere; each position has its own."
ZERO = "This is zero ablation; put in the mean over lists."
ABLATED: dict[str, Any] = {
    ZERO: dict(how="zero"),
    ONE_MEAN: dict(how="one mean"),
    "All heads but one are ablated; ablate one head alone.": dict(heads="others"),
    "All heads are ablated at once; ablate one head at a time.": dict(heads="all"),
    "The heads before are still ablated; ablate one head at a time, from a fresh list.": dict(heads="so far"),
    LAST_LAYER: dict(layer=-1),
}
ablation_costs.given(on_models(ours.FAMILY, tokens=ours.lists))
ablation_costs.slips(
    {
        "These are the losses after ablation; subtract the loss before it.": dict(before=0),
        "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the `with` "
        "block, the loss after inside it.": then(torch.zeros_like),
        "This is the fall of a probability; return the rise of the cross-entropy.": dict(of=_probability),
        "The logarithm is taken of the mean probability; take it before the mean.": dict(of=_log_of_mean),
        "This is the rise of the median loss; take the mean.": dict(of=torch.median),
        "The loss is read one position too late: the first answer is read at SEP.": dict(at="late"),
        "The loss is taken over all positions; take it at the answer positions.": dict(at="everywhere"),
        **ABLATED,
    }
)


@exercise("Which head carries which number", core=True, axes="head number", atol=5e-5)
def costs_by_number(
    model, tokens, *, how="mean", layer=0, by="right", of="mean", before=1, up_to=1, empty=None
):
    """Number by number, from the losses of each answer."""
    start, *after = ours.losses(model, tokens, how=how, layer=layer)
    rise, columns = torch.stack(after) - before * start, []
    for number in range(model.cfg.d_vocab - up_to):
        there = ours.numbers_by(tokens)[by] == number
        chosen = rise[:, there.any(-1)].flatten(1) if of == "lists" else rise[:, there]
        by_what = {"sum": 1, "per list": len(tokens), "per answer": there.numel()}.get(of, chosen.shape[1])
        median = torch.stack([one.median() for one in chosen])
        columns.append(median if of == "median" else chosen.sum(-1) / by_what)
    costs = torch.stack(columns, -1)
    return costs if empty is None else costs.nan_to_num(empty)


NEVER = "A number that is never the answer has {}; nothing is known of it, so it is NaN."
DIVIDED = "The rises are divided by the number of {}; divide by how often each number is the answer."
costs_by_number.given(on_models(ours.FAMILY, tokens=ours.lists, lesson_batch=8))
costs_by_number.slips(
    {
        "The answers are grouped by the token at which they are read; take the right one.": dict(
            by="read at"
        ),
        "The answers are grouped by the unsorted list; take the sorted one.": dict(by="unsorted"),
        "SEP has a column; numbers only, 0 to d_vocab − 2.": dict(up_to=0),
        "SEP has a column, with 0; numbers only, 0 to d_vocab − 2.": then(lambda right: F.pad(right, (0, 1))),
        NEVER.format("0"): dict(empty=0.0),
        NEVER.format("infinity"): dict(empty=math.inf),
        NEVER.format("−1"): dict(empty=-1.0),
        "This is the median of the rises; take the mean.": dict(of="median"),
        "The rises are summed; take the mean over the answers of each number.": dict(of="sum"),
        DIVIDED.format("lists"): dict(of="per list"),
        DIVIDED.format("all answers"): dict(of="per answer"),
        "The rises are those of whole lists with the number; take its own answers.": dict(of="lists"),
        "These are the losses after ablation; subtract the losses before it.": dict(before=0),
        "Nothing is ablated: every loss is compared with itself.": then(lambda right: right * 0),
        **{message: ABLATED[message] for message in (ZERO, ONE_MEAN, LAST_LAYER)},
    }
)


def _owner(draw):
    return draw.randint(0, draw.model.cfg.n_heads, draw.model.cfg.d_vocab - 1)


@exercise("Keep only the owner of each answer", core=True, axes="list answer vocabulary")
def owners_only(
    model, tokens, owner, *, of="right", how="mean", keep="owner", late=0, layer=0, everywhere=False
):
    """By a sum of what is kept and what is put in, with weights 0 and 1."""
    of_each = torch.cat([owner, owner[-1:]])[
        ours.numbers_by(tokens)[of]
    ]  # with one for SEP, where that is looked up
    kept = F.one_hot(of_each, model.cfg.n_heads)[..., None].float()
    kept = {"owner": kept, "others": 1 - kept, "all": torch.ones_like(kept)}[keep]

    def change(z):
        at = ours.at_answers(z, tokens, late)
        mean = {"mean": at.mean(0), "zero": 0 * at, "one mean": z.mean((0, 1))}.get(how)
        at[:] = kept * at + (1 - kept) * (_mean_where(1 - kept, at) if mean is None else mean)
        return z

    logits = ours.run_with(model, tokens, "z", change, layer)
    return logits if everywhere else ours.at_answers(logits, tokens)


def _mean_where(weights, z):
    return (weights * z).sum(0) / weights.sum(0).clamp(min=1)


def _only(kept, z):
    return kept * z + (1 - kept) * z.mean(0)


def _run_for_each_head(model, tokens, owner):
    """The logits of one run for each head, the others ablated at all positions; each answer from its owner's run."""
    kept = torch.eye(model.cfg.n_heads)[:, :, None]
    runs = [ours.run_with(model, tokens, "z", partial(_only, k)) for k in kept]
    mine = F.one_hot(owner[ours.numbers_by(tokens)["right"]], model.cfg.n_heads)
    return torch.einsum(
        "hbav,bah->bav", torch.stack([ours.at_answers(run, tokens) for run in runs]), mine.float()
    )


owners_only.given(on_models(ours.FAMILY, tokens=ours.lists, owner=_owner, lesson_batch=6))
owners_only.slips(
    {
        "Nothing is ablated: these are the model's own logits.": dict(keep="all"),
        "These are owners of the tokens at which answers are read, not of the answers.": dict(of="read at"),
        "The owner is ablated and the others are kept; it is the other way round.": dict(keep="others"),
        ZERO: dict(how="zero"),
        ONE_MEAN: dict(how="one mean"),
        "The owners are those of the unsorted list's numbers; take the sorted list.": dict(of="unsorted"),
        "The mean is over the lists in which the head is ablated there; take all lists.": dict(how="ablated"),
        "Off by one: the owners are one position too late; the first answer is at SEP.": dict(late=1),
        LAST_LAYER: dict(layer=-1),
        "This is a run for each head, the others ablated at all positions; later layers see that. Change z only at "
        "the answer positions, in one run.": _run_for_each_head,
        ours.EVERYWHERE: dict(everywhere=True),
    }
)


@exercise("Owners as ranges", core=False)
def number_ranges(owner, *, form=lambda a, b: (a, b), key=int, closed=None, shortest=1, runs=slice(None)):
    """By `groupby`."""
    found: dict[Any, list[Any]] = {}
    every = [[n for n, _ in run] for _, run in groupby(enumerate(owner.tolist()), key=lambda pair: pair[1])]
    for numbers in every[:closed]:
        if len(numbers) >= shortest:
            found.setdefault(key(owner[numbers[0]]), []).append(form(numbers[0], numbers[-1]))
    return {head: of_head[runs] for head, of_head in found.items()}


def _owners():
    lists = [0, 0, 1, 0], [1, 1, 1, 0, 0, 2, 2, 1, 0, 0, 0, 3], [2, 2, 2, 2, 2], [0, 1, 0, 1, 1, 1, 0]
    calls = [Call(f"owners {owner}", dict(owner=torch.tensor(owner))) for owner in lists]
    return [*calls, Call("the owners of 64 numbers", dict(owner=torch.arange(64) ** 2 // 50 % 3))]


number_ranges.given(_owners)
number_ranges.slips(
    {
        "The end of a range is the number after its last; give the last.": dict(form=lambda a, b: (a, b + 1)),
        "A range is its first number and its length; give the last.": dict(form=lambda a, b: (a, b - a + 1)),
        "A run of one number is that number; write (n, n).": dict(form=lambda a, b: (a, b) if a < b else a),
        "Runs of a single number are left out; they are ranges (n, n).": dict(shortest=2),
        "The last run is missing: after the loop, add the one that is still open.": dict(closed=-1),
        "Only the last run of each head is kept; add each to a list.": dict(runs=slice(-1, None)),
        "Only the first run of each head is kept; add each to a list.": dict(runs=slice(1)),
        "The keys are tensors; write `int(head)`.": dict(key=str),
        "The keys are texts; write `int(head)`.": dict(key=lambda head: str(int(head))),
        "Each head has one range from its first to its last number, over those of other heads; give its "
        "runs.": then(lambda right: {head: [(runs[0][0], runs[-1][1])] for head, runs in right.items()}),
        "These are all numbers of each head; give the first and the last of each run.": lambda owner: {
            int(head): (owner == head).nonzero().flatten().tolist() for head in owner
        },
        "Heads that own nothing have an entry; leave them out.": then(
            lambda right: {head: right.get(head, []) for head in range(max(right) + 1)}
        ),
    }
)
