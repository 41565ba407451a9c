"""The three kinds of evidence that end lesson 01: counterexamples, the circuit of score terms, an explanation."""

import functools
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.challenges.sorted_list_one_head import evidence as evidence_task
from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.checks_models import LESSON, MODELS
from exercises_utils.challenges.sorted_list_one_head.checks_rebuilding import tables_of
from exercises_utils.challenges.sorted_list_one_head.terms import ALL_TERMS, TermScorer
from exercises_utils.evidence import (
    WORTH,
    CircuitCheck,
    CounterexamplesCheck,
    Evidence,
    ExplanationCheck,
    Site,
    accuracy,
    circuit_score,
    load_evidence,
)
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


def _known_counterexamples() -> Int[Tensor, "list 22"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[~pool.model_is_right.all(-1)][:50]


def _sorted_rightly(tokens: Tensor) -> str:
    return f"The model sorts {len(tokens)} of them rightly. Which lists does it find hard, and which places in them?"


counterexamples = CounterexamplesCheck(
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
    metric = accuracy(evidence_task, tokens)
    return TermScorer(model, tokens, metric, chance=evidence_task.CHANCE, trained=trained)


def _best_circuit() -> list[Site]:
    """By exhaustive search: the best three terms, less those that add nothing."""
    scorer = circuit.scorer()
    sets = list(combinations(ALL_TERMS, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = circuit_score(scorer, best)
    return [term for term in best if score.lost[term] >= WORTH]


circuit = CircuitCheck(
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
    """Places of the list all alike, the queries that answer alone, and no direct path.

    `kind` is the place of a key: BOS, the list, MID, and the places of the sorted part one by one.
    """
    tables = tables_of(model)
    last = task.ANSWER_POSITIONS.stop

    def alike(by_place: Tensor) -> Tensor:
        """One row for each kind of place."""
        return torch.cat([by_place[:1], by_place[1:11].mean(0, keepdim=True), by_place[11:last]])

    numbers = {
        "token_token": tables["token_token"],
        "token_kind": alike(tables["token_position"].T).T,
        "position_token": tables["position_token"][11:last],
        "position_kind": alike(tables["position_position"].T).T[11:last],
        "worth_token": tables["ov_token"],
        "worth_kind": alike(tables["ov_position"]),
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        inputs = inputs[:, :21]
        places = torch.arange(21)
        kind = (places - 9).clamp(min=1) * (places > 0)
        q, k = inputs[:, 11:, None], inputs[:, None, :]
        scores = numbers["token_token"][q, k] + numbers["token_kind"][q, kind]
        scores = scores + numbers["position_token"][places[:10, None], k] + numbers["position_kind"][:, kind]
        scores = scores.masked_fill(places[None, :] > places[11:, None], float("-inf"))
        values = numbers["worth_token"][inputs] + numbers["worth_kind"][kind]
        return (scores.softmax(-1) @ values).argmax(-1)

    return simulate, numbers


explanation = ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=MODELS[LESSON],
    evidence=_evidence,
    needed=0.7,
    most_numbers=8000,
    reference=_explanation,
)
