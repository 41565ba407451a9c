"""The checks of lesson 04's last part: counterexamples, the circuit, and an explanation that predicts the model."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.checking import Output
from exercises_utils.checkpoints import checkpoint_path
from exercises_utils.evidence import CircuitScorer
from exercises_utils.evidence_checks import CircuitCheck, CounterexamplesCheck, ExplanationCheck
from exercises_utils.evidence_files import Evidence, load_evidence
from exercises_utils.models import DEFAULT_INSTANCE, build_model
from exercises_utils.sum_of_two_numbers import evidence as evidence_task
from exercises_utils.sum_of_two_numbers import task
from exercises_utils.sum_of_two_numbers.checks_setup import lesson_model

COUNT, NEEDED, NEEDED_TYPICAL = 50, 40, 5
MOST_SITES, NEEDED_CIRCUIT = 32, 0.8
NEEDED_EXPLANATION = 0.65


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


class SitesCheck(CircuitCheck):
    """A circuit of heads at positions: every head of this model is needed somewhere, none everywhere."""

    def _refuse(self, value: Any) -> str | None:
        if isinstance(value, list | tuple | set | frozenset) and value:
            try:
                sites = self.scorer().check(list(value))
            except (ValueError, TypeError):
                sites = ()
            if sites and len(sites[0]) == 2:
                return (
                    "Name sites, (layer, head, position): without any one of its heads the model adds badly, so a circuit "
                    "of whole heads is the whole model."
                )
            if len(sites) > MOST_SITES:
                return (
                    f"{len(sites)} sites are named; name at most {MOST_SITES}. A circuit that is the whole model explains "
                    "nothing."
                )
            idle = [site for site in sites if site not in set(evidence_task.SITES)]
            if idle:
                return (
                    f"{len(idle)} of your sites cannot matter, such as {idle[0]}: the answers are read at positions 9 to "
                    "12, so the last layer matters only there, and nothing looks ahead. Leave them out."
                )
        return super()._refuse(value)

    def praise(self, outputs: Sequence[Output]) -> str:
        """Also how many sites there are."""
        return f"{super().praise(outputs)} ({len(evidence_task.SITES)} sites can matter.)"


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    data = task.make_data(300, seed=15)

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
    """All sites, less the one that is missed least, again and again."""
    scorer = _lesson_scorer()
    kept = list(evidence_task.SITES)
    while len(kept) > MOST_SITES:
        fewer = [[site for site in kept if site != left_out] for left_out in kept]
        kept = fewer[int(scorer.scores(fewer).argmax())]
    return tuple(kept)


circuit = SitesCheck(
    "circuit",
    "The sites that do the work",
    core=False,
    scorer=_lesson_scorer,
    twin=_twin_scorer,
    weights=weights,
    task=evidence_task,
    most_heads=6,
    needed=NEEDED_CIRCUIT,
    reference=lambda: list(_pruned_circuit()),
)


# ── an explanation ──────────────────────────────────────────────────────────────────────────────────────────


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """Every path through the model, from tables by digit and position; all of its numbers, none of its code."""
    numbers = {
        "embed": model.W_E,
        "position": model.W_pos,
        "W_Q": model.W_Q,
        "b_Q": model.b_Q[..., None, :],
        "W_K": model.W_K,
        "b_K": model.b_K[..., None, :],
        "W_V": model.W_V,
        "W_O": model.W_O,
        "b_O": model.b_O,
        "W_U": model.W_U,
        "b_U": model.b_U,
        "epsilon": 1e-5,
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        places = torch.arange(inputs.shape[1])
        later = places[None, :] > places[:, None]
        stream = numbers["embed"][inputs] + numbers["position"][places]
        n_layers, n_heads, _, width = numbers["W_Q"].shape
        for layer in range(n_layers):
            centred = stream - stream.mean(-1, keepdim=True)
            read = centred / (centred.pow(2).mean(-1, keepdim=True) + numbers["epsilon"]).sqrt()
            written = numbers["b_O"][layer]
            for head in range(n_heads):
                q = read @ numbers["W_Q"][layer, head] + numbers["b_Q"][layer, head]
                k = read @ numbers["W_K"][layer, head] + numbers["b_K"][layer, head]
                scores = (q @ k.transpose(1, 2) / width**0.5).masked_fill(later, float("-inf"))
                value = read @ numbers["W_V"][layer, head] @ numbers["W_O"][layer, head]
                written = written + scores.softmax(-1) @ value
            stream = stream + written
        centred = stream - stream.mean(-1, keepdim=True)
        read = centred / (centred.pow(2).mean(-1, keepdim=True) + numbers["epsilon"]).sqrt()
        logits = read @ numbers["W_U"] + numbers["b_U"]
        return logits[:, 9:13, :10].argmax(-1)

    return simulate, numbers


explanation = ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=lesson_model,
    evidence=stored_evidence,
    needed=NEEDED_EXPLANATION,
    reference=_explanation,
)
