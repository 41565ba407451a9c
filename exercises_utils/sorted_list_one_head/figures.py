"""What write-up 000 published of its model, and how it was measured."""

from typing import Any

import torch

from exercises_utils import circuits
from exercises_utils.figures import Figure
from exercises_utils.sorted_list_one_head import task


def _accuracy(model: Any) -> float:
    data = task.make_data(256, seed=42)
    return float(task.correct(model(data.tokens.to(model.W_E.device)).cpu(), data).double().mean())


def _own_top_logit(model: Any) -> float:
    ov = circuits.ov_output(model, (0, 0), model.W_E) @ model.W_U
    numbers = torch.arange(task.N_NUMBERS, device=ov.device)
    return float((ov[: task.N_NUMBERS].argmax(-1) == numbers).double().mean())


def _successor(model: Any) -> float:
    """Of all 50 numbers, as published: 49 has no successor and can only miss."""
    scores = circuits.qk_scores(model, (0, 0), model.W_E, model.W_E)[: task.N_NUMBERS, : task.N_NUMBERS]
    numbers = torch.arange(task.N_NUMBERS, device=scores.device)
    return float((scores.argmax(-1) == numbers + 1).double().mean())


FIGURES = (
    Figure("accuracy over answer positions, 256 lists (seed 42)", 0.9945313, 7, _accuracy),
    Figure("numbers whose own logit is on top in W_E W_OV W_U", 1.0, 1, _own_top_logit),
    Figure("numbers t that score t + 1 highest, of 50", 0.62, 2, _successor),
)
