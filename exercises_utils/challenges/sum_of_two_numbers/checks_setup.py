"""What the checks of lesson 04 share: the lesson's model, random models of other shapes, and pairs of sums."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.checking import Fresh
from exercises_utils.models import ModelConfig, build_model, load_model
from exercises_utils.tools import hooks

LESSON = "the lesson's model"
TWO_LAYERS = "a random model with 2 layers and 4 heads"
THREE_LAYERS = "a random model with 3 layers and 2 heads"
TWO_HEADS = "a random model with 2 layers and 2 heads"

lesson_model = Fresh(lambda: load_model(task.CHALLENGE, device="cpu"))

_OTHER_SHAPES = {
    TWO_LAYERS: ModelConfig(
        n_layers=2, n_heads=4, d_model=20, d_head=6, n_ctx=14, d_vocab=13, d_vocab_out=14
    ),
    THREE_LAYERS: ModelConfig(
        n_layers=3, n_heads=2, d_model=26, d_head=7, n_ctx=14, d_vocab=15, d_vocab_out=17
    ),
    TWO_HEADS: ModelConfig(n_layers=2, n_heads=2, d_model=18, d_head=5, n_ctx=14, d_vocab=12, d_vocab_out=12),
}
MODELS = {
    LESSON: lesson_model,
    **{
        name: Fresh(functools.partial(build_model, config, seed=29 + i, device="cpu"))
        for i, (name, config) in enumerate(_OTHER_SHAPES.items())
    },
}
"""The lesson's model, and models with random weights, biases that are not zero, and LayerNorms that are not plain."""


def random_tokens(model: Any, size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Random tokens of the full length for a model of any vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.cfg.d_vocab, (size, task.N_CTX), generator=generator)


def some_tokens(name: str, size: int, seed: int) -> Int[Tensor, "sequence position"]:
    """Sums for the lesson's model, random tokens for another."""
    if name == LESSON:
        return task.make_data(size, seed).tokens
    return random_tokens(MODELS[name].get(), size, seed)


def recorded(model: Any, tokens: Tensor, *names: str) -> list[Tensor]:
    """Activations of a run, by their full names."""
    with hooks.record(model, *names) as seen:
        model(tokens)
    return [seen[name] for name in names]


def later(fresh: Fresh, function: Callable[..., Tensor], *arguments: Any) -> Callable[[], Tensor]:
    """A wrong value that is computed when it is needed, on the model that the check has then."""
    return lambda: function(fresh.get(), *arguments)


def answer_logits(model: Any, tokens: Tensor) -> Tensor:
    """The logits at the four answer positions: (sequence, place, token)."""
    return model(tokens)[:, 9:13]


def carry_pairs(
    place: int, flip: bool, size: int, seed: int
) -> tuple[Int[Tensor, "pair 14"], Int[Tensor, "pair 14"]]:
    """Pairs of sums that differ only in the columns below `place`, with the same digits of the sum above it.

    With `flip` the two differ in the carry into `place`, without it they agree in it.
    """
    generator = torch.Generator().manual_seed(seed)
    kept: list[tuple[Tensor, Tensor]] = []
    while sum(len(base) for base, _ in kept) < size:
        base, other = task.make_data(4 * size, generator), task.make_data(4 * size, generator)
        a, b = (
            torch.cat([old[:, : place + 1], new[:, place + 1 :]], dim=1)
            for old, new in ((base.a, other.a), (base.b, other.b))
        )
        source = task.from_digits(a, b)
        differs = task.carry_in(base)[:, place] != task.carry_in(source)[:, place]
        same_above = (base.labels[:, :place] == source.labels[:, :place]).all(-1)
        keep = (differs == flip) & same_above
        kept.append((base.tokens[keep], source.tokens[keep]))
    base_tokens, source_tokens = (torch.cat(side)[:size] for side in zip(*kept, strict=True))
    return base_tokens, source_tokens


@functools.cache
def carry_pairs_of(place: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """Pairs that differ in the carry, always the same."""
    return carry_pairs(place, True, size, seed=900 + place)


@functools.cache
def flip_rates(place: int) -> dict[tuple[int, int, int], float]:
    """How often a swap of what one head of layer 0 writes at one position turns the digit into the source's.

    For every head of layer 0 and every position that the answer at this place can see.
    """
    model = lesson_model.get()
    base, source = carry_pairs_of(place)
    name = get_act_name("z", 0)
    positions = range(task.EQUALS_POSITION + place + 1)
    (from_source,) = recorded(model, source, name)
    sites = [(0, head, position) for head in range(model.cfg.n_heads) for position in positions]
    rates: dict[tuple[int, int, int], float] = {}
    for some in (sites[i : i + 12] for i in range(0, len(sites), 12)):

        def put(z: Tensor, hook: Any, some: list[tuple[int, int, int]] = some) -> Tensor:
            z = z.clone().view(len(some), len(base), *z.shape[1:])
            for i, (_, head, position) in enumerate(some):
                z[i, :, position, head] = from_source[:, position, head]
            return z.flatten(0, 1)

        with model.hooks(fwd_hooks=[(name, put)]):
            logits = model(base.repeat(len(some), 1))
        digits = logits[:, task.EQUALS_POSITION + place].argmax(-1).view(len(some), len(base))
        turned = (digits == source[:, task.EQUALS_POSITION + 1 + place]).double().mean(-1)
        rates |= dict(zip(some, turned.tolist(), strict=True))
    return rates


def best_carry_site(place: int) -> tuple[int, int, int]:
    """The head of layer 0 and the position whose swap turns the digit at `place` most often."""
    rates = flip_rates(place)
    return max(rates, key=lambda site: rates[site])
