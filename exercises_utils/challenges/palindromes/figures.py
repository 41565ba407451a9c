"""What write-up 002 published of its model, and how it was measured.

The attributions leave out the LayerNorm scales, as published; the lesson's own do not.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import task
from exercises_utils.evidence import Claim, Figure, Models, span
from exercises_utils.tools import ablate, circuits, record

HEADS = ((0, 0), (0, 1), (1, 0), (1, 1))
PUBLISHED = {
    ("mean", "q"): (1.289652, 0.003820, 0.000157, 0.000120),
    ("mean", "k"): (0.943367, 0.027934, 0.212145, 0.000974),
    ("mean", "v"): (0.907760, 0.002849, 0.679784, -0.000047),
    ("zero", "q"): (2.908568, -0.000526, 1.841271, -0.001488),
}


def _data(n: int, of: int = 500) -> task.PalindromeData:
    """The first sequences of `of` drawn with seed 42 (the size of a draw changes its sequences)."""
    data = task.make_data(of, seed=42)
    return task.PalindromeData(data.tokens[:n], data.is_palindrome[:n])


def _loss(model: Any, n: int = 500) -> float:
    data = _data(n)
    return float(task.loss(model(data.tokens.to(model.W_E.device)).cpu(), data))


def _ablated(model: Any, head: tuple[int, int], how: str, activation: str) -> float:
    before = _loss(model, 200)
    with ablate(model, [head], activation=activation, how=how):
        return _loss(model, 200) - before


def _attribution(model: Any, tokens: Int[Tensor, "sequence position"]) -> Float[Tensor, "sequence position"]:
    """What the values of 0.0 would add, through the OV circuit of 1.0, to "no palindrome" minus "palindrome"."""
    name = get_act_name("v", 0)
    with record(model, name) as seen:
        model(tokens.to(model.W_E.device))
    written = seen[name][:, :, 0] @ model.W_O[0, 0]
    direction = model.W_U[:, 0] - model.W_U[:, 1]
    return written @ model.W_V[1, 0] @ model.W_O[1, 0] @ direction


def _own_token_on_top(model: Any) -> float:
    """The share of values that attend most to themselves by the token circuit of 0.0."""
    values = model.W_E[: task.N_VALUES]
    scores = circuits.qk_scores(model, (0, 0), values, values)
    return float((scores.argmax(-1).cpu() == torch.arange(task.N_VALUES)).double().mean())


FIGURES = (
    Figure("loss, 500 sequences (seed 42), nats", 0.0137133, 7, _loss),
    *(
        Figure(
            f"{how} ablation of {activation} in {layer}.{head}, 200 sequences, nats",
            value,
            6,
            functools.partial(_ablated, head=(layer, head), how=how, activation=activation),
        )
        for (how, activation), values in PUBLISHED.items()
        for (layer, head), value in zip(HEADS, values, strict=True)
    ),
    Figure(
        "attribution of position 13 of example 2, 100 sequences (no LayerNorm scales)",
        20.1647,
        4,
        lambda m: float(_attribution(m, _data(5, of=100).tokens)[2, 13]),
    ),
    Figure(
        "std of these over 100 sequences, mean over positions 1 to 20",
        1.6622,
        4,
        lambda m: float(_attribution(m, _data(100, of=100).tokens)[:, 1:21].std(dim=0).mean()),
    ),
    Figure("values with their own token on top in the circuit of 0.0", 1.0, 1, _own_token_on_top),
)


def _comparing_head(model: Mapping[str, Any]) -> str:
    """The head of layer 0 whose mean ablation costs more."""
    return max(("0.0", "0.1"), key=lambda head: model["ablations"][head])


def in_common(models: Models) -> list[Claim]:
    """What holds in every model of palindromes."""
    ratios, others = [], []
    for m in models.values():
        layer_0 = sorted(m["ablations"][f"0.{head}"] for head in (0, 1))
        ratios.append(layer_0[1] / max(abs(layer_0[0]), 1e-3))
        others.append(layer_0[0])
    has_both = [
        _comparing_head(m) in m["circuit"]["members"]
        and any(label.startswith("1.") for label in m["circuit"]["members"])
        for m in models.values()
    ]
    slices = [m["slices"] for m in models.values()]
    weakest = [min(value for name, value in s.items() if name.startswith("pair")) for s in slices]
    return [
        Claim(
            f"*Palindromes*: one head of layer 0 compares. Its mean ablation costs at least {min(ratios):.0f} times as "
            f"much as the other's ({span(others, 3)} nats), and every circuit has it, and a reader of layer 1.",
            min(ratios) > 5 and all(has_both),
        ),
        Claim(
            f"Each is nearly perfect on data as in training ({span((m['accuracy'] for m in models.values()), 3)} right) and "
            f"has a weak pair of places: of the sequences with only this pair out of order it notices {span(weakest)}.",
            max(weakest) < 0.8 and min(m["accuracy"] for m in models.values()) > 0.99,
        ),
    ]


def of_its_own(models: Models) -> list[Claim]:
    """Where the models of palindromes differ."""
    pairs, matching, readers = {}, [], []
    for name, m in models.items():
        by_pair = {key: value for key, value in m["slices"].items() if key.startswith("pair")}
        weak = [key for key in by_pair if by_pair[key] < 0.8]
        pairs[name] = " and ".join(key.removeprefix("pair ") for key in weak)
        matching.append(_comparing_head(m))
        readers.append(sorted(m["ablations"][f"1.{head}"] for head in (0, 1)))
    where = ", ".join(f"{pair} in `{name}`" for name, pair in pairs.items())
    shares = [high / (low + high) for low, high in readers]
    return [
        Claim(
            f"*Palindromes*: which pairs are weak ({where}); which head of layer 0 compares (0.0 in "
            f"{matching.count('0.0')} models, 0.1 in {matching.count('0.1')}); and how the two heads of layer 1 share the "
            f"reading (the costlier has {span(shares)} of the cost of both).",
            len(set(pairs.values())) > 2
            and min(matching.count(head) for head in ("0.0", "0.1")) > 0
            and max(shares) > min(shares) + 0.2,
        )
    ]
