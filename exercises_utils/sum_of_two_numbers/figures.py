"""What write-up 003 published of its model, and how it was measured."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exercises_utils.figures import Figure
from exercises_utils.sum_of_two_numbers import task


def _log_probabilities(model: Any) -> Float[Tensor, "sum place"]:
    """Of the right digits, on the 1,000 sums of seed 42."""
    data = task.make_data(1000, seed=42)
    log_probs = task.answer_logits(model(data.tokens.to(model.W_E.device)).cpu()).log_softmax(-1)
    return log_probs.gather(-1, data.labels[..., None])[..., 0]


def _active_dimensions(model: Any) -> str:
    """The dimensions of the residual stream that W_U reads digits from: rows of twice the median norm or more."""
    norms = model.W_U[:, :10].norm(dim=-1)
    return ", ".join(str(int(row)) for row in (norms > 2 * norms.median()).nonzero())


FIGURES = (
    Figure(
        "cross-entropy, 1,000 sums (seed 42), nats", 0.007, 3, lambda m: float(-_log_probabilities(m).mean())
    ),
    Figure(
        "mean probability of the right digit", 0.993, 3, lambda m: float(_log_probabilities(m).exp().mean())
    ),
    Figure("median probability", 0.996, 3, lambda m: float(torch.median(_log_probabilities(m).exp()))),
    Figure("minimum probability", 0.759, 3, lambda m: float(_log_probabilities(m).exp().min())),
    Figure("active dimensions of W_U", "19, 25, 26, 37", 0, _active_dimensions),
)
