"""Checks of lesson 02, first half: probabilities, folded weights, patterns, ablation, who owns which number.

This file contains the answers.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.challenges.sorted_list_two_heads.checks_common import (
    CHECKS,
    FINAL_SCALE,
    FIRST_SCALE,
    FOUR_HEADS,
    LESSON,
    MODELS,
    RAW_MODELS,
    THREE_HEADS,
    ablated_losses,
    answer_losses,
    at_answers,
    length_of,
    lesson_model,
    lists,
    right_answers,
    seen,
)
from exercises_utils.checking import Case, Check, Question
from exercises_utils.tools import hooks

# ── the task ────────────────────────────────────────────────────────────────────────────────────────────────


def _answer_probabilities(model: Any, tokens: Tensor) -> Float[Tensor, "batch answer"]:
    return (-answer_losses(model, tokens)).exp()


def _answer_probabilities_cases() -> list[Case]:
    cases = []
    for i, (name, fresh) in enumerate(MODELS.items()):
        model = fresh.get()
        tokens = lists(model, 12 - 2 * i, seed=3)
        right = _answer_probabilities(model, tokens)
        logits, labels, n = model(tokens), right_answers(tokens), length_of(tokens)
        probs = logits.softmax(-1)

        def of(values: Tensor, labels: Tensor) -> Tensor:
            return values.gather(-1, labels[..., None])[..., 0]

        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("list", "answer"),
                mistakes={
                    "These are the logits of the right numbers; take a softmax over the vocabulary first.": of(
                        at_answers(logits, tokens), labels
                    ),
                    "These are log-probabilities; return probabilities.": right.log(),
                    "These are losses, minus the log-probabilities; return probabilities.": -right.log(),
                    "SEP is left out of the softmax; it runs over the whole vocabulary.": of(
                        at_answers(logits[..., :-1], tokens).softmax(-1), labels
                    ),
                    "Off by one: you read one position too late. The answer to the number at position p + 1 is read "
                    "at position p, so the first one at SEP.": of(probs[:, n + 1 : 2 * n + 1], labels),
                    "This is the probability of the token that stands at the position itself; the right answer is the "
                    "token that comes next.": of(at_answers(probs, tokens), at_answers(tokens, tokens)),
                    "This is the probability of the model's own best guess; take that of the right number.": at_answers(
                        probs, tokens
                    )
                    .max(-1)
                    .values,
                    "These are the answers to the unsorted list, read in its first half; answers are read from SEP "
                    "on.": of(probs[:, :n], labels),
                    "The right numbers are those of the unsorted list; take the sorted one, after SEP.": of(
                        at_answers(probs, tokens), tokens[:, :n]
                    ),
                    "The softmax runs over the positions; it runs over the vocabulary, the last axis.": of(
                        at_answers(logits.softmax(1), tokens), labels
                    ),
                    "The softmax runs over the answer positions; it runs over the vocabulary, the last axis.": of(
                        at_answers(logits, tokens).softmax(1), labels
                    ),
                    "The softmax runs over the lists; it runs over the vocabulary, the last axis.": of(
                        at_answers(logits.softmax(0), tokens), labels
                    ),
                    "This is the mean over lists; return one number for each list and answer.": right.mean(0),
                    "This is the mean over answers; return one number for each list and answer.": right.mean(
                        -1
                    ),
                    "This is one mean; return one number for each list and answer.": right.mean(),
                    "These are whole distributions; pick the probability of the right number.": at_answers(
                        probs, tokens
                    ),
                    "The last position is in it, where nothing is asked.": lambda probs=probs, tokens=tokens, n=n: (
                        of(probs[:, n:], tokens[:, n:].roll(-1, -1))
                    ),
                    "This is 1 where the model is right; return the probability of the right number.": (
                        at_answers(probs, tokens).argmax(-1) == labels
                    ).float(),
                },
            )
        )
    return cases


answer_probabilities = CHECKS.add(
    Check(
        "answer_probabilities",
        "How sure the model is of the right number",
        core=True,
        cases=_answer_probabilities_cases,
        reference=_answer_probabilities,
    )
)


# ── what processing does to the weights ─────────────────────────────────────────────────────────────────────


def _folded_unembedding(model: Any) -> tuple[Float[Tensor, "d_model d_vocab_out"], Tensor]:
    """By putting unit vectors through LayerNorm's last step and the unembedding."""
    basis = torch.eye(model.cfg.d_model)
    of_zero = model.unembed(model.ln_final.b[None, None])[0, 0]
    return model.unembed((basis * model.ln_final.w + model.ln_final.b)[None])[0] - of_zero, of_zero


def _folded_unembedding_cases() -> list[Case]:
    cases = []
    for name, fresh in RAW_MODELS.items():
        model = fresh.get()
        right_W, right_b = _folded_unembedding(model)
        W_U, b_U, w, b = model.W_U, model.b_U, model.ln_final.w, model.ln_final.b
        centred = right_W - right_W.mean(-1, keepdim=True), right_b - right_b.mean()
        cases.append(
            Case(
                f"{name}, raw",
                (fresh,),
                (right_W, right_b),
                axes=("W_U", "b_U"),
                mistakes={
                    "Nothing is folded: these are the model's own W_U and b_U.": (W_U, b_U),
                    "The bias of ln_final is not folded in: b_U' = b_U + b @ W_U.": (right_W, b_U),
                    "The weight of ln_final is not folded in: it multiplies W_U, row by row.": (W_U, right_b),
                    "ln_final's bias went through the folded W_U, so that the weight is in it twice. LayerNorm adds its "
                    "bias after multiplying by its weight: use the W_U from before.": (
                        right_W,
                        b_U + b @ right_W,
                    ),
                    "b_U itself is missing: b_U' = b_U + b @ W_U.": (right_W, b @ W_U),
                    "W_U is centred over the vocabulary as well; only fold.": (centred[0], right_b),
                    "Both are centred over the vocabulary as well; only fold.": centred,
                    "W_U is centred over d_model as well; only fold.": (
                        right_W - right_W.mean(0, keepdim=True),
                        right_b,
                    ),
                    "W_U is transposed: its rows are d_model, its columns the vocabulary.": (
                        right_W.T,
                        right_b,
                    ),
                    "W_U is divided by ln_final's weight; LayerNorm multiplies by it.": (
                        W_U / w[:, None],
                        right_b,
                    ),
                    "The two come in the other order: return W_U, then b_U.": (right_b, right_W),
                    "ln_final's bias is taken away; LayerNorm adds it.": (right_W, b_U - b @ W_U),
                    "This is the first LayerNorm, `ln1`; the unembedding reads after the last one, `ln_final`.": (
                        model.blocks[0].ln1.w[:, None] * W_U,
                        b_U + model.blocks[0].ln1.b @ W_U,
                    ),
                },
            )
        )
    return cases


folded_unembedding = CHECKS.add(
    Check(
        "folded_unembedding",
        "Fold the last LayerNorm into the unembedding",
        core=False,
        cases=_folded_unembedding_cases,
        reference=_folded_unembedding,
    )
)


def _what_folding_changes() -> str:
    """Measured: raw against processed."""
    raw, processed = RAW_MODELS[LESSON].get(), lesson_model.get()
    tokens = lists(raw, 20, seed=4)
    before, after = raw(tokens), processed(tokens)
    shift = after - before
    if shift.abs().max() < 1e-3:
        raise ValueError("processing changes no logit of this model, so the question has no answer")
    same_for_all = (shift - shift.mean(-1, keepdim=True)).abs().max() < 1e-3
    return "c" if same_for_all else "a"


what_folding_changes = CHECKS.add(
    Question(
        "what_folding_changes",
        "What processing the weights can change",
        core=False,
        options={
            "a": (
                "the probabilities",
                "all logits of a position move by the same amount, and the softmax does not see that.",
            ),
            "b": (
                "the attention patterns",
                "folding moves LayerNorm's weight and bias into W_Q, W_K and their biases; the scores stay.",
            ),
            "c": (
                "the logits, all of one position by the same amount",
                "centring W_U and b_U over the vocabulary takes the same number from every logit of a position.",
            ),
            "d": (
                "the order of the answers, from the likeliest to the least likely",
                "whatever is taken from all logits alike leaves their order as it was.",
            ),
        },
        answer=_what_folding_changes,
    )
)


def _constant_scale_logits(model: Any, tokens: Tensor) -> Float[Tensor, "batch answer d_vocab_out"]:
    (resid,) = seen(model, tokens, "resid_post")
    resid = at_answers(resid, tokens)
    scales = (resid - resid.mean(-1, keepdim=True)).pow(2).mean(-1).add(model.cfg.eps).sqrt()
    return torch.einsum("bad,dv->bav", resid, model.W_U) / (scales.sum() / scales.numel()) + model.b_U


def _constant_scale_logits_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        tokens = lists(model, 6, seed=5)
        right = _constant_scale_logits(model, tokens)
        resid, scale, first = seen(model, tokens, "resid_post", FINAL_SCALE, FIRST_SCALE)
        at = at_answers(resid, tokens) @ model.W_U
        scale_at = at_answers(scale, tokens)
        every = resid @ model.W_U / scale_at.mean() + model.b_U
        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("list", "answer", "vocabulary"),
                mistakes={
                    "These are the model's own logits: every position is divided by its own scale. Divide all by one "
                    "number, the mean.": at_answers(model(tokens), tokens),
                    "The mean of the scale is taken over all positions; take it over the answer positions, SEP to the "
                    "last number but one.": at / scale.mean() + model.b_U,
                    "The mean of the scale is taken one position too late; the answer positions begin at SEP and leave out "
                    "the last position.": at / scale[:, length_of(tokens) + 1 :].mean() + model.b_U,
                    "The mean of the scale has the last position in it, where nothing is asked; leave it out.": at
                    / scale[:, length_of(tokens) :].mean()
                    + model.b_U,
                    "The mean of the scale is taken over the lists only, so each position keeps its own; take one mean "
                    "over lists and answer positions.": at / scale_at.mean(0) + model.b_U,
                    "The mean of the scale is taken over the positions only, so each list keeps its own; take one mean "
                    "over lists and answer positions.": at / scale_at.mean(1, keepdim=True) + model.b_U,
                    "The scale is missing: divide by the mean.": at + model.b_U,
                    "You multiplied by the mean scale; LayerNorm divides by it.": at * scale_at.mean()
                    + model.b_U,
                    "b_U is missing.": at / scale_at.mean(),
                    "b_U is divided by the scale; it is added after the LayerNorm.": (at + model.b_U)
                    / scale_at.mean(),
                    "This is the scale of the first LayerNorm, `ln1`; the logits are read after `ln_final`.": at
                    / at_answers(first, tokens).mean()
                    + model.b_U,
                    "This is the mean of 1/scale; divide by the mean of the scale.": at
                    * (1 / scale_at).mean()
                    + model.b_U,
                    "All positions are in it; return the answer positions only.": every,
                    "Off by one: the answer positions begin at SEP and leave out the last position.": every[
                        :, length_of(tokens) + 1 :
                    ],
                },
            )
        )
    return cases


constant_scale_logits = CHECKS.add(
    Check(
        "constant_scale_logits",
        "LayerNorm with one scale for all",
        core=False,
        cases=_constant_scale_logits_cases,
        reference=_constant_scale_logits,
    )
)


# ── patterns ────────────────────────────────────────────────────────────────────────────────────────────────


def _sep_attends_to() -> str:
    """By the heads' attention from SEP to the list, mean over heads, on lists as in training."""
    model = lesson_model.get()
    data = task.make_data(200, seed=6)
    (pattern,) = seen(model, data.tokens, "pattern")
    from_sep = pattern[:, :, task.SEP_POSITION, : task.LENGTH].mean(1)
    rows = torch.arange(len(data))
    unsorted = data.tokens[:, : task.LENGTH]
    found = {
        "a": from_sep[rows, unsorted.argmin(-1)].mean().item(),
        "b": from_sep[rows, unsorted.argmax(-1)].mean().item(),
        "c": from_sep[:, 0].mean().item(),
    }
    most = max(found, key=lambda letter: found[letter])
    return most if found[most] > 2 * from_sep.mean().item() else "d"


sep_attends_to = CHECKS.add(
    Question(
        "sep_attends_to",
        "Predict where SEP attends",
        core=False,
        options={
            "a": (
                "the smallest number",
                "the answer at SEP is the smallest number, and a head can only copy what it attends to. SEP asks for "
                "small keys, in every list alike.",
            ),
            "b": (
                "the largest number",
                "that is the answer at the other end, nine answers later. What is asked at SEP itself?",
            ),
            "c": (
                "the number at position 0",
                "the list is unsorted: what stands there is no more the answer than what stands elsewhere.",
            ),
            "d": (
                "nothing in particular: its attention is spread evenly",
                "the query is always the same, but the keys are not: they can say how large a number is.",
            ),
        },
        answer=_sep_attends_to,
    )
)


def _places(tokens: Tensor, wanted: Tensor) -> Int[Tensor, "batch answer"]:
    """Where in the list each of the wanted numbers stands."""
    return (tokens[:, None, : length_of(tokens)] == wanted[..., None]).int().argmax(-1)


def _to_same(pattern: Tensor, tokens: Tensor, *, everywhere: bool) -> Float[Tensor, "head answer"]:
    """The mean attention from each answer position to its own token, in the list or everywhere."""
    n = length_of(tokens)
    to = tokens if everywhere else tokens[:, :n]
    same = (to[:, None] == tokens[:, n : 2 * n, None])[:, None]
    return (pattern[:, :, n : 2 * n, : to.shape[1]] * same).sum(-1).mean(0)


def _attention(pattern: Tensor, queries: Tensor, keys: Tensor) -> Float[Tensor, "batch head answer"]:
    """pattern[b, h, queries[a], keys[b, a]]."""
    batch = torch.arange(len(pattern))[:, None]
    return pattern[batch, :, queries[None], keys].transpose(1, 2)


def _attention_to_next(model: Any, tokens: Tensor) -> Float[Tensor, "head answer"]:
    (pattern,) = seen(model, tokens, "pattern")
    n = length_of(tokens)
    total = torch.zeros(pattern.shape[1], n)
    for i, row in enumerate(tokens.tolist()):
        for answer, number in enumerate(sorted(row[:n])):
            total[:, answer] += pattern[i, :, n + answer, row[:n].index(number)]
    return total / len(tokens)


def _attention_to_next_cases() -> list[Case]:
    cases = []
    for i, (name, fresh) in enumerate(MODELS.items()):
        model = fresh.get()
        tokens = lists(model, 12 - 2 * i, seed=7)
        right = _attention_to_next(model, tokens)
        pattern, scores = seen(model, tokens, "pattern", "attn_scores")
        n, labels = length_of(tokens), right_answers(tokens)
        queries = torch.arange(n, 2 * n)
        places = _places(tokens, labels)
        found = _attention(pattern, queries, places)
        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("head", "answer"),
                mistakes={
                    "Off by one: the queries are one position too late. The first answer is read at SEP.": _attention(
                        pattern, queries + 1, places
                    ).mean(0),
                    "This is the attention to the number that stands at the query itself; the right answer is the next "
                    "one.": _to_same(pattern, tokens, everywhere=False),
                    "This is the attention to the number that stands at the query itself, in the list and in the "
                    "sorted half; the right answer is the next one.": _to_same(
                        pattern, tokens, everywhere=True
                    ),
                    "All of it is 0, as attention to what comes later always is. Either the pattern is read the wrong "
                    "way round (rows are queries, columns keys), or the right answer is looked up in the sorted half; "
                    "look it up in the list, positions 0 to L − 1.": torch.zeros_like(right),
                    "This is the attention to place k of the list for answer k; look up where the right number "
                    "stands.": _attention(pattern, queries, torch.arange(n).expand(len(tokens), -1)).mean(0),
                    "These are the scores before the softmax; take the pattern.": _attention(
                        scores, queries, places
                    ).mean(0),
                    "This is the sum over lists; take the mean.": found.sum(0),
                    "Every list has a row; take the mean over lists.": found,
                    "This is the mean over heads; return a row for each head.": found.mean((0, 1)),
                    "This is the sum over heads; return a row for each head.": found.mean(0).sum(0),
                    "This is the largest attention to any number of the list; look up that of the right number.": (
                        pattern[:, :, n : 2 * n, :n].max(-1).values.mean(0)
                    ),
                    "The mean over answers is taken as well; return a number for each answer.": right.mean(
                        -1
                    ),
                },
            )
        )
    return cases


attention_to_next = CHECKS.add(
    Check(
        "attention_to_next",
        "Attention to the right number",
        core=True,
        cases=_attention_to_next_cases,
        reference=_attention_to_next,
    )
)


# ── ablation ────────────────────────────────────────────────────────────────────────────────────────────────


def _ablation_costs(model: Any, tokens: Tensor) -> Float[Tensor, " head"]:
    before = answer_losses(model, tokens).mean()
    return torch.stack(
        [ablated_losses(model, tokens, [head]).mean() - before for head in range(model.cfg.n_heads)]
    )


def _losses_at(model: Any, tokens: Tensor, first: int, labels: Tensor) -> Float[Tensor, ""]:
    """The mean loss read at positions from `first` on."""
    logits = model(tokens)[:, first : first + labels.shape[1]]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def _costs_at(model: Any, tokens: Tensor, first: int, labels: Tensor) -> Float[Tensor, " head"]:
    before = _losses_at(model, tokens, first, labels)
    costs = []
    for head in range(model.cfg.n_heads):
        with hooks.ablate(model, [(0, head)], activation="z", how="mean"):
            costs.append(_losses_at(model, tokens, first, labels) - before)
    return torch.stack(costs)


def _ablation_costs_cases() -> list[Case]:
    cases = []
    for i, (name, fresh) in enumerate(MODELS.items()):
        model = fresh.get()
        tokens = lists(model, 24 - 6 * i, seed=8)
        right = _ablation_costs(model, tokens)
        before = answer_losses(model, tokens).mean()
        heads = range(model.cfg.n_heads)
        n = length_of(tokens)

        def measured(
            measure: Callable[[Tensor], Tensor], fresh: Any = fresh, tokens: Tensor = tokens
        ) -> Callable[[], Tensor]:
            """The rise of something else than the mean loss, a function of the losses (batch, answer)."""

            def costs() -> Tensor:
                model = fresh.get()
                start = measure(answer_losses(model, tokens))
                return torch.stack(
                    [
                        measure(ablated_losses(model, tokens, [head])) - start
                        for head in range(model.cfg.n_heads)
                    ]
                )

            return costs

        # Forward passes are made only for an answer that is wrong.
        def instead(
            groups: list[list[int]], fresh: Any = fresh, tokens: Tensor = tokens, **how: str
        ) -> Callable[[], Tensor]:
            def costs() -> Tensor:
                model = fresh.get()
                start = answer_losses(model, tokens).mean()
                return torch.stack(
                    [ablated_losses(model, tokens, group, **how).mean() - start for group in groups]
                )

            return costs

        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("head",),
                atol=2e-5,
                mistakes={
                    "These are the losses after ablation; subtract the loss before it.": right + before,
                    "The sign is turned round: the loss after ablation minus the loss before it.": -right,
                    "These are bits; take the natural logarithm.": right / math.log(2),
                    "The loss is summed over the answers of a list; take the mean.": right * n,
                    "The loss is summed; take the mean over lists and answers.": right * n * len(tokens),
                    "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the "
                    "`with` block, the loss after inside it.": torch.zeros_like(right),
                    "This is the fall of the right number's probability; return the rise of the cross-entropy.": measured(
                        lambda losses: -(-losses).exp().mean()
                    ),
                    "The logarithm is taken of the mean probability; take the mean of the logarithms.": measured(
                        lambda losses: -(-losses).exp().mean().log()
                    ),
                    "This is the rise of the median loss; take the mean.": measured(
                        lambda losses: losses.median()
                    ),
                    "This is zero ablation; put in the mean over lists.": instead(
                        [[head] for head in heads], how="zero"
                    ),
                    "One mean over lists and positions is put in everywhere; each position has its own.": instead(
                        [[head] for head in heads], over="all"
                    ),
                    "All heads but one are ablated; ablate one head alone.": instead(
                        [[other for other in heads if other != head] for head in heads]
                    ),
                    "All heads are ablated at once; ablate one head at a time.": instead(
                        [[*heads] for _ in heads]
                    ),
                    "The heads before are still ablated; ablate one head at a time, from a fresh list.": instead(
                        [list(range(head + 1)) for head in heads]
                    ),
                    "The loss is read one position too late: the first answer is read at SEP.": (
                        lambda fresh=fresh, tokens=tokens, n=n: _costs_at(
                            fresh.get(), tokens, n + 1, right_answers(tokens)
                        )
                    ),
                    "The loss is taken over all positions; take it at the answer positions, where something is asked.": (
                        lambda fresh=fresh, tokens=tokens: _costs_at(fresh.get(), tokens, 0, tokens[:, 1:])
                    ),
                },
            )
        )
    return cases


ablation_costs = CHECKS.add(
    Check(
        "ablation_costs",
        "What each head is worth",
        core=True,
        cases=_ablation_costs_cases,
        reference=_ablation_costs,
    )
)


def _costs_by_number(model: Any, tokens: Tensor) -> Float[Tensor, "head number"]:
    before = answer_losses(model, tokens)
    labels = right_answers(tokens)
    costs = torch.full((model.cfg.n_heads, model.cfg.d_vocab - 1), math.nan)
    for head in range(model.cfg.n_heads):
        rise = ablated_losses(model, tokens, [head]) - before
        for number in range(model.cfg.d_vocab - 1):
            if (labels == number).any():
                costs[head, number] = rise[labels == number].mean()
    return costs


def _by_number(rise: Tensor, numbers: Tensor, n_numbers: int) -> Float[Tensor, "head number"]:
    """Means of rise (head, batch, answer) by another assignment of numbers (batch, answer); NaN without any."""
    one_hot = F.one_hot(numbers.flatten(), n_numbers).to(rise)
    return rise.flatten(1) @ one_hot / one_hot.sum(0)


def _costs_by_number_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 16), (THREE_HEADS, 10), (FOUR_HEADS, 5)):
        fresh = MODELS[name]
        model = fresh.get()
        tokens = lists(model, size, seed=9)
        right = _costs_by_number(model, tokens)
        before = answer_losses(model, tokens)
        heads = range(model.cfg.n_heads)
        rise = torch.stack([ablated_losses(model, tokens, [head]) - before for head in heads])
        labels, n, n_numbers = right_answers(tokens), length_of(tokens), model.cfg.d_vocab - 1
        counts = labels.flatten().bincount(minlength=n_numbers)
        at_query = tokens[:, n : 2 * n]

        def zero(
            fresh: Any = fresh, tokens: Tensor = tokens, how: str = "zero", over: str = "lists"
        ) -> Tensor:
            model, before = fresh.get(), answer_losses(fresh.get(), tokens)
            rise = torch.stack(
                [
                    ablated_losses(model, tokens, [head], how=how, over=over) - before
                    for head in range(model.cfg.n_heads)
                ]
            )
            return _by_number(rise, right_answers(tokens), model.cfg.d_vocab - 1)

        cases.append(
            Case(
                name,
                (fresh, tokens),
                right,
                axes=("head", "number"),
                atol=5e-5,
                mistakes={
                    "The answers are sorted by the token at which they are read; sort them by the right answer, the "
                    "number that comes next.": _by_number(rise, at_query, n_numbers + 1)[:, :-1],
                    "SEP has a column; numbers only, 0 to d_vocab − 2.": F.pad(right, (0, 1), value=math.nan),
                    "SEP has a column, with 0; numbers only, 0 to d_vocab − 2.": F.pad(right, (0, 1)),
                    "A number that is never the answer has 0; nothing is known of it, so it is NaN.": right.nan_to_num(
                        0.0
                    ),
                    "A number that is never the answer has infinity; nothing is known of it, so it is NaN.": (
                        right.nan_to_num(math.inf)
                    ),
                    "A number that is never the answer has −1; nothing is known of it, so it is NaN.": (
                        right.nan_to_num(-1.0)
                    ),
                    "This is the median of the rises; take the mean.": lambda rise=rise, labels=labels, n=n_numbers: (
                        torch.stack(
                            [
                                rise.masked_fill(labels != t, math.nan).flatten(1).nanmedian(-1).values
                                for t in range(n)
                            ],
                            dim=-1,
                        )
                    ),
                    "The rises are those of whole lists in which the number stands; take those of its own answers.": (
                        lambda rise=rise, labels=labels, n=n_numbers: torch.stack(
                            [rise[:, (labels == number).any(1)].mean((1, 2)) for number in range(n)], -1
                        )
                    ),
                    "The answers are sorted by the unsorted list; sort them by the right answers, the sorted list.": (
                        _by_number(rise, tokens[:, :n], n_numbers)
                    ),
                    "The rises are summed; take the mean over the answers of each number.": right.nan_to_num(
                        0.0
                    )
                    * counts,
                    "The rises are summed; take the mean over the answers of each number (NaN without any).": right
                    * counts,
                    "The rises are divided by the number of lists; divide by how often each number is the answer.": (
                        right.nan_to_num(0.0) * counts / len(tokens)
                    ),
                    "The rises are divided by the number of all answers; divide by how often each number is the "
                    "answer.": right.nan_to_num(0.0) * counts / labels.numel(),
                    "The sign is turned round: the loss after ablation minus the loss before it.": -right,
                    "These are the losses after ablation; subtract the losses before it.": _by_number(
                        rise + before, labels, n_numbers
                    ),
                    "Nothing is ablated: every loss is compared with itself.": right * 0.0,
                    "Rows and columns are swapped: heads are the rows.": right.T,
                    "This is zero ablation; put in the mean over lists.": zero,
                    "One mean over lists and positions is put in everywhere; each position has its own.": (
                        functools.partial(zero, how="mean", over="all")
                    ),
                    "Off by one: this is the cost of the number before.": right.roll(-1, -1),
                },
            )
        )
    return cases


costs_by_number = CHECKS.add(
    Check(
        "costs_by_number",
        "Which head carries which number",
        core=True,
        cases=_costs_by_number_cases,
        reference=_costs_by_number,
    )
)


def _owners_only(model: Any, tokens: Tensor, owner: Tensor) -> Float[Tensor, "batch answer d_vocab_out"]:
    n = length_of(tokens)

    def put(z: Tensor, hook: Any) -> Tensor:
        mean = z.mean(0)
        for i, row in enumerate(tokens.tolist()):
            for answer, number in enumerate(sorted(row[:n])):
                for head in range(z.shape[2]):
                    if head != int(owner[number]):
                        z[i, n + answer, head] = mean[n + answer, head]
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
        return at_answers(model(tokens), tokens)


def _owned(
    model: Any,
    tokens: Tensor,
    owner_at: Tensor,
    *,
    invert: bool = False,
    how: str = "mean",
    over: str = "lists",
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Only the head `owner_at` (batch, answer) keeps its z at each answer position; or, inverted, only it does not."""
    n = length_of(tokens)

    def put(z: Tensor, hook: Any) -> Tensor:
        keep = F.one_hot(owner_at, z.shape[2]).bool()[..., None]
        mean = z.mean(0, keepdim=True) if over == "lists" else z.mean((0, 1), keepdim=True)
        instead = (torch.zeros_like(z) if how == "zero" else mean.expand_as(z))[:, n : 2 * n]
        z[:, n : 2 * n] = torch.where(keep != invert, z[:, n : 2 * n], instead)
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
        return at_answers(model(tokens), tokens)


def _owners_only_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 8), (THREE_HEADS, 7), (FOUR_HEADS, 6)):
        fresh = MODELS[name]
        model = fresh.get()
        tokens = lists(model, size, seed=10)
        generator = torch.Generator().manual_seed(11)
        owner = torch.randint(model.cfg.n_heads, (model.cfg.d_vocab - 1,), generator=generator)
        right = _owners_only(model, tokens, owner)
        n, labels = length_of(tokens), right_answers(tokens)
        at_query = tokens[:, n : 2 * n]
        with_sep = torch.cat([owner, owner[-1:]])  # a plain index with SEP would raise

        def instead(
            owner_at: Tensor, fresh: Any = fresh, tokens: Tensor = tokens, **how: Any
        ) -> Callable[[], Tensor]:
            return lambda: _owned(fresh.get(), tokens, owner_at, **how)

        def mean_of_each_set(fresh: Any = fresh, tokens: Tensor = tokens, owner: Tensor = owner) -> Tensor:
            model, n = fresh.get(), length_of(tokens)
            owner_at = owner[right_answers(tokens)]

            def put(z: Tensor, hook: Any) -> Tensor:
                for head in range(z.shape[2]):
                    for answer in range(n):
                        others = owner_at[:, answer] != head
                        if others.any():
                            z[others, n + answer, head] = z[others, n + answer, head].mean(0)
                return z

            with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
                return at_answers(model(tokens), tokens)

        cases.append(
            Case(
                name,
                (fresh, tokens, owner),
                right,
                axes=("list", "answer", "vocabulary"),
                mistakes={
                    "Nothing is ablated: these are the model's own logits.": at_answers(
                        model(tokens), tokens
                    ),
                    "The owners are those of the tokens at which the answers are read; take the owner of the right "
                    "answer, the number that comes next.": instead(with_sep[at_query]),
                    "The owner itself is ablated and the other heads are kept; it is the other way round.": instead(
                        owner[labels], invert=True
                    ),
                    "The other heads are set to zero; put in their mean over lists.": instead(
                        owner[labels], how="zero"
                    ),
                    "One mean over lists and positions is put in; each position has its own.": instead(
                        owner[labels], over="all"
                    ),
                    "The owners are those of the unsorted list's numbers, in its order; the right answers are the sorted "
                    "list.": instead(owner[tokens[:, :n]]),
                    "The mean is taken only over the lists in which the head is ablated at that position; take it over "
                    "all lists.": mean_of_each_set,
                    "All positions are in it; return the answer positions only.": _everywhere(
                        model, tokens, owner[labels]
                    ),
                    "Off by one: the owners are put one position too late.": instead(
                        owner[labels].roll(1, 1)
                    ),
                },
            )
        )
    return cases


def _everywhere(model: Any, tokens: Tensor, owner_at: Tensor) -> Tensor:
    """The logits at all positions of the run with owners only."""
    n = length_of(tokens)

    def put(z: Tensor, hook: Any) -> Tensor:
        keep = F.one_hot(owner_at, z.shape[2]).bool()[..., None]
        z[:, n : 2 * n] = torch.where(keep, z[:, n : 2 * n], z.mean(0, keepdim=True)[:, n : 2 * n])
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
        return model(tokens)


owners_only = CHECKS.add(
    Check(
        "owners_only",
        "Keep only the owner of each answer",
        core=True,
        cases=_owners_only_cases,
        reference=_owners_only,
    )
)
