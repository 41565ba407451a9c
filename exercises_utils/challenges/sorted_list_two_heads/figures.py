"""What write-up 001 published of its model, and how it was measured."""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.evidence import Claim, Figure, Models, span
from exercises_utils.tools import ablate


def _log_probabilities(model: Any) -> Float[Tensor, "list answer"]:
    """Of the right numbers, on the 500 lists of seed 43."""
    data = task.make_data(500, seed=43)
    log_probs = task.answer_logits(model(data.tokens.to(model.W_E.device)).cpu()).log_softmax(-1)
    return log_probs.gather(-1, data.labels[..., None])[..., 0]


def _ablated(model: Any, head: int) -> float:
    """What replacing a head's output by its mean over lists adds to the loss, in nats."""
    before = _log_probabilities(model)
    with ablate(model, [(0, head)], activation="result", how="mean"):
        return float((before - _log_probabilities(model)).mean())


FIGURES = (
    Figure(
        "cross-entropy, 500 lists (seed 43), nats", 0.039, 3, lambda m: float(-_log_probabilities(m).mean())
    ),
    Figure(
        "mean probability of the right number", 0.966, 3, lambda m: float(_log_probabilities(m).exp().mean())
    ),
    Figure("median probability", 0.981, 3, lambda m: float(torch.median(_log_probabilities(m).exp()))),
    Figure("minimum probability", 0.001, 3, lambda m: float(_log_probabilities(m).exp().min())),
    Figure("mean ablation of 0.0, nats", 0.920, 3, functools.partial(_ablated, head=0)),
    Figure("mean ablation of 0.1, nats", 4.963, 3, functools.partial(_ablated, head=1)),
)


def in_common(models: Models) -> list[Claim]:
    """What holds in every model of the sorted list with two heads."""
    costs = [cost for m in models.values() for cost in m["ablations"].values()]
    slices = [m["slices"] for m in models.values()]
    hard = {name: [s[name] for s in slices] for name in ("high", "gap", "repeats")}
    return [
        Claim(
            f"*Sorted list, two heads*: neither head does the work alone (without one, the loss rises by {span(costs)} "
            "nats).",
            min(costs) > 0.3,
        ),
        Claim(
            f"Each sorts {span(s['all'] for s in slices)} of the lists as in training, and far fewer of the lists of high "
            f"numbers ({span(hard['high'])}), with a wide gap ({span(hard['gap'])}) or with repeats "
            f"({span(hard['repeats'])}).",
            all(max(hard[name]) < 0.5 for name in hard) and min(s["all"] for s in slices) > 0.97,
        ),
    ]


def of_its_own(models: Models) -> list[Claim]:
    """Where the models of the sorted list with two heads differ."""
    ratios = {name: max(m["ablations"].values()) / min(m["ablations"].values()) for name, m in models.items()}
    most = max(ratios, key=lambda name: ratios[name])
    return [
        Claim(
            "*Sorted list, two heads*: how evenly two heads share the numbers. The costlier head costs "
            f"{span(ratios.values(), 1)} times as much as the other, most in `{most}`.",
            max(ratios.values()) > 2 * min(ratios.values()),
        )
    ]
