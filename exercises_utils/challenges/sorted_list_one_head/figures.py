"""What write-up 000 published of its model, and how it was measured."""

from typing import Any

import torch

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.evidence import Claim, Figure, Models, span
from exercises_utils.tools import circuits


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


def in_common(models: Models) -> list[Claim]:
    """What holds in every model of the sorted list with one head."""
    circuits_of = {tuple(m["circuit"]["members"]) for m in models.values()}
    scores = [m["circuit"]["score"] for m in models.values()]
    slices = [m["slices"] for m in models.values()]
    members = ", ".join(next(iter(circuits_of)))
    return [
        Claim(
            f"*Sorted list, one head*: the same three of the four score terms ({members}) keep {span(scores)} of what a "
            "model can do.",
            len(circuits_of) == 1 and min(scores) > 0.75,
        ),
        Claim(
            f"Lists with a number three times ({span(s['triple'] for s in slices)} right) and lists with a wide gap "
            f"({span(s['gap'] for s in slices)}) are harder than lists as in training ({span(s['all'] for s in slices)}) "
            "for each.",
            all(max(s["triple"], s["gap"]) < s["all"] - 0.02 for s in slices),
        ),
    ]


def of_its_own(models: Models) -> list[Claim]:
    """Where the models of the sorted list with one head differ."""
    worse = [m["slices"]["triple"] < m["slices"]["gap"] for m in models.values()]
    lost = {term: [m["circuit"]["lost"][term] for m in models.values()] for term in _terms(models)}
    widest = max(lost, key=lambda term: max(lost[term]) - min(lost[term]))
    return [
        Claim(
            "*Sorted list, one head*: only degrees differ; most of all, what dropping "
            f"{widest} from the circuit costs, {span(lost[widest])}.",
            max(lost[widest]) - min(lost[widest]) > 0.05 and all(worse),
        )
    ]


def _terms(models: Models) -> list[str]:
    return list(next(iter(models.values()))["circuit"]["lost"])
