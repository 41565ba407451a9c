"""The checks of lesson 04's last part: counterexamples, the circuit, and an explanation that predicts the model."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.challenges.sum_of_two_numbers import evidence as evidence_task
from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.challenges.sum_of_two_numbers.checks_setup import lesson_model
from exercises_utils.evidence import (
    CircuitScorer,
    CounterexamplesCheck,
    Evidence,
    ExplanationCheck,
    SitesCheck,
    load_evidence,
)
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path

COUNT, NEEDED, NEEDED_TYPICAL = 50, 40, 5
MOST_SITES, NEEDED_CIRCUIT = 32, 0.8
NEEDED_EXPLANATION, MOST_NUMBERS = 0.65, 10_000
"""The model has 30,000 parameters: a copy of it would explain nothing."""
N_DIRECTIONS = 28
"""Of the residual stream before layer 1, that the course's explanation keeps: nearly all of its variance."""


def weights() -> Path:
    """Where the lesson's weights are."""
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def stored_evidence() -> Evidence:
    """What is stored beside the lesson's weights."""
    return load_evidence(weights())


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


class SumCounterexamplesCheck(CounterexamplesCheck):
    """Counterexamples of which some have to be in distribution: both leading digits 0 to 4."""

    def _refuse(self, value: Any) -> str | None:
        if message := super()._refuse(value):
            return message
        typical = self.score(value).count(typical=True)
        if typical >= NEEDED_TYPICAL:
            return None
        return (
            f"{self.score(value).count()} of {COUNT} fool the model, {typical} of them with both leading digits 0 to 4; "
            f"{NEEDED_TYPICAL} of these are needed. Beyond its training data a model may fail for want of examples; "
            "within it, a mistake shows how it works. What makes a carry hard to tell?"
        )


def _where_right(tokens: Int[Tensor, "input 14"]) -> str | None:
    typical = int(evidence_task.in_distribution(tokens).sum())
    return (
        f"The model answers {len(tokens)} of them rightly, {typical} of these in distribution (both leading digits 0 to "
        "4)."
    )


def _known_counterexamples() -> Int[Tensor, "input 14"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = stored_evidence().pool
    wrong = pool.tokens[~pool.model_is_right.all(-1)]
    typical = evidence_task.in_distribution(wrong)
    return torch.cat([wrong[typical][:25], wrong[~typical]])[:COUNT]


counterexamples = SumCounterexamplesCheck(
    "counterexamples",
    "Sums that the model gets wrong",
    core=True,
    model=lesson_model,
    task=evidence_task,
    sample=evidence_task.typical_inputs,
    count=COUNT,
    needed=NEEDED,
    reference=_known_counterexamples,
    describe=_where_right,
)


# ── the circuit ─────────────────────────────────────────────────────────────────────────────────────────────


def _scorer(model: Any, trained: float | None = None, size: int = 300) -> CircuitScorer:
    data = task.make_data(size, seed=15)

    def accuracy_of(logits: Tensor) -> float:
        return float(task.correct(logits, data).double().mean())

    return CircuitScorer(
        model, data.tokens, accuracy_of, chance=evidence_task.CHANCE, ablation="resample", trained=trained
    )


def _lesson_scorer() -> CircuitScorer:
    return _scorer(lesson_model.get())


def _twin_scorer(trained: float) -> CircuitScorer:
    return _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained)


@functools.cache
def _pruned_circuit() -> tuple[tuple[int, ...], ...]:
    """All sites, less the four that are missed least, again and again. On fewer sums than the check: quicker."""
    scorer = _scorer(lesson_model.get(), size=100)
    kept = list(evidence_task.SITES)
    while len(kept) > MOST_SITES:
        scores = scorer.scores([[site for site in kept if site != left_out] for left_out in kept])
        missed_least = scores.argsort(descending=True)[: min(4, len(kept) - MOST_SITES)].tolist()
        kept = [site for i, site in enumerate(kept) if i not in missed_least]
    return tuple(kept)


circuit = SitesCheck(
    "circuit",
    "The sites that do the work",
    core=False,
    scorer=_lesson_scorer,
    twin=_twin_scorer,
    weights=weights,
    task=evidence_task,
    example=[(0, 1, 9), (1, 0, 9)],
    most_sites=MOST_SITES,
    why_sites=(
        "Name sites, (layer, head, position): without any one of its heads the model adds badly, so a circuit of whole "
        "heads is the whole model."
    ),
    needed=NEEDED_CIRCUIT,
    reference=lambda: list(_pruned_circuit()),
)


# ── an explanation ──────────────────────────────────────────────────────────────────────────────────────────


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """Layer 0 as tables by digit and position, with mean queries; layer 1 on a few directions of the stream."""
    root, last = model.cfg.d_head**0.5, task.ANSWER_POSITIONS.stop
    _, cache = model.run_with_cache(task.make_data(500, seed=17).tokens)
    stream = cache["resid_post", 0][:, :last]
    basis = torch.linalg.svd(stream.flatten(0, 1), full_matrices=False).Vh[:N_DIRECTIONS].T
    W_E, W_pos, W_U = model.W_E, model.W_pos[:last], model.W_U[:, :10]
    asked = torch.einsum("phk,hdk->hpd", cache["q", 0][:, :last].mean(0), model.W_K[0]) / root
    written = model.W_V[0] @ model.W_O[0] @ basis
    voted = torch.einsum("dr,hde->hre", basis, model.W_V[1] @ model.W_O[1]) @ W_U
    numbers = {
        "score_of_token": asked @ W_E.T,  # (head, query, token)
        "score_of_position": asked @ W_pos.T,  # (head, query, key)
        "scale": ((W_E[:, None] + W_pos).pow(2).mean(-1) + model.cfg.eps).sqrt(),  # (token, position)
        "written_for_token": W_E @ written,  # (head, token, direction)
        "written_for_position": W_pos @ written,
        "token": W_E @ basis,
        "position": (W_pos + model.b_O[0]) @ basis,
        "W_Q": torch.einsum("dr,hdk->hrk", basis, model.W_Q[1]) / root,
        "b_Q": model.b_Q[1] / root,
        "W_K": torch.einsum("dr,hdk->hrk", basis, model.W_K[1]),
        "vote": voted,  # (head, direction, digit)
        "direct": basis.T @ W_U,
        "constant": model.b_O[1] @ W_U,
        "b_U": model.b_U[:10],
        "last_scale": cache["ln_final.hook_scale"][:, 9:last].mean(0),  # (place, 1)
        "width": torch.tensor(float(model.cfg.d_model)),
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        n = len(numbers["position"])
        read, places = inputs[:, :n], torch.arange(n)
        later = places[None, :] > places[:, None]
        scale = numbers["scale"][read, places]
        stream = numbers["token"][read] + numbers["position"]
        for head in range(len(numbers["vote"])):
            by_token = numbers["score_of_token"][head][:, read].transpose(0, 1)  # (input, query, key)
            scores = (by_token + numbers["score_of_position"][head]) / scale[:, None]
            moved = numbers["written_for_token"][head][read] + numbers["written_for_position"][head]
            attention = scores.masked_fill(later, float("-inf")).softmax(-1)
            stream = stream + attention @ (moved / scale[..., None])
        normed = stream / (stream.pow(2).sum(-1, keepdim=True) / numbers["width"]).sqrt()
        total = stream[:, 9:] @ numbers["direct"] + numbers["constant"]
        for head in range(len(numbers["vote"])):
            queries = normed[:, 9:] @ numbers["W_Q"][head] + numbers["b_Q"][head]
            scores = queries @ (normed @ numbers["W_K"][head]).transpose(1, 2)
            attention = scores.masked_fill(later[9:], float("-inf")).softmax(-1)
            total = total + attention @ normed @ numbers["vote"][head]
        return (total / numbers["last_scale"] + numbers["b_U"]).argmax(-1)

    return simulate, numbers


explanation = ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=lesson_model,
    evidence=stored_evidence,
    needed=NEEDED_EXPLANATION,
    most_numbers=MOST_NUMBERS,
    reference=_explanation,
)
