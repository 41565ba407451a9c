"""What evidence needs to know of the sorted lists of the two-head lesson: valid inputs, margins, hard inputs.

`exercises_utils.evidence` scores circuits, counterexamples and simulations, and its `pools` searches for hard
inputs, with these functions as their only knowledge of the task.

An input has ten answers, one for each number of the sorted list.
"""

from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.sorted_list_two_heads.task import (
    ANSWER_POSITIONS,
    CONFIG,
    LENGTH,
    N_CTX,
    N_NUMBERS,
    SEP,
    SEP_POSITION,
    answer_logits,
    from_lists,
    make_data,
)

N_ANSWERS = CONFIG.d_vocab_out


def share_of_best_guess() -> float:
    """The share of right answers when the likeliest number is answered at each position, whatever the list.

    The k-th smallest of ten numbers is x in C(x, k - 1) · C(50 - x, 10 - k) of the C(51, 10) sets.
    """
    likeliest = [
        max(comb(x, k) * comb(N_NUMBERS - 1 - x, LENGTH - 1 - k) for x in range(N_NUMBERS))
        for k in range(LENGTH)
    ]
    return sum(likeliest) / LENGTH / comb(N_NUMBERS, LENGTH)


CHANCE = share_of_best_guess()
"""0.0924: at the ends 0 and 50 are right in one list of five, between them the best guess is right less often."""

MOST_TYPICAL_SMALLEST = 20
"""The smallest number of 998 of 1,000 training lists is at most this."""
MOST_TYPICAL_GAP = 25
"""Neighbours in the sorted list differ by at most this in 996 of 1,000 training lists."""
WIDE_GAP = 15

KINDS: tuple[str, ...] = ("spread", "all high", "wide gap", "near neighbours")
"""See `kinds`."""

HARD_INPUTS = (
    "All are lists of ten different numbers. A quarter as in training; a quarter drawn from the numbers above a "
    "bound from 20 to 40; a quarter drawn from all numbers but a stretch of 15 to 30 that starts anywhere from 1 to "
    "20; and a quarter with three numbers in a row (d, d + 1, d + 2), the others drawn as in training."
)

SITES: tuple[tuple[int, ...], ...] = tuple(
    (0, head, position) for head in range(CONFIG.n_heads) for position in ANSWER_POSITIONS
)
"""Heads at positions that can matter: in one layer, only what is written where an answer is read."""


def why_invalid(tokens: Int[Tensor, " position"]) -> str | None:
    """Why a sequence is no valid input, or None if it is: ten different numbers, SEP, the same numbers sorted.

    >>> why_invalid(torch.tensor([3, 1, 51, 1, 3]))
    'has 5 tokens; expected 21: ten numbers, SEP, the ten numbers sorted'
    """
    if len(tokens) != N_CTX:
        return f"has {len(tokens)} tokens; expected {N_CTX}: ten numbers, SEP, the ten numbers sorted"
    if tokens[SEP_POSITION] != SEP:
        return f"has {int(tokens[SEP_POSITION])} at position {SEP_POSITION}; expected SEP ({SEP})"
    for position, number in enumerate(tokens.tolist()):
        if position != SEP_POSITION and not 0 <= number < N_NUMBERS:
            return f"has {number} at position {position}; expected a number from 0 to {N_NUMBERS - 1}"
    unsorted = tokens[:SEP_POSITION].tolist()
    if tokens[SEP_POSITION + 1 :].tolist() != sorted(unsorted):
        return "does not have its ten numbers sorted after SEP; `task.from_lists` makes the whole sequence"
    twice = [number for number in unsorted if unsorted.count(number) > 1]
    if twice:
        return f"has the number {twice[0]} more than once; the task is ten different numbers"
    return None


def in_distribution(tokens: Int[Tensor, "input 21"]) -> Bool[Tensor, " input"]:
    """Whether a list looks like the training data: smallest number 20 or less, no gap above 25, no repeat.

    994 of 1,000 training lists do. Training draws every set of ten different numbers with the same
    probability, so the others are rare there rather than absent.
    """
    numbers = _sorted(tokens)
    steps = numbers.diff(dim=-1)
    typical = (numbers[:, 0] <= MOST_TYPICAL_SMALLEST) & (steps.max(-1).values <= MOST_TYPICAL_GAP)
    return typical & (steps > 0).all(-1)


def right_answers(tokens: Int[Tensor, "input 21"]) -> Int[Tensor, "input 10"]:
    """The sorted list."""
    return _sorted(tokens)


def answers(logits: Float[Tensor, "input position 52"]) -> Int[Tensor, "input 10"]:
    """The model's answers, at SEP and at every sorted number but the last."""
    return answer_logits(logits).argmax(-1)


def margin(
    logits: Float[Tensor, "input position 52"], tokens: Int[Tensor, "input 21"]
) -> Float[Tensor, " input"]:
    """The best wrong logit minus the right one, where that is largest: above 0 an answer of the list is wrong."""
    logits = answer_logits(logits)
    right = right_answers(tokens)[..., None].to(logits.device)
    best_wrong = logits.scatter(-1, right, float("-inf")).max(-1).values
    return (best_wrong - logits.gather(-1, right)[..., 0]).max(-1).values


def kinds(tokens: Int[Tensor, "input 21"]) -> Int[Tensor, " input"]:
    """Which of `KINDS` each list is; the first that holds.

    All high: no number of 20 or less. Wide gap: two neighbours in the sorted list differ by more than 15.
    Near neighbours: three numbers in a row. Spread: the others.
    """
    numbers = _sorted(tokens)
    steps = numbers.diff(dim=-1)
    in_a_row = ((steps[:, 1:] == 1) & (steps[:, :-1] == 1)).any(-1)
    kind = torch.where(in_a_row, KINDS.index("near neighbours"), KINDS.index("spread"))
    kind = torch.where(steps.max(-1).values > WIDE_GAP, KINDS.index("wide gap"), kind)
    return torch.where(numbers[:, 0] > MOST_TYPICAL_SMALLEST, KINDS.index("all high"), kind)


def typical_inputs(size: int, generator: Generator) -> Int[Tensor, "input 21"]:
    """Lists as the model was trained on."""
    return make_data(size, generator).tokens


def hard_inputs(size: int, generator: Generator) -> Int[Tensor, "input 21"]:
    """Lists on which the model is tested hard; `HARD_INPUTS` says which."""
    numbers = torch.arange(N_NUMBERS)
    weights = torch.rand(size, N_NUMBERS, generator=generator)  # the ten smallest are drawn
    quarter = torch.randint(0, 4, (size, 1), generator=generator)
    bound = torch.randint(20, 41, (size, 1), generator=generator)
    start = torch.randint(1, 21, (size, 1), generator=generator)
    width = torch.randint(15, 31, (size, 1), generator=generator)
    first = torch.randint(0, N_NUMBERS - 2, (size, 1), generator=generator)
    left_out = ((quarter == 1) & (numbers < bound)) | (
        (quarter == 2) & (numbers >= start) & (numbers < start + width)
    )
    put_in = (quarter == 3) & (numbers >= first) & (numbers <= first + 2)
    drawn = (weights + 2 * left_out - 2 * put_in).argsort(-1)[:, :LENGTH]
    order = torch.rand(size, LENGTH, generator=generator).argsort(-1)
    return from_lists(drawn.gather(-1, order)).tokens


def neighbours(tokens: Int[Tensor, "input 21"], generator: Generator) -> Int[Tensor, "input 21"]:
    """Each list with two places exchanged and one number moved by up to three, of the same kind as before.

    Where the moved number would be there already, or the kind would change, only the places are exchanged.
    """
    lists = tokens[:, :LENGTH].clone()
    rows = torch.arange(len(lists))
    places = torch.rand(len(lists), LENGTH, generator=generator).argsort(-1)
    first, second = places[:, 0], places[:, 1]
    lists[rows, first], lists[rows, second] = tokens[rows, second], tokens[rows, first]
    exchanged = from_lists(lists).tokens
    step = torch.randint(1, 4, (len(lists),), generator=generator)
    sign = 2 * torch.randint(0, 2, (len(lists),), generator=generator) - 1
    lists[rows, places[:, 2]] = (lists[rows, places[:, 2]] + sign * step).clamp(0, N_NUMBERS - 1)
    moved = from_lists(lists).tokens
    keep = (_sorted(moved).diff(dim=-1) > 0).all(-1) & (kinds(moved) == kinds(tokens))
    return torch.where(keep[:, None], moved, exchanged)


def _sorted(tokens: Int[Tensor, "input 21"]) -> Int[Tensor, "input 10"]:
    return tokens[:, SEP_POSITION + 1 :]
