"""Token sequences, and answers read at several of their positions: what the tasks have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Drawn = TypeVar("Drawn", bound="TaskData")


@dataclass(frozen=True)
class TaskData:
    """What a task draws, in tensors: on the CPU, so that a seed gives the same everywhere."""

    def to(self: Drawn, device: str | torch.device) -> Drawn:
        """The same on a device: `data.to(model.cfg.device)` is where the model is, and so are its labels."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def names_of(tokens: Int[Tensor, "..."], special: Mapping[int, str]) -> list[str]:
    """The tokens of one sequence as text: a number as it is, a special token by its name.

    >>> names_of(torch.tensor([50, 7, 51]), {50: "BOS", 51: "MID"})
    ['BOS', '7', 'MID']
    """
    if tokens.ndim != 1:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}; expected one sequence, (position,). Index one."
        )
    return [special.get(token, str(token)) for token in tokens.tolist()]


def whole_numbers(rows: Any, name: str, width: int, highest: int) -> Int[Tensor, "batch width"]:
    """`rows` as a tensor, if it is a table of `width` columns of whole numbers from 0 to `highest`.

    Raises ValueError, with `name` as what it calls the table, if it is not.
    """
    try:
        rows = torch.as_tensor(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as a table: {error}. Are all rows of one length?") from None
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}; expected (batch, {width}).")
    if rows.is_floating_point() or not ((rows >= 0) & (rows <= highest)).all():
        raise ValueError(f"{name} must hold whole numbers from 0 to {highest}; got {rows}.")
    return rows


def mean_cross_entropy(
    logits: Float[Tensor, "batch answer vocabulary"], labels: Int[Tensor, "batch answer"]
) -> Float[Tensor, ""]:
    """The mean cross-entropy over the batch and the answers, in nats."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.to(logits.device).flatten())


def top_is_right(
    logits: Float[Tensor, "batch answer vocabulary"], labels: Int[Tensor, "batch answer"]
) -> Bool[Tensor, "batch answer"]:
    """Whether the top logit is the right one, for each answer."""
    return logits.argmax(dim=-1) == labels.to(logits.device)
