"""The three kinds of evidence that end lesson 01: counterexamples, the circuit of score terms, an explanation."""

import functools
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils import evidence
from exercises_utils.challenges.sorted_list_one_head import evidence as evidence_task
from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.checks_models import LESSON, MODELS
from exercises_utils.challenges.sorted_list_one_head.checks_rebuilding import tables_of
from exercises_utils.challenges.sorted_list_one_head.terms import ALL_TERMS, TermScorer
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> evidence.Evidence:
    return evidence.load_evidence(_weights())


def _known_counterexamples() -> Int[Tensor, "list 22"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[~pool.model_is_right.all(-1)][:50]


def _sorted_rightly(tokens: Tensor) -> str:
    return f"The model sorts {len(tokens)} of them rightly. Which lists does it find hard, and which places in them?"


counterexamples = evidence.CounterexamplesCheck(
    "counterexamples",
    "Lists that the model cannot sort",
    core=True,
    model=MODELS[LESSON],
    task=evidence_task,
    sample=evidence_task.typical_inputs,
    count=50,
    needed=40,
    reference=_known_counterexamples,
    describe=_sorted_rightly,
)


def _scorer(model: Any, trained: float | None = None) -> TermScorer:
    tokens = task.make_data(500, seed=15).tokens
    metric = evidence.accuracy(evidence_task, tokens)
    return TermScorer(model, tokens, metric, chance=evidence_task.CHANCE, trained=trained)


def _best_circuit() -> list[evidence.Site]:
    """By exhaustive search: the best three terms, less those that add nothing."""
    scorer = circuit.scorer()
    sets = list(combinations(ALL_TERMS, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = evidence.circuit_score(scorer, best)
    return [term for term in best if score.lost[term] >= evidence.WORTH]


circuit = evidence.CircuitCheck(
    "circuit",
    "The terms that do the work",
    core=False,
    scorer=lambda: _scorer(MODELS[LESSON].get()),
    twin=lambda trained: _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained),
    weights=_weights,
    task=evidence_task,
    most_heads=3,
    needed=0.75,
    reference=_best_circuit,
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """BOS, the places of the list all alike, and MID; the ten queries that answer; no direct path."""
    tables, queries = tables_of(model), slice(11, 21)
    alike = torch.zeros(22, 12)
    alike[0, 0], alike[1:11, 1:11], alike[11, 11] = 1.0, 0.1, 1.0
    numbers = {
        "token_token": tables["token_token"],
        "token_place": tables["token_position"] @ alike,
        "position_token": tables["position_token"][queries],
        "position_place": tables["position_position"][queries] @ alike,
        "worth_token": tables["ov_token"],
        "worth_place": alike.T @ tables["ov_position"],
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        here, seen = inputs[:, 11:21], inputs[:, :12]
        scores = numbers["token_token"][here[..., None], seen[:, None]] + numbers["token_place"][here]
        scores = scores + numbers["position_token"][:, seen].transpose(0, 1) + numbers["position_place"]
        return (scores.softmax(-1) @ (numbers["worth_token"][seen] + numbers["worth_place"])).argmax(-1)

    return simulate, numbers


explanation = evidence.ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=MODELS[LESSON],
    evidence=_evidence,
    needed=0.7,
    most_numbers=8000,
    reference=_explanation,
)
