"""The checks of lesson 03's last section: counterexamples, the circuit, and an explanation that predicts the model."""

import functools
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.challenges.palindromes import evidence as evidence_task
from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_common import (
    lesson_model,
    palindromes,
    verdict_bias,
    verdict_direction,
)
from exercises_utils.evidence import (
    CircuitCheck,
    CircuitScorer,
    CounterexamplesCheck,
    Evidence,
    ExplanationCheck,
    circuit_score,
    load_evidence,
)
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path

# ── 7 · evidence ────────────────────────────────────────────────────────────────────────────────────────────


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


def _non_palindromes(size: int, generator: torch.Generator) -> Int[Tensor, "sequence position"]:
    """Random draws of the kind that counterexamples must be: the training data without its palindromes."""
    data = task.make_data(2 * size + size // 20 + 20, generator)
    return data.tokens[~data.is_palindrome][:size]


def _known_counterexamples() -> Int[Tensor, "sequence position"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[(pool.right_answers == 0) & ~pool.model_is_right][:50]


def _palindromes_among(tokens: Tensor) -> str | None:
    count = int(evidence_task.right_answers(tokens).sum())
    if count == 0:
        return None
    return (
        f"{count} of them are palindromes, and the model says so: a counterexample must be answered wrongly."
    )


counterexamples = CounterexamplesCheck(
    "counterexamples",
    "Non-palindromes that the model accepts",
    core=True,
    model=lesson_model,
    task=evidence_task,
    sample=_non_palindromes,
    count=50,
    needed=40,
    reference=_known_counterexamples,
    describe=_palindromes_among,
)


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    data = task.make_data(500, seed=15)

    def accuracy_of(logits: Tensor) -> float:
        return float(task.correct(logits, data).double().mean())

    return CircuitScorer(
        model, data.tokens, accuracy_of, chance=evidence_task.CHANCE, ablation="resample", trained=trained
    )


def _lesson_scorer() -> CircuitScorer:
    return _scorer(lesson_model.get())


def _twin_scorer(trained: float) -> CircuitScorer:
    return _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained)


def _best_circuit() -> list[tuple[int, ...]]:
    """By exhaustive search: the best three heads, less those that add nothing."""
    scorer = _lesson_scorer()
    sets = list(combinations(scorer.all_heads, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = circuit_score(scorer, best)
    return [head for head in best if score.lost[head] >= 0.02]


circuit = CircuitCheck(
    "circuit",
    "The heads that do the work",
    core=False,
    scorer=_lesson_scorer,
    twin=_twin_scorer,
    weights=_weights,
    task=evidence_task,
    most_heads=3,
    needed=0.8,
    reference=_best_circuit,
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """The attention of both heads of layer 0 from tables of scores, both heads of layer 1 read with the mean query.

    Tables by (value, position) pairs where the lesson's own explanation multiplies matrices.
    """
    tokens = palindromes(300, 16)
    _, cache = model.run_with_cache(tokens)
    root = model.cfg.d_head**0.5
    resid = model.W_E[:, None] + model.W_pos[None]  # (token, position, d_model)
    normed = resid / (resid.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    numbers = {
        "queries": torch.stack([normed @ model.W_Q[0, h] + model.b_Q[0, h] for h in range(2)]) / root,
        "keys": torch.stack([normed @ model.W_K[0, h] + model.b_K[0, h] for h in range(2)]),
        "scale_1": cache["scale", 1, "ln1"][:, :, 0].mean(0),
    }
    direction = verdict_direction(model) / cache["ln_final.hook_scale"][:, -1].mean()
    asked, vote = [], []
    for reader in range(2):
        asked.append(model.W_K[1, reader] @ cache["q", 1][:, -1, reader].mean(0) / root)
        vote.append(model.W_V[1, reader] @ model.W_O[1, reader] @ direction)
    for name, vectors in (("key", asked), ("vote", vote)):
        read = torch.stack(vectors)  # (reader, d_model)
        numbers[f"own_{name}"] = torch.einsum("rd,tpd->rtp", read, resid + model.b_O[0])
        W_OV = model.W_V[0] @ model.W_O[0]
        numbers[f"moved_{name}"] = torch.einsum("rd,hed,tpe->rhtp", read, W_OV, normed)
    at_end = (
        model.W_E[task.END] + model.W_pos[-1] + model.b_O.sum(0) + cache["result", 0][:, -1].sum(1).mean(0)
    )
    numbers["bias"] = at_end @ direction + verdict_bias(model)

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        places = torch.arange(inputs.shape[1])
        later = places[None, :] > places[:, None]
        patterns = []
        for head in range(2):
            q, k = numbers["queries"][head][inputs, places], numbers["keys"][head][inputs, places]
            patterns.append((q @ k.transpose(1, 2)).masked_fill(later, float("-inf")).softmax(-1))
        verdict = numbers["bias"]
        for reader in range(2):
            total = {}
            for name in ("key", "vote"):
                total[name] = numbers[f"own_{name}"][reader][inputs, places]
                for head in range(2):
                    moved = numbers[f"moved_{name}"][reader, head][inputs, places]
                    total[name] = total[name] + (patterns[head] @ moved[..., None])[..., 0]
            attention = (total["key"] / numbers["scale_1"]).softmax(-1)
            verdict = verdict + (attention * total["vote"] / numbers["scale_1"]).sum(-1)
        return (verdict > 0).long()

    return simulate, numbers


explanation = ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=lesson_model,
    evidence=_evidence,
    needed=0.65,
    reference=_explanation,
)
