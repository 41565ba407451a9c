"""Data that is drawn on purpose where a model is weak, and how a card says what it found there."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_where(
    keep: Callable[[Int[Tensor, "batch position"]], Bool[Tensor, " batch"]],
    draw: Callable[[int], Int[Tensor, "batch position"]],
    size: int,
    *,
    at_once: int = 20_000,
) -> Int[Tensor, "size position"]:
    """`size` rows, drawn with `draw(at_once)` again and again, of which those stay for which `keep` is true.

    So they are distributed as `draw` gives them, under the condition. Raises ValueError for a size below 1,
    and if a million rows are drawn without one that stays.
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1.")
    kept: list[Tensor] = []
    found = drawn = 0
    while found < size:
        rows = draw(at_once)
        rows = rows[keep(rows)]
        kept.append(rows)
        found, drawn = found + len(rows), drawn + at_once
        if not found and drawn >= 1_000_000:
            raise ValueError("none of a million rows meets the condition; is it too narrow?")
    return torch.cat(kept)[:size]


def slice_on_card(right: Bool[Tensor, "batch answer"], definition: str, seed: int) -> dict[str, Any]:
    """What a card says of one slice: accuracy of whole examples, and by answer position (shares from 0 to 1)."""
    return {
        "definition": f"{definition}; accuracy counts examples that are right at every answer position",
        "seed": seed,
        "n": len(right),
        "accuracy": round(right.all(dim=-1).double().mean().item(), 6),
        "accuracy_by_position": [round(value, 6) for value in right.double().mean(dim=0).tolist()],
    }
