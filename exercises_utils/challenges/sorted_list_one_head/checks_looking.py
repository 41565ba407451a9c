"""The checks of lesson 01's first sections: what the model answers, where it attends, and what hiding a place does."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.checks_models import (
    LARGE,
    LESSON,
    LOGIT_NOISE,
    MODELS,
    SMALL,
    at_answers,
    lists,
    logits_with,
    masked,
    residual,
    scores,
)
from exercises_utils.checking import Case, Check, Question
from exercises_utils.tools import hooks

# ── 1 · how good it is ──────────────────────────────────────────────────────────────────────────────────────


def _answer_accuracy(model: Any, tokens: Int[Tensor, "list 22"]) -> Float[Tensor, " answer"]:
    """By counting, list by list."""
    counts = [0] * task.LENGTH
    for row, sequence in zip(model(tokens).tolist(), tokens.tolist(), strict=True):
        for i, right in enumerate(sorted(sequence[1 : task.LENGTH + 1])):
            at_position = row[task.MID_POSITION + i]
            counts[i] += at_position.index(max(at_position)) == right
    return torch.tensor(counts) / len(tokens)


def _answer_accuracy_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 120), (SMALL, 80), (LARGE, 90)):
        model, tokens = MODELS[name].get(), lists(name, size, seed=1)
        right = _answer_accuracy(model, tokens)
        top, labels = model(tokens).argmax(-1), tokens[:, 12:]
        hits = at_answers(top) == labels
        cases.append(
            Case(
                name,
                (MODELS[name], tokens),
                right,
                axes=("answer",),
                mistakes={
                    "The logits are read one position too late: the number at position 12 is the answer given at MID, "
                    "position 11. Read positions 11 to 20.": (top[:, 12:] == labels).float().mean(0),
                    "The logits are read one position too early: MID is position 11. Read positions 11 to 20.": (
                        (top[:, 10:20] == labels).float().mean(0)
                    ),
                    "The answers are compared with the numbers that stand at the same positions; a position predicts the "
                    "number after it.": (at_answers(top) == at_answers(tokens)).float().mean(0),
                    "The answers are compared with the list as it was given; compare with the sorted list.": (
                        (at_answers(top) == tokens[:, 1:11]).float().mean(0)
                    ),
                    "These are all predictions of a next token; only those at positions 11 to 20 are answers.": (
                        (top[:, :-1] == tokens[:, 1:]).float().mean(0)
                    ),
                    "These are all 22 positions; only positions 11 to 20 are answers.": (
                        (top == tokens).float().mean(0)
                    ),
                    "This is the mean over everything; return the share for each of the ten answer positions.": (
                        hits.float().mean()
                    ),
                    "This is a share for each list, the mean over answer positions; take the mean over lists.": (
                        hits.float().mean(1)
                    ),
                    "This is the share of lists that are right as a whole; return a share for each answer position.": (
                        hits.all(1).float().mean()
                    ),
                    "These are counts; divide by the number of lists.": right * len(tokens),
                    "These are percents; return shares from 0 to 1.": right * 100,
                    "This says of each list and answer whether it is right; take the mean over lists.": hits.float(),
                    "These are shares of mistakes; return the shares of right answers.": 1 - right,
                    "This is the mean probability of the right number; count how often it has the highest logit.": (
                        at_answers(model(tokens)).softmax(-1).gather(-1, labels[..., None])[..., 0].mean(0)
                    ),
                },
            )
        )
    return cases


answer_accuracy = Check(
    "answer_accuracy",
    "How often each answer is right",
    core=True,
    cases=_answer_accuracy_cases,
    reference=_answer_accuracy,
)


# ── 2 · where it attends ────────────────────────────────────────────────────────────────────────────────────


def _pattern(model: Any, tokens: Tensor) -> Float[Tensor, "list query key"]:
    """The attention pattern of head 0.0, from the weights."""
    resid = residual(model, tokens)
    return masked(scores(model, resid, resid)).softmax(-1)


def _mean_pattern(model: Any, tokens: Int[Tensor, "list 22"]) -> Float[Tensor, "query key"]:
    return _pattern(model, tokens).mean(0)


def _mean_pattern_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 40), (SMALL, 9)):
        model, tokens = MODELS[name].get(), lists(name, size, seed=2)
        resid = residual(model, tokens)
        raw, pattern = scores(model, resid, resid), _pattern(model, tokens)
        right = pattern.mean(0)
        cases.append(
            Case(
                name,
                (MODELS[name], tokens),
                right,
                axes=("query", "key"),
                mistakes={
                    "These are scores, before the softmax; average the pattern.": masked(raw).mean(0),
                    "The softmax of the mean scores is not the mean pattern: average the patterns.": (
                        masked(raw).mean(0).softmax(-1)
                    ),
                    "A softmax is taken once more; the pattern has been through it.": right.softmax(-1),
                    "This is the sum over lists; take the mean.": pattern.sum(0),
                    "This is the pattern of the first list alone; take the mean over lists.": pattern[0],
                    "This is the pattern of the last list alone; take the mean over lists.": pattern[-1],
                    "Rows and columns are swapped: the query is the row, the key the column.": right.T,
                    "This is the mean over queries; take the mean over lists.": pattern.mean(1),
                    "The list axis is still there: take the mean over lists.": pattern,
                },
            )
        )
    return cases


mean_pattern = Check(
    "mean_pattern", "The mean pattern", core=True, cases=_mean_pattern_cases, reference=_mean_pattern
)


# ── 3 · hiding a place ──────────────────────────────────────────────────────────────────────────────────────


def _hide_position(
    model: Any, tokens: Int[Tensor, "list 22"], position: int
) -> Float[Tensor, "list position d_vocab_out"]:
    """From the weights: the pattern of scores in which one column is minus infinity."""
    resid = residual(model, tokens)
    values = masked(scores(model, resid, resid))
    values[..., position] = float("-inf")
    return logits_with(model, tokens, values.softmax(-1))


def _hide_position_cases() -> list[Case]:
    return [
        _hidden(name, size, position)
        for name, size, position in ((LESSON, 12, 4), (SMALL, 5, 13), (LARGE, 6, 1))
    ]


def _hidden(name: str, size: int, position: int) -> Case:
    fresh, tokens = MODELS[name], lists(name, size, seed=3)
    model = fresh.get()
    resid = residual(model, tokens)
    raw, pattern = scores(model, resid, resid), _pattern(model, tokens)
    right = _hide_position(model, tokens, position)

    # Wrong values are made when they are asked for, from a model that no answer has left a hook on.

    def with_scores(change: Callable[[Tensor], Any]) -> Callable[[], Tensor]:
        def logits() -> Tensor:
            values = masked(raw)
            change(values)
            return logits_with(fresh.get(), tokens, values.softmax(-1))

        return logits

    def with_pattern(change: Callable[[Tensor], Any]) -> Callable[[], Tensor]:
        def logits() -> Tensor:
            values = pattern.clone()
            change(values)
            return logits_with(fresh.get(), tokens, values)

        return logits

    def other_token(token: int) -> Callable[[], Tensor]:
        def logits() -> Tensor:
            return fresh.get()(tokens.index_fill(1, torch.tensor([position]), token))

        return logits

    def put(rows: Any, columns: Any, value: float) -> Callable[[Tensor], None]:
        def change(values: Tensor) -> None:
            values[:, rows, columns] = value

        return change

    every, minus = slice(None), float("-inf")
    n_numbers = model.cfg.d_vocab_out
    return Case(
        f"{name}, position {position}",
        (fresh, tokens, position),
        right,
        axes=("list", "position", "logit"),
        atol=LOGIT_NOISE * right.abs().max().item(),
        mistakes={
            "Nothing is hidden: these are the model's own logits. Does the hook return the changed scores, and does the "
            "model run with it?": lambda: fresh.get()(tokens),
            "The scores are set to 0, which is a score like any other; minus infinity gives no attention.": with_scores(
                put(every, position, 0.0)
            ),
            "The attention is set to 0 after the softmax, so the rest no longer adds up to 1; set the scores to minus "
            "infinity before it (`hook_attn_scores`).": with_pattern(put(every, position, 0.0)),
            "A row is set to minus infinity, which leaves that query nothing (0/0); hide the key, the last axis.": (
                with_scores(put(position, every, minus))
            ),
            "A row of the pattern is set to 0: what the query at this place sees. Hide the key, the last axis.": (
                with_pattern(put(position, every, 0.0))
            ),
            "Off by one: the place before is hidden. BOS is position 0, so list places start at 1.": with_scores(
                put(every, position - 1, minus)
            ),
            "Off by one: the place after is hidden.": with_scores(put(every, position + 1, minus)),
            "The place is hidden from MID alone; hide it from every query.": with_scores(
                put(task.MID_POSITION, position, minus)
            ),
            "The place is hidden from the ten answer positions alone; hide it from every query.": with_scores(
                put(slice(11, 21), position, minus)
            ),
            "The place can still see itself; hide it from every query, its own included.": with_scores(
                put([q for q in range(task.N_CTX) if q != position], position, minus)
            ),
            "The token is replaced by BOS, which is attended to in its place; leave the tokens, and hide the key.": (
                other_token(n_numbers)
            ),
            "The token is replaced by MID, which is attended to in its place; leave the tokens, and hide the key.": (
                other_token(n_numbers + 1)
            ),
            "The token is replaced by a 0, which is attended to in its place; leave the tokens, and hide the key.": (
                other_token(0)
            ),
            "These are the logits at MID alone; return those of all 22 positions.": right[
                :, task.MID_POSITION
            ],
            "These are the logits at the ten answer positions; return those of all 22 positions.": at_answers(
                right
            ),
            "These are answers, the largest logits; return the logits.": right.argmax(-1),
            "This is the change of the logits; return the logits themselves.": lambda: (
                right - fresh.get()(tokens)
            ),
        },
    )


hide_position = Check(
    "hide_position", "Hide a place", core=True, cases=_hide_position_cases, reference=_hide_position
)


# ── 4 · what is answered then ───────────────────────────────────────────────────────────────────────────────


@functools.cache
def shares_if_hidden() -> dict[str, float]:
    """What MID answers when the place of the smallest number is hidden: the share of each option.

    Over 300 lists drawn as in training whose smallest number stands in them once.
    """
    model, tokens = MODELS[LESSON].get(), task.make_data(500, seed=4).tokens
    ordered = tokens[:, 12:]
    tokens = tokens[ordered[:, 0] < ordered[:, 1]][:300]
    ordered = tokens[:, 12:]
    places = 1 + tokens[:, 1:11].argmin(-1)

    def hide(activation: Tensor, hook: Any) -> Tensor:
        activation = activation.clone()
        activation[torch.arange(len(tokens)), :, :, places] = float("-inf")
        return activation

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", hide)]):
        answers = model(tokens)[:, task.MID_POSITION].argmax(-1)
    shares = {
        letter: (answers == ordered[:, i]).double().mean().item()
        for letter, i in (("a", 0), ("b", 1), ("c", -1))
    }
    return {**shares, "d": 1 - sum(shares.values())}


def _what_if_hidden() -> str:
    return max(shares_if_hidden(), key=lambda letter: shares_if_hidden()[letter])


what_if_hidden = Question(
    "what_if_hidden",
    "Predict what is answered without the smallest number",
    core=False,
    options={
        "a": (
            "the smallest number, as before",
            "the model reads a number at its place and nowhere else: with the place hidden it cannot know it.",
        ),
        "b": (
            "the second smallest",
            "it answers as if the hidden number were not in the list: the smallest that it can still see.",
        ),
        "c": (
            "the largest",
            "that would take a head that looks for an extreme; this one goes upwards from the number before.",
        ),
        "d": (
            "this or that; there is no rule",
            "nine of the ten numbers are still seen, and they are sorted as before.",
        ),
    },
    answer=_what_if_hidden,
)


# ── 5 · how much attention the answer gets ──────────────────────────────────────────────────────────────────


def _attention_to_answer(model: Any, tokens: Int[Tensor, "list 22"]) -> Float[Tensor, " answer"]:
    """By loops over lists, answers and places."""
    pattern = _pattern(model, tokens).tolist()
    total = [0.0] * task.LENGTH
    for row, sequence in zip(pattern, tokens.tolist(), strict=True):
        for i, right in enumerate(sorted(sequence[1 : task.LENGTH + 1])):
            for place in task.LIST_POSITIONS:
                if sequence[place] == right:
                    total[i] += row[task.MID_POSITION + i][place]
    return torch.tensor(total) / len(tokens)


def _attention_to_answer_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 40), (SMALL, 15)):
        model, tokens = MODELS[name].get(), lists(name, size, seed=5)
        with hooks.record(model, "blocks.0.attn.hook_pattern") as seen:
            model(tokens)
        pattern = seen["blocks.0.attn.hook_pattern"][:, 0]
        queries, in_list, labels = at_answers(pattern), tokens[:, 1:11], tokens[:, 12:]
        is_right = labels[:, :, None] == in_list[:, None]
        to_list = queries[..., 1:11]
        right = _attention_to_answer(model, tokens)
        first = is_right & (is_right.cumsum(-1) == 1)
        last = is_right & (is_right.flip(-1).cumsum(-1).flip(-1) == 1)
        anywhere = labels[:, :, None] == tokens[:, None]
        own = at_answers(tokens)[:, :, None] == in_list[:, None]
        most = to_list.argmax(-1)
        cases.append(
            Case(
                name,
                (MODELS[name], tokens),
                right,
                axes=("answer",),
                mistakes={
                    "Only the first copy of the number is counted; add up the attention to all of its copies in the list.": (
                        (to_list * first).sum(-1).mean(0)
                    ),
                    "Only the last copy of the number is counted; add up the attention to all of its copies in the list.": (
                        (to_list * last).sum(-1).mean(0)
                    ),
                    "This is the share of the attention to the list; do not divide by what the list gets in all.": (
                        ((to_list * is_right).sum(-1) / to_list.sum(-1)).mean(0)
                    ),
                    "The sorted part is counted too; count the places of the list, 1 to 10.": (
                        (queries * anywhere).sum(-1).mean(0)
                    ),
                    "This is the attention to the number that stands at the query; the right answer is the number after "
                    "it.": (to_list * own).sum(-1).mean(0),
                    "The queries are one position too late: the answers are given at positions 11 to 20.": (
                        (pattern[:, 12:, 1:11] * is_right).sum(-1).mean(0)
                    ),
                    "The queries are one position too early: the answers are given at positions 11 to 20.": (
                        (pattern[:, 10:20, 1:11] * is_right).sum(-1).mean(0)
                    ),
                    "The keys are off by one: BOS is position 0, the list stands at 1 to 10.": (
                        (queries[..., :10] * is_right).sum(-1).mean(0)
                    ),
                    "The attention to copies is averaged; add it up.": (
                        ((to_list * is_right).sum(-1) / is_right.sum(-1)).mean(0)
                    ),
                    "This is the copy with the most attention; add up the attention to all of its copies.": (
                        (to_list * is_right).max(-1).values.mean(0)
                    ),
                    "This is how often the most attended place holds the right number; return how much attention it gets.": (
                        is_right.gather(-1, most[..., None])[..., 0].float().mean(0)
                    ),
                    "This is the sum over lists; take the mean.": right * len(tokens),
                    "This is the mean over answer positions; take the mean over lists.": (
                        (to_list * is_right).sum(-1).mean(1)
                    ),
                    "This is the mean over everything; return one number for each answer position.": right.mean(),
                    "The list axis is still there: take the mean over lists.": (to_list * is_right).sum(-1),
                },
            )
        )
    return cases


attention_to_answer = Check(
    "attention_to_answer",
    "How much attention the answer gets",
    core=False,
    cases=_attention_to_answer_cases,
    reference=_attention_to_answer,
)
