"""What evidence needs to know of the sum task: valid inputs, margins, and inputs that are hard.

`exercises_utils.evidence` scores circuits, counterexamples and simulations, and its `pools` searches for hard
inputs, with these functions as their only knowledge of the task. An input has four answers:
the digits of the sum.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.sum_of_two_numbers.task import (
    ANSWER_POSITIONS,
    CONFIG,
    EQUALS,
    EQUALS_POSITION,
    N_CTX,
    N_DIGITS,
    PLUS,
    SumData,
    answer_logits,
    carry_in,
    from_digits,
    longest_cascade,
    make_data,
)

CHANCE = 0.12
"""The share of right digits for whoever knows nothing of a sum and always gives the most frequent digits.

A 4 as the thousands is right for 18 % of the sums drawn as in training (a 5 nearly as often); the other digits of
a sum are uniform, so any digit is right for 10 %. The mean over the four places is 12 %.
"""

N_ANSWERS = 10
"""Digits. A "+" or a "=" for an answer would be a mistake like another."""

KINDS: tuple[str, ...] = (
    "no carry",
    "carries, none through a nine",
    "a carry through one nine",
    "a carry through two nines",
    "a leading digit 5 to 9",
)
"""A nine is a column whose digits come to nine: it passes a carry on. The last kind, whatever its carries."""

HARD_INPUTS = (
    "In one sum in four, one number has a leading digit 5 to 9 and the sum is below 10,000; in the others both "
    "leading digits are 0 to 4. The two digits of each other column come to nine with probability 1/2, to ten "
    "with probability 1/4, and are drawn uniformly otherwise."
)

SITES: tuple[tuple[int, ...], ...] = tuple(
    (layer, head, position)
    for layer in range(CONFIG.n_layers)
    for head in range(CONFIG.n_heads)
    for position in (range(ANSWER_POSITIONS.stop) if layer < CONFIG.n_layers - 1 else ANSWER_POSITIONS)
)
"""Heads at positions that can matter: the answers are read at 9 to 12, and nothing looks ahead."""

LARGEST_CIRCUIT = 32
"""Random circuits are stored up to this size: what it takes to do nearly all of the work."""

_PAIRS = torch.cartesian_prod(torch.arange(10), torch.arange(10))  # (pair, a and b)


def why_invalid(tokens: Int[Tensor, " position"]) -> str | None:
    """Why a sequence is not a valid input, or None if it is: `a+b=c`, four digits each, and c is the sum.

    >>> why_invalid(torch.tensor([1, 2, 10, 3, 11]))
    'has 5 tokens; expected 14: four digits, "+", four digits, "=", four digits'
    """
    if len(tokens) != N_CTX:
        return f'has {len(tokens)} tokens; expected {N_CTX}: four digits, "+", four digits, "=", four digits'
    values = tokens.tolist()
    if (values[N_DIGITS], values[EQUALS_POSITION]) != (PLUS, EQUALS):
        return (
            f"has {values[N_DIGITS]} at position {N_DIGITS} and {values[EQUALS_POSITION]} at {EQUALS_POSITION}; "
            f'expected "+" ({PLUS}) and "=" ({EQUALS})'
        )
    for position, value in enumerate(values):
        if position not in (N_DIGITS, EQUALS_POSITION) and not 0 <= value < 10:
            return f"has {value} at position {position}; expected a digit"
    a, b, c = (
        int("".join(map(str, values[start : start + N_DIGITS])))
        for start in (0, N_DIGITS + 1, EQUALS_POSITION + 1)
    )
    if a + b >= 10**N_DIGITS:
        return f"is {a} + {b}, which is {a + b}; the sum must be below {10**N_DIGITS}"
    if a + b != c:
        return f"says {a} + {b} = {c}; the tokens after the equals sign must be the digits of {a + b}"
    return None


def in_distribution(tokens: Int[Tensor, "input 14"]) -> Bool[Tensor, " input"]:
    """Whether a sum could be in the training data: both leading digits are 0 to 4."""
    data = SumData(tokens)
    return (data.a[:, 0] < 5) & (data.b[:, 0] < 5)


def right_answers(tokens: Int[Tensor, "input 14"]) -> Int[Tensor, "input 4"]:
    """The digits of the sum, thousands first."""
    return SumData(tokens).labels


def answers(logits: Float[Tensor, "input position 12"]) -> Int[Tensor, "input 4"]:
    """The model's four answers."""
    return answer_logits(logits).argmax(-1)


def margin(
    logits: Float[Tensor, "input position 12"], tokens: Int[Tensor, "input 14"]
) -> Float[Tensor, " input"]:
    """The largest lead of a wrong answer over the right one, among the four digits: above 0 the model is wrong."""
    read, right = answer_logits(logits), right_answers(tokens)[..., None].to(logits.device)
    wrong = read.scatter(-1, right, float("-inf")).amax(-1)
    return (wrong - read.gather(-1, right)[..., 0]).amax(-1)


def kinds(tokens: Int[Tensor, "input 14"]) -> Int[Tensor, " input"]:
    """Which of `KINDS` each sum is."""
    return torch.where(in_distribution(tokens), longest_cascade(SumData(tokens)), len(KINDS) - 1)


def typical_inputs(size: int, generator: Generator) -> Int[Tensor, "input 14"]:
    """Sums as the model was trained on."""
    return make_data(size, generator).tokens


def hard_inputs(size: int, generator: Generator) -> Int[Tensor, "input 14"]:
    """Sums on which the model is tested hard; `HARD_INPUTS` says which."""
    sums = _PAIRS.sum(-1)
    wanted = torch.rand(size, N_DIGITS - 1, generator=generator)[..., None]
    allowed = torch.where(wanted < 0.5, sums == 9, torch.where(wanted < 0.75, sums == 10, True))
    lower = torch.stack([_draw(allowed[:, i], generator) for i in range(N_DIGITS - 1)], dim=1)
    zeros = torch.zeros(size, 1, 2, dtype=torch.long)
    carry = carry_in(from_digits(*torch.cat([zeros, lower], dim=1).unbind(-1)))[:, :1]
    large = _PAIRS >= 5
    untrained = large.any(-1) & (sums + carry < 10)
    beyond = torch.rand(size, 1, generator=generator) < 0.25
    leading = _draw(torch.where(beyond, untrained, ~large.any(-1)), generator)
    return from_digits(*torch.cat([leading[:, None], lower], dim=1).unbind(-1)).tokens


def neighbours(tokens: Int[Tensor, "input 14"], generator: Generator) -> Int[Tensor, "input 14"]:
    """Each sum with new digits in one column, of the same kind as before, and with the same carries.

    The new digits come to nine, to more or to less where the old ones do, and to ten or more where those and the
    carry do. Leading digits stay 5 to 9 or below 5.
    """
    data, rows = SumData(tokens), torch.arange(len(tokens))
    place = torch.randint(0, N_DIGITS, (len(tokens),), generator=generator)
    digits = torch.stack([data.a, data.b], dim=-1)
    old = digits[rows, place]
    sums, old_sum = _PAIRS.sum(-1), old.sum(-1, keepdim=True)
    same_carries = (sums - 9).sign() == (old_sum - 9).sign()
    still_a_sum = sums + carry_in(data)[:, :1] < 10
    same_side = ((_PAIRS >= 5) == (old[:, None] >= 5)).all(-1)
    allowed = torch.where(place[:, None] > 0, same_carries, same_side & still_a_sum)
    digits[rows, place] = _draw(allowed, generator)
    return from_digits(*digits.unbind(-1)).tokens


def _draw(allowed: Bool[Tensor, "input 100"], generator: Generator) -> Int[Tensor, "input 2"]:
    """For each input one of the pairs of digits that are allowed, all as likely."""
    return _PAIRS[torch.multinomial(allowed.float(), 1, generator=generator)[:, 0]]
