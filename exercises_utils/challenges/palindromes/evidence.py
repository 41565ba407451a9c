"""What evidence needs to know of the palindromes task: valid inputs, margins, and inputs that are hard.

`exercises_utils.evidence` scores circuits, counterexamples and simulations, and its `pools` searches for hard
inputs, with these functions as their only knowledge of the task.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.palindromes.task import (
    CONFIG,
    END,
    LENGTH,
    N_CTX,
    N_PAIRS,
    N_VALUES,
    START,
    make_data,
)

CHANCE = 0.5
N_ANSWERS = 2
KINDS = (
    "palindrome",
    *(f"only pair {pair} differs" for pair in range(1, N_PAIRS + 1)),
    "several pairs differ",
)

HARD_INPUTS = (
    "Half palindromes. Of the others three quarters have exactly one mismatched pair, each of the ten pairs "
    "as likely, and one quarter have exactly two. One sequence in four has only three different values or "
    "fewer in its first half before a pair is mismatched, the others ten values drawn uniformly."
)

SITES: tuple[tuple[int, ...], ...] = tuple(
    (layer, head, position)
    for layer in range(CONFIG.n_layers)
    for head in range(CONFIG.n_heads)
    for position in range(N_CTX)
    if layer < CONFIG.n_layers - 1 or position == N_CTX - 1
)
"""Heads at positions that can matter: the answer is read at END, so the last layer's other outputs do not."""


def why_invalid(tokens: Int[Tensor, " position"]) -> str | None:
    """Why a sequence is not a valid input, or None if it is: START, twenty values from 0 to 30, END.

    >>> why_invalid(torch.tensor([31, 1, 2, 32]))
    'has 4 tokens; expected 22: START, 20 values, END'
    """
    if len(tokens) != N_CTX:
        return f"has {len(tokens)} tokens; expected {N_CTX}: START, {LENGTH} values, END"
    if tokens[0] != START or tokens[-1] != END:
        ends = f"starts with {int(tokens[0])} and ends with {int(tokens[-1])}"
        return f"{ends}; expected START ({START}) and END ({END})"
    for position, value in enumerate(tokens.tolist()):
        if 0 < position <= LENGTH and not 0 <= value < N_VALUES:
            return f"has {value} at position {position}; expected a value from 0 to {N_VALUES - 1}"
    return None


def in_distribution(tokens: Int[Tensor, "input 22"]) -> Bool[Tensor, " input"]:
    """Whether a sequence looks like the training data: six different values or more in its first half.

    999 of 1,000 training sequences do. Any number of mismatched pairs is in distribution: training draws
    every mismatch with the same probability.
    """
    ordered = tokens[:, 1 : N_PAIRS + 1].sort(dim=-1).values
    return 1 + (ordered.diff(dim=-1) != 0).sum(-1) >= 6


def mismatches(tokens: Int[Tensor, "input 22"]) -> Bool[Tensor, "input pair"]:
    """Which pairs differ, the outermost pair (1, 20) first."""
    return (tokens != tokens.flip(-1))[:, 1 : N_PAIRS + 1]


def right_answers(tokens: Int[Tensor, "input 22"]) -> Int[Tensor, " input"]:
    """1 for a palindrome, 0 for another sequence."""
    return (~mismatches(tokens).any(-1)).long()


def answers(logits: Float[Tensor, "input position 2"]) -> Int[Tensor, " input"]:
    """The model's answer at END."""
    return logits[:, -1].argmax(-1)


def margin(
    logits: Float[Tensor, "input position 2"], tokens: Int[Tensor, "input 22"]
) -> Float[Tensor, " input"]:
    """The logit of the wrong answer minus that of the right one, at END: above 0 the model is wrong."""
    palindrome_minus_other = logits[:, -1, 1] - logits[:, -1, 0]
    return torch.where(
        right_answers(tokens).bool().to(logits.device), -palindrome_minus_other, palindrome_minus_other
    )


def kinds(tokens: Int[Tensor, "input 22"]) -> Int[Tensor, " input"]:
    """Which of `KINDS` each sequence is."""
    differs = mismatches(tokens)
    only = differs.long().argmax(-1) + 1
    return torch.where(differs.sum(-1) == 1, only, (differs.sum(-1) > 1) * (N_PAIRS + 1))


def typical_inputs(size: int, generator: Generator) -> Int[Tensor, "input 22"]:
    """Sequences as the model was trained on: half of them palindromes."""
    return make_data(size, generator).tokens


def hard_inputs(size: int, generator: Generator) -> Int[Tensor, "input 22"]:
    """Sequences on which the model is tested hard; `HARD_INPUTS` says which."""
    n_different = torch.where(torch.rand(size, generator=generator) < 0.25, 3, N_VALUES)
    palette = torch.rand(size, N_VALUES, generator=generator).argsort(-1)
    chosen = (torch.rand(size, N_PAIRS, generator=generator) * n_different[:, None]).long()
    first_half = palette.gather(-1, chosen)
    values = torch.cat([first_half, first_half.flip(-1)], dim=-1)
    kind = torch.rand(size, generator=generator)
    pairs = torch.rand(size, N_PAIRS, generator=generator).argsort(-1)
    shift = torch.randint(1, N_VALUES, (size, 2), generator=generator)
    for which, share in ((0, 0.5), (1, 0.125)):  # a first mismatched pair in half, a second in an eighth
        column = LENGTH - 1 - pairs[:, which : which + 1]
        old = values.gather(-1, column)
        new = (old + shift[:, which : which + 1]) % N_VALUES
        values.scatter_(-1, column, torch.where(kind[:, None] < share, new, old))
    return _framed(values)


def neighbours(tokens: Int[Tensor, "input 22"], generator: Generator) -> Int[Tensor, "input 22"]:
    """Each sequence with new values in one pair, of the same kind as before: a matched pair stays matched."""
    tokens = tokens.clone()
    rows = torch.arange(len(tokens))
    pair = torch.randint(1, N_PAIRS + 1, (len(tokens),), generator=generator)
    left = torch.randint(0, N_VALUES, (len(tokens),), generator=generator)
    shift = torch.randint(1, N_VALUES, (len(tokens),), generator=generator)
    matched = tokens[rows, pair] == tokens[rows, N_CTX - 1 - pair]
    tokens[rows, pair] = left
    tokens[rows, N_CTX - 1 - pair] = torch.where(matched, left, (left + shift) % N_VALUES)
    return tokens


def _framed(values: Int[Tensor, "input 20"]) -> Int[Tensor, "input 22"]:
    tokens = torch.nn.functional.pad(values, (1, 1), value=START)
    tokens[:, -1] = END
    return tokens
