"""The checks of lesson 04's middle part: where the carry is, how it is made, and whether it is used."""

import functools
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.challenges.sum_of_two_numbers.checks_setup import (
    FAMILY,
    answer_logits,
    flip_rates,
    lesson_model,
    randn,
    recorded,
    sums,
)
from exercises_utils.checking import Call, Draw, Question, answer, arg, exercise, on_models, then
from exercises_utils.tools import hooks

ALL = slice(None)


@exercise("Who looks at which column", core=True, axes="head place column")
def column_attention(pattern, *, query=9, b=5, numbers="ab", keys_first=False, mean=True):
    """Place by place and column by column."""
    pattern = pattern.transpose(2, 3) if keys_first else pattern
    to = {"a": pattern[..., :4], "b": pattern[..., b : b + 4]}
    table = torch.stack([sum(to[name][:, :, query + place] for name in numbers) for place in range(4)], dim=2)
    return table.mean(0) if mean else table


def _patterns() -> list[Call]:
    """One of the lesson's model, and random ones: not causal, so that what stands above the diagonal is not 0."""
    patterns = recorded(lesson_model.get(), task.make_data(40, seed=21).tokens, get_act_name("pattern", 0))
    patterns += [
        (4 * randn(size, heads, 14, 14, seed=4)).softmax(-1) for size, heads in ((5, 2), (7, 5), (1, 4))
    ]
    return [Call(f"{p.shape[1]} heads, a batch of {len(p)}", {"pattern": p}) for p in patterns]


column_attention.given(_patterns)
ONE_AHEAD = 'the thousands are predicted at "=", position 9.'
column_attention.slips(
    {
        'The digits of b are read one position too early: position 4 is "+", b begins at 5.': dict(b=4),
        "The digits of b are read one position too late: b is at positions 5 to 8.": dict(b=6),
        f"The rows are one position too late: {ONE_AHEAD}": dict(query=10),
        f"The rows are one position too early: {ONE_AHEAD}": dict(query=8),
        "Only the digits of a are counted; add the attention to those of b.": dict(numbers="a"),
        "Only the digits of b are counted; add the attention to those of a.": dict(numbers="b"),
        "This is not averaged over sequences.": dict(mean=False),
        "Queries and keys are exchanged: this is attention from the digits.": dict(keys_first=True),
    }
)


@exercise("What each head is worth, place by place", core=False, axes="layer head place", atol=5e-5)
def place_costs(
    model, tokens, activation, how, *, read=9, target=10, outputs=None, where=ALL, group="one", minus=True
):
    """With in-place hooks of its own."""

    def losses() -> Tensor:
        logits, labels = model(tokens)[:, read : read + 4, :outputs], tokens[:, target : target + 4]
        labels = labels.clamp(max=logits.shape[-1] - 1)
        return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(0)

    def put(value: Tensor, hook: Any, head: int) -> Tensor:
        value[:, where, head] = 0.0 if how == "zero" else value[:, where, head].mean(0)
        return value

    layers, heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    every, before, costs = list(itertools.product(layers, heads)), losses(), []
    for i, (layer, head) in enumerate(every):
        groups = {"one": [(layer, head)], "layer": [(layer, h) for h in heads], "so far": every[: i + 1]}
        ablated = [(get_act_name(activation, at), functools.partial(put, head=h)) for at, h in groups[group]]
        with model.hooks(fwd_hooks=ablated):
            costs.append(losses() - before * minus)
    return torch.stack(costs).view(len(layers), len(heads), 4)


def _ways() -> list[Call]:
    """What is ablated in one way by `on_models` in the other, on the shallowest model; and more."""
    name, model = list(FAMILY.items())[-1]
    tokens = torch.randint(0, 11, (5, 14), generator=torch.Generator().manual_seed(4))
    given = dict(model=model, tokens=tokens)
    ways = (("q", "zero"), ("k", "zero"), ("v", "mean"), ("v", "zero"), ("z", "mean"))
    return [Call(f"{name}, {how} ablation of {a}", given | dict(activation=a, how=how)) for a, how in ways]


_HOW = ("mean", "zero", "mean")
_ONE_WAY = on_models(FAMILY, tokens=sums, activation=lambda d: "qzk"[d.index], how=lambda d: _HOW[d.index])
place_costs.given(_ONE_WAY, _ways)
place_costs.slips(
    {
        "These are the losses after ablation; subtract the loss before it.": dict(minus=False),
        "Nothing is ablated: every loss is compared with itself.": then(torch.zeros_like),
        f"The logits are read one position too late: {ONE_AHEAD}": dict(read=10),
        f"The logits are read one position too early: {ONE_AHEAD}": dict(read=8),
        "The targets are off by one: position 9 + i predicts the token at 10 + i.": dict(target=9),
        "The softmax runs over the ten digits; it runs over all tokens.": dict(outputs=10),
        "Only the answer positions are ablated; ablate the head at all positions.": dict(where=slice(9, 13)),
        "All heads of the layer are ablated at once; ablate one head at a time.": dict(group="layer"),
        "The heads before are still ablated; ablate one head at a time.": dict(group="so far"),
    }
)


def _position(draw: Draw) -> int:
    """Of the digits where a layer follows, and an answer's where none does."""
    return 10 if draw.batch == 1 else (6, 2, 11)[draw.index]


@exercise("Swap one site", core=True, axes="sequence place token", atol=1e-4)
def swap_site(
    model, head, position, base, source,
    *, layer=None, heads="own", where=None, put="source", what="z", read=slice(9, 13), tokens=ALL, minus=0,
):  # fmt: skip
    """By adding what another `z` changes, through W_O, to the layer's output."""
    layer, index, where = head[0] if layer is None else layer, head[1], where or [position]
    every = set(range(model.cfg.n_heads))
    chosen = {"own": {index}, "all": every, "others": every - {index}}[heads]
    name = get_act_name(what, layer)
    (old,), (new,) = recorded(model, base, name), recorded(model, source, name)
    if what != "z":
        with hooks.patch(model, what, layer, new, heads=list(chosen), positions=where):
            return answer_logits(model, base)
    change = {"source": new, "mean": new.mean(0), "zero": 0 * new}[put] - old
    written = sum(change[:, :, h] @ model.W_O[layer, h] for h in chosen)
    at = torch.zeros(base.shape[1], 1).index_fill(0, torch.tensor(list(where)), 1).to(old)
    with model.hooks(fwd_hooks=[(get_act_name("attn_out", layer), lambda out, hook: out + at * written)]):
        logits = model(base)
    return (logits - minus * model(base))[:, read, tokens]


swap_site.given(on_models(FAMILY, head=Draw.head, position=_position, base=sums, source=sums))
EXCHANGED = dict(base=arg("source"), source=arg("base"))
RUNS: dict[str, Any] = {
    "The two runs are exchanged: run `base`, and take the activation from `source`.": EXCHANGED,
    "These are the logits on `source`; run `base`.": dict(base=arg("source")),
    "Nothing is swapped: these are the logits on `base`.": dict(source=arg("base")),
    "Only the ten digits are there; return the logits of all tokens.": dict(tokens=slice(10)),
}
swap_site.slips(
    {
        **RUNS,
        "The head was swapped at all positions; swap it at `position` only.": dict(where=range(14)),
        "All heads of the layer were swapped; swap only `head` (`heads=[index]`).": dict(heads="all"),
        "The other heads were swapped and this one kept.": dict(heads="others"),
        "It is always layer 0 that is swapped; take the layer from `head`.": dict(layer=0),
        "The mean over sequences was put in; each sequence gets its own source's.": dict(put="mean"),
        "The head's output was taken away and nothing put in its place (zero ablation).": dict(put="zero"),
        "These are the logits at all positions; return the four answer positions, 9 to 12.": dict(read=ALL),
        f"These are positions 10 to 13; {ONE_AHEAD}": dict(read=slice(10, 14)),
        f"These are positions 8 to 11; {ONE_AHEAD}": dict(read=slice(8, 12)),
        "This is the difference from the untouched run; return the logits.": dict(minus=1),
        'The whole pattern was swapped; swap what the head writes, "z" or "result".': dict(what="pattern"),
        'The values `v` were swapped; swap what the head writes, "z" or "result".': dict(what="v"),
    }
)


NEAR = 0.1
"""A site counts as the carry's where its swap turns nearly as many digits as the best one's."""


def _is_site(value: Any) -> bool:
    whole = isinstance(value, tuple | list) and all(type(i) is int for i in value)
    return whole and len(value) == 3


def _refuse_carry_sites(value: Any) -> str | None:
    value = value.tolist() if isinstance(value, Tensor) else value
    if not isinstance(value, list | tuple):
        return f"Give a list of three sites (layer, head, position), for places 0, 1 and 2; {value!r} came."
    if _is_site(value):
        return "One site came; give a list of three, for the places 0, 1 and 2."
    for site in (sites := [tuple(site.tolist()) if isinstance(site, Tensor) else site for site in value]):
        if isinstance(site, list | tuple) and any(isinstance(i, Tensor) for i in site):
            return f"Take the numbers out of the tensor with `int(...)`: {site!r}."
        if isinstance(site, list | tuple) and len(site) == 2:
            return f"A site is (layer, head, position), three numbers; {tuple(site)!r} has two."
        if not _is_site(site):
            return f"A site is (layer, head, position), three whole numbers such as (0, 1, 9); {site!r} came."
    if len(sites) == 4:
        return "Four sites came; nothing carries into the units, so give three, for the places 0, 1 and 2."
    if len(sites) != 3:
        return f"Give three sites, for the places 0, 1 and 2; {len(sites)} came."
    problems = [_site_problem(place, tuple(site)) for place, site in enumerate(sites)]
    if any(problems) and not any(_site_problem(place, tuple(site)) for place, site in enumerate(sites[::-1])):
        return "The sites are in reverse order: the thousands (place 0) come first."
    return next(filter(None, problems), None)


def _site_problem(place: int, site: tuple[int, ...]) -> str | None:
    layer, head, position = site
    n_heads = lesson_model.get().cfg.n_heads
    last, rates = task.EQUALS_POSITION + place, flip_rates(place)
    if layer != 0:
        return f"Place {place}: {site} is in layer {layer}, which writes the digit; look for the carry in layer 0."
    if not 0 <= head < n_heads:
        return f"Place {place}: the model has no head {layer}.{head}; heads are 0 to {n_heads - 1}."
    if not 0 <= position <= last:
        return f"Place {place}: its digit is read at position {last}, and nothing looks ahead to {position}."
    if rates[layer, head, position] < max(rates.values()) - NEAR:
        return (
            f"Place {place}: a swap at {site} turns {rates[layer, head, position]:.0%} of the digits to the source's, at "
            f"another site {max(rates.values()):.0%}. Try every head of layer 0 at every position up to {last}, with pairs "
            "that differ in the carry into this place."
        )
    return None


def _praise_carry_sites(sites: Any) -> str:
    rates = [flip_rates(i)[int(s[0]), int(s[1]), int(s[2])] for i, s in enumerate(sites)]
    shares = [f"{name} {rate:.0%}" for name, rate in zip(task.PLACES, rates, strict=False)]
    return f"One swap turns the digit as the source's carry says: {', '.join(shares)}."


@answer("Where the carry is", core=True, refuse=_refuse_carry_sites, praise=_praise_carry_sites)
def carry_sites():
    """By the swaps of every head of layer 0 at every position."""
    return [max(flip_rates(place).items(), key=lambda item: item[1])[0] for place in range(3)]


@exercise("Which digit a query prefers", core=True, axes="digit")
def digit_scores(
    model, head, query, scale,
    *, power=-1, root="d_head", share=0.5, by="K", layer=None, index=None, tokens=10, positions=0, b_K=0, b_Q=0,
):  # fmt: skip
    """From the query's side: the direction of the stream that it asks for."""
    head = head[0] if layer is None else layer, head[1] if index is None else index
    query = (query + b_Q * model.b_Q[head]).double()
    weights = {"K": model.W_K, "Q": model.W_Q, "V": model.W_V}[by][head].double()
    said = model.W_E[:tokens]
    said = (said + positions * model.W_pos[: len(said)] if positions else said).double() * scale**power
    scores = said @ (weights @ query) + b_K * model.b_K[head].double() @ query
    return (scores / getattr(model.cfg, root) ** share).to(model.W_E)


def _query(draw: Draw) -> Tensor:
    return 3 * draw.randn(draw.model.cfg.d_head)


digit_scores.given(on_models(FAMILY, head=Draw.head, query=_query, scale=lambda d: (1.4, 0.6, 1.7)[d.index]))
digit_scores.slips(
    {
        "The scores are not divided by sqrt(d_head), as attention does before its softmax.": dict(share=0),
        "The scores are divided by d_head; attention divides by its square root.": dict(share=1),
        "The scores are divided by sqrt(d_model); the width of a head is d_head.": dict(root="d_model"),
        "The LayerNorm scale is forgotten: divide the embeddings by it.": dict(power=0),
        "The scale is used twice; the query is given as it is, only the keys are divided.": dict(power=-2),
        "You multiplied by the scale; divide by it.": dict(power=1),
        "This is W_Q; the digits are keys: W_K.": dict(by="Q"),
        "This is W_V; scores come from W_K.": dict(by="V"),
        "All tokens are there; return the scores of the ten digits, `W_E[:10]`.": dict(tokens=None),
        "The bias b_K is in it; leave it out. It is the same for all digits.": dict(b_K=1),
        "The bias b_Q is added; the query that is given has its bias already.": dict(b_Q=1),
        "It is always layer 0: take the layer from `head`.": dict(layer=0),
        "It is always head 0 of the layer: take the head from `head`.": dict(index=0),
        "Positions are in it: W_pos. Take the embeddings of the digits alone.": dict(positions=1),
    }
)


@exercise("What two digits make a head say", core=True, axes="a b")
def carry_message(scores, votes, *, weigh="softmax", exchanged=False, keys=("a", "b"), said="votes"):
    """By a softmax over two keys for each pair."""
    pairs, vote = (torch.stack(torch.broadcast_tensors(x[:, None], x[None, :]), -1) for x in (scores, votes))
    weights = {
        "softmax": pairs.softmax(-1),
        "halves": torch.full_like(pairs, 0.5),
        "ones": torch.ones_like(pairs),
        "all": pairs.exp() / scores.exp().sum(),
        "largest": F.one_hot(pairs.argmax(-1), 2).to(pairs),
        "exp": pairs.exp(),
        "plain": pairs,
        "share": pairs / pairs.sum(-1, keepdim=True),
    }[weigh]
    terms = (weights.flip(-1) if exchanged else weights) * (vote if said == "votes" else 1)
    return sum(terms[..., ("a", "b").index(key)] for key in keys)


_SIZES = ((10, 2.0), (7, 1.0), (13, 3.0))
carry_message.given(
    [Call(f"{n} digits", {"scores": k * randn(n, seed=n), "votes": k * randn(n, seed=2)}) for n, k in _SIZES]
)
SOFTMAX = "take the softmax of the two scores."
carry_message.slips(
    {
        f"This is the plain mean of the two votes; for the weights {SOFTMAX}": dict(weigh="halves"),
        f"This is the plain sum of the two votes; for the weights {SOFTMAX}": dict(weigh="ones"),
        "The softmax runs over all digits; it runs over the scores of these two only.": dict(weigh="all"),
        "The larger score takes everything; a softmax divides the attention.": dict(weigh="largest"),
        f"The weights are not divided by their sum: {SOFTMAX}": dict(weigh="exp"),
        f"The weights are neither exponentials nor divided by their sum: {SOFTMAX}": dict(weigh="plain"),
        f"The weights are divided by their sum, but no exponentials: {SOFTMAX}": dict(weigh="share"),
        "Only the first digit's vote is there; add the second's, with its own weight.": dict(keys="a"),
        "The weights are exchanged: the larger score gets the larger weight.": dict(exchanged=True),
        "Scores and votes are exchanged.": dict(scores=arg("votes"), votes=arg("scores")),
        "This is the weight of the first digit; multiply with the votes.": dict(keys="a", said="weights"),
    }
)


def _best_rule() -> str:
    """By brute force: the rule that tells most of the 100 pairs right; of two digits as far from 4.5, it takes either."""
    told = dict.fromkeys("abcd", 0.0)
    for a, b in itertools.product(range(10), repeat=2):
        farther = [x for x in (a, b) if abs(x - 4.5) == max(abs(a - 4.5), abs(b - 4.5))]
        for letter, digits in {"a": [a], "b": farther, "c": [max(a, b)], "d": [min(a, b)]}.items():
            told[letter] += sum((digit >= 5) == (a + b >= 10) for digit in digits) / len(digits)
    return max(told, key=told.__getitem__)


which_digit = Question(
    "which_digit",
    "Which of two digits to look at",
    core=False,
    options={
        "a": ("always the digit of a", "4 + 9 would be called less than ten: 75 of the 100 pairs are right."),
        "b": (
            "the one further from 4.5",
            "the sum is on the side that the more extreme digit says. Only digits that come to nine are equally far: 90 "
            "pairs are right for certain, and half of the ten nines.",
        ),
        "c": ("always the larger one", "5 + 0 would be called ten or more: 70 of the 100 pairs are right."),
        "d": (
            "always the smaller one",
            "9 + 4 would be called less than ten: 80 of the 100 pairs are right.",
        ),
    },
    answer=_best_rule,
)


def _what_the_bug_flags() -> str:
    """By brute force on the data that the write-up used, with Python's own precedence."""
    data = task.make_data(1000, seed=42)
    flagged = data.a + data.b % 10 != data.labels
    overflow, carry = data.a + data.b >= 10, task.carry_in(data)
    candidates = {"a": carry, "b": overflow | carry, "c": overflow, "d": data.b > 9}
    return next(letter for letter, columns in candidates.items() if torch.equal(columns, flagged))


carry_bug = Question(
    "carry_bug",
    "Find the bug: how many carries?",
    core=False,
    options={
        "a": ("every place into which a carry comes", "`%` binds before `+`: what does 7 + 8 = 15 give?"),
        "b": (
            "every place into which a carry comes or whose own digits come to ten or more",
            "`a + b % 10` is a + b, which differs from the digit if it is ten or more, or if a carry is added.",
        ),
        "c": ("only places whose own digits come to ten or more", "2 + 3 and a carry differ from 6, too."),
        "d": ("only places where the digit of b is more than 9", "that is never so: nothing is marked."),
    },
    answer=_what_the_bug_flags,
)


@exercise("The direction of the carry", core=False, axes="d")
def carry_direction(activations, carry, *, of="means", each=None, unit=True):
    """By the covariance with the label, which is proportional to the difference of the means."""
    x = activations.double()
    x = {"standardised": x / x.std(0), "normalised": F.normalize(x, dim=1)}.get(each, x)
    yes, no, label = x[carry], x[~carry], carry.double()
    found = {
        "means": (label - label.mean()) @ (x - x.mean(0)) * len(x) / (len(yes) * len(no)),
        "yes": yes.mean(0),
        "all": x.mean(0),
        "sums": yes.sum(0) - no.sum(0),
        "medians": yes.median(0).values - no.median(0).values,
        "variance": torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0],
    }[of]
    return (found / (found.norm() if unit else 1)).to(activations)


def _activations() -> list[Call]:
    """Two groups of other sizes, coordinates of other spreads; in one case very small numbers."""
    calls = []
    for size, width, share, unit in ((60, 8, 0.3, 1.0), (41, 5, 0.6, 1e-3), (300, 48, 0.5, 1.0)):
        generator = torch.Generator().manual_seed(width)
        carry = torch.rand(size, generator=generator) < share
        spread = torch.rand(width, generator=generator) * 2 + 0.2
        activations = torch.randn(size, width, generator=generator) * spread + 1.0
        activations += carry[:, None] * torch.randn(width, generator=generator)
        name = f"{size} sequences, width {width}" + ", small numbers" * (unit < 1)
        calls.append(Call(name, dict(activations=unit * activations, carry=carry)))
    return calls


carry_direction.given(_activations)
carry_direction.slips(
    {
        "It is not of length one: divide by its norm.": dict(unit=False),
        "The sign is turned round: from the mean without a carry to the mean with one.": then(torch.neg),
        "This is the mean with a carry alone; subtract the mean without one.": dict(of="yes"),
        "This is the mean of all sequences.": dict(of="all"),
        "This is a sum, not a mean: the two groups are not equally large.": dict(of="sums"),
        "These are medians; take means.": dict(of="medians"),
        "Each coordinate is divided by its standard deviation; take it as it is.": dict(each="standardised"),
        "Each sequence is normalised first; normalise the difference only.": dict(each="normalised"),
        "This is the direction of the largest variance, which knows no labels.": dict(of="variance"),
    }
)


@exercise("Swap a few directions", core=False, axes="sequence place token", atol=1e-4)
def interchange(
    model, hook_name, position, basis, base, source, *, keep="outside", add="inside", everywhere=False, tokens=ALL
):  # fmt: skip
    """By a hook that takes the base's part out and puts the source's in."""
    (new,), inside = recorded(model, source, hook_name), basis @ basis.T
    where = ALL if everywhere else [position]

    def parts(x: Tensor) -> dict[str, Tensor]:
        within = x @ inside
        return dict(all=x, none=0 * x, inside=within, outside=x - within, mean=within.mean(0).expand_as(x))

    def put(old: Tensor, hook: Any) -> Tensor:
        old = old.clone()
        old[:, where] = parts(old)[keep][:, where] + parts(new)[add][:, where]
        return old

    with model.hooks(fwd_hooks=[(hook_name, put)]):
        return answer_logits(model, base)[..., tokens]


def _orthonormal(draw: Draw) -> Tensor:
    rank = 1 if draw.batch == 1 else (2, 4, 3)[draw.index]
    return torch.linalg.qr(draw.randn(draw.model.cfg.d_model, rank)).Q


_NAMES = [f"blocks.{name}" for name in ("0.hook_attn_out", "1.hook_resid_pre", "0.hook_resid_post")]
_WHERE: Any = dict(hook_name=lambda draw: _NAMES[draw.index], position=_position, basis=_orthonormal)
interchange.given(on_models(FAMILY, **_WHERE, base=sums, source=sums))
interchange.slips(
    {
        **RUNS,
        "The whole activation was swapped; swap what is inside `basis`.": dict(keep="none", add="all"),
        "Everything outside `basis` was swapped; swap what is inside.": dict(keep="inside", add="outside"),
        "The source's coordinates were added; the base's have to be taken out.": dict(keep="all"),
        "The base's coordinates were taken out, and the source's not put in.": dict(add="none"),
        "Only the source's coordinates are left; keep what the base has outside.": dict(keep="none"),
        "The mean of the sources was put in; each sequence gets its own source's.": dict(add="mean"),
        "It was done at every position; do it at `position` only.": dict(everywhere=True),
    }
)
