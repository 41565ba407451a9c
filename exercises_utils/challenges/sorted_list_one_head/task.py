"""The sorted-list task for one head: ten numbers, possibly repeated, and then the same ten in order.

A sequence is BOS, ten numbers from 0 to 49, MID, and the sorted list: 22 tokens. The answer is read at the
ten positions 11 to 20: at MID the smallest number, at each sorted number the next one. Nothing is asked at
the last position. There are 50 logits, one a number: the model cannot answer BOS or MID.

The task and the data are those of the original challenge (Connor Kissane, "Sorting fixed-length lists").
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

CHALLENGE = "sorted_list_one_head"
N_NUMBERS = 50
BOS = 50
MID = 51
LENGTH = 10
N_CTX = 2 * LENGTH + 2
LIST_POSITIONS = range(1, LENGTH + 1)
MID_POSITION = LENGTH + 1
ANSWER_POSITIONS = range(LENGTH + 1, 2 * LENGTH + 1)
"""Where the answers are read: at MID, and at every sorted number but the last."""

CONFIG = ModelConfig(
    n_layers=1,
    d_model=128,
    n_heads=1,
    d_head=128,
    n_ctx=N_CTX,
    d_vocab=N_NUMBERS + 2,
    d_vocab_out=N_NUMBERS,
    normalization=None,
    attention_biases=False,
    unembed_bias=False,
)

TRAINING = TrainingConfig(
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    betas=(0.9, 0.98),
    steps=10_000,
    batch_size=256,
    why=(
        "The original challenge's settings. The decay is decoupled (AdamW), as there: it shrinks all weights at "
        "the same slow rate, whatever their gradients."
    ),
)

DATA = "Ten numbers drawn uniformly from 0 to 49, with repeats. Every training step draws a fresh batch."


@dataclass(frozen=True)
class SortedListData(TaskData):
    """Lists and their sorted versions, as the model reads them."""

    tokens: Int[Tensor, "batch 22"]

    @property
    def labels(self) -> Int[Tensor, "batch 10"]:
        """The right answer at each of the ten answer positions: the sorted list."""
        return self.tokens[:, MID_POSITION + 1 :]

    def __len__(self) -> int:
        return len(self.tokens)


def make_data(size: int, seed: int | Generator) -> SortedListData:
    """`size` lists of numbers drawn uniformly. A seed gives the same on every device.

    >>> make_data(4, seed=0).tokens.shape
    torch.Size([4, 22])
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1.")
    return from_lists(torch.randint(0, N_NUMBERS, (size, LENGTH), generator=as_generator(seed)))


def from_lists(lists: Int[Tensor, "batch 10"] | list[list[Any]]) -> SortedListData:
    """The sequences for these lists: BOS, the list, MID, the sorted list.

    Raises ValueError if a list does not have ten numbers, or has one outside 0 to 49.
    """
    lists = whole_numbers(lists, "lists", LENGTH, N_NUMBERS - 1)
    column = lists.new_ones((len(lists), 1))
    return SortedListData(torch.cat([BOS * column, lists, MID * column, lists.sort(dim=-1).values], dim=-1))


def sample(size: int, seed: int | Generator) -> SortedListData:
    """A batch as the model is trained on and measured on; `make_data` under the name every challenge has."""
    return make_data(size, seed)


def str_tokens(tokens: Int[Tensor, " position"]) -> list[str]:
    """The tokens of one sequence as text: "BOS", "7", …, "MID", …"""
    return names_of(tokens, {BOS: "BOS", MID: "MID"})


def answer_logits(logits: Float[Tensor, "batch position 50"]) -> Float[Tensor, "batch 10 50"]:
    """The logits at the ten positions where answers are read: MID, and all sorted numbers but the last."""
    return logits[:, ANSWER_POSITIONS.start : ANSWER_POSITIONS.stop]


def loss(logits: Float[Tensor, "batch position 50"], data: SortedListData) -> Float[Tensor, ""]:
    """The mean cross-entropy over lists and answer positions, in nats."""
    return mean_cross_entropy(answer_logits(logits), data.labels)


def correct(logits: Float[Tensor, "batch position 50"], data: SortedListData) -> Bool[Tensor, "batch 10"]:
    """Whether the top logit is the right number, at each answer position."""
    return top_is_right(answer_logits(logits), data.labels)


def has_triple(data: SortedListData) -> Bool[Tensor, " batch"]:
    """Which lists hold some number three times or more."""
    return (data.labels[:, 2:] == data.labels[:, :-2]).any(dim=-1)


def largest_gap(data: SortedListData) -> Int[Tensor, " batch"]:
    """The largest difference between neighbours in the sorted list."""
    return data.labels.diff(dim=-1).max(dim=-1).values


def triple_lists(size: int, seed: int | Generator) -> SortedListData:
    """`size` lists, drawn as in training, that hold some number three times or more (about 1 in 24)."""
    return _lists_where(has_triple, size, seed)


def gap_lists(size: int, seed: int | Generator, gap: int = 20) -> SortedListData:
    """`size` lists, drawn as in training, in which two neighbours of the sorted list differ by `gap` or more."""
    return _lists_where(lambda data: largest_gap(data) >= gap, size, seed)


def hard_slices(
    logits_fn: Callable[[Int[Tensor, "batch position"]], Float[Tensor, "batch position 50"]], seed: int
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
        "triple": ("lists that hold some number three times or more", triple_lists(n, generator)),
        "gap": (
            "lists in which two neighbours of the sorted list differ by 20 or more",
            gap_lists(n, generator),
        ),
    }


def _lists_where(
    keep: Callable[[SortedListData], Bool[Tensor, " batch"]], size: int, seed: int | Generator
) -> SortedListData:
    generator = as_generator(seed)
    return SortedListData(
        draw_where(
            lambda tokens: keep(SortedListData(tokens)), lambda n: make_data(n, generator).tokens, size
        )
    )
