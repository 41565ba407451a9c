"""What evidence needs to know of the sorted lists: valid sequences, margins, and lists that are hard.

`exercises_utils.evidence` scores circuits, counterexamples and simulations, and its `pools` searches for hard
inputs, with these functions as their only knowledge of the task. A list has ten answers; it
is wrong where one of them is.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.sorted_list_one_head.task import (
    BOS,
    LENGTH,
    MID,
    MID_POSITION,
    N_CTX,
    N_NUMBERS,
    SortedListData,
    answer_logits,
    from_lists,
    has_triple,
    largest_gap,
    make_data,
)

CHANCE = 1 / N_NUMBERS
N_ANSWERS = N_NUMBERS
WIDE_GAP = 20
KINDS: tuple[str, ...] = (
    "all different, no gap of 20",
    "all different, a gap of 20 or more",
    "a number twice, no gap of 20",
    "a number twice, a gap of 20 or more",
    "a number three times, no gap of 20",
    "a number three times, a gap of 20 or more",
)

HARD_INPUTS = (
    "Ten numbers drawn uniformly; in half of the lists none comes from a stretch of 19 to 34 neighbouring numbers, "
    "each stretch of each length as likely; in half, one number is copied over one to three other places."
)

SITES: tuple[tuple[int, ...], ...] = ()
"""No random circuits: a circuit of this model is a set of terms of its attention scores."""


def why_invalid(tokens: Int[Tensor, " position"]) -> str | None:
    """Why a sequence is not valid, or None if it is: BOS, ten numbers from 0 to 49, MID, the same ten sorted.

    >>> why_invalid(torch.tensor([50, 3, 1, 51, 1, 3]))
    'has 6 tokens; expected 22: BOS, 10 numbers, MID, and the 10 numbers sorted'
    """
    if len(tokens) != N_CTX:
        parts = f"BOS, {LENGTH} numbers, MID, and the {LENGTH} numbers sorted"
        return f"has {len(tokens)} tokens; expected {N_CTX}: {parts}"
    for position, name, token in ((0, "BOS", BOS), (MID_POSITION, "MID", MID)):
        if tokens[position] != token:
            return f"has {int(tokens[position])} at position {position}; expected {name} ({token})"
    for position, number in enumerate(tokens.tolist()):
        if position not in (0, MID_POSITION) and not 0 <= number < N_NUMBERS:
            return f"has {number} at position {position}; expected a number from 0 to {N_NUMBERS - 1}"
    if tokens[1 : LENGTH + 1].sort().values.tolist() != tokens[MID_POSITION + 1 :].tolist():
        return "does not end with its ten numbers sorted; use `task.from_lists(lists).tokens`"
    return None


def in_distribution(tokens: Int[Tensor, "input 22"]) -> Bool[Tensor, " input"]:
    """Whether a list looks like the training data: seven different numbers or more, and no gap of 30 or more.

    996 of 1,000 training lists do. A gap is the difference between neighbours in the sorted list.
    """
    data = SortedListData(tokens)
    different = 1 + (data.labels.diff(dim=-1) != 0).sum(-1)
    return (different >= 7) & (largest_gap(data) < 30)


def right_answers(tokens: Int[Tensor, "input 22"]) -> Int[Tensor, "input 10"]:
    """The sorted list."""
    return SortedListData(tokens).labels


def answers(logits: Float[Tensor, "input position 50"]) -> Int[Tensor, "input 10"]:
    """The model's answer at MID and at every sorted number but the last."""
    return answer_logits(logits).argmax(-1)


def margins(
    logits: Float[Tensor, "input position 50"], tokens: Int[Tensor, "input 22"]
) -> Float[Tensor, "input 10"]:
    """At each answer position the logit of the best wrong number minus that of the right one."""
    at_answers, right = answer_logits(logits), right_answers(tokens)[..., None].to(logits.device)
    best_wrong = at_answers.scatter(-1, right, float("-inf")).max(-1).values
    return best_wrong - at_answers.gather(-1, right)[..., 0]


def margin(
    logits: Float[Tensor, "input position 50"], tokens: Int[Tensor, "input 22"]
) -> Float[Tensor, " input"]:
    """The largest of the ten margins: above 0 the model is wrong somewhere."""
    return margins(logits, tokens).max(-1).values


def kinds(tokens: Int[Tensor, "input 22"]) -> Int[Tensor, " input"]:
    """Which of `KINDS` each list is."""
    data = SortedListData(tokens)
    repeated = (data.labels.diff(dim=-1) == 0).any(-1).long() + has_triple(data).long()
    return 2 * repeated + (largest_gap(data) >= WIDE_GAP).long()


def typical_inputs(size: int, generator: Generator) -> Int[Tensor, "input 22"]:
    """Lists as the model was trained on."""
    return make_data(size, generator).tokens


def hard_inputs(size: int, generator: Generator) -> Int[Tensor, "input 22"]:
    """Lists on which the model is tested hard; `HARD_INPUTS` says which."""
    left_out = torch.randint(19, 35, (size, 1), generator=generator)
    left_out = torch.where(torch.rand(size, 1, generator=generator) < 0.5, left_out, 0)
    start = (torch.rand(size, 1, generator=generator) * (N_NUMBERS - left_out + 1)).long()
    numbers = (torch.rand(size, LENGTH, generator=generator) * (N_NUMBERS - left_out)).long()
    numbers = numbers + left_out * (numbers >= start)
    order = torch.rand(size, LENGTH, generator=generator).argsort(-1)
    copies = torch.randint(1, 4, (size, 1), generator=generator)
    copies = torch.where(torch.rand(size, 1, generator=generator) < 0.5, copies, 0)
    copied = numbers.gather(-1, order[:, :1])
    is_copy = torch.zeros_like(numbers).scatter(-1, order[:, 1:4], (torch.arange(3) < copies).long())
    return from_lists(torch.where(is_copy.bool(), copied, numbers)).tokens


def neighbours(tokens: Int[Tensor, "input 22"], generator: Generator) -> Int[Tensor, "input 22"]:
    """Each list with one of its numbers, at a random place, replaced by one drawn uniformly, and sorted again."""
    lists = tokens[:, 1 : LENGTH + 1].clone()
    place = torch.randint(0, LENGTH, (len(lists), 1), generator=generator)
    number = torch.randint(0, N_NUMBERS, (len(lists), 1), generator=generator)
    return from_lists(lists.scatter(-1, place, number)).tokens
