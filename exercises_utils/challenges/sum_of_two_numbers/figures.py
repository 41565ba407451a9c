"""What write-up 003 published of its model, and how it was measured."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.evidence import Claim, Figure, Models, span


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


def in_common(models: Models) -> list[Claim]:
    """What holds in every model of the sum of two numbers."""
    least = [min(m["ablations"].values()) for m in models.values()]
    slices = [m["slices"] for m in models.values()]
    sizes = [len(m["circuit"]["members"]) for m in models.values()]
    return [
        Claim(
            f"*Sum of two numbers*: no head is spare (the cheapest costs {span(least)} nats), and the circuits have "
            f"{span(sizes, 0)} of 51 sites.",
            min(least) > 0.01 and min(sizes) > 12,
        ),
        Claim(
            f"Sums whose carry passes two nines ({span(s['cascade 3'] for s in slices)} right) are harder than those whose "
            f"carry passes one ({span((s['cascade 2'] for s in slices), 3)}); with a leading digit that was never trained "
            f"on few come out right ({span(s['untrained'] for s in slices)}).",
            all(s["cascade 3"] < s["cascade 2"] for s in slices)
            and max(s["untrained"] for s in slices) < 0.15,
        ),
    ]


def of_its_own(models: Models) -> list[Claim]:
    """Where the models of the sum of two numbers differ."""
    shares = [max(m["ablations"].values()) / sum(m["ablations"].values()) for m in models.values()]
    through_nines = {name: m["slices"]["cascade 3"] for name, m in models.items()}
    worst, best = (choose(through_nines, key=through_nines.__getitem__) for choose in (min, max))
    return [
        Claim(
            "*Sum of two numbers*: how well a carry gets through two nines: from "
            f"{through_nines[worst]:.2f} right in `{worst}` to {through_nines[best]:.3f} in `{best}`.",
            through_nines[best] > through_nines[worst] + 0.2,
        ),
        Claim(
            f"And how much hangs on a single head (the costliest of six has {span(shares)} of the sum of their costs).",
            max(shares) > 1.2 * min(shares),
        ),
    ]
