"""The sorted-list task for two heads: ten different numbers, and then the same ten in order.

A sequence is ten different numbers from 0 to 50, SEP, and the sorted list: 21 tokens. The answer is read at
the ten positions 10 to 19: at SEP the smallest number, at each sorted number the next one. Nothing is asked
at the last position.

The task and the data are those of the original challenge (Callum McDougall, "Sorted List", October 2023).
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

CHALLENGE = "sorted_list_two_heads"
N_NUMBERS = 51
SEP = 51
LENGTH = 10
N_CTX = 2 * LENGTH + 1
LIST_POSITIONS = range(LENGTH)
SEP_POSITION = LENGTH
ANSWER_POSITIONS = range(LENGTH, 2 * LENGTH)
"""Where the answers are read: at SEP, and at every sorted number but the last."""

CONFIG = ModelConfig(
    n_layers=1,
    d_model=96,
    n_heads=2,
    d_head=48,
    n_ctx=N_CTX,
    d_vocab=N_NUMBERS + 1,
    d_vocab_out=N_NUMBERS + 1,
)

TRAINING = TrainingConfig(
    optimizer="adam",
    lr=1e-3,
    lr_final=1e-4,
    weight_decay=0.005,
    steps=25 * (150_000 // 512),
    batch_size=512,
    dataset_size=150_000,
    why=(
        "The original challenge's settings. The decay is L2 inside Adam, as there, so Adam rescales it and it "
        "presses hardest on weights with small gradients; with decoupled decay (AdamW) the model becomes nearly "
        "perfect and has little left to explain."
    ),
)

DATA = (
    "Ten different numbers from 0 to 50, each set and order as likely. 150,000 lists are drawn once and gone "
    "through in a new order each epoch."
)


@dataclass(frozen=True)
class SortedListData(TaskData):
    """Lists and their sorted versions, as the model reads them."""

    tokens: Int[Tensor, "batch 21"]

    @property
    def labels(self) -> Int[Tensor, "batch 10"]:
        """The right answer at each of the ten answer positions: the sorted list."""
        return self.tokens[:, SEP_POSITION + 1 :]

    def __len__(self) -> int:
        return len(self.tokens)


def make_data(size: int, seed: int | Generator) -> SortedListData:
    """`size` lists of different numbers. A seed gives the same on every device.

    >>> make_data(4, seed=0).tokens.shape
    torch.Size([4, 21])
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1.")
    return from_lists(torch.rand((size, N_NUMBERS), generator=as_generator(seed)).argsort(dim=-1)[:, :LENGTH])


def from_lists(lists: Int[Tensor, "batch 10"] | list[list[Any]]) -> SortedListData:
    """The sequences for these lists: the list, SEP, the sorted list. Repeats are let through.

    A list with repeats is outside what the model was trained on; lessons use some on purpose.
    Raises ValueError if a list does not have ten numbers, or has one outside 0 to 50.
    """
    lists = whole_numbers(lists, "lists", LENGTH, N_NUMBERS - 1)
    separator = torch.full_like(lists[:, :1], SEP)
    return SortedListData(torch.cat([lists, separator, lists.sort(dim=-1).values], dim=-1))


def sample(size: int, seed: int | Generator) -> SortedListData:
    """A batch as the model is trained on and measured on; `make_data` under the name every challenge has."""
    return make_data(size, seed)


def str_tokens(tokens: Int[Tensor, " position"]) -> list[str]:
    """The tokens of one sequence as text: "7", …, "SEP", …"""
    return names_of(tokens, {SEP: "SEP"})


def answer_logits(logits: Float[Tensor, "batch position 52"]) -> Float[Tensor, "batch 10 52"]:
    """The logits at the ten positions where answers are read: SEP, and all sorted numbers but the last."""
    return logits[:, ANSWER_POSITIONS.start : ANSWER_POSITIONS.stop]


def loss(logits: Float[Tensor, "batch position 52"], data: SortedListData) -> Float[Tensor, ""]:
    """The mean cross-entropy over lists and answer positions, in nats."""
    return mean_cross_entropy(answer_logits(logits), data.labels)


def correct(logits: Float[Tensor, "batch position 52"], data: SortedListData) -> Bool[Tensor, "batch 10"]:
    """Whether the top logit is the right number, at each answer position."""
    return top_is_right(answer_logits(logits), data.labels)


def high_lists(size: int, seed: int | Generator) -> SortedListData:
    """`size` lists of ten different numbers from 30 to 50."""
    chosen = torch.rand((size, N_NUMBERS - 30), generator=as_generator(seed)).argsort(dim=-1)[:, :LENGTH]
    return from_lists(chosen + 30)


def gap_lists(size: int, seed: int | Generator, gap: int = 25) -> SortedListData:
    """`size` lists, drawn as in training, in which two neighbours of the sorted list differ by `gap` or more."""
    generator = as_generator(seed)
    return SortedListData(
        draw_where(
            lambda tokens: largest_gap(SortedListData(tokens)) >= gap,
            lambda n: make_data(n, generator).tokens,
            size,
        )
    )


def repeat_lists(size: int, seed: int | Generator) -> SortedListData:
    """`size` lists with at least one repeat: drawn uniformly from 0 to 50, and kept if a number is repeated.

    Outside what the model was trained on.
    """
    generator = as_generator(seed)

    def draw(n: int) -> Int[Tensor, "batch 21"]:
        return from_lists(torch.randint(0, N_NUMBERS, (n, LENGTH), generator=generator)).tokens

    return SortedListData(
        draw_where(lambda tokens: (SortedListData(tokens).labels.diff(dim=-1) == 0).any(dim=-1), draw, size)
    )


def largest_gap(data: SortedListData) -> Int[Tensor, " batch"]:
    """The largest difference between neighbours in the sorted list."""
    return data.labels.diff(dim=-1).max(dim=-1).values


def hard_slices(
    logits_fn: Callable[[Int[Tensor, "batch position"]], Float[Tensor, "batch position 52"]], seed: int
) -> dict[str, dict[str, Any]]:
    """How many lists the model gets right as a whole, over all and where it is weak."""
    return {
        name: slice_on_card(correct(logits_fn(data.tokens), data), definition, seed)
        for name, (definition, data) in _hard_data(seed).items()
    }


@functools.cache
def _hard_data(seed: int) -> dict[str, tuple[str, SortedListData]]:
    """What each slice is, and its data: the same for every model, and slow to draw."""
    n, generator = 20_000, as_generator(seed)
    return {
        "all": ("lists drawn as in training", make_data(n, generator)),
        "high": ("ten different numbers from 30 to 50", high_lists(n, generator)),
        "gap": (
            "different numbers; two neighbours of the sorted list differ by 25 or more",
            gap_lists(n, generator),
        ),
        "repeats": (
            "numbers drawn uniformly, at least one repeated (never trained on)",
            repeat_lists(n, generator),
        ),
    }
