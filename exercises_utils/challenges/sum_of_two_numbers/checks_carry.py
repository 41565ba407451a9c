"""The checks of lesson 04's middle part: where the carry is, how it is made, and whether it is used."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.challenges.sum_of_two_numbers.checks_setup import (
    LESSON,
    MODELS,
    THREE_LAYERS,
    TWO_HEADS,
    TWO_LAYERS,
    answer_logits,
    best_carry_site,
    carry_pairs,
    flip_rates,
    later,
    lesson_model,
    recorded,
    some_tokens,
)
from exercises_utils.checking import Case, Check, Fresh, Question
from exercises_utils.tools import hooks

Head = tuple[int, int]


# ── where the answers look ──────────────────────────────────────────────────────────────────────────────────


def _column_attention(pattern: Tensor) -> Float[Tensor, "head place column"]:
    result = torch.zeros(pattern.shape[1], 4, 4)
    for place in range(4):
        for column in range(4):
            both = pattern[:, :, 9 + place, column] + pattern[:, :, 9 + place, 5 + column]
            result[:, place, column] = both.mean(0)
    return result


def _column_attention_cases() -> list[Case]:
    cases = []
    (trained,) = recorded(lesson_model.get(), task.make_data(40, seed=21).tokens, get_act_name("pattern", 0))
    patterns = {f"layer 0 of {LESSON}": trained}
    for n_heads, size in ((2, 5), (5, 7)):
        # not causal, so that a mistake that reads above the diagonal does not read zeros
        scores = torch.randn(size, n_heads, 14, 14, generator=torch.Generator().manual_seed(size))
        patterns[f"a random pattern of {n_heads} heads"] = (2 * scores).softmax(-1)
    for name, pattern in patterns.items():
        mean = pattern.mean(0)
        a, b = mean[:, 9:13, :4], mean[:, 9:13, 5:9]
        right = _column_attention(pattern)
        full = pattern[:, :, 9:13, :4] + pattern[:, :, 9:13, 5:9]
        cases.append(
            Case(
                name,
                (pattern,),
                right,
                axes=("head", "place", "column"),
                mistakes={
                    'The digits of b are read one position too early: position 4 is "+", b begins at position 5.': a
                    + mean[:, 9:13, 4:8],
                    "The digits of b are read one position too late: b is at positions 5 to 8.": a
                    + mean[:, 9:13, 6:10],
                    "The rows are one position too late: the digit of a place is predicted one position ahead, so the "
                    'thousands are read at "=", position 9.': mean[:, 10:14, :4] + mean[:, 10:14, 5:9],
                    'The rows are one position too early: the thousands are read at "=", position 9.': mean[
                        :, 8:12, :4
                    ]
                    + mean[:, 8:12, 5:9],
                    "Only the digits of a are counted; add the attention to the digit of b in the same column.": a,
                    "Only the digits of b are counted; add the attention to the digit of a in the same column.": b,
                    "This is the mean of the attention to the two digits; add them.": right / 2,
                    "This is summed over sequences; take the mean.": right * len(pattern),
                    "This is not averaged over sequences.": full,
                    "This is averaged over heads as well; return a table for each head.": right.mean(0),
                    "Places and columns are swapped: places are the rows.": right.transpose(1, 2),
                    "The places are in reverse order: the thousands come first.": right.flip(1),
                    "The columns are in reverse order: the thousands come first.": right.flip(2),
                    "Queries and keys are exchanged: this is attention from the digits to the answer positions.": (
                        mean[:, :4, 9:13] + mean[:, 5:9, 9:13]
                    ).transpose(1, 2),
                },
            )
        )
    return cases


column_attention = Check(
    "column_attention",
    "Who looks at which column",
    core=True,
    cases=_column_attention_cases,
    reference=_column_attention,
)


def _place_losses(model: Any, tokens: Tensor) -> Float[Tensor, " place"]:
    logits, labels = answer_logits(model, tokens), tokens[:, 10:14]
    return torch.stack([F.cross_entropy(logits[:, i], labels[:, i]) for i in range(4)])


def _place_costs(model: Any, tokens: Tensor, activation: str, how: str) -> Float[Tensor, "layer head place"]:
    """With in-place hooks of its own."""
    before = _place_losses(model, tokens)
    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, 4)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):

            def put(value: Tensor, hook: Any, head: int = head) -> Tensor:
                value[:, :, head] = 0.0 if how == "zero" else value[:, :, head].mean(0)
                return value

            with model.hooks(fwd_hooks=[(get_act_name(activation, layer), put)]):
                costs[layer, head] = _place_losses(model, tokens) - before
    return costs


def _costs_of_groups(
    model: Any, tokens: Tensor, activation: str, how: str, groups: dict[Head, list[Head]]
) -> Float[Tensor, "layer head place"]:
    """What it costs to ablate, for each head, the heads that `groups` names."""
    before = _place_losses(model, tokens)
    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, 4)
    for head, group in groups.items():
        with hooks.ablate(model, group, activation=activation, how=how):
            costs[head] = _place_losses(model, tokens) - before
    return costs


def _other_costs(
    model: Any,
    tokens: Tensor,
    activation: str,
    how: str,
    shift: int = 0,
    labels: int = 0,
    digits_only: bool = False,
    positions: range | None = None,
) -> Tensor:
    """The costs where logits are read from 9 + `shift`, targets from 10 + `labels`, or less is ablated or compared."""

    def losses() -> Tensor:
        logits = model(tokens)[:, 9 + shift : 13 + shift]
        targets = tokens[:, 10 + labels : 14 + labels]
        if digits_only:
            logits, targets = logits[..., :10], targets.clamp(max=9)
        return torch.stack([F.cross_entropy(logits[:, i], targets[:, i]) for i in range(4)])

    before = losses()
    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, 4)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with hooks.ablate(model, [(layer, head)], activation=activation, how=how, positions=positions):
                costs[layer, head] = losses() - before
    return costs


def _place_costs_cases() -> list[Case]:
    cases = []
    for name, activation, how in (
        (LESSON, "q", "mean"),
        (LESSON, "z", "zero"),
        (THREE_LAYERS, "v", "mean"),
        (TWO_LAYERS, "k", "zero"),
    ):
        fresh = MODELS[name]
        model, tokens = fresh.get(), some_tokens(name, 48 if name == LESSON else 12, seed=22)
        right = _place_costs(model, tokens, activation, how)
        before = _place_losses(model, tokens)
        heads = [(layer, head) for layer in range(right.shape[0]) for head in range(right.shape[1])]

        # Many forward passes each: made only for an answer that is wrong.
        def instead(a: str, h: str, fresh: Fresh = fresh, tokens: Tensor = tokens) -> Callable[[], Tensor]:
            return later(fresh, _place_costs, tokens, a, h)

        given = (tokens, activation, how)
        all_of_layer = {one: [other for other in heads if other[0] == one[0]] for one in heads}
        all_before = {one: [other for other in heads if other <= one] for one in heads}
        mistakes: dict[str, Any] = {
            "These are the losses after ablation; subtract the loss before it.": right + before,
            "The sign is turned round: the loss after ablation minus the loss before it.": -right,
            "Everything is log(2) times too large: bits, not nats.": right / torch.tensor(2.0).log(),
            "This is the mean over places; return one number for each.": right.mean(-1),
            "The loss is summed over sequences; take the mean.": right * len(tokens),
            "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the `with` "
            "block, the loss after inside it.": torch.zeros_like(right),
            "Layers and heads are swapped: layers come first.": right.transpose(0, 1),
            "The logits are read one position too late: the thousands are predicted at position 9.": later(
                fresh, _other_costs, *given, 1, 0
            ),
            "The logits are read one position too early: the thousands are predicted at position 9.": later(
                fresh, _other_costs, *given, -1, 0
            ),
            "The targets are off by one: the digit that position 9 + i predicts is the token at 10 + i.": later(
                fresh, _other_costs, *given, 0, -1
            ),
            "The softmax runs over the ten digits; it runs over all tokens.": later(
                fresh, _other_costs, *given, 0, 0, True
            ),
            "Only the answer positions are ablated; ablate the head at all positions.": later(
                fresh, _other_costs, *given, 0, 0, False, range(9, 13)
            ),
            **{
                f"This is always {one} ablation; pass the argument `how` on.": instead(activation, one)
                for one in ("mean", "zero")
            },
            **{
                f"This is always the ablation of `{one}`; pass the argument `activation` on.": instead(
                    one, how
                )
                for one in "qkvz"
            },
            "All heads of the layer are ablated at once; ablate one head at a time.": later(
                fresh, _costs_of_groups, *given, all_of_layer
            ),
            "The heads before are still ablated; ablate one head at a time, from a fresh list.": later(
                fresh, _costs_of_groups, *given, all_before
            ),
        }
        cases.append(
            Case(
                f"{name}, {how} ablation of {activation}",
                (fresh, tokens, activation, how),
                right,
                axes=("layer", "head", "place"),
                mistakes=mistakes,
                atol=5e-5,
            )
        )
    return cases


place_costs = Check(
    "place_costs",
    "What each head is worth, place by place",
    core=False,
    cases=_place_costs_cases,
    reference=_place_costs,
)


# ── where the carry is ──────────────────────────────────────────────────────────────────────────────────────


def _write_difference(model: Any, head: Head, base: Tensor, source: Tensor) -> Float[Tensor, "s p d"]:
    """What the head writes on `source` minus what it writes on `base`, by z and W_O."""
    layer, index = head
    name = get_act_name("z", layer)
    (from_source,), (from_base,) = recorded(model, source, name), recorded(model, base, name)
    return (from_source - from_base)[:, :, index] @ model.W_O[layer, index]


def _with_added(model: Any, tokens: Tensor, layer: int, change: Tensor) -> Float[Tensor, "s place token"]:
    """Answer logits with something added to what a layer of attention writes."""

    def add(out: Tensor, hook: Any) -> Tensor:
        return out + change

    with model.hooks(fwd_hooks=[(get_act_name("attn_out", layer), add)]):
        return answer_logits(model, tokens)


def _at(change: Tensor, position: int) -> Tensor:
    """The change at one position alone."""
    alone = torch.zeros_like(change)
    alone[:, position] = change[:, position]
    return alone


def _swap_site(
    model: Any, head: Head, position: int, base: Tensor, source: Tensor
) -> Float[Tensor, "sequence place token"]:
    """By adding the difference of what the head writes in the two runs to the layer's output."""
    change = _write_difference(model, head, base, source)
    return _with_added(model, base, head[0], _at(change, position))


def _patched(
    model: Any, tokens: Tensor, other: Tensor, head: Head, activation: str, position: int | None
) -> Float[Tensor, "sequence place token"]:
    (value,) = recorded(model, other, get_act_name(activation, head[0]))
    positions = None if position is None else [position]
    with hooks.patch(model, activation, head[0], value, heads=[head[1]], positions=positions):
        return answer_logits(model, tokens)


def _swap_site_cases() -> list[Case]:
    cases = []
    best = best_carry_site(1)
    for name, head, position in (
        (LESSON, best[:2], best[2]),
        (THREE_LAYERS, (1, 1), 10),
        (TWO_LAYERS, (0, 2), 6),
        (TWO_HEADS, (1, 0), 11),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        if name == LESSON:
            base, source = carry_pairs(1, True, 12, seed=23)
        else:
            base, source = some_tokens(name, 6, seed=23), some_tokens(name, 6, seed=24)
        layer, index = head
        right = _swap_site(model, head, position, base, source)
        logits = model(base)
        everywhere = range(task.N_CTX)

        def other_swap(
            heads: Sequence[int] | None = None,
            positions: Sequence[int] | None = None,
            add: str = "difference",
            read: range = range(9, 13),
            given: tuple[Any, ...] = (fresh, _other_swap, head, position, base, source),
        ) -> Callable[[], Tensor]:
            return later(*given, heads, positions, add, read)

        all_heads = range(model.cfg.n_heads)
        others = [other for other in all_heads if other != index]
        mistakes: dict[str, Any] = {
            "Nothing was swapped: these are the logits on `base`. Does the forward pass stand inside the `with` block, "
            "and does the activation come from `source`?": logits[:, 9:13],
            "These are the logits on `source`; run `base` inside the block.": later(
                fresh, answer_logits, source
            ),
            "The two runs are exchanged: run `base`, and take the activation from `source`.": later(
                fresh, _swap_site, head, position, source, base
            ),
            "The head's output was swapped at all positions; swap it at `position` only (`positions=[position]`).": (
                other_swap(positions=everywhere)
            ),
            "All heads of the layer were swapped; swap only `head` (`heads=[index]`).": other_swap(all_heads),
            "All heads and all positions of the layer were swapped; swap one head at one position.": other_swap(
                all_heads, everywhere
            ),
            "Another layer's head was swapped: `head` is (layer, head).": later(
                fresh, _swap_site, (1 if layer == 0 else 0, index), position, base, source
            ),
            "It is always layer 0 that is swapped; take the layer from `head`.": later(
                fresh, _swap_site, (0, index), position, base, source
            ),
            "The other heads were swapped and this one kept.": other_swap(others),
            "The mean over sequences was put in; each sequence gets its own source's.": other_swap(
                add="mean"
            ),
            "The head's output was taken away and nothing put in its place (zero ablation).": other_swap(
                add="zero"
            ),
            "These are the logits at all 14 positions; return the four answer positions, 9 to 12.": other_swap(
                read=everywhere
            ),
            'These are positions 10 to 13; the thousands are predicted at "=", position 9.': other_swap(
                read=range(10, 14)
            ),
            'These are positions 8 to 11; the thousands are predicted at "=", position 9.': other_swap(
                read=range(8, 12)
            ),
            "These are probabilities or log-probabilities; return the logits.": right.log_softmax(-1),
            "These are probabilities; return the logits.": right.softmax(-1),
            "Only the ten digits are there; return the logits of all tokens.": right[..., :10],
            "This is the difference from the untouched run; return the logits themselves.": right
            - logits[:, 9:13],
            'The whole pattern was swapped, not what the head writes: `activation` is "z" or "result".': later(
                fresh, _patched, base, source, head, "pattern", position
            ),
            "The values `v` were swapped; swap what the head writes, `z` or `result`.": later(
                fresh, _patched, base, source, head, "v", position
            ),
        }
        cases.append(
            Case(
                f"{name}, head {layer}.{index}, position {position}",
                (fresh, head, position, base, source),
                right,
                axes=("sequence", "place", "token"),
                mistakes=mistakes,
                atol=1e-4,
            )
        )
    return cases


def _other_swap(
    model: Any,
    head: Head,
    position: int,
    base: Tensor,
    source: Tensor,
    heads: Sequence[int] | None,
    positions: Sequence[int] | None,
    add: str,
    read: range,
) -> Tensor:
    """Logits where other heads or positions are swapped, where something else is put in, or read elsewhere."""
    layer, index = head
    if add == "difference":
        chosen = [index] if heads is None else heads
        change = torch.stack([_write_difference(model, (layer, h), base, source) for h in chosen]).sum(0)
    else:
        (on_base,), (on_source,) = (recorded(model, x, get_act_name("z", layer)) for x in (base, source))
        instead = on_source.mean(0) if add == "mean" else torch.zeros_like(on_source)
        change = (instead - on_base)[:, :, index] @ model.W_O[layer, index]
    alone = torch.zeros_like(change)
    where = [position] if positions is None else list(positions)
    alone[:, where] = change[:, where]
    with model.hooks(fwd_hooks=[(get_act_name("attn_out", layer), lambda out, hook: out + alone)]):
        return model(base)[:, read.start : read.stop]


swap_site = Check(
    "swap_site",
    "Swap one site",
    core=True,
    cases=_swap_site_cases,
    reference=_swap_site,
)


NEAR = 0.1
"""A site counts as the carry's where its swap turns nearly as many digits as the best one's."""


def _is_site(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 3
        and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    )


def _refuse_carry_sites(value: Any) -> str | None:
    if isinstance(value, Tensor):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return (
            f"Give a list of three sites (layer, head, position), for the places 0, 1 and 2; {value!r} came."
        )
    if _is_site(value):
        return "One site came; give a list of three, for the places 0, 1 and 2."
    sites = [tuple(site.tolist()) if isinstance(site, Tensor) else site for site in value]
    for site in sites:
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
    found = [problem for problem in problems if problem is not None]
    backwards = [_site_problem(place, tuple(site)) for place, site in enumerate(reversed(sites))]
    if found and not any(backwards):
        return "The sites are in reverse order: the thousands (place 0) come first."
    return found[0] if found else None


def _site_problem(place: int, site: tuple[int, ...]) -> str | None:
    layer, head, position = site
    n_heads = lesson_model.get().cfg.n_heads
    if layer != 0:
        return (
            f"Place {place}: {site} is in layer {layer}. A swap in the last layer turns the digit because it writes the "
            "digit; look for the carry in layer 0."
        )
    if not 0 <= head < n_heads:
        return f"Place {place}: the model has no head {layer}.{head}; heads are 0 to {n_heads - 1}."
    last = task.EQUALS_POSITION + place
    if not 0 <= position <= last:
        return (
            f"Place {place}: its digit is read at position {last}, and nothing looks ahead; position {position} cannot "
            "matter."
        )
    rates = flip_rates(place)
    best = max(rates.values())
    if rates[layer, head, position] < best - NEAR:
        return (
            f"Place {place}: a swap at {site} turns {rates[layer, head, position]:.0%} of the digits to the source's, at "
            f"another site {best:.0%}. Try every head of layer 0 at every position up to {last}, with pairs that differ "
            "in the carry into this place."
        )
    return None


def _best_carry_sites() -> list[tuple[int, int, int]]:
    return [best_carry_site(place) for place in range(3)]


class CarrySites(Check):
    """The check of `carry_sites`, which says how often each site turns the digit."""

    def praise(self, outputs: Any) -> str:
        """The share of digits that each swap turns."""
        shares = [
            f"{task.PLACES[place]} {flip_rates(place)[tuple(int(i) for i in site)]:.0%}"  # type: ignore[index]
            for place, site in enumerate(outputs[0].value)
        ]
        return f"One swap turns the digit as the source's carry says: {', '.join(shares)}."


carry_sites = CarrySites(
    "carry_sites",
    "Where the carry is",
    core=True,
    cases=lambda: [Case(LESSON, requires=_refuse_carry_sites)],
    reference=_best_carry_sites,
)


# ── how it is made ──────────────────────────────────────────────────────────────────────────────────────────


def _digit_scores(model: Any, head: Head, query: Tensor, scale: float) -> Float[Tensor, " digit"]:
    layer, index = head
    asked = model.W_K[layer, index].double() @ query.double()
    return (model.W_E[:10].double() @ asked / (scale * model.cfg.d_head**0.5)).float()


def _digit_scores_cases() -> list[Case]:
    cases = []
    for name, head, scale in (
        (LESSON, best_carry_site(1)[:2], 1.4),
        (TWO_LAYERS, (1, 3), 0.6),
        (THREE_LAYERS, (2, 0), 1.7),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        layer, index = head
        root = model.cfg.d_head**0.5
        query = torch.randn(model.cfg.d_head, generator=torch.Generator().manual_seed(layer + 3))
        right = _digit_scores(model, head, query, scale)
        digits = model.W_E[:10] / scale
        W_K, b_K = model.W_K[layer, index], model.b_K[layer, index]
        cases.append(
            Case(
                f"{name}, head {layer}.{index}",
                (fresh, head, query, scale),
                right,
                axes=("digit",),
                mistakes={
                    "The scores are not divided by sqrt(d_head): attention divides by it before the softmax.": right
                    * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "The scores are divided by sqrt(d_model); the width of a head is d_head.": right
                    * root
                    / model.cfg.d_model**0.5,
                    "The LayerNorm scale is forgotten: divide the embeddings by it.": right * scale,
                    "The scale is used twice; only the keys are divided by it, the query is given as it is.": right
                    / scale,
                    "You multiplied by the scale; divide by it.": right * scale**2,
                    "Neither the scale nor sqrt(d_head) is there.": right * scale * root,
                    "This is W_Q; the digits are keys: W_K.": digits @ model.W_Q[layer, index] @ query / root,
                    "This is W_V; scores come from W_K.": digits @ model.W_V[layer, index] @ query / root,
                    "All tokens are there; return the scores of the ten digits, the first ten rows of W_E.": (
                        model.W_E / scale @ W_K @ query / root
                    ),
                    "A softmax has been taken; return the scores.": right.softmax(-1),
                    "The bias b_K is in it; leave it out. It is the same for all digits.": (
                        digits @ W_K + b_K
                    )
                    @ query
                    / root,
                    "The bias b_Q is added; the query that is given has its bias already.": (
                        digits @ W_K @ (query + model.b_Q[layer, index]) / root
                    ),
                    "It is always layer 0: take the layer from `head`.": digits
                    @ model.W_K[0, index]
                    @ query
                    / root,
                    "It is always head 0 of the layer: take the head from `head`.": digits
                    @ model.W_K[layer, 0]
                    @ query
                    / root,
                    "Positions are in it: W_pos. Take the embeddings of the digits alone.": (
                        (model.W_E[:10] + model.W_pos[:10]) / scale @ W_K @ query / root
                    ),
                },
            )
        )
    return cases


digit_scores = Check(
    "digit_scores",
    "Which digit a query prefers",
    core=True,
    cases=_digit_scores_cases,
    reference=_digit_scores,
)


def _carry_message(scores: Tensor, votes: Tensor) -> Float[Tensor, "a b"]:
    """By a softmax over two scores for each pair, one pair at a time."""
    n = len(scores)
    table = torch.zeros(n, n)
    for a in range(n):
        for b in range(n):
            table[a, b] = scores[[a, b]].softmax(0) @ votes[[a, b]]
    return table


def _carry_message_cases() -> list[Case]:
    cases = []
    for n, spread in ((10, 2.0), (7, 1.0), (4, 3.0)):
        generator = torch.Generator().manual_seed(n)
        scores, votes = spread * torch.randn(2, n, generator=generator)
        right = _carry_message(scores, votes)
        weights = scores.exp()
        unnormalised = (weights * votes)[:, None] + (weights * votes)[None, :]
        everywhere = scores.softmax(-1) * votes
        a_larger = scores[:, None] > scores[None, :]
        hard = torch.where(a_larger, votes[:, None], votes[None, :])
        linear = (scores * votes)[:, None] + (scores * votes)[None, :]
        first = (scores[:, None] - scores[None, :]).sigmoid()
        cases.append(
            Case(
                f"{n} digits",
                (scores, votes),
                right,
                axes=("a", "b"),
                mistakes={
                    "This is the plain mean of the two votes: the attention is missing. Weigh them with the softmax of "
                    "the two scores.": (votes[:, None] + votes[None, :]) / 2,
                    "This is the plain sum of the two votes: the attention is missing. Weigh them with the softmax of the "
                    "two scores.": votes[:, None] + votes[None, :],
                    "The softmax runs over all digits; the head attends to these two only, so it runs over two scores.": (
                        everywhere[:, None] + everywhere[None, :]
                    ),
                    "The digit with the larger score takes everything; a softmax divides the attention.": hard,
                    "The weights are not divided by their sum: take the softmax of the two scores.": unnormalised,
                    "The weights are not divided by their sum, and there is no exponential: take the softmax.": linear,
                    "The weights are the scores divided by their sum, without the exponential: take the softmax.": linear
                    / (scores[:, None] + scores[None, :]),
                    "Only the first digit's vote is there; add the second's, with its own weight.": first
                    * votes[:, None],
                    "The weights are exchanged: the digit with the larger score gets the larger weight.": (
                        first * votes[None, :] + (1 - first) * votes[:, None]
                    ),
                    "Scores and votes are exchanged: the softmax is over `scores`.": _carry_message(
                        votes, scores
                    ),
                    "This is the weight of the first digit; multiply the weights with the votes.": first,
                },
            )
        )
    return cases


carry_message = Check(
    "carry_message",
    "What two digits make a head say",
    core=True,
    cases=_carry_message_cases,
    reference=_carry_message,
)


def _pairs_told_right() -> dict[str, float]:
    """By brute force: of the 100 pairs, how many each rule gets right that looks at one digit.

    The pair is said to come to ten or more if the digit that the rule looks at is 5 or more. Between two digits at
    the same distance from 4.5 the rule of option b takes either, so such a pair counts half.
    """
    told = dict.fromkeys("abcd", 0.0)
    for a in range(10):
        for b in range(10):
            farther = [x for x in (a, b) if abs(x - 4.5) == max(abs(a - 4.5), abs(b - 4.5))]
            looked_at = {"a": [a], "b": farther, "c": [max(a, b)], "d": [min(a, b)]}
            for letter, digits in looked_at.items():
                told[letter] += sum((digit >= 5) == (a + b >= 10) for digit in digits) / len(digits)
    return told


which_digit = Question(
    "which_digit",
    "Which of two digits to look at",
    core=False,
    options={
        "a": (
            "always the digit of a",
            "4 + 9 would be called less than ten, and 9 + 0 ten or more. It gets 75 of the 100 "
            "pairs right; one of the rules gets 95.",
        ),
        "b": (
            "the one further from 4.5",
            "a - 4.5 and b - 4.5 add up to a sum with the sign of the larger of the two. So the more extreme digit decides, "
            "but for digits that come to nine, which are equally far: 90 pairs are right for certain, and half of the ten "
            "nines.",
        ),
        "c": (
            "always the larger one",
            "5 + 0 would be called ten or more: whenever one of the two is 5 or more. It gets 70 of the 100 pairs right.",
        ),
        "d": (
            "always the smaller one",
            "9 + 4 would be called less than ten: whenever one of the two is below 5. It gets 80 of the 100 pairs right.",
        ),
    },
    answer=lambda: max(_pairs_told_right().items(), key=lambda item: item[1])[0],
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
        "a": (
            "every place into which a carry comes",
            "`%` binds before `+`: the line computes a + (b % 10), which is a + b, and compares it with one digit. Count by "
            "hand for 7 + 8 without a carry.",
        ),
        "b": (
            "every place into which a carry comes or whose own digits come to ten or more",
            "`a + b % 10` is a + b, which differs from the digit of the sum if it is ten or more, or if a carry is added. "
            "Brackets mend it: `(a + b) % 10 != c`.",
        ),
        "c": (
            "only places whose own digits come to ten or more",
            "digits that come to less than ten, with a carry added, differ from the digit of the sum as well.",
        ),
        "d": (
            "only places where the digit of b is more than 9",
            "a digit is never more than 9, so `b % 10` is b; but what the line compares is the sum with c.",
        ),
    },
    answer=_what_the_bug_flags,
)


# ── is it used ──────────────────────────────────────────────────────────────────────────────────────────────


def _carry_direction(activations: Tensor, carry: Bool[Tensor, " sequence"]) -> Float[Tensor, " d"]:
    """By the covariance with the label: it is proportional to the difference of the means."""
    centred = activations.double() - activations.double().mean(0)
    label = carry.double() - carry.double().mean()
    difference = label @ centred
    return (difference / difference.norm()).float()


def _carry_direction_cases() -> list[Case]:
    cases = []
    for size, width, share in ((60, 8, 0.3), (41, 5, 0.6), (300, 48, 0.5)):
        generator = torch.Generator().manual_seed(width)
        carry = torch.rand(size, generator=generator) < share
        spread = torch.rand(width, generator=generator) * 2 + 0.2
        activations = torch.randn(size, width, generator=generator) * spread + 1.0
        activations = activations + carry[:, None] * torch.randn(width, generator=generator)
        right = _carry_direction(activations, carry)
        yes, no = activations[carry], activations[~carry]
        difference = yes.mean(0) - no.mean(0)
        unit = activations / activations.norm(dim=-1, keepdim=True)
        first = torch.linalg.svd(activations - activations.mean(0), full_matrices=False).Vh[0]
        cases.append(
            Case(
                f"{size} sequences, width {width}",
                (activations, carry),
                right,
                axes=("d",),
                mistakes={
                    "It is not of length one: divide by its norm.": difference,
                    "The sign is turned round: from the mean without a carry to the mean with one.": -right,
                    "This is the mean with a carry alone; subtract the mean without one.": F.normalize(
                        yes.mean(0), dim=0
                    ),
                    "This is the mean of all sequences.": F.normalize(activations.mean(0), dim=0),
                    "This is a sum, not a mean: the two groups are not equally large.": F.normalize(
                        yes.sum(0) - no.sum(0), dim=0
                    ),
                    "These are medians; take means.": F.normalize(
                        yes.median(0).values - no.median(0).values, dim=0
                    ),
                    "Each coordinate is divided by its standard deviation; take the plain difference of the means.": (
                        F.normalize(difference / activations.std(0), dim=0)
                    ),
                    "Each sequence is normalised first; normalise the difference only.": F.normalize(
                        unit[carry].mean(0) - unit[~carry].mean(0), dim=0
                    ),
                    "It is divided by the square of its norm; divide by the norm.": difference
                    / difference.square().sum(),
                    "It is divided by the sum of its absolute values; divide by the norm, the root of the sum of squares.": (
                        difference / difference.abs().sum()
                    ),
                    "This is the direction of the largest variance, which knows no labels.": first,
                },
            )
        )
    return cases


carry_direction = Check(
    "carry_direction",
    "The direction of the carry",
    core=False,
    cases=_carry_direction_cases,
    reference=_carry_direction,
)


def _interchange(
    model: Any, hook_name: str, position: int, basis: Tensor, base: Tensor, source: Tensor
) -> Float[Tensor, "sequence place token"]:
    """By a hook that takes the base's part out and puts the source's in."""
    (from_source,) = recorded(model, source, hook_name)
    return _edited(
        model,
        hook_name,
        position,
        base,
        lambda x: x - x @ basis @ basis.T + from_source[:, position] @ basis @ basis.T,
    )


def _edited(
    model: Any, hook_name: str, position: int, tokens: Tensor, edit: Callable[[Tensor], Tensor]
) -> Float[Tensor, "sequence place token"]:
    def put(activation: Tensor, hook: Any) -> Tensor:
        activation = activation.clone()
        activation[:, position] = edit(activation[:, position])
        return activation

    with model.hooks(fwd_hooks=[(hook_name, put)]):
        return answer_logits(model, tokens)


def _orthonormal(width: int, rank: int, seed: int) -> Float[Tensor, "d_model rank"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, rank, generator=generator)).Q


def _interchange_cases() -> list[Case]:
    cases = []
    for name, hook_name, position, rank in (
        (LESSON, "blocks.0.hook_attn_out", best_carry_site(1)[2], 2),
        (TWO_LAYERS, "blocks.0.hook_attn_out", 10, 3),
        (THREE_LAYERS, "blocks.1.hook_attn_out", 9, 1),
        (TWO_HEADS, "blocks.0.hook_resid_post", 11, 2),
    ):
        fresh = MODELS[name]
        model = fresh.get()
        if name == LESSON:
            base, source = carry_pairs(1, True, 10, seed=26)
        else:
            base, source = some_tokens(name, 6, seed=26), some_tokens(name, 6, seed=27)
        basis = _orthonormal(model.cfg.d_model, rank, seed=28)
        inside = basis @ basis.T
        right = _interchange(model, hook_name, position, basis, base, source)
        (full,) = recorded(model, source, hook_name)
        everything = torch.eye(len(inside))
        given = full[:, position]

        def instead(
            keep: Tensor, add: Tensor, where: tuple[Any, ...] = (fresh, _edited, hook_name, position, base)
        ) -> Callable[[], Tensor]:
            """The base's activation times one matrix, plus something."""
            return later(*where, lambda x: x @ keep + add)

        logits = model(base)
        mistakes: dict[str, Any] = {
            "Nothing is changed: these are the logits on `base`.": logits[:, 9:13],
            "These are the logits on `source`; run `base`.": later(fresh, answer_logits, source),
            "The two runs are exchanged: `base` is run, with the coordinates of `source`.": later(
                fresh, _interchange, hook_name, position, basis, source, base
            ),
            "The whole activation was swapped; swap only the coordinates inside `basis`.": instead(
                0 * everything, given
            ),
            "Everything outside `basis` was swapped; swap what is inside.": instead(
                inside, given - given @ inside
            ),
            "The source's coordinates were added, and the base's are still there: take those out.": instead(
                everything, given @ inside
            ),
            "The base's coordinates were taken out, and the source's not put in.": instead(
                everything - inside, 0 * given
            ),
            "Only the source's coordinates are left; keep what the base has outside `basis`.": instead(
                0 * everything, given @ inside
            ),
            "The mean of the sources was put in; each sequence gets its own source's.": instead(
                everything - inside, given.mean(0) @ inside
            ),
            "It was done at every position; do it at `position` only.": later(
                fresh, _everywhere, hook_name, inside, full, base
            ),
            "These are log-probabilities; return the logits.": right.log_softmax(-1),
            "Only the ten digits are there; return the logits of all tokens.": right[..., :10],
        }
        cases.append(
            Case(
                f"{name}, {hook_name}, position {position}, {rank} direction{'s' if rank > 1 else ''}",
                (fresh, hook_name, position, basis, base, source),
                right,
                axes=("sequence", "place", "token"),
                mistakes=mistakes,
                atol=1e-4,
            )
        )
    return cases


def _everywhere(model: Any, hook_name: str, inside: Tensor, full: Tensor, base: Tensor) -> Tensor:
    with model.hooks(fwd_hooks=[(hook_name, lambda x, hook: x - x @ inside + full @ inside)]):
        return answer_logits(model, base)


interchange = Check(
    "interchange",
    "Swap a few directions",
    core=False,
    cases=_interchange_cases,
    reference=_interchange,
)
