"""The sum task: four digits plus four digits, written out, and the four digits of the sum.

A sequence is `a+b=c`, one token a character: 14 tokens, positions 0 to 13. Leading digits are 0 to 4, so the
sum has four digits. The digits of the sum are predicted one position ahead: at "=" (position 9) the
thousands, at positions 10, 11 and 12 the hundreds, tens and units. Nothing is asked at the last position.

Places are counted as they are written: place 0 is the thousands, place 3 the units. Column i is the digits of
a and b at place i. A carry *out of* column i is a carry *into* place i - 1.

The task and the data are those of the original challenge (Callum McDougall, "Sum Of Two Numbers", September
2023); the analysis that the lesson starts from is Andy Arditi's.

The shipped models have the seeds 0, 1, 2, 4 and 5. Seed 3 is left out: it ended at 0.9964 of the digits, and 0.999 is
asked for.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.models import ModelConfig, TrainingConfig, as_generator, draw_where, slice_on_card
from exercises_utils.tools import TaskData, mean_cross_entropy, names_of, top_is_right, whole_numbers

CHALLENGE = "sum_of_two_numbers"
PLUS = 10
EQUALS = 11
N_DIGITS = 4
N_CTX = 3 * N_DIGITS + 2
A_POSITIONS = range(N_DIGITS)
B_POSITIONS = range(N_DIGITS + 1, 2 * N_DIGITS + 1)
EQUALS_POSITION = 2 * N_DIGITS + 1
ANSWER_POSITIONS = range(EQUALS_POSITION, EQUALS_POSITION + N_DIGITS)
"""Where the digits of the sum are predicted, thousands first: at "=" and at every digit of the sum but the last."""
PLACES = ("thousands", "hundreds", "tens", "units")

CONFIG = ModelConfig(n_layers=2, d_model=48, n_heads=3, d_head=24, n_ctx=N_CTX, d_vocab=12, d_vocab_out=12)

TRAINING = TrainingConfig(
    optimizer="adam",
    lr=2e-3,
    lr_final=1e-5,
    weight_decay=0.001,
    steps=100 * (100_000 // 512),
    batch_size=512,
    dataset_size=100_000,
    why=(
        "The original settings (L2 inside Adam, 100 epochs), but a learning rate that falls to 1e-5 instead of 1e-4. With "
        "the original's, seed 0 ended at 0.9990 of the digits, and at 0.9988 with the best of its epochs (chosen on other "
        "sums) kept: it went up and down from epoch to epoch, and a few epochs with a rate that fell further settled it. "
        "With 60 epochs it ended at 0.9989."
    ),
)

DATA = (
    "Two numbers of four digits, the leading digit 0 to 4, the others 0 to 9, all as likely. 100,000 sums are "
    "drawn once and gone through in a new order each epoch."
)


@dataclass(frozen=True)
class SumData(TaskData):
    """Sums, as the model reads them."""

    tokens: Int[Tensor, "batch 14"]

    @property
    def labels(self) -> Int[Tensor, "batch 4"]:
        """The right answer at each of the four answer positions: the digits of the sum, thousands first."""
        return self.tokens[:, EQUALS_POSITION + 1 :]

    @property
    def a(self) -> Int[Tensor, "batch 4"]:
        """The digits of the first number, thousands first."""
        return self.tokens[:, A_POSITIONS.start : A_POSITIONS.stop]

    @property
    def b(self) -> Int[Tensor, "batch 4"]:
        """The digits of the second number, thousands first."""
        return self.tokens[:, B_POSITIONS.start : B_POSITIONS.stop]

    def __len__(self) -> int:
        return len(self.tokens)


def make_data(size: int, seed: int | Generator) -> SumData:
    """`size` sums as in training. A seed gives the same on every device.

    >>> make_data(4, seed=0).tokens.shape
    torch.Size([4, 14])
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1.")
    generator = as_generator(seed)

    def number() -> Int[Tensor, "batch 4"]:
        leading = torch.randint(0, 5, (size, 1), generator=generator)
        return torch.cat([leading, torch.randint(0, 10, (size, N_DIGITS - 1), generator=generator)], dim=-1)

    a = number()
    return from_digits(a, number())


def from_digits(a: Int[Tensor, "batch 4"], b: Int[Tensor, "batch 4"]) -> SumData:
    """The sequences for these digits, thousands first; the sum's digits are worked out.

    Raises ValueError for other shapes, for what is no digit, and for a sum of five digits.
    """
    a, b = whole_numbers(a, "a", N_DIGITS, 9), whole_numbers(b, "b", N_DIGITS, 9)
    powers = 10 ** torch.arange(N_DIGITS - 1, -1, -1, device=a.device)
    total = ((a + b) * powers).sum(dim=-1, keepdim=True)
    if (total >= 10**N_DIGITS).any():
        raise ValueError(
            f"the sum must be below {10**N_DIGITS}; got {total.max().item()}. It would have five digits."
        )
    c = total // powers % 10
    column = a.new_ones((len(a), 1))
    return SumData(torch.cat([a, PLUS * column, b, EQUALS * column, c], dim=-1))


def from_numbers(pairs: Int[Tensor, "batch 2"] | list[tuple[int, int]]) -> SumData:
    """The sequences for these pairs of numbers, each from 0 to 9999, with a sum below 10,000."""
    pairs = whole_numbers(pairs, "pairs", 2, 10**N_DIGITS - 1)
    powers = 10 ** torch.arange(N_DIGITS - 1, -1, -1, device=pairs.device)
    digits = pairs[..., None] // powers % 10
    return from_digits(digits[:, 0], digits[:, 1])


def sample(size: int, seed: int | Generator) -> SumData:
    """A batch as the model is trained on and measured on; `make_data` under the name every challenge has."""
    return make_data(size, seed)


def str_tokens(tokens: Int[Tensor, " position"]) -> list[str]:
    """The tokens of one sequence as text: "2", "7", "6", "4", "+", …"""
    return names_of(tokens, {PLUS: "+", EQUALS: "="})


def answer_logits(logits: Float[Tensor, "batch position 12"]) -> Float[Tensor, "batch 4 12"]:
    """The logits at the four positions where the digits of the sum are predicted, thousands first."""
    return logits[:, ANSWER_POSITIONS.start : ANSWER_POSITIONS.stop]


def loss(logits: Float[Tensor, "batch position 12"], data: SumData) -> Float[Tensor, ""]:
    """The mean cross-entropy over sums and places, in nats."""
    return mean_cross_entropy(answer_logits(logits), data.labels)


def correct(logits: Float[Tensor, "batch position 12"], data: SumData) -> Bool[Tensor, "batch 4"]:
    """Whether the top logit is the right digit, at each place."""
    return top_is_right(answer_logits(logits), data.labels)


def carry_in(data: SumData) -> Bool[Tensor, "batch 4"]:
    """Whether a carry comes into each place, thousands first: the digit is not that of a + b alone.

    Nothing carries into the units.
    """
    return (data.a + data.b) % 10 != data.labels


def carry_out(data: SumData) -> Bool[Tensor, "batch 4"]:
    """Whether each column, with the carry into it, comes to ten or more. Nothing comes out of the thousands."""
    return data.a + data.b + carry_in(data).long() >= 10


def longest_cascade(data: SumData) -> Int[Tensor, " batch"]:
    """The longest way that one carry goes: 0 without a carry, else 1 + the columns of sum nine it passes through.

    A column whose digits come to nine passes a carry on; one that comes to ten or more starts its own.
    """
    sums = data.a + data.b
    best = length = torch.zeros_like(sums[:, 0])
    for place in range(N_DIGITS - 1, 0, -1):
        passed_on = (sums[:, place] == 9) & (length > 0)
        length = torch.where(sums[:, place] >= 10, 1, torch.where(passed_on, length + 1, 0))
        best = torch.maximum(best, length)
    return best


def cascade_sums(size: int, length: int, seed: int | Generator) -> SumData:
    """`size` sums, drawn as in training, whose longest cascade has this length, 0 to 3."""
    if not 0 <= length < N_DIGITS:
        raise ValueError(f"length is {length}; a cascade has 0 (no carry) to {N_DIGITS - 1}.")
    generator = as_generator(seed)
    return SumData(
        draw_where(
            lambda tokens: longest_cascade(SumData(tokens)) == length,
            lambda n: make_data(n, generator).tokens,
            size,
        )
    )


def untrained_sums(size: int, seed: int | Generator) -> SumData:
    """`size` sums in which one number has a leading digit 5 to 9 and the sum is below 10,000.

    Valid, but never trained on. Which number it is, is as likely to be a as b.
    """
    generator = as_generator(seed)

    def draw(n: int) -> Int[Tensor, "batch 2"]:
        large = torch.randint(5000, 10_000, (n,), generator=generator)
        small = torch.randint(0, 5000, (n,), generator=generator)
        first = torch.randint(0, 2, (n,), generator=generator).bool()
        return torch.stack([torch.where(first, large, small), torch.where(first, small, large)], dim=-1)

    return from_numbers(draw_where(lambda pairs: pairs.sum(dim=-1) < 10**N_DIGITS, draw, size))


def hard_slices(
    logits_fn: Callable[[Int[Tensor, "batch position"]], Float[Tensor, "batch position 12"]], seed: int
) -> dict[str, dict[str, Any]]:
    """How many sums the model gets right as a whole, over all, by the longest cascade, and beyond training."""
    return {
        name: slice_on_card(correct(logits_fn(data.tokens), data), definition, seed)
        for name, (definition, data) in _hard_data(seed).items()
    }


@functools.cache
def _hard_data(seed: int) -> dict[str, tuple[str, SumData]]:
    """What each slice is, and its data: the same for every model, and slow to draw."""
    n, generator = 20_000, as_generator(seed)
    return {
        "all": ("sums drawn as in training", make_data(n, generator)),
        "cascade_0": ("no carry", cascade_sums(n, 0, generator)),
        "cascade_1": (
            "carries, none of which passes through a column that comes to nine",
            cascade_sums(n, 1, generator),
        ),
        "cascade_2": (
            "a carry that passes through one column that comes to nine, and none through two",
            cascade_sums(n, 2, generator),
        ),
        "cascade_3": (
            "a carry that passes through two columns that come to nine: a run of 9s",
            cascade_sums(n, 3, generator),
        ),
        "untrained": (
            "one leading digit 5 to 9, sum below 10,000 (never trained on)",
            untrained_sums(n, generator),
        ),
    }
