"""What the checks of lesson 04 share: the lesson's model, random models of other shapes, and pairs of sums."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.checking import Draw, Fresh, model_family
from exercises_utils.models import load_model
from exercises_utils.tools import hooks

lesson_model = Fresh(lambda: load_model(task.CHALLENGE, device="cpu"))

FAMILY = model_family(task.CHALLENGE, replace(task.CONFIG, d_vocab=22, d_vocab_out=22), n_ctx=(18, 14))
"""Ten digits are in the vocabulary of each: 12, 26 and 11 tokens."""


def sums(draw: Draw) -> Int[Tensor, "sequence 14"]:
    """Sums for the lesson's model, random tokens for another; as long as sums are."""
    if draw.is_lesson:
        return task.make_data(draw.batch, draw.generator).tokens
    return draw.randint(0, draw.model.cfg.d_vocab, draw.batch, task.N_CTX)


def randn(*shape: int, seed: int) -> Tensor:
    """Normal numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recorded(model: Any, tokens: Tensor, *names: str) -> list[Tensor]:
    """Activations of a run, by their full names."""
    with hooks.record(model, *names) as seen:
        model(tokens)
    return [seen[name] for name in names]


def answer_logits(model: Any, tokens: Tensor) -> Tensor:
    """The logits at the four answer positions: (sequence, place, token)."""
    return model(tokens)[:, 9:13]


def _carry_pairs(place: int, size: int = 64) -> tuple[task.SumData, task.SumData]:
    """Pairs of sums that differ in the carry into `place`, in the columns below it, and not in the sum above it."""
    generator = torch.Generator().manual_seed(900 + place)
    base, other = (task.make_data(4 * size, generator) for _ in range(2))
    a, b = (
        torch.cat([old[:, : place + 1], new[:, place + 1 :]], dim=1)
        for old, new in ((base.a, other.a), (base.b, other.b))
    )
    source = task.from_digits(a, b)
    differs = task.carry_in(base)[:, place] != task.carry_in(source)[:, place]
    keep = differs & (base.labels[:, :place] == source.labels[:, :place]).all(-1)
    return task.SumData(base.tokens[keep][:size]), task.SumData(source.tokens[keep][:size])


@functools.cache
def flip_rates(place: int) -> dict[tuple[int, int, int], float]:
    """How often a swap of what one head of layer 0 writes at one position turns the digit into the source's.

    For every head of layer 0 and every position that the answer at this place can see.
    """
    model, (base, source) = lesson_model.get(), _carry_pairs(place)
    (z,) = recorded(model, source.tokens, get_act_name("z", 0))
    rates = {}
    for head, position in itertools.product(
        range(model.cfg.n_heads), range(task.EQUALS_POSITION + place + 1)
    ):
        with hooks.patch(model, "z", 0, z, heads=[head], positions=[position]):
            digits = answer_logits(model, base.tokens)[:, place].argmax(-1)
        rates[0, head, position] = (digits == source.labels[:, place]).double().mean().item()
    return rates
